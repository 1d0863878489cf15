/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/reaper.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "remote/tracer.h"

#define PATIENCE_NS 10000000 /* that an attaching may take before we look */

/* A wait that asks for ends alone takes the stops of tracees as well: so we look first. */
static bool take_end(pid_t tid)
{
	siginfo_t info = {};

	if (tracer_waitid_beside(tid, &info, WEXITED | WSTOPPED | WNOWAIT | WNOHANG | __WALL) < 0 ||
	    !info.si_pid ||
	    (info.si_code != CLD_EXITED && info.si_code != CLD_KILLED &&
	     info.si_code != CLD_DUMPED))
		return false;
	return tracer_waitpid_beside(tid, NULL, WNOHANG | __WALL) == tid;
}

/* Any thread of ours may wait for a tracee. The end of the leader is not waited for by its exec. */
bool reaper_listen(const struct frozen_process *p)
{
	bool ended = false;

	for (size_t i = 0; i < p->threads.n; i++) {
		const struct frozen_thread *t = &p->threads.v[i];

		if (t->attached && t->tid != p->pid && take_end(t->tid))
			ended = true;
	}
	return ended;
}

static void *reap(void *arg)
{
	struct reaper *r = arg;

	pthread_mutex_lock(&r->lock);
	while (!r->quit) {
		unsigned long turn = r->turn;
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += PATIENCE_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&r->wake, &r->lock, &until);
		if (!r->quit && r->process && r->turn == turn && reaper_listen(r->process))
			r->ended = true;
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static int start(struct reaper *r, struct error *e)
{
	pthread_condattr_t attr;
	sigset_t all, before;
	int err;

	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->wake, &attr);
	pthread_condattr_destroy(&attr);
	/* Signals of the program that uses us are not for this thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&r->thread, NULL, reap, r);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return error_errno(e, -err, E_SYSTEM, "cannot start a thread");
	r->running = true;
	return 0;
}

int reaper_begin(struct reaper *r, struct frozen_process *p, struct error *e)
{
	/* A single thread has no other that it could wait for. */
	if (p->threads.n < 2)
		return 0;
	if (!r->running) {
		int err = start(r, e);

		if (err < 0)
			return err;
	}
	pthread_mutex_lock(&r->lock);
	r->process = p;
	r->ended = false;
	r->turn++;
	pthread_mutex_unlock(&r->lock);
	return 0;
}

bool reaper_end(struct reaper *r)
{
	bool ended;

	if (!r->running)
		return false;
	pthread_mutex_lock(&r->lock);
	r->process = NULL;
	ended = r->ended;
	pthread_mutex_unlock(&r->lock);
	return ended;
}

void reaper_stop(struct reaper *r)
{
	if (!r->running)
		return;
	pthread_mutex_lock(&r->lock);
	r->quit = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->wake);
	*r = (struct reaper){};
}
