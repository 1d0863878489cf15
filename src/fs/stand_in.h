/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_STAND_IN_H
#define REPRISE_FS_STAND_IN_H

#include <sys/types.h>

#include "model/restart.h"

/*
 * A process that has ended, for what refers to one that has gone: born in the pid namespace of the
 * tree, where the tasks can name it, and a zombie of ours, with its files in /proc, until
 * stand_in_end(). There is no SIGCHLD for it.
 *
 * status: how it ends, as wait(2) tells it; not by a signal that stops. wanted: the number that
 * it has in the tree if that is free and may be chosen, 0: any. Returns its pid as we see it, or a
 * negative errno.
 */
pid_t stand_in_begin(const struct restart *r, int status, pid_t wanted) must_check;
/*
 * The same of one that lives, as a copy of this process, until `live` returns or this process ends
 * what it waits for. wanted: no other number will do. No other thread of ours may be in the middle
 * of something (malloc(3)).
 */
pid_t stand_in_live(const struct restart *r, pid_t wanted, void (*live)(void *arg),
		    void *arg) must_check;
void stand_in_end(pid_t pid);

#endif
