/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_CALLS_H
#define REPRISE_MM_CALLS_H

#include "core/vec.h"
#include "model/restart.h"

/*
 * A list of calls in one task of which every one has to succeed (or to fail in the one way that is
 * expected), and whose failure is told with the range of memory that it was about. Run in batches
 * of bearable size.
 */
struct call_note {
	int call;
	const char *what;    /* for the message: "mmap" */
	uint64_t start, end; /* of the mapping; 0 if it is not about one */
	bool exact;	     /* must return `start` */
	int allowed;	     /* a negative errno that is no failure, 0 none */
};

struct calls {
	struct restart *r;
	struct restart_process *p;
	struct batch batch;
	VEC(struct call_note) notes;
	int failed; /* -ENOMEM while adding */
};

/* A call that must succeed. Out of memory is remembered until calls_run(). */
#define calls_add(c, what, start, end, nr, ...) \
	calls_note((c), (what), (start), (end), 0, batch_call(&(c)->batch, (nr), __VA_ARGS__))
/* One that may also fail with `allowed`, a negative errno. */
#define calls_try(c, what, start, end, allowed, nr, ...)   \
	calls_note((c), (what), (start), (end), (allowed), \
		   batch_call(&(c)->batch, (nr), __VA_ARGS__))
/* One that must return `start` exactly. */
#define calls_place(c, what, start, end, nr, ...) \
	calls_exact((c), (what), (start), (end), batch_call(&(c)->batch, (nr), __VA_ARGS__))
void calls_note(struct calls *c, const char *what, uint64_t start, uint64_t end, int allowed,
		int call);
void calls_exact(struct calls *c, const char *what, uint64_t start, uint64_t end, int call);
/* Runs what has been added, if there are many by now. */
int calls_bound(struct calls *c, struct error *e) must_check;
int calls_run(struct calls *c, struct error *e) must_check;
void calls_free(struct calls *c);

#endif
