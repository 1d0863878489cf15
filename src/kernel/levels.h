/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_LEVELS_H
#define REPRISE_KERNEL_LEVELS_H

#include "kernel/tree.h"
#include "model/checkpoint.h"
#include "model/pids.h"

/*
 * Tasks in pid namespaces below the root's: their numbers at each level, and in which
 * namespace their children are born.
 */

int levels_save_process(struct checkpoint *c, const struct checkpoint_process *p,
			Reprise__Process *msg, struct scratch *s, struct error *e) must_check;
int levels_save_task(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		     Reprise__Task *msg, struct scratch *s, struct error *e) must_check;

/* What the plan of a restart has to know. */
void levels_node(struct checkpoint *c, const struct checkpoint_process *p, struct tree_node *node);
void levels_node_of(const struct restart_process *p, struct tree_node *node);

/* All that is said of them in an image. */
int levels_validate(struct restart *r, struct error *e) must_check;

/* What a task that is to be made is called: clone3(2) wants the innermost first. */
#define LEVELS_MAX 33 /* MAX_PID_NS_LEVEL, and the first */
struct levels {
	pid_t v[LEVELS_MAX];
	size_t n;
};
int levels_of(const struct restart *r, uint64_t space, pid_t vpid, struct levels *ret,
	      struct error *e) must_check;

/* Has it a number like that at any level? */
bool levels_want(const struct restart_process *p, pid_t pid);

/* Who makes children, and where these are born now. */
struct levels_maker {
	pid_t pid;
	struct agent *agent;
	uint64_t space, *children;
};
/* From now on its children are born in that namespace, whose first process is there. */
int levels_go(struct restart *r, const struct levels_maker *m, uint64_t space,
	      struct error *e) must_check;
/*
 * The next task that is made in that namespace by whoever may not choose its number has this one,
 * unless somebody else is faster.
 */
int levels_lead(struct restart *r, uint64_t space, pid_t pid) must_check;
/* The same at all levels of a namespace, but for the innermost ones, which may be chosen. */
int levels_lead_all(struct restart *r, uint64_t space, const struct levels *ids, size_t chosen,
		    struct error *e) must_check;
/* Those who come later have not to be given numbers behind that: where it was before. */
uint32_t levels_last(const struct restart *r);
void levels_lead_back(const struct restart *r, uint32_t last);
/* All processes and threads are there: where their children to come are born. */
int levels_restart_children(struct restart *r, struct error *e) must_check;

#endif
