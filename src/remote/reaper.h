/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_REAPER_H
#define REPRISE_REMOTE_REAPER_H

#include <pthread.h>
#include <stdbool.h>

#include "remote/freeze.h"

/*
 * Private to src/remote. A thread that calls exec holds a lock of its process and
 * waits for the other threads to end. Those that are traced end when their tracer
 * has listened; but the tracer, attaching to one more thread, waits for the lock.
 * The reaper is a thread of ours that listens in its place.
 */
struct reaper {
	bool running, quit;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool ended;
	struct frozen_process *process; /* to a thread of which we attach now; NULL: none */
	unsigned long turn;
};

/* Around each attaching. The thread is started when first needed. */
int reaper_begin(struct reaper *r, struct frozen_process *p, struct error *e) must_check;
/* Returns whether threads of that process have ended meanwhile. */
bool reaper_end(struct reaper *r);
void reaper_stop(struct reaper *r);
/* Listens now. Returns whether threads have ended. */
bool reaper_listen(const struct frozen_process *p);

/*
 * After a thread has gone its process may have called exec, by which another one takes the id of
 * the leader: everything is asked anew. Stops that are still there are reported again.
 */
void freezer_doubt(struct frozen_process *p);

#endif
