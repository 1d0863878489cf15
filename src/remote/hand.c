/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/hand.h"

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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/cleanup.h"

struct finger {
	struct hand *hand;
	pthread_t thread;
	_Atomic pid_t tid;
	int asked, done;      /* eventfd(2) */
	int (*fn)(void *arg); /* NULL: nothing more */
	void *arg;
	int result;
};

struct hand {
	struct finger first, beside;
	_Atomic int child; /* a pidfd of who has gone on; -1: not yet */
	int stayed;	   /* one of who has stayed, if that is a child; or -1 */
	bool running;	   /* begun, and nobody has waited for it */
	int begun_result;
	void (*last)(void *arg);
	void *last_arg;
};

#define UNTIL_CHILD_MS 1
#define PAUSE_NS       50000

/* Returns false when the process has ended. */
static bool is_asked(struct finger *f)
{
	for (;;) {
		struct pollfd p[] = {{.fd = f->asked, .events = POLLIN},
				     {.fd = atomic_load(&f->hand->child), .events = POLLIN}};
		const int n = poll(p, 2, p[1].fd < 0 ? UNTIL_CHILD_MS : -1);
		uint64_t count;

		if (n < 0 && errno != EINTR)
			return false;
		if (n <= 0)
			continue;
		if (p[1].revents)
			return false;
		if (read(f->asked, &count, sizeof(count)) == sizeof(count))
			return true;
	}
}

static void post(int fd)
{
	const uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		continue;
}

/* The first one traces: what it has held is let go, or killed, with its end (exit_ptrace()), which
 * its memory does not tell. */
static void await_first(struct hand *h)
{
	while (syscall(SYS_tgkill, getpid(), atomic_load(&h->first.tid), 0) == 0)
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
}

static void *serve(void *arg)
{
	struct finger *f = arg;
	struct hand *h = f->hand;

	atomic_store(&f->tid, gettid());
	while (is_asked(f)) {
		if (!f->fn)
			return NULL;
		f->result = f->fn(f->arg);
		post(f->done);
	}
	if (f == &h->first)
		return NULL;
	await_first(h);
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
	r = arch_go_on(flags | CLONE_VM | CLONE_FILES | CLONE_VFORK | SIGCHLD, pidfd, true);
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

static void finger_end(struct finger *f)
{
	if (f->thread) {
		f->fn = NULL;
		post(f->asked);
		pthread_join(f->thread, NULL);
	}
	close_fd(&f->asked);
	close_fd(&f->done);
}

static void hand_freep(struct hand **at)
{
	struct hand *h = *at;

	if (!h)
		return;
	finger_end(&h->first);
	finger_end(&h->beside);
	free(h);
}

static int finger_begin(struct finger *f, struct hand *h, struct error *e)
{
	int r;

	f->hand = h;
	f->asked = eventfd(0, EFD_CLOEXEC);
	f->done = eventfd(0, EFD_CLOEXEC);
	if (f->asked < 0 || f->done < 0)
		return error_errno(e, -errno, E_SYSTEM, "eventfd");
	r = pthread_create(&f->thread, NULL, serve, f);
	if (r)
		f->thread = 0;
	return r ? error_errno(e, -r, E_SYSTEM, "cannot make a thread") : 0;
}

int hand_new(struct hand **ret, struct error *e)
{
	_cleanup_(hand_freep) struct hand *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a thread");
	h->child = h->stayed = -1;
	h->first.asked = h->first.done = h->beside.asked = h->beside.done = -EBADF;
	r = finger_begin(&h->first, h, e);
	if (r >= 0)
		r = finger_begin(&h->beside, h, e);
	if (r >= 0)
		r = go_on(CLONE_PIDFD, (int *)&h->child, e);
	if (r < 0)
		return r;
	*ret = take_ptr(&h);
	return 0;
}

/* Where it may have died, that is told instead. */
static int wait_for(struct finger *f)
{
	struct pollfd p[] = {{.fd = f->done, .events = POLLIN},
			     {.fd = f->hand->stayed, .events = POLLIN}};
	uint64_t count;

	while (p[1].fd >= 0 && poll(p, 2, -1) < 0 && errno == EINTR)
		continue;
	if (p[1].revents && !p[0].revents)
		return -ESRCH;
	while (read(f->done, &count, sizeof(count)) < 0 && errno == EINTR)
		continue;
	return f->result;
}

/* What was a thread goes on as a process, with its stack. */
static void *part(void *arg)
{
	struct finger *f = arg;
	const pid_t process = getpid(), thread = gettid();
	long r = arch_go_on(CLONE_VM | CLONE_FILES | SIGCHLD, NULL, false);
	struct error unused = {};

	if (r < 0) {
		f->result = (int)r;
		post(f->done);
		return NULL;
	}
	/* It is adopted by the other thread: its end would be ours. */
	while (syscall(SYS_tgkill, process, thread, 0) == 0)
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
	if (hand_keep_tie(&unused) < 0 || has_ended(f->hand->child))
		_exit(1);
	f->result = getpid();
	post(f->done);
	while (is_asked(f) && f->fn) {
		f->result = f->fn(f->arg);
		post(f->done);
	}
	_exit(0);
}

int hand_new_child(struct hand **ret, struct error *e)
{
	struct hand *h = calloc(1, sizeof(*h));
	struct finger *f;
	int r;

	if (!h)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a process");
	f = &h->first;
	f->hand = h;
	h->stayed = -EBADF;
	h->child = (int)syscall(SYS_pidfd_open, getpid(), 0);
	f->asked = eventfd(0, EFD_CLOEXEC);
	f->done = eventfd(0, EFD_CLOEXEC);
	r = h->child < 0 || f->asked < 0 || f->done < 0
		    ? -errno
		    : -pthread_create(&f->thread, NULL, part, f);
	if (r >= 0)
		r = wait_for(f);
	f->tid = r;
	if (r >= 0) {
		h->stayed = (int)syscall(SYS_pidfd_open, r, 0);
		r = h->stayed < 0 ? -errno : 0;
	}
	*ret = h;
	return r < 0 ? error_errno(e, r, E_NAMESPACE, "cannot make a process") : 0;
}

void hand_end_child(struct hand *h)
{
	if (!h || h->first.tid <= 0)
		return;
	h->first.fn = NULL;
	post(h->first.asked);
	while (waitpid(h->first.tid, NULL, 0) < 0 && errno == EINTR)
		continue;
}

int hand_step(struct error *e)
{
	return go_on(0, NULL, e);
}

static void ask(struct finger *f, int (*fn)(void *arg), void *arg)
{
	f->fn = fn;
	f->arg = arg;
	post(f->asked);
}

/* What was begun is at its end. */
static void settle(struct hand *h)
{
	if (!h->running)
		return;
	h->begun_result = wait_for(&h->first);
	h->running = false;
}

int hand_do(struct hand *h, int (*fn)(void *arg), void *arg)
{
	settle(h);
	ask(&h->first, fn, arg);
	return wait_for(&h->first);
}

int hand_do_beside(struct hand *h, int (*fn)(void *arg), void *arg)
{
	ask(&h->beside, fn, arg);
	return wait_for(&h->beside);
}

void hand_begin(struct hand *h, int (*fn)(void *arg), void *arg)
{
	settle(h);
	ask(&h->first, fn, arg);
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
