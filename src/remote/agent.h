/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_AGENT_H
#define REPRISE_REMOTE_AGENT_H

#include "arch/arch.h"
#include "arch/wire.h"
#include "remote/batch.h"

/*
 * Private to src/remote. The mapping of an agent: one page of code, then from
 * AGENT_HEADER_AT the header, the calls and the data of the batch that is run.
 */
struct slot {
	uint64_t mark; /* by which the next one knows that it is nobody's; 0: none */
	uint64_t at;   /* of the word that the last `return` takes */
	uint64_t end;
	size_t used;   /* how much of it was ever written */
	uint8_t *kept; /* its contents: it lies right below a stack pointer. NULL: all zero */
};

/* A thread while it is borrowed. */
struct borrowed {
	struct agent *a;
	pid_t tid;
	const struct cpu_state *saved;
	bool filtered;	   /* by seccomp */
	uint64_t mask;	   /* while it is borrowed */
	bool entered;	   /* registers or mask are not its own */
	unsigned int side; /* where its frames are */
	struct slot own;   /* or else it has them here */
	struct trace_stop stop;
	int lent;	 /* a signal that ends a batch though the application blocks it; 0: none */
	siginfo_t guest; /* one of these that came from elsewhere meanwhile; si_signo 0: none */
};

/* What a thread is doing for us while nobody waits for it. */
enum errand { ERRAND_NONE, ERRAND_MAP, ERRAND_UNMAP };

struct agent {
	bool live;
	pid_t tid;	  /* whose address space it is */
	uint64_t mapping; /* 0: none */

	/* the rest for a live one only */
	int proc_fd;
	const struct cpu_state *saved; /* of tid */
	struct arch_gadgets gadgets;
	struct slot slot;   /* where signal frame and, without a mapping, data stand */
	uint64_t patched;   /* where gadgets had to be placed, 0: nowhere */
	uint64_t hole;	    /* where the mapping will be, 0: wherever the kernel likes */
	uint64_t ignorable; /* signals that the process ignores, by choice or by default */
	uint64_t seccomp;   /* mode of tid, 0: none */
	pid_t unfiltered;   /* a thread without seccomp filters and system call dispatch */
	/*
	 * The thread that takes the mapping away if we die: it stays where its next step is that
	 * munmap(). tid 0: there is none.
	 */
	struct borrowed keeper;
	uint64_t leave; /* frames of calls: see live_private.h; 0: no room for them */
	bool abandoned; /* a thread could not be brought back: it goes on by itself */
	uint64_t undo;	/* the frame of a call that undoes something and comes first; 0: none */
	pid_t own_pid;	/* of the process, in its own pid namespace; 0: not known */
	enum errand errand;
	struct borrowed sent;	      /* on that errand */
	void (*meanwhile)(void *arg); /* to be called while the next batch runs, or NULL */
	void *meanwhile_arg;
	pid_t last_tid; /* another one that was borrowed, in case tid dies */
	const struct cpu_state *last_saved;
};

#define AGENT_ROOM    (AGENT_SIZE - AGENT_HEADER_AT - WIRE_HEADER_SIZE) /* for calls and data */
#define SIGNAL_BIT(s) (1ULL << ((s)-1))

#define IGNORED_BY_DEFAULT (SIGNAL_BIT(SIGURG) | SIGNAL_BIT(SIGWINCH) | SIGNAL_BIT(SIGCHLD))

/* Signals by which a fault in the code itself is reported: blocking them would change their
 * actions. */
#define FAULT_SIGNALS                                                                         \
	(SIGNAL_BIT(SIGSEGV) | SIGNAL_BIT(SIGBUS) | SIGNAL_BIT(SIGILL) | SIGNAL_BIT(SIGFPE) | \
	 SIGNAL_BIT(SIGTRAP) | SIGNAL_BIT(SIGSYS))

/* batch.c */

/* Ready to be sent: nothing failed, results preset, pointers resolved for data at `data_at`. */
int batch_prepare(struct batch *b, uint64_t data_at, struct error *e) must_check;

/* agent.c */

/* Where the data of the batch will be, 16-byte aligned, in a mapping. */
uint64_t agent_data_at(const struct agent *a, const struct batch *b);
int agent_load(const struct agent *a, pid_t tid, struct batch *b, struct agent_header *h,
	       struct error *e) must_check;
int agent_unload(const struct agent *a, pid_t tid, struct batch *b, struct error *e) must_check;
uint64_t agent_raised_at(const struct agent *a);
/* The signals that are pending for the thread or its process, as bits. */
int agent_pending(pid_t tid, uint64_t *ret, struct error *e) must_check;

/* captive.c, live.c */
int captive_run(struct agent *a, pid_t tid, struct batch *b, struct error *e) must_check;
/* One call at the agent's own `syscall`. */
int captive_call(const struct agent *a, pid_t tid, long nr, const uint64_t args[6], long *ret,
		 struct error *e) must_check;
int live_run(struct agent *a, pid_t tid, const struct cpu_state *saved, struct batch *b,
	     struct error *e) must_check;
long live_syscall(struct agent *a, pid_t tid, const struct cpu_state *saved, struct error *e,
		  long nr, const uint64_t args[6]) must_check;
int live_return(struct agent *a, struct error *e) must_check;

/* text.c: looks through the code of the task, first at `likely`. *patched: where it had to be
 * placed, else 0. */
struct maps;
int text_find_gadgets(int proc_fd, pid_t tid, struct maps *maps, bool compat,
		      const struct arch_gadgets *likely, struct arch_gadgets *ret,
		      uint64_t *patched, struct error *e) must_check;
void text_unpatch(int proc_fd, pid_t tid, uint64_t patched);

/* slot.c: memory that the application does not use, of at least `size` bytes. */
int slot_find(int proc_fd, pid_t tid, uint64_t sp, struct maps *maps, size_t size, struct slot *ret,
	      struct error *e) must_check;
/* Right below a stack pointer, of which nothing is known. */
int slot_below(pid_t tid, uint64_t sp, size_t size, struct slot *ret, struct error *e) must_check;
int slot_clear(const struct slot *s, pid_t tid, struct error *e) must_check;
void slot_free(struct slot *s);

#endif
