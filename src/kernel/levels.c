/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/levels.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/id_set.h"
#include "core/procfs.h"
#include "kernel/vfork.h"
#include "ns/pidns.h"
#include "ns/spaces.h"

/* ---- checkpoint ---- */

/* Numbers at the levels below ours, which comes first. */
static int parse(const char *status, const char *name, size_t *n, int32_t **ret, struct scratch *s,
		 struct error *e)
{
	size_t len, found = 0;
	const char *v = proc_field(status, name, &len);
	int32_t *list = scratch_alloc(s, LEVELS_MAX * sizeof(*list));

	if (!list)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a process");
	for (const char *at = v; at && at < v + len && found < LEVELS_MAX;) {
		char *end;

		list[found] = (int32_t)strtol(at, &end, 10);
		if (end == at || end > v + len)
			break;
		found++;
		at = end;
	}
	if (found < 2)
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/PID/status has no %s", name);
	*n = found - 1;
	*ret = list + 1;
	return 0;
}

int levels_save_process(struct checkpoint *c, const struct checkpoint_process *p,
			Reprise__Process *msg, struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	int r;

	msg->pid_namespace = space_of_process(c, p->frozen->pid);
	if (!msg->pid_namespace)
		return 0;
	r = (int)procfs_read(c->proc_fd, &status, e, "%d/status", p->frozen->pid);
	if (r >= 0)
		r = parse(status, "NSpid", &msg->n_inner_pids, &msg->inner_pids, s, e);
	if (r >= 0)
		r = parse(status, "NSpgid", &msg->n_inner_pgids, &msg->inner_pgids, s, e);
	return r < 0 ? r : parse(status, "NSsid", &msg->n_inner_sids, &msg->inner_sids, s, e);
}

static int save_children(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
			 Reprise__Task *msg, struct error *e)
{
	_cleanup_(free_ptr) char *link = NULL;
	const struct checkpoint_space *s;
	uint64_t ino;
	int r = procfs_readlink(c->proc_fd, &link, e, "%d/task/%d/ns/pid_for_children",
				p->frozen->pid, tid);

	/* It has no process yet (pidns_for_children_get()). */
	if (r == -ENOENT) {
		error_clear(e);
		msg->children_unshared = true;
		return 0;
	}
	if (r < 0)
		return r;
	ino = strchr(link, '[') ? strtoull(strchr(link, '[') + 1, NULL, 10) : 0;
	s = space_by_number(c, CLONE_NEWPID, ino);
	/* namespaces_compare() has seen to it that it is one of these, or ours */
	if (s && s->id != space_of_process(c, p->frozen->pid))
		msg->children_namespace = s->id;
	return 0;
}

int levels_save_task(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		     Reprise__Task *msg, struct scratch *s, struct error *e)
{
	int r = 0;

	if (p->look && p->look->children_apart && !msg->is_zombie)
		r = save_children(c, p, tid, msg, e);
	if (r >= 0 && space_of_process(c, p->frozen->pid)) {
		_cleanup_(free_ptr) char *status = NULL;

		r = (int)procfs_read(c->proc_fd, &status, e, "%d/task/%d/status", p->frozen->pid,
				     tid);
		if (r >= 0)
			r = parse(status, "NSpid", &msg->n_inner_tids, &msg->inner_tids, s, e);
	}
	return r;
}

void levels_node_of(const struct restart_process *p, struct tree_node *node)
{
	size_t n = p->msg->n_inner_pids;

	node->pid_space = p->msg->pid_namespace;
	node->space_init = pid_space_is_init(p);
	node->foreign_group = n && !p->msg->inner_pgids[n - 1];
	node->foreign_session = n && !p->msg->inner_sids[n - 1];
}

/* As it will be read in the image. */
void levels_node(struct checkpoint *c, const struct checkpoint_process *p, struct tree_node *node)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Process msg = REPRISE__PROCESS__INIT;
	const struct restart_process as = {.msg = &msg};
	struct error unused = {};

	/* of one that has just ended nothing is left to be told */
	if (levels_save_process(c, p, &msg, &s, &unused) >= 0)
		levels_node_of(&as, node);
}

/* ---- validation ---- */

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

static bool are_pids(size_t n, const int32_t *v, int32_t least)
{
	for (size_t i = 0; i < n; i++)
		if (v[i] < least)
			return false;
	return true;
}

static bool contains(const struct id_set *s, uint64_t id)
{
	return id < s->seen.n && s->seen.v[id];
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the pid namespaces");
}

/* Those above stand before those below: so there is no circle. */
static int validate_order(const struct restart *r, struct id_set *begun, struct error *e)
{
	_cleanup_(id_set_free) struct id_set seen = {};
	const Reprise__Container *msg, *above;
	uint64_t id;

	for (size_t i = 0; (msg = restart_nth(r, RECORD_NAMESPACE, i, &id)); i++) {
		if (msg->own != CLONE_NEWPID)
			continue;
		if (msg->above && !contains(&seen, msg->above))
			return invalid(e, "an impossible pid namespace");
		/* No chain is longer than those that were found to be short enough, and this. */
		if (pid_space_depth(r, id) >= LEVELS_MAX - 1)
			return invalid(e, "an impossible pid namespace");
		if (id_set_add(&seen, id) < 0)
			return no_memory(e);
		if (contains(begun, id) == msg->ended)
			return invalid(e, "a pid namespace without processes");
		above = restart_find(r, RECORD_NAMESPACE, msg->above);
		if (above && above->ended)
			return invalid(e, "a pid namespace below one that has ended");
	}
	return 0;
}

static int validate_task(struct restart *r, const struct restart_process *p, const Reprise__Task *t,
			 size_t depth, struct error *e)
{
	const Reprise__Container *space = restart_find(r, RECORD_NAMESPACE, t->children_namespace);
	const struct restart_process *init;

	if (t->n_inner_tids != depth || !are_pids(depth, t->inner_tids, 1))
		return invalid(e, "a thread with impossible numbers in its pid namespaces");
	if (!t->children_namespace)
		return 0;
	if (restart_space_missing(r, t->children_namespace, CLONE_NEWPID) ||
	    !pid_space_descends(r, t->children_namespace, p->msg->pid_namespace))
		return invalid(e, "children in a pid namespace that is not below its parent's");
	if (space->ended)
		return t->children_unshared || p->msg->vfork_tid
			       ? invalid(e, "children in two pid namespaces")
			       : 0;
	init = pid_space_init(r, t->children_namespace);
	return init && !init->msg->vfork_tid && !t->children_unshared
		       ? 0
		       : invalid(e, "children in a pid namespace without its first process");
}

static int validate_process(struct restart *r, const struct restart_process *p, struct error *e)
{
	const Reprise__Process *m = p->msg;
	uint64_t space = m->pid_namespace, made_in = space;
	size_t depth;
	int res = 0;

	depth = pid_space_depth(r, space);
	if (m->n_inner_pids != depth || m->n_inner_pgids != depth || m->n_inner_sids != depth ||
	    !are_pids(depth, m->inner_pids, 1) || !are_pids(depth, m->inner_pgids, 0) ||
	    !are_pids(depth, m->inner_sids, 0))
		return invalid(e, "impossible numbers in pid namespaces");
	vec_for_each (t, &p->tasks)
		if (res >= 0)
			res = validate_task(r, p, t->msg, depth, e);
	if (res < 0 || !space)
		return res;
	if (!p->parent || m->vfork_tid)
		return invalid(e, "a process that cannot be in a pid namespace of its own");
	if (pid_space_is_init(p))
		made_in = pid_space_above(r, space, depth - 1);
	if (!pid_space_descends(r, made_in, p->parent->msg->pid_namespace))
		return invalid(e, "a process is not below the pid namespace of its parent");
	return 0;
}

/* The first of each is its init, with which it begins. */
static int validate_first(const struct restart *r, struct id_set *begun, struct error *e)
{
	vec_for_each (p, &r->processes) {
		uint64_t id = p->msg->pid_namespace;
		int first;

		if (!id)
			continue;
		if (restart_space_missing(r, id, CLONE_NEWPID))
			return invalid(e, "the pid namespace of a process is not there");
		first = id_set_add(begun, id);
		if (first < 0)
			return no_memory(e);
		if (pid_space_is_init(p) != (first > 0))
			return invalid(e, "a pid namespace does not begin with its first process");
	}
	return 0;
}

int levels_validate(struct restart *r, struct error *e)
{
	_cleanup_(id_set_free) struct id_set begun = {};
	int res = validate_first(r, &begun, e);

	if (res >= 0)
		res = validate_order(r, &begun, e);
	vec_for_each (p, &r->processes)
		if (res >= 0)
			res = validate_process(r, p, e);
	return res;
}

/* ---- restart ---- */

int levels_of(const struct restart *r, uint64_t space, pid_t vpid, struct levels *ret,
	      struct error *e)
{
	ret->n = 0;
	for (size_t depth = pid_space_depth(r, space); depth; depth--) {
		pid_t pid = restart_pid_in(r, vpid, pid_space_above(r, space, depth));

		if (!pid)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "pid %d has no number in a pid namespace", vpid);
		ret->v[ret->n++] = pid;
	}
	ret->v[ret->n++] = vpid;
	return 0;
}

bool levels_want(const struct restart_process *p, pid_t pid)
{
	for (size_t i = 0; i < p->msg->n_inner_pids; i++)
		if (p->msg->inner_pids[i] == pid || p->msg->inner_pgids[i] == pid ||
		    p->msg->inner_sids[i] == pid)
			return true;
	vec_for_each (t, &p->tasks)
		for (size_t i = 0; i < t->msg->n_inner_tids; i++)
			if (t->msg->inner_tids[i] == pid)
				return true;
	return false;
}

/* A pidfd leads to the namespace of its process; one's own is found in the same way. */
int levels_go(struct restart *r, const struct levels_maker *m, uint64_t space, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const struct restart_process *init;
	int open, failed, res;

	if (*m->children == space)
		return 0;
	init = space == m->space ? NULL : pid_space_init(r, space);
	if (space != m->space && (!init || init->pid <= 0))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a pid namespace is used before its first process is there");
	if (init)
		open = batch_call(&b, SYS_pidfd_open, VAL(restart_pid_in(r, init->vpid, m->space)),
				  VAL(0));
	else
		open = batch_call(&b, SYS_pidfd_open, RESULT(batch_call(&b, SYS_getpid)), VAL(0));
	batch_must(&b, open);
	batch_must(&b, batch_call(&b, SYS_setns, RESULT(open), VAL(CLONE_NEWPID)));
	batch_call(&b, SYS_close, RESULT(open));
	res = agent_run(m->agent, m->pid, NULL, &b, e);
	if (res < 0)
		return res;
	failed = batch_failed(&b);
	if (failed >= 0)
		return error_errno(e, (int)batch_result(&b, failed), E_NAMESPACE,
				   "cannot enter a pid namespace for children");
	*m->children = space;
	return 0;
}

static int place_thread(struct restart *r, struct restart_process *p, struct restart_task *t,
			struct error *e)
{
	const struct restart_space *ended = pid_space_ended(r, t->msg->children_namespace);
	uint64_t space = p->msg->pid_namespace, now = space;
	const struct levels_maker m = {t->tid, p->agent, space,
				       t == p->tasks.v ? &p->children_space : &now};
	long made;
	int res;

	if (ended)
		return space_go(r, t, ended, e);
	res = levels_go(r, &m, t->msg->children_namespace ?: space, e);
	if (res < 0 || !t->msg->children_unshared)
		return res;
	made = agent_syscall(p->agent, t->tid, NULL, e, SYS_unshare,
			     (const uint64_t[6]){CLONE_NEWPID});
	return made < 0 ? error_errno(e, (int)made, E_NAMESPACE,
				      "cannot make a pid namespace for children")
			: 0;
}

int levels_restart_children(struct restart *r, struct error *e)
{
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks) {
			int res = 0;

			if (!t->msg->is_zombie && !vfork_is_child(p))
				res = place_thread(r, p, t, e);
			if (res < 0)
				return error_object(e, res, "task %d", t->vtid);
		}
	return 0;
}

/* ---- leading the kernel to a number ---- */

struct next_pid {
	pid_t pid, tree; /* tree: a task in the namespace */
	int proc_fd, result;
};

/* The file stands for the namespace of who writes. */
static int write_last_pid(int proc_fd, pid_t pid)
{
	_cleanup_(close_fd) int fd =
		openat(proc_fd, "sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	char text[16];

	if (fd < 0)
		return -errno;
	snprintf(text, sizeof(text), "%d", pid - 1);
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* Children of this thread alone are born in the namespace of the tree. */
static void *write_inside(void *arg)
{
	struct next_pid *next = arg;
	_cleanup_(close_fd) int tree = (int)syscall(SYS_pidfd_open, next->tree, 0);
	struct clone_args args = {};
	int status = 0;
	long pid;

	if (tree < 0 || setns(tree, CLONE_NEWPID) < 0) {
		next->result = -errno;
		return NULL;
	}
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		status = -write_last_pid(next->proc_fd, next->pid);
		for (;;)
			syscall(SYS_exit_group, status);
	}
	if (pid < 0) {
		next->result = -errno;
		return NULL;
	}
	while (waitpid((pid_t)pid, &status, __WALL | __WNOTHREAD) < 0 && errno == EINTR)
		;
	next->result = WIFEXITED(status) ? -WEXITSTATUS(status) : -ESRCH;
	return NULL;
}

int levels_lead(struct restart *r, uint64_t space, pid_t pid)
{
	const struct restart_process *in = space ? pid_space_init(r, space) : r->processes.v;
	struct next_pid next = {.pid = pid, .proc_fd = r->proc_fd};
	pthread_t thread;
	int res;

	if (!in || in->pid <= 0)
		return -ESRCH;
	next.tree = in->pid;
	if (!r->pidns && !space)
		return write_last_pid(r->proc_fd, pid);
	res = pthread_create(&thread, NULL, write_inside, &next);
	if (res)
		return -res;
	pthread_join(thread, NULL);
	return next.result;
}

/* Who leads to a number of an inner namespace uses up one of those above it: these come later. */
int levels_lead_all(struct restart *r, uint64_t space, const struct levels *ids, size_t chosen,
		    struct error *e)
{
	for (size_t i = chosen; i < ids->n; i++) {
		int res = levels_lead(r, pid_space_above(r, space, ids->n - 1 - i), ids->v[i]);

		if (res < 0)
			return error_errno(e, res, E_PID_CHOOSE, "cannot lead a task to pid %d",
					   ids->v[i]);
	}
	return 0;
}

/* In a new namespace the restart sets it when all are there. */
uint32_t levels_last(const struct restart *r)
{
	return r->pidns ? 0 : pidns_counter(r->proc_fd);
}

void levels_lead_back(const struct restart *r, uint32_t last)
{
	if (last)
		ignore(write_last_pid(r->proc_fd, (pid_t)last + 1),
		       "whoever is made meanwhile may have a number that is wanted");
}
