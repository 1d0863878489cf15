/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_PASS_H
#define REPRISE_OPERATION_PASS_H

#include "core/kernel_memory.h"
#include "fs/inode.h"
#include "image/store.h"
#include "kernel/process.h"
#include "mm/track.h"
#include "mm/vdso.h"
#include "model/checkpoint.h"
#include "model/reserve.h"
#include "ns/container.h"
#include "operation/operation.h"

/*
 * What a check and a checkpoint have in common: they look at the same tree by the
 * same code, the one while it runs and only so, the other when it stands still.
 */
/* One pass over a tree: a check that only looks, or the checkpoint itself. */
struct pass {
	struct checkpoint c;
	struct process_index index;
	struct agent_found found, found_ahead; /* each by one thread only */
	struct ahead *helper; /* who looks ahead, or will do so; NULL: nobody yet */
	struct report *rep;
	char *cpu_flags;
	struct mm_vdso vdso;
	struct container *container; /* the caller's */
	struct mm_tracks tracks;
	uint64_t max_freeze; /* ns; 0: no limit */
	uint64_t frozen;     /* when the freeze began */
	bool layers_saved;   /* they, and the state before them, are in the image */
	uint64_t who;	     /* was there when memory was copied in advance */
	int *hold;	     /* the subject's */
	uint64_t later;	     /* bytes that are read from copies: mm_make_copies() */
	struct checkpoint_process *overlapped; /* that executes something */
	struct checkpoint_process *leaving;    /* whose agent is on its way out, or NULL */
	struct error meanwhile;		       /* of what was done while another one ran */
};

/* What is to be saved, and what is known of it in advance. */
struct subject {
	struct container ct;
	int hold; /* see hold.h */
	struct page_store
		*store; /* opened before a container is entered; NULL: is to end or to stop */
	struct page_chain *parents; /* of an incremental image, or NULL */
	struct same_keys *same;
	const char *parent_name;
	struct kernel_memory *kernel; /* if somebody has to look there: opened while all runs */
	struct bpf_known *programs;   /* that have been found so far; may be NULL */
	uint64_t anonymous;	      /* bytes of private memory, of what has much */
	struct memory_objects shared; /* memory that stands for itself, of which there is much */
	uint64_t shared_bytes;	      /* of it */
	size_t tasks, descriptors;    /* threads; in all tables */
	bool filtered;		      /* a task has seccomp filters */
	bool pins;		      /* see pass_pins_pages() */
	bool pipes;		      /* it has some */
	bool faults;		      /* it may register memory with a userfaultfd at any time */
	uint64_t untracked;	      /* of these, what `tracks` do not cover */
	uint64_t who;		      /* which processes there are: precopy_who() */
	struct mm_tracks surveyed;    /* mappings of what has no track yet */
	struct mm_tracks tracks;      /* that last since the checkpoint before, or are to last */
	uint64_t state;		      /* bytes of records, as a guess */
	struct reserve reserve;	      /* for the image */
	bool exact;		      /* see struct checkpoint */
	bool has_origin;
	struct image_key origin; /* of this machine */
};

void subject_free(struct subject *s);

/* The context of a pass over the tree of `pid`; nothing is looked at yet. */
int pass_begin(struct pass *p, pid_t pid, struct container *ct, struct report *rep, bool checking,
	       const struct reprise_checkpoint_options *opt, struct error *e) must_check;
void pass_end(struct pass *p);
/* One entry for each process of the freezer, in its order. */
int pass_list(struct pass *p, struct error *e) must_check;
/* What takes time and is not needed before so many tasks stand still. */
void pass_prepare(struct pass *p, size_t tasks);
/* Of the list the first process is borrowed. */
int pass_begin_first(struct pass *p, struct error *e) must_check;
/* Begins to look at the processes of the list, ahead of those who need it; not if that is not worth
 * it. */
void pass_look_ahead(struct pass *p);
/* Whoever does not answer a look at the tasks, from now on or (false) no longer, is waited for in
 * vain: see operation/stall.h. */
void pass_awake(const struct pass *p, bool awake);
/* To be called before a process is looked at, and before calls are executed in it. */
void pass_await(struct pass *p, const struct checkpoint_process *cp);
/*
 * To map an agent and to unmap it takes a task some time, in which there is something to do for
 * others: while `cp` executes what it is asked, the next one begins and the one before it ends; or,
 * if there is no thread that looks ahead, its own mappings are read.
 * pass_leave() lets go of what pass_join() waits for.
 */
void pass_overlap(struct pass *p, struct checkpoint_process *cp);
int pass_leave(struct pass *p, struct checkpoint_process *cp, struct error *e) must_check;
int pass_join(struct pass *p, struct error *e) must_check;
/* Does the kernel hold pages of the tree for input and output, past its page tables? */
bool pass_pins_pages(const struct checkpoint *c);

/*
 * Looks at the tree without touching it, and reports what would be refused. Returns the number of
 * problems, the first of which is *first. Fills in what a checkpoint wants to know of *s in
 * advance.
 */
int pass_look(pid_t pid, struct subject *s, const struct reprise_checkpoint_options *opt,
	      struct report *rep, struct error *first, struct error *e) must_check;

#endif
