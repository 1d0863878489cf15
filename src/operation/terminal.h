/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_TERMINAL_H
#define REPRISE_OPERATION_TERMINAL_H

#include "model/restart.h"

/* The terminal from which a restart is started takes the place of the one that the tree had
 * outside. */

/* Opens our controlling terminal, if there is one, as r->tty_fd. */
int terminal_find(struct restart *r) must_check;
/*
 * A root that led a session on that terminal gets ours as its controlling
 * terminal, but only if we lead the session ourselves: it would be taken from the shell otherwise.
 */
int terminal_restart(struct restart *r, struct error *e) must_check;

#endif
