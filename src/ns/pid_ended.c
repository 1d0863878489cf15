/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pid namespaces below the root's whose first process has ended: nobody can be in them any more,
 * but a descriptor, a file or a task holds them. One is made, and ends, and is held as that was.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "model/pids.h"
#include "ns/resident.h"
#include "ns/spaces.h"

/* ---- checkpoint ---- */

/* Is nobody there? All who are in one below ours have a number here. */
static bool has_ended(int fd)
{
	return ioctl(fd, KERNEL_NS_GET_PID_FROM_PIDNS, 1) < 0 && errno == ESRCH;
}

static struct space_contents *contents(const struct checkpoint *c, uint64_t id)
{
	const struct checkpoint_space *s = space_by_id(c, id);

	return s ? c->spaces.looked->list.v[s - c->spaces.list.v] : NULL;
}

bool pid_space_is_ended(const struct checkpoint *c, uint64_t id)
{
	const struct space_contents *x = contents(c, id);

	return x && x->msg.ended;
}

/* Who makes it has to be in the one above. */
static int find_owners(struct checkpoint *c, size_t i, struct error *e)
{
	const struct space_contents *x = c->spaces.looked->list.v[i];
	int r = space_find_owner(c, i, e);

	if (r >= 0)
		r = pid_space_find_above(c, i, e);
	if (r >= 0 && pid_space_is_ended(c, x->msg.above))
		r = error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
			      "it was made in one whose first process has ended, too");
	return r;
}

int pid_space_of_ended(struct checkpoint *c, int fd, uint64_t *ret, struct error *e)
{
	const size_t i = c->spaces.list.n;
	struct space_contents *x;
	struct stat st;

	if (fstat(fd, &st) < 0 || !has_ended(fd))
		return 0;
	if (!space_add(c, CLONE_NEWPID, st.st_ino, fcntl(fd, F_DUPFD_CLOEXEC, 3), e))
		return e->err ?: error_errno(e, -errno, E_SYSTEM, "cannot duplicate it");
	x = c->spaces.looked->list.v[i];
	x->looked = true;
	x->msg.ended = true;
	*ret = c->spaces.list.v[i].id;
	if (find_owners(c, i, e) < 0)
		return e->err;
	/* Those that were met before have been written. */
	if (c->spaces.looked->saved &&
	    checkpoint_put(c, RECORD_NAMESPACE, *ret, &x->msg.base, e) < 0)
		return e->err;
	return 1;
}

int pid_space_look_next(struct checkpoint *c, const struct checkpoint_process *p,
			const struct frozen_thread *t, struct error *e)
{
	_cleanup_(free_ptr) char *link = NULL;
	_cleanup_(close_fd) int fd = -EBADF;
	uint64_t number, id;
	int r = procfs_readlink(c->proc_fd, &link, e, "%d/task/%d/ns/pid_for_children",
				p->frozen->pid, t->tid);

	/* It has no process yet (pidns_for_children_get()). */
	if (r == -ENOENT)
		error_clear(e);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	number = strchr(link, '[') ? strtoull(strchr(link, '[') + 1, NULL, 10) : 0;
	if (number == c->spaces.looked->own_pid || space_by_number(c, CLONE_NEWPID, number))
		return 0;
	fd = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/task/%d/ns/pid_for_children",
			 p->frozen->pid, t->tid);
	r = fd < 0 ? fd : pid_space_of_ended(c, fd, &id, e);
	if (r > 0 && t->in_vfork)
		r = error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
			      "its first process has ended, and it waits in vfork()");
	if (r < 0)
		error_object(e, r, "pid namespace for children of task %d (%s)", t->tid,
			     p->stat.comm);
	return checkpoint_refuse(c, r, e);
}

/* ---- restart ---- */

const struct restart_space *pid_space_ended(struct restart *r, uint64_t id)
{
	const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, id);

	return msg && msg->own == CLONE_NEWPID && msg->ended ? space_made(r, id) : NULL;
}

struct ending {
	struct restart *r;
	const Reprise__Container *msg;
};

/* By a process in the namespaces above. */
static int make_and_end(void *arg, struct error *e)
{
	const struct ending *x = arg;
	pid_t pid;

	if (x->msg->user_namespace && user_space_become(x->r, x->msg->user_namespace, e) < 0)
		return e->err;
	if (unshare(CLONE_NEWPID) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make it");
	pid = fork();
	if (pid == 0)
		_exit(0);
	if (pid < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make its first process");
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

int pid_space_make_ended(struct restart *r, struct restart_space *s, const Reprise__Container *msg,
			 struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	const struct restart_process *init =
		msg->above ? pid_space_init(r, msg->above) : r->processes.v;
	const bool deeper = r->pidns || msg->above;
	_cleanup_(close_fd) int pidns = deeper ? procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e,
							     "%d/ns/pid", init ? init->pid : 0)
					       : -EBADF;
	struct ending x = {r, msg};
	const struct resident_begin how = {
		.proc_fd = r->proc_fd, .pidns = pidns, .first = make_and_end, .arg = &x};
	int ret = deeper && pidns < 0 ? pidns : resident_begin(&res, &how, e);

	return ret < 0 ? ret
		       : (s->ns = procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e,
					      "%d/ns/pid_for_children", res.pid));
}

int pid_spaces_make_ended_late(struct restart *r, struct error *e)
{
	vec_for_each (s, &r->spaces.list) {
		const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, s->id);
		int res = 0;

		if (s->ns < 0 && pid_space_ended(r, s->id))
			res = pid_space_make_ended(r, s, msg, e);
		if (res < 0)
			return error_object(e, res, "pid namespace that has ended");
	}
	return 0;
}
