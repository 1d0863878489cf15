/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_LAZY_H
#define REPRISE_MM_LAZY_H

#include <pthread.h>
#include <stdatomic.h>

#include "mm/lazy_missing.h"
#include "mm/vma.h"
#include "model/restart.h"

/*
 * Memory that is filled while the tasks run already (doc/design.md, Memory that follows).
 *
 * lazy.c		in the restart: what is filled later, and registering it
 * lazy_helper.c	what takes more rights than there are in a user namespace
 * lazy_missing.c	what an address space lacks
 * lazy_space.c		one address space: putting pages into it, and what becomes of it
 * lazy_server.c	the process that serves faults, and fills the rest in the background
 * lazy_work.c		its threads
 * lazy_keeper.c	a second one, which sees to it that no page can be taken for empty
 */

/* ---- dividing the pages of an address space (lazy.c) ---- */

struct lazy_share {
	struct span_vec now, later; /* sorted; together all pages of the stage */
	uint64_t bytes;		    /* in `later` */
};
/* Nothing is left for later unless this is the last stage, and r->lazy. */
int lazy_divide(struct restart *r, struct restart_process *p, uint32_t stage,
		struct lazy_share *ret, struct error *e) must_check;
void lazy_share_free(struct lazy_share *s);
/* How many of the bytes from an address on are all to be filled now, or all later. */
size_t lazy_part(const struct lazy_share *s, uint64_t address, size_t len, bool *ret_later);
/* As image_when. */
int lazy_when(const struct lazy_share *s, uint64_t first, uint64_t end);
void lazy_end(struct restart *r);

/* All that is to be told by a userfaultfd. */
int lazy_begin(int fd) must_check;

/* ---- a process that stays outside (lazy_helper.c) ---- */

struct mm_restart;
#define LAZY_ASK_EVENTS 'E' /* lazy_begin() */
#define LAZY_ASK_LISTEN 'L'
#define LAZY_WAITING	64 /* checkpoints */

/* Before namespaces are entered. */
int lazy_help_begin(struct mm_restart *mm) must_check;
int lazy_help(const struct mm_restart *mm, char what, int fd) must_check;
void lazy_help_end(struct mm_restart *mm);

/* ---- an address space that lacks pages (lazy_space.c) ---- */

struct lazy_space {
	uint64_t object;
	pid_t pid;  /* of a process that had it in the beginning; 0: of one that was forked later */
	int uffd;   /* -EBADF: it lacks nothing, or has gone */
	bool moved; /* by mremap(): contents do not stand at their addresses any more */
	/*
	 * Held for reading while pages are put into place, for writing while it is read what the
	 * application has done to its mappings: no page comes late to where it does not belong any
	 * more. For until that is read, the kernel accepts none (mmap_changing, EAGAIN).
	 */
	pthread_rwlock_t changing;
	pthread_mutex_t lock; /* of missing */
	struct missing_vec missing;
};

struct lazy_space *lazy_space_new(uint64_t object, pid_t pid);
void lazy_space_free(struct lazy_space *s);
/* It lacks nothing any more, or is gone: memory is as any other. */
void lazy_space_close(struct lazy_space *s);

/* Told what happens in it: a page is waited for, or a process has been forked. */
struct lazy_events {
	int (*fault)(void *arg, struct lazy_space *s, uint64_t address);
	int (*forked)(void *arg, struct lazy_space *child);
	void *arg;
};
/* Takes in all that has happened by now. -ENOMEM. */
int lazy_space_read(struct lazy_space *s, const struct lazy_events *events) must_check;
/*
 * Puts a run of pages, as it stands in the image, where they are missing; data == NULL: they are
 * zero, and left to be touched. -EAGAIN: read first, and do it again. -ENOMEM.
 */
int lazy_space_put(struct lazy_space *s, uint64_t source, const uint8_t *data,
		   size_t len) must_check;
/* Does it lack anything that stands there in the image? */
bool lazy_space_lacks(struct lazy_space *s, uint64_t source, uint64_t end);
bool lazy_space_complete(struct lazy_space *s);
/* Where in the image the page is; MISSING_NOTHING: it is to be zero. */
uint64_t lazy_space_source(struct lazy_space *s, uint64_t address);
/* A zero page where there is none to be had. -EAGAIN as above. */
int lazy_space_zero(struct lazy_space *s, uint64_t address) must_check;

/* ---- the processes ---- */

struct lazy_start {
	struct restart *r;
	int messages; /* -1: nobody listens */
	int go;	      /* tells that the tasks run; its end, that the restart has failed */
};
/* Does not return. */
void lazy_server_run(const struct lazy_start *start) __attribute__((noreturn));

/* What the two processes share. */
struct lazy_shared {
	atomic_int over; /* all memory is filled, or nobody needs it any more */
};
struct lazy_task {
	pid_t pid;
	int pidfd;
};
struct lazy_keeper {
	struct lazy_shared *shared;
	int proc_fd, messages, server; /* a pidfd */
	const struct lazy_task *tasks; /* those that were restarted */
	size_t n;
};
/* Made by the server, whose descriptors it shares. Returns a pidfd. */
int lazy_keeper_start(const struct lazy_keeper *k) must_check;
/* Says why, to whoever listens and in the log of the kernel. */
void lazy_tell(int messages, const struct error *e);
/* Ends the tasks and all that they have made. */
void lazy_kill(int proc_fd, const struct lazy_task *tasks, size_t n);
/*
 * Whoever still waits for a page gets SIGBUS, until no address space is left: nothing that is
 * missing may be taken for empty memory.
 */
void lazy_poison(int proc_fd);

#endif
