/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks that have made a time namespace for their next child and are not in it: one that a child
 * with threads and a process that was there before are in, one that nobody has entered and whose
 * clocks can still be set, one that nobody is in any more, and such of single threads.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AHEAD 50000 /* s */

enum who {
	ENTERED,
	FOLLOWER,
	INSIDE,
	FRESH,
	BEGUN,
	AFTER,
	BEFORE,
	APART,
	ROOTS,
	MAKERS,
};
static struct {
	volatile bool made[MAKERS], threads[MAKERS];
	volatile bool told;
	volatile pid_t entered;
	volatile ino_t next; /* of ENTERED, after the restart */
	volatile double ahead[MAKERS];
} * shared;

static ino_t number(const char *path)
{
	struct stat st;

	CHECKF(!stat(path, &st), "%s: %s", path, strerror(errno));
	return st.st_ino;
}

static ino_t own(void)
{
	return number("/proc/thread-self/ns/time");
}

static ino_t next(void)
{
	return number("/proc/thread-self/ns/time_for_children");
}

static bool set(long seconds)
{
	char text[80], path[48];
	int fd, n = snprintf(text, sizeof(text), "monotonic %ld 0\nboottime %ld 0\n", seconds,
			     seconds);
	bool done;

	snprintf(path, sizeof(path), "/proc/%d/timens_offsets", gettid());
	fd = open(path, O_WRONLY);
	CHECK(fd >= 0);
	done = write(fd, text, (size_t)n) == n;
	CHECK(done || errno == EACCES);
	close(fd);
	return done;
}

/* Of the next child, by how much its clocks are ahead of the machine's. */
static double ahead(void)
{
	char text[256];
	long sec, nsec;

	test_read("/proc/self/timens_offsets", text, sizeof(text));
	CHECK_EQUAL(sscanf(text, "monotonic %ld %ld", &sec, &nsec), 2);
	return (double)sec + (double)nsec / 1e9;
}

static void make(int factor)
{
	if (unshare(CLONE_NEWTIME) < 0)
		test_skip("no time namespace can be made: %s", strerror(errno));
	CHECK(set(factor * AHEAD));
}

static void *wait_in_thread(void *arg)
{
	const enum who who = (enum who)(intptr_t)arg;
	ino_t was_own = own(), was_next = next();
	bool apart = was_own != was_next;

	shared->threads[who] = true;
	test_hold();
	CHECK_EQUAL(own() != next(), apart);
	return NULL;
}

static void begin_thread(enum who who, void *(*fn)(void *), pthread_t *thread)
{
	int r = pthread_create(thread, NULL, fn, (void *)(intptr_t)who);

	/* not before the kernel lets who has the memory have the namespaces (copy_namespaces()) */
	if (r)
		test_skip("no thread can be made: %s", strerror(r));
	while (!shared->threads[who])
		usleep(1000);
}

static int inside(void *arg)
{
	pthread_t thread;

	CHECK_EQUAL(own(), next());
	begin_thread(INSIDE, wait_in_thread, &thread);
	shared->made[(intptr_t)arg] = true;
	test_hold();
	CHECK_EQUAL(own(), next());
	shared->next = arg ? shared->next : own();
	CHECK(!pthread_join(thread, NULL));
	return 0;
}

static int is_there(void *arg)
{
	CHECK_EQUAL(own(), *(ino_t *)arg);
	CHECK_EQUAL(next(), *(ino_t *)arg);
	return 0;
}

/* The next child is born there, and its clocks cannot be set any more. */
static void check_next(bool fresh)
{
	ino_t there = next();

	CHECK(own() != there);
	CHECK_EQUAL(set(AHEAD), fresh);
	test_reap(test_fork(is_there, &there), 0);
	CHECK(!set(AHEAD));
}

static int entered(void *arg)
{
	struct stat st;
	int fd;
	pid_t pid;

	make(1);
	fd = open("/proc/self/ns/time_for_children", O_RDONLY);
	CHECK(fd >= 0);
	shared->entered = getpid();
	pid = test_fork(inside, (void *)(intptr_t)ENTERED);
	test_hold();
	shared->ahead[ENTERED] = ahead();
	shared->told = true;
	if (test_break(1))
		CHECK(!unshare(CLONE_NEWTIME));
	CHECK(!fstat(fd, &st));
	CHECK_EQUAL(st.st_ino, next());
	check_next(false);
	test_reap(pid, 0);
	CHECK_EQUAL(shared->next, st.st_ino);
	return 0;
}

/* Made before who makes the namespace. */
static int follower(void *arg)
{
	char path[64];
	int fd;

	while (!shared->entered)
		usleep(1000);
	snprintf(path, sizeof(path), "/proc/%d/ns/time_for_children", shared->entered);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0 && !setns(fd, CLONE_NEWTIME) && !close(fd));
	shared->made[FOLLOWER] = true;
	test_hold();
	while (!shared->next)
		usleep(1000);
	CHECK_EQUAL(own(), shared->next);
	CHECK_EQUAL(next(), shared->next);
	return 0;
}

static int fresh(void *arg)
{
	double apart;

	make(3);
	shared->made[FRESH] = true;
	test_hold();
	while (!shared->told)
		usleep(1000);
	apart = ahead() - shared->ahead[ENTERED];
	if (test_break(2))
		apart++;
	CHECKF(apart > 2 * AHEAD - 0.001 && apart < 2 * AHEAD + 0.001, "ahead by %f s", apart);
	if (test_break(3))
		test_reap(test_fork(is_there, &(ino_t){next()}), 0);
	check_next(true);
	return 0;
}

/* Somebody has been there. */
static int begun(void *arg)
{
	make(1);
	test_reap(test_fork(is_there, &(ino_t){next()}), 0);
	shared->made[BEGUN] = true;
	test_hold();
	if (test_break(4))
		CHECK(!unshare(CLONE_NEWTIME));
	check_next(false);
	return 0;
}

/* The thread was made before, and has not got it. */
static int after(void *arg)
{
	pthread_t thread;

	begin_thread(AFTER, wait_in_thread, &thread);
	make(1);
	shared->made[AFTER] = true;
	test_hold();
	CHECK(!pthread_join(thread, NULL));
	check_next(true);
	return 0;
}

static int before(void *arg)
{
	pthread_t thread;

	make(1);
	begin_thread(BEFORE, wait_in_thread, &thread);
	shared->made[BEFORE] = true;
	test_hold();
	CHECK(!pthread_join(thread, NULL));
	check_next(true);
	return 0;
}

static void *make_in_thread(void *arg)
{
	make(1);
	shared->threads[APART] = true;
	test_hold();
	check_next(true);
	return NULL;
}

static int apart(void *arg)
{
	pthread_t thread;

	begin_thread(APART, make_in_thread, &thread);
	shared->made[APART] = true;
	test_hold();
	CHECK_EQUAL(own(), next());
	CHECK(!pthread_join(thread, NULL));
	return 0;
}

int main(void)
{
	static int (*const makers[])(void *) = {follower, entered, fresh, begun,
						after,	  before,  apart};
	pid_t pids[sizeof(makers) / sizeof(makers[0])], pid;
	size_t n = sizeof(makers) / sizeof(makers[0]);
	ino_t is;

	test_init();
	if (access("/proc/self/timens_offsets", F_OK))
		test_skip("no time namespaces");
	shared = test_shared(sizeof(*shared));
	for (size_t i = 0; i < n; i++)
		pids[i] = test_fork(makers[i], NULL);
	for (int i = 0; i < ROOTS; i++)
		while (i != INSIDE && !shared->made[i])
			usleep(1000);
	is = own();
	make(2);
	pid = test_fork(inside, (void *)(intptr_t)ROOTS);
	while (!shared->made[ROOTS])
		usleep(1000);
	test_wait();
	CHECK(own() != next());
	for (size_t i = 0; i < n; i++)
		test_reap(pids[i], 0);
	test_reap(pid, 0);
	check_next(false);
	CHECK(is != next());
	test_pass();
}
