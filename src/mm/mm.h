/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_MM_H
#define REPRISE_MM_MM_H

#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * Address spaces, as src/operation sees them.
 */

struct mm_tracks;

int mm_checkpoint_begin(struct checkpoint *c, struct error *e) must_check;
/*
 * Waits until no request of asynchronous I/O is in flight. Everybody is stopped, and nothing is
 * saved yet: what comes of one may be memory, the count of an eventfd, the contents of a file.
 */
int mm_checkpoint_drain(struct checkpoint *c, struct error *e) must_check;
void mm_checkpoint_end(struct checkpoint *c);
/*
 * Layout, page map and fields of the address space of p->mm (object id given by
 * the caller, who knows by kcmp who shares it): refuses what cannot be saved; when not checking,
 * writes the record. While checking it reads /proc only.
 */
int mm_checkpoint(struct checkpoint *c, struct checkpoint_process *p, struct error *e) must_check;
/*
 * Reads the mappings of a process in advance of mm_checkpoint(), into *p. May be called by any one
 * thread, for one process after the other; calls must not be executed in the process meanwhile.
 */
void mm_look(struct checkpoint *c, struct checkpoint_process *p);
void mm_look_free(struct checkpoint_process *p);
/*
 * Memory that is registered with a userfaultfd, of all address spaces that have been looked at;
 * NULL past the last.
 */
struct mm_registered {
	pid_t tid; /* a task that has it */
	uint64_t start, end;
	bool missing, protect; /* what is told to the userfaultfd */
};
const struct mm_registered *mm_registered(const struct checkpoint *c, size_t i);
/* How much private memory the address spaces hold that have at least so much, when all have been
 * looked at. */
uint64_t mm_anonymous_bytes(const struct checkpoint *c, uint64_t least);
/* And how much of that is in mappings that no track covers. */
uint64_t mm_untracked_bytes(const struct checkpoint *c, uint64_t least);
/* In the freeze, when all has been looked at: mappings that are not tracked yet. */
int mm_track_new(struct checkpoint *c, struct error *e) must_check;
/* While it runs: reads as much of the memory of a process as if it were to be kept, into the caches
 * of this processor. */
void mm_rehearse(const struct checkpoint *c, pid_t pid, size_t most);
/* Requests of asynchronous I/O write to memory without being seen by what tracks it (mm/track.h).
 */
bool mm_pins_pages(const struct checkpoint *c);
/* Copies in advance were compared with what these are in the parent of the image. */
int mm_put_parents(struct checkpoint *c, struct error *e) must_check;
/* What was copied in advance is of no use. */
void mm_forget_kept(struct checkpoint *c);
/*
 * Between the records and the thaw: finds pages shared copy-on-write between relatives, decides
 * stages (doc/design.md), and puts the RECORD_MM records.
 */
int mm_checkpoint_finish(struct checkpoint *c, struct error *e) must_check;
/*
 * Puts all contents into c->store, but for those that are in it already, so that the tasks can go
 * on before mm_save_pages(); and how many bytes that will be.
 */
int mm_keep_pages(struct checkpoint *c, struct error *e) must_check;
uint64_t mm_unkept_bytes(const struct checkpoint *c);
/*
 * Where much of an address space is left to be read, that can be done when the tasks run again:
 * from a copy that fork makes of it. Makes such copies, before mm_keep_pages(), which leaves out
 * what they have, and tells of how many bytes. What cannot be copied so is read as ever; an error
 * is only that a task could not be given back what it had lent. Then,
 * after the thaw: reads, and ends the copies. -EAGAIN: one has ended before, all has to be done
 * again with c->no_copies set.
 */
int mm_make_copies(struct checkpoint *c, struct agent_found *found, uint64_t *ret,
		   struct error *e) must_check;
int mm_read_copies(struct checkpoint *c, struct error *e) must_check;
/*
 * After the thaw: are the flags of mappings those that were taken for granted in the freeze?
 * -EAGAIN: not so, all has to be done again with c->exact set.
 */
int mm_confirm(struct checkpoint *c, struct error *e) must_check;
/* Bytes of page contents to come; then the page groups, in the order in which a restart takes them.
 * Tasks are stopped, unless all is kept. */
uint64_t mm_page_bytes(struct checkpoint *c);
int mm_save_pages(struct checkpoint *c, struct error *e) must_check;

int mm_restart_validate(const struct restart *r, struct error *e) must_check;
int mm_restart_begin(struct restart *r, struct error *e) must_check;
void mm_restart_end(struct restart *r);
/* Chooses r->agent_at: AGENT_SIZE bytes that are free in every address space of the image and in
 * ours. */
int mm_restart_choose_agent(struct restart *r, struct error *e) must_check;
/*
 * Makes of a stub, whose agent that is, a 32-bit or a 64-bit program by executing one.
 * Nothing but the agent is left of its address space then; its table of descriptors is its own.
 */
int mm_restart_program(struct restart *r, pid_t pid, struct agent *a, bool compat,
		       struct error *e) must_check;
bool mm_restart_is_compat(const struct restart *r, const struct agent *a);
/*
 * Turns the address space that p's first task has now (a copy of ours, or of its parent's) into the
 * one that was saved: mappings, vDSO. Then fills pages stage by stage: mm_restart_fill(stage)
 * before each child that inherits copy-on-write pages, the last after all. What would hinder
 * forking or filling (DONTFORK, locks, seals, prctl fields, exe link) comes in mm_restart_finish().
 */
/* Leaves nothing but the agent, so that what is forked from a stub that waits for its own build
 * costs little. Optional. */
int mm_restart_empty(struct restart *r, struct restart_process *p, struct error *e) must_check;
int mm_restart_build(struct restart *r, struct restart_process *p, struct error *e) must_check;
int mm_restart_fill(struct restart *r, struct restart_process *p, uint32_t stage,
		    struct error *e) must_check;
int mm_restart_finish(struct restart *r, struct restart_process *p, struct error *e) must_check;
/*
 * With r->lazy, most private memory is not filled by mm_restart_fill() but by a process of its own
 * (doc/design.md), once the tasks run: can that be done here? Then, when all processes have been
 * made: starts that process, which says by `messages` why it has ended the tasks if it has to
 * (-1: nobody listens); waits until it is ready; and, when they run, tells it so.
 */
/* Memory of a restarted tree with that root may still be on its way: waits until it is there. */
void mm_lazy_wait(int proc_fd, pid_t pid);
int mm_lazy_possible(struct restart *r, struct error *e) must_check;
int mm_lazy_serve(struct restart *r, int messages, struct error *e) must_check;
int mm_lazy_ready(struct restart *r, struct error *e) must_check;
void mm_lazy_go(struct restart *r);
/* Does this process inherit pages from its parent, so that it has to be forked after the parent's
 * stage *ret_stage? */
bool mm_restart_inherits(const struct restart *r, const struct restart_process *p,
			 uint32_t *ret_stage);
uint32_t mm_restart_last_stage(const struct restart *r, const struct restart_process *p);

#endif
