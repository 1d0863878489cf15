/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_SURVEY_H
#define REPRISE_REMOTE_SURVEY_H

#include "remote/freeze.h"

/* Private to src/remote: what freeze.c, survey.c and sleep.c share. */

/* A set of small positive numbers, each with a value. */
struct tid_map {
	struct {
		pid_t tid;
		uint32_t value;
	} * v;
	size_t n, size;
};

/* Adds; false if it is there already. On -ENOMEM too, which *ret tells. */
int tid_map_add(struct tid_map *m, pid_t tid,
		uint32_t value) must_check; /* 1 added, 0 known, -ENOMEM */
bool tid_map_find(const struct tid_map *m, pid_t tid, uint32_t *ret);
void tid_map_free(struct tid_map *m);

/* Walks the tree into now->processes, which is empty. */
int survey_walk(struct freezer *now, struct error *e) must_check;
void survey_free(struct freezer *f);
/*
 * Is this thread one of the kernel's own, which io_uring makes inside of a process? Then it is left
 * out from the next walk on. Returns 1, 0 or -ENOMEM.
 */
int freezer_note_worker(struct freezer *f, pid_t pid, pid_t tid) must_check;

/* seize.c */

#define for_each_thread(f, p, t)          \
	vec_for_each (p, &(f)->processes) \
		vec_for_each (t, &(p)->threads)

int freezer_timeout_ms(const struct freezer *f);
struct sched_clocks;
/* Asks all that are not ours yet to stop. Returns how many there were, even if they have ended. */
int seize_new(struct freezer *f, struct sched_clocks *clocks, struct error *e) must_check;
/* Returns whether all came to their stop; some may have ended, or had to be let go again. */
int seize_wait(struct freezer *f, struct error *e) must_check;
void thread_forget_stop(struct frozen_thread *t);
void thread_let_go(const struct freezer *f, pid_t pid, struct frozen_thread *t);

/* vfork.c */

/* Could a thread that sleeps in this system call wait in vfork()? */
bool vfork_is_call(long nr);
/* Does it, and can it be read although it does not stop? */
bool vfork_holds(struct freezer *f, pid_t pid, pid_t tid);
/*
 * Is it to be taken as it is? Most waits end within a moment, and what can be told of a thread
 * that has signals pending is not enough: that one is given more time.
 */
bool vfork_lasts(const struct freezer *f, pid_t pid, struct frozen_thread *t);
/* Fills in what is known of such a thread; the child for which it waits has been read before. */
int vfork_save(struct freezer *f, const struct frozen_process *p, struct frozen_thread *t,
	       struct error *e) must_check;

/* sleep.c */

/* The clock of /proc/PID/sched on one processor, against CLOCK_MONOTONIC. */
struct sched_clock {
	int cpu;
	int64_t offset;
};
struct sched_clocks {
	VEC(struct sched_clock) clocks;
};

uint64_t monotonic_ns(void);
/*
 * Where a running tree's thread sleeps, and since when, for calls with a time-out. Returns the
 * number of the system call of its own in which it sleeps, as threads of the kernel never do;
 * -1 for none.
 */
long sleep_observe(int proc_fd, pid_t pid, struct frozen_thread *t, struct sched_clocks *clocks);
/* Waits a moment for a thread that runs to fall asleep, and sees where. */
void sleep_await(int proc_fd, pid_t pid, struct frozen_thread *t);
/* After the stop: forgets what was observed if the thread has run in between. */
void sleep_confirm(int proc_fd, pid_t pid, struct frozen_thread *t);
/* reissue.c */

/*
 * As soon as a thread stands: if we go away before more is done about it, or give up, no call
 * has failed. Touches registers only, since it may be about to come back from an exec. The next
 * function takes it back first.
 */
void sleep_reissue(const struct freezer *f, pid_t pid, struct frozen_thread *t);
/* Before it goes on: a handler that is to run now makes the call fail after all. */
void sleep_release(const struct freezer *f, pid_t pid, struct frozen_thread *t);
/*
 * Undoes what the stop itself did to the call in progress, in t->cpu; *changed
 * tells whether the registers have to be written.
 */
int sleep_undo_stop(const struct freezer *f, pid_t pid, struct frozen_thread *t, bool *changed,
		    struct error *e) must_check;

/* earlier.c: what was found out in the last freeze of the same tree. */
int earlier_note(struct freezer *f) must_check;
void earlier_apply(const struct freezer *f, struct frozen_thread *t);

#endif
