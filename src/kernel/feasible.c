/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "kernel/feasible.h"
#include "kernel/levels.h"
#include "kernel/sharing.h"
#include "kernel/tree.h"
#include "kernel/user_task.h"
#include "kernel/vfork.h"

struct pid_place {
	pid_t pid;
	int at;
};

static int by_pid(const void *a, const void *b)
{
	const struct pid_place *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

static int parent_of(const struct pid_place *index, size_t n, pid_t ppid)
{
	const struct pid_place key = {ppid, 0};
	const struct pid_place *found = bsearch(&key, index, n, sizeof(key), by_pid);

	return found ? found->at : -1;
}

/* What the plan wants to know of a process; memory has no part in what is possible. */
static void describe(struct checkpoint *c, size_t i, int parent, struct tree_node *node,
		     struct tree_tables *t)
{
	const struct checkpoint_process *p = &c->processes.v[i];
	const struct frozen_process *f = p->frozen;

	*node = (struct tree_node){
		.pid = f->pid,
		.pgid = p->stat.pgrp,
		.sid = p->stat.session,
		.parent = parent,
		.zombie = f->zombie,
		.has_threads = f->threads.n > 1,
		.vfork = vfork_waiting_for(c, f) != 0,
	};
	levels_node(c, p, node);
	*t = (struct tree_tables){
		.pid = f->pid,
		.parent = parent,
		.zombie = f->zombie,
		.leader_exited = f->threads.n && f->threads.v[0].zombie,
		.id = {p->files, p->fs, p->mm, p->undo},
	};
}

static int check(struct checkpoint *c, const struct tree_node *nodes, const struct tree_tables *t,
		 struct error *e)
{
	struct tree_plan plan = {};
	int r = tree_plan_make(&plan, nodes, c->processes.n, e);

	if (r >= 0)
		r = tree_check_tables(t, c->processes.n, &plan, e);
	if (r >= 0)
		r = user_task_check(c, nodes, t, e);
	tree_plan_free(&plan);
	/* What would be wrong in an image is a state of this tree. */
	if (r < 0 && e->code == E_IMAGE_INVALID)
		e->code = E_TASK_STATE;
	return r < 0 ? error_object(e, r, "task %d (%s)", nodes[0].pid, c->processes.v[0].stat.comm)
		     : 0;
}

int tree_check_feasible(struct checkpoint *c, struct error *e)
{
	size_t n = c->processes.n;
	_cleanup_(free_ptr) struct tree_node *nodes = calloc(n + 1, sizeof(*nodes));
	_cleanup_(free_ptr) struct tree_tables *tables = calloc(n + 1, sizeof(*tables));
	_cleanup_(free_ptr) struct pid_place *index = calloc(n + 1, sizeof(*index));

	if (!nodes || !tables || !index)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the plan of the restart");
	for (size_t i = 0; i < n; i++)
		index[i] = (struct pid_place){c->processes.v[i].frozen->pid, (int)i};
	qsort(index, n, sizeof(*index), by_pid);
	for (size_t i = 0; i < n; i++) {
		int parent = i ? parent_of(index, n, c->processes.v[i].frozen->ppid) : -1;

		if (i && parent < 0 && c->checking)
			return 0; /* it has ended since the tree was listed */
		describe(c, i, parent, &nodes[i], &tables[i]);
	}
	return n ? check(c, nodes, tables, e) : 0;
}
