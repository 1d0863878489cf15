/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting with a time-out: no call ends early, none ends with EINTR, all end.
 *
 * settle: 0.1
 */
#include "harness.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TIME 0.5
#define LATE 30

static const struct timespec half = {0, 500 * 1000 * 1000};
static volatile int here;
static int ends[2], listener, epoll;

static struct timespec deadline(clockid_t clock)
{
	struct timespec at;

	clock_gettime(clock, &at);
	at.tv_nsec += half.tv_nsec;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	return at;
}

static long do_nanosleep(void)
{
	return nanosleep(&half, NULL);
}

static long do_clock_relative(void)
{
	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &half, NULL);
}

static long do_clock_absolute(void)
{
	struct timespec at = deadline(CLOCK_MONOTONIC);

	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static long do_clock_realtime(void)
{
	struct timespec at = deadline(CLOCK_REALTIME);

	return syscall(SYS_clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME, &at, NULL);
}

static long do_poll(void)
{
	struct pollfd fd = {.fd = ends[0], .events = POLLIN};

	return poll(&fd, 1, 500);
}

static long do_ppoll(void)
{
	struct pollfd fd = {.fd = ends[0], .events = POLLIN};
	sigset_t set;

	sigemptyset(&set);
	return ppoll(&fd, 1, &half, &set);
}

static long do_select(void)
{
	struct timeval value = {0, 500 * 1000};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(ends[0], &set);
	return select(ends[0] + 1, &set, NULL, NULL, &value);
}

static long do_pselect(void)
{
	sigset_t set;

	sigemptyset(&set);
	return pselect(0, NULL, NULL, NULL, &half, &set);
}

static long do_futex(void)
{
	int word = 1;

	return syscall(SYS_futex, &word, FUTEX_WAIT, 1, &half) < 0 && errno == ETIMEDOUT ? 0 : -1;
}

static long do_futex_absolute(void)
{
	struct timespec at = deadline(CLOCK_MONOTONIC);
	int word = 1;

	return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 1, &at, NULL,
		       ~0u) < 0 &&
			       errno == ETIMEDOUT
		       ? 0
		       : -1;
}

static long do_cond(void)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	struct timespec at = deadline(CLOCK_REALTIME);
	int result;

	pthread_mutex_lock(&lock);
	result = pthread_cond_timedwait(&cond, &lock, &at);
	errno = result;
	return result == ETIMEDOUT ? 0 : -1;
}

static long do_epoll(void)
{
	struct epoll_event event;

	return epoll_wait(epoll, &event, 1, 500);
}

static long do_epoll_pwait(void)
{
	struct epoll_event event;
	sigset_t set;

	sigemptyset(&set);
	return epoll_pwait(epoll, &event, 1, 500, &set);
}

static long do_sigtimedwait(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return sigtimedwait(&set, NULL, &half) < 0 && errno == EAGAIN ? 0 : -1;
}

/* As recv() does: with SO_RCVTIMEO, a stop alone makes the kernel answer EINTR. */
static long do_accept(void)
{
	struct timeval value = {0, 500 * 1000};

	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value));
	return accept(listener, NULL, NULL) < 0 && errno == EAGAIN ? 0 : -1;
}

static long do_usleeps(void)
{
	double end = test_now() + TIME;

	while (test_now() < end)
		if (usleep(700))
			return -1;
	return 0;
}

/* Each is measured by the clock that it was asked to go by. */
static const struct wait {
	const char *name;
	long (*call)(void);
	clockid_t clock;
} waits[] = {
	{"nanosleep", do_nanosleep, CLOCK_MONOTONIC},
	{"clock_nanosleep relative", do_clock_relative, CLOCK_MONOTONIC},
	{"clock_nanosleep absolute", do_clock_absolute, CLOCK_MONOTONIC},
	{"clock_nanosleep of the real-time clock", do_clock_realtime, CLOCK_REALTIME},
	{"poll", do_poll, CLOCK_MONOTONIC},
	{"ppoll", do_ppoll, CLOCK_MONOTONIC},
	{"select", do_select, CLOCK_MONOTONIC},
	{"pselect", do_pselect, CLOCK_MONOTONIC},
	{"futex", do_futex, CLOCK_MONOTONIC},
	{"futex absolute", do_futex_absolute, CLOCK_MONOTONIC},
	{"pthread_cond_timedwait", do_cond, CLOCK_REALTIME},
	{"epoll_wait", do_epoll, CLOCK_MONOTONIC},
	{"epoll_pwait", do_epoll_pwait, CLOCK_MONOTONIC},
	{"sigtimedwait", do_sigtimedwait, CLOCK_MONOTONIC},
	{"accept", do_accept, CLOCK_MONOTONIC},
	{"many short sleeps", do_usleeps, CLOCK_MONOTONIC},
};
#define COUNT (int)(sizeof(waits) / sizeof(waits[0]))

static double now_by(clockid_t clock)
{
	struct timespec at;

	clock_gettime(clock, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void *run(void *arg)
{
	const struct wait *wait = arg;
	double begin, took;
	long result;

	begin = now_by(wait->clock);
	__sync_fetch_and_add(&here, 1);
	result = wait->call();
	took = now_by(wait->clock) - begin;
	CHECKF(result == 0, "%s: %ld, %s, after %f s", wait->name, result, strerror(errno), took);
	CHECKF(took > TIME - 0.0011, "%s: early, after %f s", wait->name, took);
	CHECKF(took < LATE, "%s: after %f s", wait->name, took);
	return NULL;
}

int main(void)
{
	struct epoll_event event = {.events = EPOLLIN};
	pthread_t threads[COUNT];
	int one = 1;

	test_init();
	CHECK(!pipe(ends));
	listener = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)));
	CHECK(listener >= 0 && !listen(listener, 1));
	epoll = epoll_create1(0);
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_create(&threads[i], NULL, run, (void *)&waits[i]));
	while (here < COUNT)
		usleep(1000);
	test_ready();
	if (test_break(1))
		CHECK_EQUAL(write(ends[1], "x", 1), 1);
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_hold();
	test_pass();
}
