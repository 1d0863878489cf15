/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_LOAD_H
#define REPRISE_OPERATION_LOAD_H

#include "kernel/tree.h"
#include "model/restart.h"

/*
 * Reading and validating an image: after restart_load() every record has been
 * checked and the tree is planned; no task, file or namespace exists yet.
 */
struct loaded {
	struct restart r;
	struct tree_node *nodes;
	struct tree_plan plan;
	const Reprise__Tree *tree;
	struct page_chain *parents; /* of an incremental image, or NULL */
};

int restart_load(struct loaded *l, int fd, int jobs, struct error *e) must_check;
void restart_unload(struct loaded *l);
/* Can this machine run what was saved on that one? */
int restart_check_machine(const struct loaded *l, struct error *e) must_check;

#endif
