/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_TIMENS_H
#define REPRISE_NS_TIMENS_H

#include "model/checkpoint.h"
#include "model/restart.h"
#include "core/scratch.h"
#include "ns.pb-c.h"

/*
 * Time namespaces: their clocks go on from where they were at the checkpoint, so that points in
 * time that tasks know stay what they were, whatever the clocks of the machine show.
 */

/* By how much its clocks are ahead of the machine's. tid: whose children are born in it; 0: it is
 * that of the descriptor ns, and nobody's children are. */
int timens_checkpoint(int proc_fd, pid_t tid, int ns, Reprise__Container *msg, struct scratch *s,
		      struct error *e) must_check;
/* Have its clocks been settled, so that nobody can set them any more? Of one that is frozen. */
int timens_has_begun(int proc_fd, pid_t tid, const Reprise__TimeOffsets *msg, bool *ret,
		     struct error *e) must_check;
/* The clocks of the machine, by which those are told: when all times left have been asked for. */
int timens_checkpoint_clocks(struct checkpoint *c, struct error *e) must_check;

int timens_validate(const struct restart *r, const Reprise__Container *msg,
		    struct error *e) must_check;
/* A new one: a descriptor. */
int timens_restart(struct restart *r, const Reprise__Container *msg, struct error *e) must_check;
/* That of the next children of a task, which has just made it. */
int timens_set(struct restart *r, pid_t tid, const Reprise__TimeOffsets *msg,
	       struct error *e) must_check;

/*
 * What unshare() makes is for the next child, which is born there, and not for the caller. There is
 * no other way to it (timens_install() changes both): so the task makes it again itself, and others
 * that are in it follow. Otherwise it is one of the namespaces of spaces.h.
 */

/* clocks: the number of its own. *ret: 0 is its own. */
int timens_next_look(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		     uint64_t clocks, uint64_t *ret, struct error *e) must_check;
/* All of them are known, and who owns them: can they be made again? */
int timens_next_check(struct checkpoint *c, struct error *e) must_check;
bool timens_is_next(const struct checkpoint *c, uint64_t id);
/* A task whose children are born there; 0: there is none. */
pid_t timens_teller(const struct checkpoint *c, uint64_t id);

int timens_next_validate(const struct restart *r, const struct restart_process *p,
			 struct error *e) must_check;
/* Is it one that a task makes? */
bool timens_next_makes(const struct restart *r, uint64_t id);
/* A task makes it; not before all tasks are there (late), if nobody else needs it. */
int timens_next_make(struct restart *r, struct restart_task *t, bool late,
		     struct error *e) must_check;

#endif
