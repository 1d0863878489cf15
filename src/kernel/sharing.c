/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/sched.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "kernel/sharing.h"

static const char *const table_names[TABLES] = {
	[TABLE_FILES] = "descriptors",
	[TABLE_FS] = "the working directory",
	[TABLE_MM] = "memory",
	[TABLE_UNDO] = "a SEM_UNDO list",
};

/* A table, and a process that does not have it from its maker. */
struct beginning {
	uint64_t id;
	pid_t pid;
};

static int by_id(const void *a, const void *b)
{
	const struct beginning *x = a, *y = b;

	if (x->id != y->id)
		return x->id > y->id ? 1 : -1;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* Who makes each; -1: somebody who shares nothing with it. */
static void find_makers(const struct tree_tables *t, size_t n, const struct tree_plan *plan,
			int *makers)
{
	for (size_t i = 0; i < n; i++)
		makers[i] = t[i].parent;
	vec_for_each (s, &plan->steps)
		if (s->type == STEP_FORK && (size_t)s->node < n)
			makers[s->node] = s->actor.helper ? -1 : s->actor.index;
}

static bool from_maker(const struct tree_tables *t, int maker, size_t i, enum shared_table k)
{
	const struct tree_tables *m = maker < 0 ? NULL : &t[maker];

	return m && !m->zombie && !m->leader_exited && !t[i].leader_exited && t[i].id[k] &&
	       m->id[k] == t[i].id[k];
}

int tree_check_tables(const struct tree_tables *t, size_t n, const struct tree_plan *plan,
		      struct error *e)
{
	_cleanup_(free_ptr) struct beginning *begun = calloc(n + 1, sizeof(*begun));
	_cleanup_(free_ptr) int *makers = calloc(n + 1, sizeof(*makers));

	if (!begun || !makers)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the plan of the restart");
	find_makers(t, n, plan, makers);
	for (enum shared_table k = 0; k < TABLES; k++) {
		size_t found = 0;

		for (size_t i = 0; i < n; i++)
			if (!t[i].zombie && t[i].id[k] && !from_maker(t, makers[i], i, k))
				begun[found++] = (struct beginning){t[i].id[k], t[i].pid};
		qsort(begun, found, sizeof(*begun), by_id);
		for (size_t i = 1; i < found; i++)
			if (begun[i].id == begun[i - 1].id)
				return error_set(
					e, -EOPNOTSUPP, E_TASK_STATE,
					"processes %d and %d share %s, but none of them makes the "
					"other at a restart",
					begun[i - 1].pid, begun[i].pid, table_names[k]);
	}
	return 0;
}

const Reprise__Task *tree_leader(const struct restart_process *p)
{
	return p && p->tasks.n ? p->tasks.v[0].msg : NULL;
}

uint64_t tree_sharing(const struct restart_process *maker, const Reprise__Task *a,
		      const struct restart_process *child)
{
	const Reprise__Task *b = tree_leader(child);
	uint64_t flags = 0;

	if (!a || !b || a->is_zombie || b->is_zombie)
		return 0;
	if (a->files == b->files)
		flags |= CLONE_FILES;
	if (a->fs == b->fs)
		flags |= CLONE_FS;
	if (maker->mm_id == child->mm_id) {
		flags |= CLONE_VM;
		if (maker->msg->sighand == child->msg->sighand)
			flags |= CLONE_SIGHAND;
	}
	if (a->sysvsem && a->sysvsem == b->sysvsem)
		flags |= CLONE_SYSVSEM;
	return flags;
}

/* Of a leader that has exited nothing is left; its threads have the tables. */
static const Reprise__Task *speaker(const struct restart_process *p)
{
	const Reprise__Task *leader = tree_leader(p);

	return leader && leader->is_zombie && p->tasks.n > 1 ? p->tasks.v[1].msg : leader;
}

int tree_check_sharing(const struct restart *r, const struct tree_plan *plan, struct error *e)
{
	size_t n = r->processes.n;
	_cleanup_(free_ptr) struct tree_tables *t = calloc(n + 1, sizeof(*t));

	if (!t)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the plan of the restart");
	for (size_t i = 0; i < n; i++) {
		const struct restart_process *p = &r->processes.v[i];
		const Reprise__Task *by = speaker(p);

		t[i].pid = p->vpid;
		t[i].parent = p->parent ? (int)(p->parent - r->processes.v) : -1;
		t[i].zombie = p->msg->zombie;
		if (!by)
			continue;
		t[i].leader_exited = tree_leader(p)->is_zombie;
		t[i].id[TABLE_FILES] = by->files;
		t[i].id[TABLE_FS] = by->fs;
		t[i].id[TABLE_MM] = p->mm_id;
		t[i].id[TABLE_UNDO] = by->sysvsem;
	}
	return tree_check_tables(t, n, plan, e);
}
