/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/birth.h"

#include <errno.h>
#include <linux/sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "kernel/clone.h"
#include "kernel/user_task.h"
#include "kernel/zombie.h"

/* Adds clone3() with chosen ids to a batch; these stand behind the arguments. */
int clone_add(struct batch *b, uint64_t flags, int exit_signal, const struct levels *ids)
{
	const struct clone_args args = {
		.flags = flags | CLONE_PTRACE,
		.exit_signal = (uint64_t)(exit_signal > 0 ? exit_signal : 0),
		.set_tid_size = ids->n,
	};
	uint32_t at = batch_data(b, &args, sizeof(args));
	uint32_t tid = batch_data(b, ids->v, (uint32_t)(ids->n * sizeof(*ids->v)));

	/* A list of none is none. */
	if (ids->n)
		batch_pointer(b, at + (uint32_t)offsetof(struct clone_args, set_tid), tid);
	return batch_call(b, SYS_clone3, DATA(at), VAL(sizeof(args)));
}

int clone_failed(long res, pid_t vpid, struct error *e)
{
	if (res == -EEXIST)
		return error_set(e, (int)res, E_PID_TAKEN, "pid %d is taken", vpid);
	if (res == -EPERM)
		return error_set(e, (int)res, E_PID_CHOOSE, "may not choose pid %d", vpid);
	return error_errno(e, (int)res, E_RESTORE, "cannot make task %d", vpid);
}

/* A number of NSpid: that of the root's namespace, which may be below ours, or further down. */
pid_t tree_pid_at(struct restart *r, pid_t pid, pid_t tid, size_t depth)
{
	_cleanup_(free_ptr) char *status = NULL;
	struct error unused = {};
	const char *v;
	pid_t found = 0;
	size_t len;

	if (procfs_read(r->proc_fd, &status, &unused, "%d/task/%d/status", pid, tid) < 0)
		return 0;
	v = proc_field(status, "NSpid", &len);
	for (size_t i = depth + (r->pidns ? 1 : 0) + 1; v && i; i--) {
		char *end;

		found = (pid_t)strtol(v, &end, 10);
		if (end == v || *v == '\n')
			return 0;
		v = end;
	}
	return found;
}

/* Our name for the child that has this number at a depth below the root: the newest of the parent's
 * children, which stands last. */
static pid_t outer_child(struct restart *r, pid_t parent, pid_t vpid, size_t depth, struct error *e)
{
	_cleanup_(free_ptr) char *list = NULL;
	ssize_t len;

	if (!r->pidns && !depth)
		return vpid;
	len = procfs_read(r->proc_fd, &list, e, "%d/task/%d/children", parent, parent);
	if (len < 0)
		return (pid_t)len;
	while (len > 0) {
		pid_t pid;

		while (len > 0 && list[len - 1] == ' ')
			list[--len] = '\0';
		while (len > 0 && list[len - 1] != ' ')
			len--;
		pid = (pid_t)atoi(list + len);
		if (pid > 0 && tree_pid_at(r, pid, pid, depth) == vpid)
			return pid;
	}
	return 0;
}

int birth_once(struct restart *r, const struct birth *b, size_t chosen, pid_t *ret, struct error *e)
{
	_cleanup_(batch_free) struct batch batch = {};
	struct levels ids = b->ids;
	int call, res;
	long made;

	ids.n = chosen;
	if (b->flags & CLONE_PARENT)
		call = clone_add(&batch, b->flags, 0, &ids);
	else
		call = clone_add(&batch, b->flags, b->exit_signal, &ids);
	res = agent_run(b->by->agent, b->by->pid, NULL, &batch, e);
	if (res < 0)
		return res;
	made = batch_result(&batch, call);
	if (made < 0)
		return clone_failed(made, b->vpid, e);
	*ret = outer_child(r, b->parent->pid, (pid_t)made, pid_space_depth(r, b->by->space), e);
	if (!*ret)
		return error_set(e, -ESRCH, E_RESTORE, "task %d was made but is not found",
				 b->vpid);
	return *ret < 0 ? *ret : 0;
}

int birth_end(struct restart *r, struct agent *agent, pid_t pid, const struct actor *parent,
	      struct error *e)
{
	pid_t called = tree_pid_at(r, pid, pid, pid_space_depth(r, parent->space));
	const uint64_t args[6] = {(uint64_t)called, 0, __WALL, 0};
	long res = zombie_end(agent, pid, 0, false, e);

	if (res < 0)
		return (int)res;
	res = agent_syscall(parent->agent, parent->pid, NULL, e, SYS_wait4, args);
	return res < 0 ? error_errno(e, (int)res, E_RESTORE, "cannot reap helper %d", pid) : 0;
}

static int take_back(struct restart *r, const struct birth *b, pid_t pid, struct error *e)
{
	struct agent *agent = NULL;
	struct trace_stop stop;
	int res = trace_wait(pid, &stop, -1, e);

	if (res >= 0)
		res = agent_captive(&agent, pid, agent_address(b->by->agent), e);
	if (res >= 0)
		res = birth_end(r, agent, pid, b->parent, e);
	ignore(agent_return(agent, NULL), "it has ended");
	return res;
}

static bool is_called(struct restart *r, pid_t pid, const struct levels *ids)
{
	for (size_t i = 0; i < ids->n; i++)
		if (tree_pid_at(r, pid, pid, i) != ids->v[ids->n - 1 - i])
			return false;
	return true;
}

#define LEAD_TRIES 200

/* Who is in a user namespace may not choose all numbers (alloc_pid()): it is led to the others,
 * unless somebody else is faster. */
int birth_give(struct restart *r, const struct birth *b, pid_t *ret, struct error *e)
{
	size_t chosen = user_task_chooses(r, b->by->user, b->space, b->ids.n);

	for (int i = 0; i < LEAD_TRIES; i++) {
		uint32_t last = chosen < b->ids.n ? levels_last(r) : 0;
		int res = levels_lead_all(r, b->space, &b->ids, chosen, e);

		if (res >= 0)
			res = birth_once(r, b, chosen, ret, e);
		levels_lead_back(r, last);
		if (res < 0 || chosen == b->ids.n || is_called(r, *ret, &b->ids))
			return res;
		res = take_back(r, b, *ret, e);
		if (res < 0)
			return res;
	}
	return clone_failed(-EEXIST, b->vpid, e);
}
