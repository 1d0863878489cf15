/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CLI_ATTACH_H
#define REPRISE_CLI_ATTACH_H

#include "cli/cli.h"

/*
 * The terminal of a container, and ours: what is typed here goes there, what is written there is
 * shown here, until one of them ends or the user detaches (Ctrl-P Ctrl-Q). Ctrl-C and the like are
 * typed there as well, so that they mean what they mean to the container.
 */
enum attached { ATTACH_ENDED, ATTACH_DETACHED };

/* Complains if standard input is no terminal: -1 to go on, else the exit status. */
int attach_possible(struct cli *cli);
/* The master of the terminal of a container; -1: it has none. */
int attach_master(pid_t init);
/* A new terminal of a container, a negative errno if it cannot be made. */
int attach_new(pid_t init, int *ret_slave);
/* Takes the size of our terminal over. */
void attach_resize(int master);
/* pidfd: of the process whose end is the end. The master is closed. */
enum attached attach(int master, int pidfd);
/* "detached", for the user. */
void attach_say_detached(const struct cli *cli, const char *name);

#endif
