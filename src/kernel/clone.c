/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "kernel/clone.h"
#include "kernel/levels.h"
#include "kernel/sharing.h"
#include "kernel/vfork.h"
#include "kernel/zombie.h"
#include "mm/mm.h"
#include "ns/spaces.h"

/* Who is made while the plan is carried out. */
struct made_helper {
	pid_t pid;  /* real */
	pid_t vpid; /* "any": what its maker calls it */
	struct agent *agent;
	uint64_t space, children_space;
};

struct maker {
	struct restart *r;
	const struct tree_plan *plan;
	struct made_helper *helpers;
	tree_session_fn session;
	tree_complete_fn complete;
	struct error *e;
};

/* One task that can be told to do something. */
struct actor {
	pid_t pid;
	struct agent *agent;
	const struct restart_process *process; /* NULL for a helper */
	uint64_t space;
	uint64_t *children_space;
};

static struct actor actor_of(struct maker *m, struct tree_actor a)
{
	struct made_helper *h = a.helper ? &m->helpers[a.index] : NULL;
	struct restart_process *p = a.helper ? NULL : &m->r->processes.v[a.index];

	if (h)
		return (struct actor){h->pid, h->agent, NULL, h->space, &h->children_space};
	return (struct actor){p->pid, p->agent, p, p->msg->pid_namespace, &p->children_space};
}

static long do_call(struct maker *m, struct tree_actor a, long nr, uint64_t a1, uint64_t a2)
{
	struct actor actor = actor_of(m, a);
	const uint64_t args[6] = {a1, a2};

	return agent_syscall(actor.agent, actor.pid, NULL, m->e, nr, args);
}

int tree_nodes(const struct restart *r, struct tree_node **ret, struct error *e)
{
	struct tree_node *nodes = calloc(r->processes.n + 1, sizeof(*nodes));

	if (!nodes)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the plan of the restart");
	for (size_t i = 0; i < r->processes.n; i++) {
		const struct restart_process *p = &r->processes.v[i];

		nodes[i] = (struct tree_node){
			.pid = p->vpid,
			.pgid = p->msg->pgid,
			.sid = p->msg->sid,
			.parent = p->parent ? (int)(p->parent - r->processes.v) : -1,
			.zombie = p->msg->zombie,
			.owns_mm = p->mm_owner,
			.subreaper = p->msg->child_subreaper,
			.has_threads = p->tasks.n > 1,
			.vfork = vfork_is_child(p),
		};
		levels_node_of(p, &nodes[i]);
		if (p->mm && p->mm_owner) {
			nodes[i].inherits = mm_restart_inherits(r, p, &nodes[i].after);
			nodes[i].last_stage = mm_restart_last_stage(r, p);
		}
	}
	*ret = nodes;
	return 0;
}

/* Which of its maker's tables a new process shares. */
static uint64_t sharing_flags(const struct restart_process *maker,
			      const struct restart_process *child)
{
	return tree_sharing(maker, tree_leader(maker), child);
}

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
static pid_t outer_child(struct maker *m, pid_t parent, pid_t vpid, size_t depth)
{
	_cleanup_(free_ptr) char *list = NULL;
	ssize_t len;

	if (!m->r->pidns && !depth)
		return vpid;
	len = procfs_read(m->r->proc_fd, &list, m->e, "%d/task/%d/children", parent, parent);
	if (len < 0)
		return (pid_t)len;
	while (len > 0) {
		pid_t pid;

		while (len > 0 && list[len - 1] == ' ')
			list[--len] = '\0';
		while (len > 0 && list[len - 1] != ' ')
			len--;
		pid = (pid_t)atoi(list + len);
		if (pid > 0 && tree_pid_at(m->r, pid, pid, depth) == vpid)
			return pid;
	}
	return 0;
}

int stub_adopt(struct restart *r, struct restart_process *p, pid_t pid, uint64_t agent_at,
	       struct error *e)
{
	struct trace_stop stop;
	int res = trace_wait(pid, &stop, -1, e);

	if (res < 0)
		return res;
	if (stop.kind == TRACE_EXITED)
		return error_set(e, -ESRCH, E_TASK_GONE, "task %d ended while it was being made",
				 p->vpid);
	p->pid = pid;
	if (p->tasks.n)
		p->tasks.v[0].tid = pid;
	return agent_captive(&p->agent, pid, agent_at, e);
}

int stub_program(struct restart *r, struct restart_process *p, uint64_t shared, struct error *e)
{
	if (!p->mm || mm_restart_is_compat(r, p->agent) == p->mm->compat)
		return 0;
	/* To execute a program ends all that is shared but the directories. */
	if (!p->mm_owner || (shared & ~(uint64_t)CLONE_FS))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "task %d shares what programs of another width cannot", p->vpid);
	return mm_restart_program(r, p->pid, p->agent, p->mm->compat, e);
}

static pid_t real_parent(struct maker *m, const struct tree_step *s)
{
	struct restart_process *child = &m->r->processes.v[s->node];

	return s->its_parent ? child->parent->pid : actor_of(m, s->actor).pid;
}

static int go_for(struct maker *m, const struct actor *a, uint64_t space)
{
	const struct levels_maker maker = {a->pid, a->agent, a->space, a->children_space};

	return levels_go(m->r, &maker, space, m->e);
}

/* It is born where children of its maker are; the first of a pid namespace begins that. */
static int clone_process(struct maker *m, const struct tree_step *s, const struct actor *a,
			 struct restart_process *child)
{
	_cleanup_(batch_free) struct batch b = {};
	uint64_t flags = a->process ? sharing_flags(a->process, child) : 0;
	uint64_t space = child->msg->pid_namespace, in = space;
	struct levels ids;
	int call, r;

	if (pid_space_is_init(child)) {
		in = pid_space_above(m->r, space, pid_space_depth(m->r, space) - 1);
		flags |= CLONE_NEWPID;
	}
	r = go_for(m, a, in);
	if (r >= 0)
		r = levels_of(m->r, space, child->vpid, &ids, m->e);
	if (r < 0)
		return r;
	if (s->its_parent)
		call = clone_add(&b, flags | CLONE_PARENT, 0, &ids);
	else
		call = clone_add(&b, flags, child->msg->exit_signal, &ids);
	r = agent_run(a->agent, a->pid, NULL, &b, m->e);
	if (r >= 0 && batch_result(&b, call) < 0)
		r = clone_failed(batch_result(&b, call), child->vpid, m->e);
	child->children_space = space;
	return r;
}

static int do_fork(struct maker *m, const struct tree_step *s)
{
	struct restart_process *child = &m->r->processes.v[s->node];
	struct actor a = actor_of(m, s->actor);
	int r = clone_process(m, s, &a, child);
	pid_t pid;

	if (r < 0)
		return r;
	pid = outer_child(m, real_parent(m, s), child->vpid, 0);
	if (pid < 0)
		return pid;
	if (!pid)
		return error_set(m->e, -ESRCH, E_RESTORE, "task %d was made but is not found",
				 child->vpid);
	restart_trace(m->r, "task %d made by %d", child->vpid, a.pid);
	r = stub_adopt(m->r, child, pid, agent_address(a.agent), m->e);
	if (r >= 0)
		r = stub_program(m->r, child, a.process ? sharing_flags(a.process, child) : 0,
				 m->e);
	return r < 0 || !child->tasks.n ? r : spaces_enter(m->r, &child->tasks.v[0], m->e);
}

/* The exit signal of those whom a helper makes with CLONE_PARENT is its own. */
static int helper_exit_signal(struct maker *m, int helper)
{
	vec_for_each (s, &m->plan->steps)
		if (s->type == STEP_FORK && s->actor.helper && s->actor.index == helper)
			return m->r->processes.v[s->node].msg->exit_signal;
	return SIGCHLD;
}

/* Somebody in the tree is to have it, as a pid or as that of a group or session. */
static bool is_wanted(const struct maker *m, pid_t pid)
{
	vec_for_each (p, &m->r->processes) {
		if (p->vpid == pid || p->msg->pgid == pid || p->msg->sid == pid ||
		    levels_want(p, pid))
			return true;
		vec_for_each (t, &p->tasks)
			if (t->vtid == pid)
				return true;
	}
	vec_for_each (h, &m->plan->helpers)
		if (h->pid == pid)
			return true;
	return false;
}

/* Of one whose pid does not matter only the innermost is chosen. */
static int clone_helper(struct maker *m, const struct tree_step *s, pid_t vpid, long *ret)
{
	struct actor a = actor_of(m, s->actor);
	struct made_helper *h = &m->helpers[s->node];
	_cleanup_(batch_free) struct batch b = {};
	struct levels ids = {{vpid}, 1};
	int call, r = go_for(m, &a, a.space);

	h->space = h->children_space = a.space;
	if (r >= 0 && !m->plan->helpers.v[s->node].any)
		r = levels_of(m->r, a.space, vpid, &ids, m->e);
	if (r < 0)
		return r;
	call = clone_add(&b, 0, helper_exit_signal(m, s->node), &ids);
	r = agent_run(a.agent, a.pid, NULL, &b, m->e);
	*ret = batch_result(&b, call);
	return r;
}

#define HELPER_TRIES 200 /* pids, where any will do */

static int do_fork_helper(struct maker *m, const struct tree_step *s)
{
	const struct tree_helper *planned = &m->plan->helpers.v[s->node];
	struct made_helper *h = &m->helpers[s->node];
	struct actor a = actor_of(m, s->actor);
	struct trace_stop stop;
	long res;
	int r;

	h->vpid = planned->pid;
	r = clone_helper(m, s, h->vpid, &res);
	for (int i = 0; r >= 0 && res == -EEXIST && planned->any && i < HELPER_TRIES; i++) {
		h->vpid++;
		if (!is_wanted(m, h->vpid))
			r = clone_helper(m, s, h->vpid, &res);
	}
	if (r < 0)
		return r;
	if (res < 0)
		return clone_failed(res, h->vpid, m->e);
	h->pid = outer_child(m, a.pid, h->vpid, planned->any ? pid_space_depth(m->r, a.space) : 0);
	if (h->pid < 0)
		return h->pid;
	if (!h->pid)
		return error_set(m->e, -ESRCH, E_RESTORE, "helper %d was made but is not found",
				 h->vpid);
	r = trace_wait(h->pid, &stop, -1, m->e);
	return r < 0 ? r : agent_captive(&h->agent, h->pid, agent_address(a.agent), m->e);
}

static int do_retire(struct maker *m, const struct tree_step *s)
{
	struct made_helper *h = &m->helpers[s->node];
	struct actor a = actor_of(m, s->actor);
	bool any = m->plan->helpers.v[s->node].any;
	pid_t called = any ? h->vpid : restart_pid_in(m->r, h->vpid, a.space);
	const uint64_t args[6] = {(uint64_t)called, 0, __WALL, 0};
	int r = zombie_end(h->agent, h->pid, 0, false, m->e);
	long res;

	if (r < 0)
		return r;
	res = agent_syscall(a.agent, a.pid, NULL, m->e, SYS_wait4, args);
	return res < 0 ? error_errno(m->e, (int)res, E_RESTORE, "cannot reap helper %d", h->vpid)
		       : 0;
}

static int call_step(struct maker *m, const struct tree_step *s, long nr, uint64_t a2,
		     const char *what)
{
	long res = do_call(m, s->actor, nr, 0, a2);

	if (res < 0)
		return error_errno(m->e, (int)res, E_RESTORE, "task %d: %s",
				   actor_of(m, s->actor).pid, what);
	return 0;
}

/* As it was in the end it is set with the other settings of the process. */
static int set_subreaper(struct maker *m, const struct tree_step *s)
{
	struct actor a = actor_of(m, s->actor);
	const uint64_t args[6] = {PR_SET_CHILD_SUBREAPER, s->stage};
	long res = agent_syscall(a.agent, a.pid, NULL, m->e, SYS_prctl, args);

	return res < 0 ? error_errno(m->e, (int)res, E_RESTORE, "task %d: PR_SET_CHILD_SUBREAPER",
				     a.pid)
		       : 0;
}

/* In the numbers of who does it. */
static int set_group(struct maker *m, const struct tree_step *s)
{
	struct actor a = actor_of(m, s->actor);
	pid_t node = s->type == STEP_PLACE ? m->r->processes.v[s->node].vpid : 0;
	const uint64_t args[6] = {node ? (uint64_t)restart_pid_in(m->r, node, a.space) : 0,
				  (uint64_t)restart_pid_in(m->r, s->pgid, a.space)};
	long res = agent_syscall(a.agent, a.pid, NULL, m->e, SYS_setpgid, args);

	return res < 0 ? error_errno(m->e, (int)res, E_RESTORE, "task %d: setpgid", a.pid) : 0;
}

static int begin_session(struct maker *m, const struct tree_step *s, struct restart_process *p)
{
	int r = call_step(m, s, SYS_setsid, 0, "setsid");

	return r < 0 || !p ? r : m->session(m->r, p, m->e);
}

static int carry_out(struct maker *m, const struct tree_step *s)
{
	struct restart_process *p = s->actor.helper ? NULL : &m->r->processes.v[s->actor.index];

	switch (s->type) {
	case STEP_FORK:
		return do_fork(m, s);
	case STEP_FORK_HELPER:
		return do_fork_helper(m, s);
	case STEP_SETSID:
		return begin_session(m, s, p);
	case STEP_SUBREAPER:
		return set_subreaper(m, s);
	case STEP_BUILD:
		return mm_restart_build(m->r, p, m->e);
	case STEP_FILL:
		return mm_restart_fill(m->r, p, s->stage, m->e);
	case STEP_THREADS:
		return threads_make(m->r, p, m->e);
	case STEP_PLACE:
	case STEP_SETPGID:
		return set_group(m, s);
	case STEP_RETIRE:
		return do_retire(m, s);
	case STEP_VFORK:
		return vfork_restart(m->r, &m->r->processes.v[s->node], m->e);
	case STEP_COMPLETE:
		return m->complete(m->r, p, m->e);
	}
	return error_set(m->e, -EINVAL, E_INTERNAL, "step %d of the plan", s->type);
}

int tree_make(struct restart *r, const struct tree_plan *plan, tree_session_fn session,
	      struct error *e)
{
	_cleanup_(free_ptr) struct made_helper *helpers =
		calloc(plan->helpers.n + 1, sizeof(*helpers));
	struct maker m = {.r = r, .plan = plan, .helpers = helpers, .session = session, .e = e};
	int res = helpers ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the plan");

	for (size_t i = 0; i < plan->late && res >= 0; i++)
		res = carry_out(&m, &plan->steps.v[i]);
	if (res >= 0)
		res = levels_restart_children(r, e);
	for (size_t i = 0; helpers && i < plan->helpers.n; i++)
		ignore(agent_return(helpers[i].agent, NULL), "helpers have ended");
	return res;
}

int tree_make_late(struct restart *r, const struct tree_plan *plan, tree_session_fn session,
		   tree_complete_fn complete, struct error *e)
{
	struct maker m = {.r = r, .plan = plan, .session = session, .complete = complete, .e = e};
	int res = 0;

	for (size_t i = plan->late; i < plan->steps.n && res >= 0; i++)
		res = carry_out(&m, &plan->steps.v[i]);
	return res;
}
