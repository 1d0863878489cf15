/* SPDX-License-Identifier: Apache-2.0 */
/* A plan in words. */
#include "kernel/tree.h"

static void print_actor(const struct tree_plan *plan, const struct tree_node *nodes,
			struct tree_actor a, FILE *f)
{
	if (a.helper)
		fprintf(f, "helper %d", plan->helpers.v[a.index].pid);
	else
		fprintf(f, "%d", nodes[a.index].pid);
}

static void print_step(const struct tree_plan *plan, const struct tree_node *nodes,
		       const struct tree_step *s, FILE *f)
{
	switch (s->type) {
	case STEP_FORK:
		fprintf(f, " forks %d%s%s", nodes[s->node].pid,
			s->its_parent ? " for its parent" : "",
			nodes[s->node].zombie ? " (zombie)" : "");
		break;
	case STEP_FORK_HELPER:
		fprintf(f, " forks helper %d", plan->helpers.v[s->node].pid);
		break;
	case STEP_SETSID:
		fprintf(f, " begins a session");
		break;
	case STEP_SUBREAPER:
		fprintf(f, s->stage ? " adopts orphans" : " adopts orphans no more");
		break;
	case STEP_BUILD:
		fprintf(f, " builds its address space");
		break;
	case STEP_FILL:
		fprintf(f, " is filled, stage %u", s->stage);
		break;
	case STEP_THREADS:
		fprintf(f, " makes its threads");
		break;
	case STEP_PLACE:
		fprintf(f, " puts %d into process group %d", nodes[s->node].pid, s->pgid);
		break;
	case STEP_SETPGID:
		fprintf(f, " enters process group %d", s->pgid);
		break;
	case STEP_RETIRE:
		fprintf(f, " reaps helper %d", plan->helpers.v[s->node].pid);
		break;
	case STEP_VFORK:
		fprintf(f, " forks %d and waits for it", nodes[s->node].pid);
		break;
	case STEP_COMPLETE:
		fprintf(f, " is completed");
		break;
	}
	fputc('\n', f);
}

void tree_plan_print(const struct tree_plan *plan, const struct tree_node *nodes, FILE *f)
{
	vec_for_each (s, &plan->steps) {
		print_actor(plan, nodes, s->actor, f);
		print_step(plan, nodes, s, f);
	}
}
