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
#include "kernel/birth.h"
#include "kernel/clone.h"
#include "kernel/levels.h"
#include "kernel/sharing.h"
#include "kernel/user_task.h"
#include "kernel/vfork.h"
#include "kernel/zombie.h"
#include "mm/mm.h"
#include "ns/spaces.h"

/* Who is made while the plan is carried out. */
struct made_helper {
	pid_t pid;  /* real */
	pid_t vpid; /* "any": what its maker calls it */
	struct agent *agent;
	uint64_t space, children_space, user;
};

struct maker {
	struct restart *r;
	const struct tree_plan *plan;
	struct made_helper *helpers;
	tree_session_fn session;
	tree_complete_fn complete;
	struct error *e;
};

static struct actor actor_process(struct restart_process *p)
{
	return (struct actor){.pid = p->pid,
			      .agent = p->agent,
			      .process = p,
			      .space = p->msg->pid_namespace,
			      .user = p->user_space,
			      .children_space = &p->children_space};
}

static struct actor actor_of(struct maker *m, struct tree_actor a)
{
	struct made_helper *h = a.helper ? &m->helpers[a.index] : NULL;

	if (!h)
		return actor_process(&m->r->processes.v[a.index]);
	return (struct actor){.pid = h->pid,
			      .agent = h->agent,
			      .space = h->space,
			      .user = h->user,
			      .children_space = &h->children_space};
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

/*
 * An address space belongs to the user namespace in which its program was executed (mm_init()), and
 * children inherit that. Of what is not dumpable only who has power there reads anything
 * (ptrace_may_access()): not we any more, where it is ours of before.
 */
static bool needs_own_program(const struct restart *r, const struct restart_process *p)
{
	const Reprise__Container *ct = restart_nth(r, RECORD_CONTAINER, 0, NULL);

	return p == &r->processes.v[0] && ct && ct->own & CLONE_NEWUSER;
}

int stub_program(struct restart *r, struct restart_process *p, uint64_t shared, struct error *e)
{
	if (!p->mm ||
	    (mm_restart_is_compat(r, p->agent) == p->mm->compat && !needs_own_program(r, p)))
		return 0;
	/* To execute a program ends all that is shared but the directories. */
	if (!p->mm_owner || (shared & ~(uint64_t)CLONE_FS))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "task %d shares what programs of another width cannot", p->vpid);
	return mm_restart_program(r, p->pid, p->agent, p->mm->compat, e);
}

static int go_for(struct maker *m, const struct actor *a, uint64_t space)
{
	const struct levels_maker maker = {a->pid, a->agent, a->space, a->children_space};

	return levels_go(m->r, &maker, space, m->e);
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

#define HELPER_TRIES 200 /* pids, where any will do */

/* Stands for the process; its number is in nobody's way. */
static int make_stand_in(struct maker *m, const struct birth *b, struct restart_process *child)
{
	struct birth other = *b;
	pid_t pid;

	other.flags &= ~(uint64_t)CLONE_NEWPID;
	for (int i = 0; i < HELPER_TRIES; i++) {
		int r = birth_once(m->r, &other, 0, &pid, m->e);

		if (r >= 0)
			r = stub_adopt(m->r, child, pid, agent_address(b->by->agent), m->e);
		if (r < 0)
			return r;
		/* At all levels above it counts from where it was led to last. */
		for (size_t depth = 0; r >= 0 && depth < b->ids.n - 1; depth++)
			if (is_wanted(m, tree_pid_at(m->r, pid, pid, depth)))
				r = -EAGAIN;
		if (r >= 0)
			return 0;
		r = birth_end(m->r, child->agent, pid, b->parent, m->e);
		ignore(agent_return(child->agent, NULL), "it has ended");
		child->agent = NULL;
		child->pid = 0;
		if (r < 0)
			return r;
	}
	return clone_failed(-EEXIST, b->vpid, m->e);
}

/*
 * A pid namespace belongs to the user namespace of whoever makes its first process
 * (copy_namespaces()). One who stands for that goes there first, with its ids and into its other
 * namespaces, and then makes it as its brother.
 */
static int make_owned(struct maker *m, const struct birth *b, struct restart_process *child,
		      uint64_t owner, pid_t *ret)
{
	uint64_t above = *b->by->children_space;
	struct actor helper = {.space = above, .user = owner, .children_space = &above};
	struct birth second = *b;
	uint64_t shared = b->by->process ? sharing_flags(b->by->process, child) : 0;
	int r;

	if (!child->tasks.n)
		return error_set(m->e, -EBADMSG, E_IMAGE_INVALID,
				 "task %d has ended, and a user namespace owns its pid namespace",
				 child->vpid);
	r = make_stand_in(m, b, child);
	if (r >= 0)
		r = stub_program(m->r, child, shared, m->e);
	if (r >= 0)
		r = spaces_enter(m->r, &child->tasks.v[0], m->e);
	if (r >= 0)
		r = user_task_enter(m->r, child, owner, m->e);
	if (r < 0)
		return r;
	helper.pid = child->pid;
	helper.agent = child->agent;
	second.by = &helper;
	second.flags |= CLONE_PARENT;
	r = birth_give(m->r, &second, ret, m->e);
	if (r < 0)
		return r;
	r = stub_adopt(m->r, child, *ret, agent_address(helper.agent), m->e);
	if (r >= 0)
		r = birth_end(m->r, helper.agent, helper.pid, b->parent, m->e);
	ignore(agent_return(helper.agent, NULL), "it has ended");
	return r;
}

/* Whose a pid namespace is to be that begins with this process; otherwise that of its maker. */
static uint64_t owner_of(struct maker *m, const struct actor *a,
			 const struct restart_process *child)
{
	const Reprise__Container *msg =
		pid_space_is_init(child)
			? restart_find(m->r, RECORD_NAMESPACE, child->msg->pid_namespace)
			: NULL;

	return msg ? msg->user_namespace : a->user;
}

/* It is born where children of its maker are; the first of a pid namespace begins that. */
static int make_process(struct maker *m, const struct tree_step *s, const struct actor *a,
			struct restart_process *child)
{
	struct actor parent = s->its_parent ? actor_process(child->parent) : *a;
	uint64_t space = child->msg->pid_namespace, in = space, owner = owner_of(m, a, child);
	struct birth b = {.by = a,
			  .parent = &parent,
			  .flags = a->process ? sharing_flags(a->process, child) : 0,
			  .space = space,
			  .exit_signal = child->msg->exit_signal,
			  .vpid = child->vpid};
	pid_t pid;
	int r;

	if (s->its_parent)
		b.flags |= CLONE_PARENT;
	if (pid_space_is_init(child)) {
		in = pid_space_above(m->r, space, pid_space_depth(m->r, space) - 1);
		b.flags |= CLONE_NEWPID;
	}
	r = go_for(m, a, in);
	if (r >= 0)
		r = levels_of(m->r, space, child->vpid, &b.ids, m->e);
	if (r < 0)
		return r;
	child->user_space = a->user;
	child->children_space = space;
	if (owner != a->user)
		return make_owned(m, &b, child, owner, &pid);
	r = birth_give(m->r, &b, &pid, m->e);
	return r < 0 ? r : stub_adopt(m->r, child, pid, agent_address(a->agent), m->e);
}

static int do_fork(struct maker *m, const struct tree_step *s)
{
	struct restart_process *child = &m->r->processes.v[s->node];
	struct actor a = actor_of(m, s->actor);
	int r = make_process(m, s, &a, child);

	if (r < 0)
		return r;
	restart_trace(m->r, "task %d made by %d", child->vpid, a.pid);
	r = stub_program(m->r, child, a.process ? sharing_flags(a.process, child) : 0, m->e);
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

/* Of one whose pid does not matter only the innermost is chosen. -EEXIST: that is taken. */
static int clone_helper(struct maker *m, const struct tree_step *s, const struct actor *a,
			pid_t vpid, pid_t *ret)
{
	struct birth b = {.by = a,
			  .parent = a,
			  .space = a->space,
			  .exit_signal = helper_exit_signal(m, s->node),
			  .vpid = vpid,
			  .ids = {{vpid}, 1}};
	int r;

	if (m->plan->helpers.v[s->node].any)
		return birth_once(m->r, &b, 1, ret, m->e);
	r = levels_of(m->r, a->space, vpid, &b.ids, m->e);
	return r < 0 ? r : birth_give(m->r, &b, ret, m->e);
}

static int do_fork_helper(struct maker *m, const struct tree_step *s)
{
	const struct tree_helper *planned = &m->plan->helpers.v[s->node];
	struct made_helper *h = &m->helpers[s->node];
	struct actor a = actor_of(m, s->actor);
	struct trace_stop stop;
	int r = go_for(m, &a, a.space);

	*h = (struct made_helper){
		.vpid = planned->pid, .space = a.space, .children_space = a.space, .user = a.user};
	if (r >= 0)
		r = clone_helper(m, s, &a, h->vpid, &h->pid);
	for (int i = 0; r == -EEXIST && planned->any && i < HELPER_TRIES; i++) {
		error_clear(m->e);
		while (is_wanted(m, ++h->vpid))
			continue;
		r = clone_helper(m, s, &a, h->vpid, &h->pid);
	}
	if (r >= 0)
		r = trace_wait(h->pid, &stop, -1, m->e);
	return r < 0 ? r : agent_captive(&h->agent, h->pid, agent_address(a.agent), m->e);
}

static int do_retire(struct maker *m, const struct tree_step *s)
{
	struct actor a = actor_of(m, s->actor);

	return birth_end(m->r, m->helpers[s->node].agent, m->helpers[s->node].pid, &a, m->e);
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
		res = spaces_enter_late(r, e);
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
