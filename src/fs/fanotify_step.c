/* SPDX-License-Identifier: Apache-2.0 */
/* One step of an event of fanotify on a double (fanotify_double.c), in whoever causes it. */
#include <fcntl.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "core/cleanup.h"
#include "fs/fanotify_events.h"

static void add_open(struct batch *b, int root, uint32_t path, int flags)
{
	int fd = batch_call(b, SYS_openat, VAL(root), DATA(path), VAL(flags | O_CLOEXEC), VAL(0));

	batch_must(b, fd);
	batch_call(b, SYS_close, RESULT(fd));
}

/* One of the two times is an access or a modification (fsnotify_change()). */
static void add_time(struct batch *b, int root, uint32_t path, bool modified)
{
	const struct timespec times[2] = {{.tv_nsec = modified ? UTIME_OMIT : UTIME_NOW},
					  {.tv_nsec = modified ? UTIME_NOW : UTIME_OMIT}};
	uint32_t at = batch_data(b, times, sizeof(times));

	batch_call(b, SYS_utimensat, VAL(root), DATA(path), DATA(at), VAL(0));
}

static void add_step(const struct fanotify_cause *x, struct batch *b, int root, uint32_t path,
		     uint32_t other)
{
	switch (x->step) {
	case FAN_OPEN:
	case FAN_CLOSE_NOWRITE:
		add_open(b, root, path, O_RDONLY);
		break;
	case FAN_CLOSE_WRITE:
		add_open(b, root, path, O_WRONLY);
		break;
	case FAN_ACCESS:
	case FAN_MODIFY:
		add_time(b, root, path, x->step == FAN_MODIFY);
		break;
	case FAN_ATTRIB:
		batch_call(b, SYS_fchmodat, VAL(root), DATA(path), VAL(0700));
		break;
	case FAN_OPEN_EXEC: /* as in fanotify_cause.c */
		batch_call(b, SYS_execveat, VAL(root), DATA(path), VAL(-4096), VAL(0), VAL(0));
		break;
	case FAN_CREATE:
		if (x->directory)
			batch_call(b, SYS_mkdirat, VAL(root), DATA(path), VAL(0700));
		else
			batch_call(b, SYS_linkat, VAL(root), DATA(other), VAL(root), DATA(path),
				   VAL(0));
		break;
	case FAN_DELETE:
	case FAN_DELETE_SELF:
		batch_call(b, SYS_unlinkat, VAL(root), DATA(path),
			   VAL(x->directory ? AT_REMOVEDIR : 0));
		break;
	default:
		batch_call(b, SYS_renameat2, VAL(root), DATA(path), VAL(root), DATA(other), VAL(0));
	}
}

int fanotify_double_step(struct fanotify_cause *x, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {}, end = {};
	uint32_t path = batch_data(&b, x->path, (uint32_t)strlen(x->path) + 1);
	uint32_t other = batch_data(&b, x->other, (uint32_t)strlen(x->other) + 1);
	int root, r = fanotify_cause_give(x, &x->object, 1, &root, e);

	if (r < 0)
		return r;
	add_step(x, &b, root, path, other);
	r = fanotify_cause_run(x, &b, x->step == FAN_OPEN_EXEC ? 0 : (int)b.ncalls, e);
	batch_call(&end, SYS_close, VAL(root));
	return r < 0 ? r : fanotify_cause_run(x, &end, 1, e);
}
