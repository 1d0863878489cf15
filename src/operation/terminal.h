/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_TERMINAL_H
#define REPRISE_OPERATION_TERMINAL_H

#include "model/restart.h"

/* The terminal from which a restart is started takes the place of the one that the tree had
 * outside. */

/* Opens our controlling terminal, if there is one, as r->tty_fd. */
int terminal_find(struct restart *r) must_check;
/*
 * Gives a session that has begun its terminal: a pseudo-terminal of the tree, or ours to a root
 * that led a session on the one outside, but only if we lead the session ourselves: it would be
 * taken from the shell otherwise.
 */
int terminal_session(struct restart *r, struct restart_process *leader, struct error *e) must_check;
/* The foreground group of ours, when all tasks are there. */
int terminal_restart(struct restart *r, struct error *e) must_check;

#endif
