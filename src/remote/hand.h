/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_HAND_H
#define REPRISE_REMOTE_HAND_H

#include "core/error.h"

/*
 * Threads that stay where this process was, with all that it may do there, while the process goes
 * on elsewhere: in other namespaces, as somebody else. Both have the same memory and the same
 * descriptors, so they are simply given functions to call.
 *
 * A process cannot leave itself behind. It goes on as a child that shares its memory, on the same
 * stack, as after vfork(2); the one before never comes back from that call, but waits for the end
 * of the child and ends then. What stays is another thread of it, with a stack of its own.
 */
struct hand;

/*
 * From here on this process is another one, a child of the one before, and ends with it. It has one
 * thread. The hand ends with it, after what hand_at_end() says, and is never freed.
 */
int hand_new(struct hand **ret, struct error *e) must_check;
/*
 * The other way round: this process stays what it is, and the hand is a child of it, that ends with
 * it. To be called while there is one thread. Afterwards hand_end_child(), also where it has
 * failed.
 */
int hand_new_child(struct hand **ret, struct error *e) must_check;
void hand_end_child(struct hand *h); /* accepts NULL */
/* One more such step, as a pid namespace takes it that was entered for children (setns(2)). */
int hand_step(struct error *e) must_check;
/* What ends us with the one before is forgotten when credentials change (commit_creds()). */
int hand_keep_tie(struct error *e) must_check;

/* Calls the function in the hand, and waits for it. From one thread at a time. */
int hand_do(struct hand *h, int (*fn)(void *arg), void *arg);
/* In another thread of it, while the first may wait for something. From one thread at a time. */
int hand_do_beside(struct hand *h, int (*fn)(void *arg), void *arg);
/* As hand_do(), beside what the caller goes on with; whoever asks for something else waits for it.
 * One at a time. */
void hand_begin(struct hand *h, int (*fn)(void *arg), void *arg);
/* Waits for it: what it returned. */
int hand_end(struct hand *h);
/* Called in the hand when the process has ended. What arg points to is never freed. */
void hand_at_end(struct hand *h, void (*fn)(void *arg), void *arg);

#endif
