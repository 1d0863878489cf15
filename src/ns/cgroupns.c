/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/cgroupns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/spaces.h"

/* ---- checkpoint ---- */

/* The path in a line "N:controllers:/path", and where the line ends. */
static const char *path_of(const char *line, size_t *len)
{
	const char *colon = strchr(line, ':');

	colon = colon ? strchr(colon + 1, ':') : NULL;
	*len = colon ? strcspn(colon + 1, "\n") : 0;
	return colon ? colon + 1 : NULL;
}

/*
 * Where the namespace begins is where its task is, less what the task sees of its path. A restart
 * makes it where it makes the root task.
 */
static int same_beginning(const char *inside, const char *outside, const char *root)
{
	while (*inside && *outside && *root) {
		size_t in, out, at;
		const char *a = path_of(inside, &in), *b = path_of(outside, &out);
		const char *r = path_of(root, &at);

		if (!a || !b || !r)
			return false;
		if (in == 1) /* "/" */
			in = 0;
		if (out == 1)
			out = 0;
		if (at == 1)
			at = 0;
		if (in > out || memcmp(a, b + out - in, in) != 0 || out - in != at ||
		    memcmp(b, r, at) != 0)
			return false;
		inside = strchr(a, '\n') ? strchr(a, '\n') + 1 : "";
		outside = strchr(b, '\n') ? strchr(b, '\n') + 1 : "";
		root = strchr(r, '\n') ? strchr(r, '\n') + 1 : "";
	}
	return true;
}

int cgroupns_check(const struct checkpoint *c, pid_t tid, const char *inside, struct error *e)
{
	_cleanup_(free_ptr) char *outside = NULL, *root = NULL;
	int r = (int)procfs_read(c->proc_fd, &outside, e, "%d/cgroup", tid);

	if (r >= 0)
		r = (int)procfs_read(c->proc_fd, &root, e, "%d/cgroup", c->freezer.root);
	if (r < 0)
		return r;
	if (!same_beginning(inside, outside, root))
		return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				 "it begins in another control group than that of the root task");
	return 0;
}

/* ---- restart ---- */

int cgroupns_restart(struct restart *r, struct restart_space *s, struct error *e)
{
	struct restart_task *root = &r->processes.v[0].tasks.v[0];
	const int kind = space_kind_of(CLONE_NEWCGROUP);
	_cleanup_(batch_free) struct batch b = {};
	int call = batch_call(&b, SYS_unshare, VAL(CLONE_NEWCGROUP));
	int res = agent_run(root->process->agent, root->tid, NULL, &b, e);

	if (res >= 0 && batch_result(&b, call) < 0)
		res = error_errno(e, (int)batch_result(&b, call), E_NAMESPACE, "cannot make it");
	if (res >= 0)
		s->ns = res = procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/cgroup",
					  root->process->pid);
	return res < 0 ? res : space_go(r, root, &r->spaces.root[kind], e);
}
