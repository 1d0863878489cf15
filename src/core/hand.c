/* SPDX-License-Identifier: Apache-2.0 */
#include "core/hand.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/cleanup.h"

struct hand {
	pthread_t thread;
	int asked, done;      /* eventfd(2) */
	_Atomic int child;    /* a pidfd of who has gone on; -1: not yet */
	int (*fn)(void *arg); /* NULL: nothing more */
	void *arg;
	int result;
	bool running; /* begun, and nobody has waited for it */
	int begun_result;
	void (*last)(void *arg);
	void *last_arg;
};

#define UNTIL_CHILD_MS 1

/* Returns false when the process has ended. */
static bool is_asked(struct hand *h)
{
	for (;;) {
		struct pollfd p[] = {{.fd = h->asked, .events = POLLIN},
				     {.fd = atomic_load(&h->child), .events = POLLIN}};
		const int n = poll(p, 2, p[1].fd < 0 ? UNTIL_CHILD_MS : -1);
		uint64_t count;

		if (n < 0 && errno != EINTR)
			return false;
		if (n <= 0)
			continue;
		if (p[1].revents)
			return false;
		if (read(h->asked, &count, sizeof(count)) == sizeof(count))
			return true;
	}
}

static void post(int fd)
{
	const uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		continue;
}

static void *serve(void *arg)
{
	struct hand *h = arg;

	while (is_asked(h)) {
		if (!h->fn)
			return NULL;
		h->result = h->fn(h->arg);
		post(h->done);
	}
	if (h->last)
		h->last(h->last_arg);
	_exit(0);
}

/* Whoever dies before he can tell is seen by his pidfd. */
static bool has_ended(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) != 0;
}

/* The one before is blocked for signals: nothing of it must run on the stack that is ours now. */
static int go_on(int flags, int *pidfd, struct error *e)
{
	_cleanup_(close_fd) int before = (int)syscall(SYS_pidfd_open, getpid(), 0);
	sigset_t all, mask;
	long r;

	if (before < 0)
		return error_errno(e, -errno, E_SYSTEM, "pidfd_open");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &mask);
	r = arch_go_on(flags | CLONE_VM | CLONE_FILES | CLONE_VFORK | SIGCHLD, pidfd);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (r < 0)
		return error_errno(e, (int)r, E_NAMESPACE, "cannot make a process");
	r = hand_keep_tie(e);
	if (has_ended(before))
		_exit(1);
	return (int)r;
}

int hand_keep_tie(struct error *e)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? error_errno(e, -errno, E_SYSTEM, "prctl") : 0;
}

static void hand_freep(struct hand **at)
{
	struct hand *h = *at;

	if (!h)
		return;
	if (h->thread) {
		h->fn = NULL;
		post(h->asked);
		pthread_join(h->thread, NULL);
	}
	close_fd(&h->asked);
	close_fd(&h->done);
	free(h);
}

int hand_new(struct hand **ret, struct error *e)
{
	_cleanup_(hand_freep) struct hand *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a thread");
	h->child = -1;
	h->asked = eventfd(0, EFD_CLOEXEC);
	h->done = eventfd(0, EFD_CLOEXEC);
	if (h->asked < 0 || h->done < 0)
		return error_errno(e, -errno, E_SYSTEM, "eventfd");
	r = pthread_create(&h->thread, NULL, serve, h);
	if (r) {
		h->thread = 0;
		return error_errno(e, -r, E_SYSTEM, "cannot make a thread");
	}
	r = go_on(CLONE_PIDFD, (int *)&h->child, e);
	if (r < 0)
		return r;
	*ret = take_ptr(&h);
	return 0;
}

int hand_step(struct error *e)
{
	return go_on(0, NULL, e);
}

static void wait_for(struct hand *h)
{
	uint64_t count;

	while (read(h->done, &count, sizeof(count)) < 0 && errno == EINTR)
		continue;
}

static void ask(struct hand *h, int (*fn)(void *arg), void *arg)
{
	h->fn = fn;
	h->arg = arg;
	post(h->asked);
}

/* What was begun is at its end. */
static void settle(struct hand *h)
{
	if (!h->running)
		return;
	wait_for(h);
	h->running = false;
	h->begun_result = h->result;
}

int hand_do(struct hand *h, int (*fn)(void *arg), void *arg)
{
	settle(h);
	ask(h, fn, arg);
	wait_for(h);
	return h->result;
}

void hand_begin(struct hand *h, int (*fn)(void *arg), void *arg)
{
	settle(h);
	ask(h, fn, arg);
	h->running = true;
}

int hand_end(struct hand *h)
{
	settle(h);
	return h->begun_result;
}

void hand_at_end(struct hand *h, void (*fn)(void *arg), void *arg)
{
	h->last_arg = arg;
	h->last = fn;
}
