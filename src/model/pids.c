/* SPDX-License-Identifier: Apache-2.0 */
#include "model/pids.h"

static uint64_t above(const struct restart *r, uint64_t space)
{
	const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, space);

	return msg ? msg->above : 0;
}

size_t pid_space_depth(const struct restart *r, uint64_t space)
{
	size_t depth = 0;

	for (; space; space = above(r, space))
		depth++;
	return depth;
}

uint64_t pid_space_above(const struct restart *r, uint64_t space, size_t depth)
{
	for (size_t is = pid_space_depth(r, space); is > depth; is--)
		space = above(r, space);
	return space;
}

bool pid_space_descends(const struct restart *r, uint64_t space, uint64_t from)
{
	while (space && space != from)
		space = above(r, space);
	return space == from;
}

bool pid_space_is_init(const struct restart_process *p)
{
	size_t n = p->msg->n_inner_pids;

	return n && p->msg->inner_pids[n - 1] == 1;
}

struct restart_process *pid_space_init(struct restart *r, uint64_t space)
{
	vec_for_each (p, &r->processes)
		if (p->msg->pid_namespace == space && pid_space_is_init(p))
			return p;
	return NULL;
}

/* At that level of its own list; all its lists are as long as it is deep. */
static pid_t known_to(const struct restart_process *p, pid_t vpid, size_t level)
{
	if (p->vpid == vpid)
		return p->msg->inner_pids[level];
	vec_for_each (t, &p->tasks)
		if (t->vtid == vpid && t->msg->n_inner_tids > level)
			return t->msg->inner_tids[level];
	if (p->msg->pgid == vpid && p->msg->inner_pgids[level])
		return p->msg->inner_pgids[level];
	return p->msg->sid == vpid ? p->msg->inner_sids[level] : 0;
}

pid_t restart_pid_in(const struct restart *r, pid_t vpid, uint64_t space)
{
	size_t depth = space ? pid_space_depth(r, space) : 0;

	if (!depth)
		return vpid;
	vec_for_each (p, &r->processes) {
		pid_t pid = 0;

		if (p->msg->pid_namespace && pid_space_descends(r, p->msg->pid_namespace, space))
			pid = known_to(p, vpid, depth - 1);
		if (pid)
			return pid;
	}
	return 0;
}
