/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of fanotify that decide about the accesses of others. Nobody in the tree waits for such a
 * decision at a checkpoint, since who does so comes to no stop (fanotify_get_response()). Somebody
 * outside may: then it is refused, since his event, and what the application has in its hands of
 * it, cannot be had again.
 *
 * Their marks come last at a restart, when nothing is left to be opened by us: whoever opens a file
 * then waits until the tasks run.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "fs/fanotify_events.h"
#include "fs/file.h"

/* Has it told somebody, who has not answered? */
static int is_asked(struct kernel_memory *k, int fd)
{
	const int list = kernel_offset(k, "fsnotify_group", "fanotify_data.access_list");
	uint64_t file, group;
	int r = list < 0 ? list : kernel_file(k, fd, &file);

	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &group, sizeof(group));
	if (r < 0)
		return r;
	return kernel_pointer(k, group + (uint64_t)list) != group + (uint64_t)list;
}

int fanotify_permission_save(struct checkpoint *c, int fd, struct error *e)
{
	struct fanotify_raws raws = {};
	struct error why = {};
	struct kernel_memory *k;
	bool waits = false;
	int r = files_kernel_memory(c, &k, &why);

	if (r < 0)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it decides about accesses (permission events), and whether "
				 "somebody is waiting for its answer is told by the memory of the "
				 "kernel alone, which cannot be read (%s)",
				 why.text);
	/* While it runs it answers. */
	if (c->checking)
		return 0;
	r = is_asked(k, fd);
	waits = r > 0;
	if (r >= 0)
		r = fanotify_events_read(k, fd, false, &raws);
	vec_for_each (raw, &raws.all)
		waits = waits || raw->type == FANOTIFY_PERMISSION;
	vec_free(&raws.all);
	if (r < 0)
		return error_errno(e, r, E_SYSTEM, "its events are not understood");
	return waits ? error_set(e, -EBUSY, E_FILE_STATE,
				 "it decides about accesses (permission events), and somebody is "
				 "waiting for its answer; try again")
		     : 0;
}

int fanotify_mark_late(struct restart *r, int group, unsigned int flags, uint64_t mask, int target,
		       struct error *e)
{
	struct restart_mark *m = vec_push(&r->late_marks);

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for marks");
	*m = (struct restart_mark){.flags = flags,
				   .mask = mask,
				   .group = fcntl(group, F_DUPFD_CLOEXEC, 0),
				   .target = fcntl(target, F_DUPFD_CLOEXEC, 0)};
	return m->group < 0 || m->target < 0 ? error_errno(e, -errno, E_SYSTEM, "F_DUPFD") : 0;
}

int files_restart_watch(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (m, &r->late_marks) {
		char path[32];

		snprintf(path, sizeof(path), "self/fd/%d", m->target);
		if (res >= 0 &&
		    fanotify_mark(m->group, FAN_MARK_ADD | m->flags, m->mask, r->proc_fd, path) < 0)
			res = error_errno(e, -errno, E_RESTORE,
					  "cannot mark what a fanotify group decides about");
		close_fd(&m->group);
		close_fd(&m->target);
	}
	vec_free(&r->late_marks);
	return res;
}

void files_restart_watch_end(struct restart *r)
{
	vec_for_each (m, &r->late_marks) {
		close_fd(&m->group);
		close_fd(&m->target);
	}
	vec_free(&r->late_marks);
}
