/* SPDX-License-Identifier: Apache-2.0 */
/* Pid namespaces below the root's: they begin with a process of the tree, and end with it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "model/glance.h"
#include "ns/spaces.h"

/* That of a process, also of one that has ended: it is known by its pid (task_active_pid_ns()). */
static int look_at_process(struct checkpoint *c, const struct checkpoint_process *p, uint64_t own,
			   struct error *e)
{
	uint64_t ino = space_number(c->proc_fd, e, "%d/ns/pid", p->frozen->pid);
	const struct checkpoint_space *s;
	struct checkpoint_nested *slot;

	if (!ino)
		return e->err;
	if (ino == own)
		return 0;
	s = space_by_number(c, CLONE_NEWPID, ino)
		    ?: space_add(c, CLONE_NEWPID, ino,
				 procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/pid",
					     p->frozen->pid),
				 e);
	if (!s)
		return e->err;
	slot = vec_push(&c->spaces.nested);
	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of namespaces");
	*slot = (struct checkpoint_nested){p->frozen->pid, s->id};
	return 0;
}

static int look_at_processes(struct checkpoint *c, uint64_t own, struct error *e)
{
	vec_for_each (p, &c->processes) {
		int r = glance_at_home(c, p->frozen->pid) ? 0 : look_at_process(c, p, own, e);

		/* Of whom nothing can be learnt: that is refused elsewhere. */
		if (r < 0 && (e->code == E_PERMISSION || (r == -ESRCH && c->checking)))
			error_clear(e);
		else if (r < 0)
			return r;
	}
	return 0;
}

static uint64_t number_of(int fd)
{
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* In which it was made: ours, or one that a process of the tree is in. */
int pid_space_find_above(struct checkpoint *c, size_t i, struct error *e)
{
	_cleanup_(close_fd) int parent = ioctl(c->spaces.list.v[i].ns, NS_GET_PARENT);
	const struct checkpoint_space *above;
	uint64_t ino = number_of(parent);

	if (ino == c->spaces.looked->own_pid)
		return 0;
	above = ino ? space_by_number(c, CLONE_NEWPID, ino) : NULL;
	if (!above)
		return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				 "was made in one of which no process is in the tree");
	c->spaces.looked->list.v[i]->msg.above = above->id;
	return 0;
}

/* The last of the numbers of NSpid is that of the innermost. */
static bool is_init(struct checkpoint *c, pid_t pid)
{
	_cleanup_(free_ptr) char *status = NULL;
	const char *v;
	size_t len;

	if (procfs_read(c->proc_fd, &status, NULL, "%d/status", pid) < 0)
		return false;
	v = proc_field(status, "NSpid", &len);
	return v && len > 2 && !memcmp(v + len - 2, "\t1", 2);
}

/*
 * The first process makes the namespace again. One that has ended is no place for others; it ends
 * by itself, or by a SIGKILL from outside.
 */
static int find_init(struct checkpoint *c, size_t i, struct error *e)
{
	vec_for_each (m, &c->spaces.nested)
		if (m->id == c->spaces.list.v[i].id && is_init(c, m->pid))
			return 0;
	return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE, "its first process is not in the tree");
}

static pid_t member_of(const struct checkpoint *c, uint64_t id)
{
	vec_for_each (m, &c->spaces.nested)
		if (m->id == id)
			return m->pid;
	return 0;
}

int pid_spaces_look(struct checkpoint *c, struct error *e)
{
	int r = look_at_processes(c, c->spaces.looked->own_pid, e);

	for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++) {
		pid_t pid = member_of(c, c->spaces.list.v[i].id);

		if (c->spaces.list.v[i].flag != CLONE_NEWPID)
			continue;
		c->spaces.looked->list.v[i]->looked = true;
		r = space_find_owner(c, i, e);
		if (r >= 0)
			r = pid_space_find_above(c, i, e);
		if (r >= 0)
			r = find_init(c, i, e);
		if (r < 0)
			error_object(e, r, "pid namespace of task %d", pid);
		r = checkpoint_refuse(c, r, e);
	}
	return r;
}

int pid_space_depth_below(const struct checkpoint *c, uint64_t ino)
{
	const struct checkpoint_space *s = space_by_number(c, CLONE_NEWPID, ino);
	int depth = 0;

	for (; s; depth++)
		s = space_by_id(c, c->spaces.looked->list.v[s - c->spaces.list.v]->msg.above);
	return depth ?: -1;
}

static size_t depth_of(const struct checkpoint *c, uint64_t id)
{
	const struct checkpoint_space *s = space_by_id(c, id);

	return s ? (size_t)pid_space_depth_below(c, s->ino) : 0;
}

/* The number behind so many others. */
static pid_t number_at(const char *list, size_t len, size_t depth)
{
	const char *at = list;

	for (; depth; depth--) {
		at = memchr(at, '\t', len - (size_t)(at - list));
		if (!at)
			return 0;
		at++;
	}
	return (pid_t)atoi(at);
}

static bool is_called(const struct checkpoint *c, pid_t pid, pid_t tid, size_t depth, pid_t number)
{
	_cleanup_(free_ptr) char *status = NULL;
	const char *v;
	size_t len;

	if (procfs_read(c->proc_fd, &status, NULL, "%d/task/%d/status", pid, tid) < 0)
		return false;
	v = proc_field(status, "NSpid", &len);
	return v && number_at(v, len, depth) == number;
}

pid_t pid_space_task(const struct checkpoint *c, uint64_t space, pid_t number)
{
	size_t depth = depth_of(c, space);

	vec_for_each (p, &c->processes) {
		uint64_t in = space_of_process(c, p->frozen->pid);

		while (in && in != space)
			in = c->spaces.looked->list.v[space_by_id(c, in) - c->spaces.list.v]
				     ->msg.above;
		if (!in)
			continue;
		if (is_called(c, p->frozen->pid, p->frozen->pid, depth, number))
			return p->frozen->pid;
		vec_for_each (t, &p->frozen->threads)
			if (is_called(c, p->frozen->pid, t->tid, depth, number))
				return t->tid;
	}
	return 0;
}

static bool stands_before(const struct checkpoint *c, uint64_t id, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (c->spaces.list.v[j].id == id)
			return true;
	return false;
}

/* A process is listed before its children: so is its namespace. */
int pid_spaces_checkpoint(struct checkpoint *c, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++) {
		const Reprise__Container *msg = &c->spaces.looked->list.v[i]->msg;

		if (msg->own != CLONE_NEWPID)
			continue;
		if (msg->above && !stands_before(c, msg->above, i))
			return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					 "a pid namespace stands before that above it");
		r = checkpoint_put(c, RECORD_NAMESPACE, c->spaces.list.v[i].id, &msg->base, e);
	}
	return r;
}
