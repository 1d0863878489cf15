/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_BIRTH_H
#define REPRISE_KERNEL_BIRTH_H

#include "kernel/levels.h"
#include "model/restart.h"

/* How one process is made by another one, by whatever numbers it is to have. */

/* One task that can be told to do something. */
struct actor {
	pid_t pid;
	struct agent *agent;
	const struct restart_process *process; /* NULL for a helper */
	uint64_t space, user;
	uint64_t *children_space;
};

/* A task that is to be made. */
struct birth {
	const struct actor *by, *parent; /* which are two with CLONE_PARENT */
	uint64_t flags, space;
	int exit_signal;
	pid_t vpid;
	struct levels ids;
};

/* So many of its numbers are chosen. It is traced, and has not stopped yet. */
int birth_once(struct restart *r, const struct birth *b, size_t chosen, pid_t *ret,
	       struct error *e) must_check;
/* All of them are as they are to be. */
int birth_give(struct restart *r, const struct birth *b, pid_t *ret, struct error *e) must_check;
/* A stub ends, and its parent hears of it. */
int birth_end(struct restart *r, struct agent *agent, pid_t pid, const struct actor *parent,
	      struct error *e) must_check;

#endif
