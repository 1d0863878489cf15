/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "kernel/tree.h"
#include "mm/order.h"

struct planner {
	struct tree_plan *plan;
	const struct tree_node *nodes;
	size_t n;
	pid_t *session; /* the session that each has at this point of the plan */
	pid_t *group;	/* and the group; 0: that of the restart */
	struct order_session *order;
	bool *made;
	struct error *e;
};

static struct tree_actor process_actor(int i)
{
	return (struct tree_actor){false, i};
}

static struct tree_actor helper_actor(int i)
{
	return (struct tree_actor){true, i};
}

static struct tree_step *step(struct planner *p, enum tree_step_type type, struct tree_actor actor)
{
	struct tree_step *s = vec_push(&p->plan->steps);

	if (!s)
		return NULL;
	s->type = type;
	s->actor = actor;
	return s;
}

static int out_of_memory(struct planner *p)
{
	return error_set(p->e, -ENOMEM, E_NO_MEMORY, "no memory for the plan of the restart");
}

static int find(const struct planner *p, pid_t pid)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->nodes[i].pid == pid)
			return (int)i;
	return -1;
}

static int find_helper(const struct planner *p, pid_t pid)
{
	for (size_t i = 0; i < p->plan->helpers.n; i++)
		if (p->plan->helpers.v[i].pid == pid)
			return (int)i;
	return -1;
}

/* The sessions and groups that the root merely inherited are those of the restart itself. */
static bool outside_session(const struct planner *p, pid_t sid)
{
	return sid == p->nodes[0].sid && sid != p->nodes[0].pid;
}

static bool outside_group(const struct planner *p, pid_t pgid)
{
	return pgid == p->nodes[0].pgid && find(p, pgid) < 0;
}

static int add_helper(struct planner *p, pid_t pid, struct tree_actor maker)
{
	struct tree_helper *h = vec_push(&p->plan->helpers);
	struct tree_step *s;
	int index = (int)p->plan->helpers.n - 1;

	if (!h)
		return out_of_memory(p);
	h->pid = pid;
	h->maker = maker;
	s = step(p, STEP_FORK_HELPER, maker);
	if (!s)
		return out_of_memory(p);
	s->node = index;
	return index;
}

static int plan_process(struct planner *p, int i);
static int place(struct planner *p, int child);
static int join_group(struct planner *p, struct tree_actor actor, pid_t pgid);

static int fork_by(struct planner *p, struct tree_actor actor, int child, bool its_parent,
		   pid_t session)
{
	struct tree_step *s = step(p, STEP_FORK, actor);
	int r;

	if (!s)
		return out_of_memory(p);
	s->node = child;
	s->its_parent = its_parent;
	p->session[child] = session;
	p->group[child] = actor.helper ? 0 : p->group[actor.index];
	p->made[child] = true;
	r = place(p, child);
	return r < 0 ? r : plan_process(p, child);
}

static bool descends(const struct planner *p, int i, int from)
{
	while (i >= 0 && i != from)
		i = p->nodes[i].parent;
	return i == from;
}

/* Nobody's pid, group or session; small, since the limit of the namespace may be. */
static pid_t free_pid(const struct planner *p)
{
	pid_t pid = 300;
	bool taken = true;

	while (taken) {
		taken = find_helper(p, ++pid) >= 0;
		for (size_t i = 0; i < p->n && !taken; i++)
			taken = p->nodes[i].pid == pid || p->nodes[i].pgid == pid ||
				p->nodes[i].sid == pid;
	}
	return pid;
}

static int set_subreaper(struct planner *p, int i, uint32_t value)
{
	struct tree_step *s;

	/* The init of a namespace adopts without being told. */
	if (p->nodes[i].pid == 1)
		return 0;
	s = step(p, STEP_SUBREAPER, process_actor(i));
	if (!s)
		return out_of_memory(p);
	s->stage = value;
	return 0;
}

/* As it came to be: a child of somebody in the session, who ends. */
static int fork_orphan(struct planner *p, int parent, int leader, int child)
{
	struct tree_step *s;
	int helper, r = set_subreaper(p, parent, 1);

	if (r < 0)
		return r;
	helper = add_helper(p, free_pid(p), process_actor(leader));
	if (helper < 0)
		return helper;
	s = step(p, STEP_FORK, helper_actor(helper));
	if (!s)
		return out_of_memory(p);
	s->node = child;
	s = step(p, STEP_RETIRE, process_actor(leader));
	if (!s)
		return out_of_memory(p);
	s->node = helper;
	p->plan->helpers.v[helper].retired = true;
	p->plan->helpers.v[helper].any = true;
	r = set_subreaper(p, parent, 0);
	if (r < 0)
		return r;
	p->session[child] = p->nodes[child].sid;
	p->made[child] = true;
	r = place(p, child);
	return r < 0 ? r : plan_process(p, child);
}

/* Who makes it must be where it is, and be able to name the session. */
static int check_stranger(struct planner *p, int parent, int child, int leader)
{
	const struct tree_node *node = &p->nodes[child];

	if (node->pid_space == p->nodes[parent].pid_space && !node->foreign_session &&
	    (leader < 0 || (p->nodes[leader].pid_space == node->pid_space &&
			    (!p->nodes[leader].space_init || p->nodes[leader].parent != parent))))
		return 0;
	return error_set(p->e, -EOPNOTSUPP, E_TASK_STATE,
			 "process %d is in session %d, which its parent is not in, and in another "
			 "pid namespace",
			 node->pid, node->sid);
}

/* A child in a session that its parent is not in: its leader has gone, or lives elsewhere. */
static int fork_stranger(struct planner *p, int parent, int child)
{
	pid_t sid = p->nodes[child].sid;
	int leader = find(p, sid), helper;

	if (check_stranger(p, parent, child, leader) < 0)
		return p->e->err;
	if (p->nodes[child].inherits)
		return error_set(p->e, -EBADMSG, E_IMAGE_INVALID,
				 "process %d inherits pages of a parent that does not fork it",
				 p->nodes[child].pid);
	if (leader >= 0) {
		if (!p->made[leader] || p->session[leader] != sid || p->nodes[leader].zombie ||
		    !descends(p, leader, parent))
			return error_set(
				p->e, -EOPNOTSUPP, E_TASK_STATE,
				"process %d is in session %d, whose leader is not related to its parent",
				p->nodes[child].pid, sid);
		if (p->nodes[leader].parent != parent)
			return fork_orphan(p, parent, leader, child);
		return fork_by(p, process_actor(leader), child, true, sid);
	}
	helper = find_helper(p, sid);
	if (helper >= 0 && (p->plan->helpers.v[helper].maker.helper ||
			    p->plan->helpers.v[helper].maker.index != parent))
		return error_set(
			p->e, -EOPNOTSUPP, E_TASK_STATE,
			"processes of several parents are in session %d, whose leader has gone",
			sid);
	if (helper < 0) {
		helper = add_helper(p, sid, process_actor(parent));
		if (helper < 0)
			return helper;
		if (!step(p, STEP_SETSID, helper_actor(helper)))
			return out_of_memory(p);
	}
	return fork_by(p, helper_actor(helper), child, true, sid);
}

static int fork_child(struct planner *p, int parent, int child)
{
	pid_t sid = p->nodes[child].sid, now = p->session[parent];

	if (sid == now || sid == p->nodes[child].pid || outside_session(p, sid))
		return fork_by(p, process_actor(parent), child, false, now);
	return fork_stranger(p, parent, child);
}

/* Children that must be made in the session which their parent is about to leave. */
static bool in_old_session(const struct planner *p, int parent, int child)
{
	const struct tree_node *leader = &p->nodes[parent];

	return leader->sid == leader->pid && p->nodes[child].sid != leader->sid &&
	       p->nodes[child].sid == p->session[parent];
}

enum which { OLD_SESSION, EMPTY_PARENT, BETWEEN_STAGES, LATE };

static int fork_children(struct planner *p, int parent, enum which which, uint32_t stage)
{
	for (size_t c = (size_t)parent + 1; c < p->n; c++) {
		const struct tree_node *child = &p->nodes[c];
		int r;

		if (child->parent != parent || p->made[c] || child->vfork)
			continue;
		if ((which == LATE) != order_is_late(p->order, c))
			continue;
		if (which == OLD_SESSION && !in_old_session(p, parent, (int)c))
			continue;
		if (which == EMPTY_PARENT && child->inherits)
			continue;
		if (which == BETWEEN_STAGES && (!child->inherits || child->after != stage))
			continue;
		r = fork_child(p, parent, (int)c);
		if (r < 0)
			return r;
	}
	return 0;
}

static int build_and_fill(struct planner *p, int i)
{
	const struct tree_node *node = &p->nodes[i];
	struct tree_step *s;
	int r;

	if (!node->owns_mm || node->zombie)
		return 0;
	if (!step(p, STEP_BUILD, process_actor(i)))
		return out_of_memory(p);
	for (uint32_t stage = 0; stage <= node->last_stage; stage++) {
		s = step(p, STEP_FILL, process_actor(i));
		if (!s)
			return out_of_memory(p);
		s->stage = stage;
		r = fork_children(p, i, BETWEEN_STAGES, stage);
		if (r < 0)
			return r;
	}
	return 0;
}

static int plan_process(struct planner *p, int i)
{
	const struct tree_node *node = &p->nodes[i];
	int r = fork_children(p, i, OLD_SESSION, 0);

	if (r < 0)
		return r;
	if (node->sid == node->pid) {
		if (!step(p, STEP_SETSID, process_actor(i)))
			return out_of_memory(p);
		p->session[i] = p->group[i] = node->sid;
	}
	r = fork_children(p, i, EMPTY_PARENT, 0);
	if (r >= 0)
		r = build_and_fill(p, i);
	if (r >= 0)
		r = fork_children(p, i, LATE, 0);
	if (r >= 0 && node->has_threads && !step(p, STEP_THREADS, process_actor(i)))
		return out_of_memory(p);
	return r;
}

static int join_group(struct planner *p, struct tree_actor actor, pid_t pgid)
{
	struct tree_step *s = step(p, STEP_SETPGID, actor);

	if (!s)
		return out_of_memory(p);
	s->pgid = pgid;
	return 0;
}

/* The first member sees to it that the group exists. */
static int found_group(struct planner *p, int member)
{
	pid_t pgid = p->nodes[member].pgid;
	int leader = find(p, pgid), helper;

	if (leader >= 0)
		return join_group(p, process_actor(leader), pgid);
	if (find_helper(p, pgid) >= 0)
		return 0; /* the leader of a session that has gone leads this group, too */
	helper = add_helper(p, pgid, process_actor(member));
	return helper < 0 ? helper : join_group(p, helper_actor(helper), pgid);
}

/* The group in which it has to be before it makes children; 0: any will do. */
static pid_t first_group(const struct planner *p, int i)
{
	if (p->nodes[i].foreign_group)
		return p->nodes[i].pgid;
	for (size_t c = (size_t)i + 1; p->nodes[i].pid_space && c < p->n; c++) {
		const struct tree_node *child = &p->nodes[c];

		if (child->parent == i && child->pid_space == p->nodes[i].pid_space &&
		    first_group(p, (int)c))
			return first_group(p, (int)c);
	}
	return 0;
}

/* Is it there by now? */
static bool has_begun(const struct planner *p, pid_t pgid)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->made[i] && p->group[i] == pgid)
			return true;
	return false;
}

/*
 * A group that a process cannot name, from within its pid namespace, is that of its
 * parent when it is made, or the one in which its parent puts it then.
 */
static int place(struct planner *p, int child)
{
	pid_t pgid = first_group(p, child);
	int parent = p->nodes[child].parent, leader = find(p, pgid);
	struct tree_step *s;

	if (!pgid || outside_group(p, pgid) || p->group[child] == pgid)
		return 0;
	if (p->nodes[child].pid_space == p->nodes[parent].pid_space || leader < 0 ||
	    p->nodes[leader].zombie || !p->made[leader] || p->session[leader] != p->session[child])
		return error_set(p->e, -EOPNOTSUPP, E_TASK_STATE,
				 "process %d is in group %d outside of its pid namespace, in which "
				 "its parent was not",
				 p->nodes[child].pid, pgid);
	if (!has_begun(p, pgid)) {
		if (join_group(p, process_actor(leader), pgid) < 0)
			return -ENOMEM;
		p->group[leader] = pgid;
	}
	s = step(p, STEP_PLACE, process_actor(parent));
	if (!s)
		return out_of_memory(p);
	s->node = child;
	s->pgid = p->group[child] = pgid;
	return 0;
}

static int plan_groups(struct planner *p)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct tree_node *node = &p->nodes[i];
		bool first = true;
		int r = 0;

		if (node->vfork)
			continue;
		if (node->pgid == node->sid && node->pid == node->sid)
			continue; /* a session leader leads its group */
		if (outside_group(p, node->pgid) || node->foreign_group)
			continue;
		for (size_t j = 0; j < i && first; j++)
			first = p->nodes[j].pgid != node->pgid;
		if (first && node->pgid != node->sid)
			r = found_group(p, (int)i);
		if (r >= 0 && node->pgid != node->pid)
			r = join_group(p, process_actor((int)i), node->pgid);
		if (r < 0)
			return r;
	}
	return 0;
}

static int retire_helpers(struct planner *p)
{
	for (size_t i = p->plan->helpers.n; i > 0; i--) {
		struct tree_step *s;

		if (p->plan->helpers.v[i - 1].retired)
			continue;
		s = step(p, STEP_RETIRE, p->plan->helpers.v[i - 1].maker);

		if (!s)
			return out_of_memory(p);
		s->node = (int)i - 1;
	}
	return 0;
}

/* It begins in the session and group of its parent, and leaves them for its own only. */
static int place_late(struct planner *p, int i)
{
	const struct tree_node *node = &p->nodes[i], *parent = &p->nodes[node->parent];

	if (node->sid == node->pid)
		return step(p, STEP_SETSID, process_actor(i)) ? 0 : out_of_memory(p);
	if (node->sid == parent->sid && node->pgid == parent->pgid)
		return 0;
	if (node->sid == parent->sid && node->pgid == node->pid)
		return join_group(p, process_actor(i), node->pgid);
	return error_set(p->e, -EBADMSG, E_IMAGE_INVALID,
			 "process %d cannot have come to session %d and group %d", node->pid,
			 node->sid, node->pgid);
}

static int plan_late(struct planner *p)
{
	p->plan->late = p->plan->steps.n;
	for (size_t i = 1; i < p->n; i++) {
		struct tree_step *s;
		int r;

		if (!p->nodes[i].vfork)
			continue;
		s = step(p, STEP_VFORK, process_actor(p->nodes[i].parent));
		if (!s)
			return out_of_memory(p);
		s->node = (int)i;
		p->made[i] = true;
		r = place_late(p, (int)i);
		if (r < 0)
			return r;
		if (p->nodes[i].has_threads && !step(p, STEP_THREADS, process_actor((int)i)))
			return out_of_memory(p);
		if (!step(p, STEP_COMPLETE, process_actor((int)i)))
			return out_of_memory(p);
	}
	return 0;
}

/* Who is not made with the others leads none of them, and makes none. */
static int check_late(struct planner *p, size_t i)
{
	const struct tree_node *node = &p->nodes[i];
	int group = find(p, node->pgid), session = find(p, node->sid);
	int late[] = {node->parent, group, session};

	if (node->vfork && node->owns_mm)
		return error_set(p->e, -EBADMSG, E_IMAGE_INVALID,
				 "process %d is waited for in vfork(), with memory of its own",
				 node->pid);
	for (size_t k = node->vfork ? 1 : 0; k < sizeof(late) / sizeof(*late); k++)
		if (late[k] >= 0 && late[k] != (int)i && p->nodes[late[k]].vfork &&
		    (!node->vfork || p->nodes[i].parent != late[k]))
			return error_set(p->e, -EBADMSG, E_IMAGE_INVALID,
					 "process %d depends on a child of vfork()", node->pid);
	return 0;
}

static int check_nodes(struct planner *p)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct tree_node *node = &p->nodes[i];

		if (node->pid <= 0 || node->parent >= (int)i || (i == 0) != (node->parent < 0))
			return error_set(p->e, -EBADMSG, E_IMAGE_INVALID,
					 "the parent of process %d does not stand before it",
					 node->pid);
		if (i && p->nodes[node->parent].zombie)
			return error_set(p->e, -EBADMSG, E_IMAGE_INVALID,
					 "process %d is the child of a zombie", node->pid);
		if (check_late(p, i) < 0)
			return -EBADMSG;
	}
	return 0;
}

int tree_plan_make(struct tree_plan *plan, const struct tree_node *nodes, size_t n, struct error *e)
{
	_cleanup_(free_ptr) pid_t *session = calloc(n + 1, sizeof(*session));
	_cleanup_(free_ptr) pid_t *group = calloc(n + 1, sizeof(*group));
	_cleanup_(free_ptr) bool *made = calloc(n + 1, sizeof(*made));
	_cleanup_(free_ptr) struct order_session *order = calloc(n + 1, sizeof(*order));
	struct planner p = {plan, nodes, n, session, group, order, made, e};
	int r;

	if (!session || !group || !made || !order)
		return out_of_memory(&p);
	if (n == 0)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "there is no process in the image");
	r = check_nodes(&p);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		order[i] = (struct order_session){nodes[i].pid, nodes[i].sid, nodes[i].parent};
	made[0] = true;
	session[0] = nodes[0].sid == nodes[0].pid ? 0 : nodes[0].sid;
	r = plan_process(&p, 0);
	if (r >= 0)
		r = plan_groups(&p);
	if (r >= 0)
		r = retire_helpers(&p);
	return r < 0 ? r : plan_late(&p);
}

void tree_plan_free(struct tree_plan *plan)
{
	vec_free(&plan->steps);
	vec_free(&plan->helpers);
}
