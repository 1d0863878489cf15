/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit programs among 64-bit ones: a program, a child of the other width, and a child of that,
 * which is of the first width again. What each of them has that depends on the width.
 */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define O_LARGEFILE_BIT 0100000
#define FILES		6

static __thread int local = 40;
static volatile sig_atomic_t got, on_local;
static void *volatile got_value;
static pthread_mutex_t robust;

static void handler(int sig, siginfo_t *info, void *context)
{
	got++;
	on_local = local;
	got_value = info->si_value.sival_ptr;
}

static void *thread(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	local = 7;
	pthread_mutex_lock(&robust);
	test_hold();
	CHECK_EQUAL(local, 7);
	return NULL; /* whoever takes the mutex is told that its owner has died */
}

static void path_of(char *path, size_t size, bool other)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	bool is_narrow;
	char *name;

	CHECK(n > 0);
	exe[n] = '\0';
	name = strrchr(exe, '/');
	is_narrow = !strcmp(name + 1, "narrow_widths");
	CHECK(is_narrow == (sizeof(void *) == 4));
	*name = '\0';
	snprintf(path, size, "%s/%swidths", exe, is_narrow != other ? "narrow_" : "");
}

struct own {
	char auxv[4096], exe[4096];
	size_t auxv_len;
	void *head;
	int fds[FILES];
	long flags[FILES];
	pthread_t thread;
};

static void *robust_head(void)
{
	void *head = NULL;
	size_t len;

	CHECK(syscall(SYS_get_robust_list, 0, &head, &len) == 0);
	return head;
}

/* A nameless file does not keep O_TMPFILE. */
static long flags_of(int fd)
{
	return syscall(SYS_fcntl, fd, F_GETFL) & ~(long)O_TMPFILE;
}

/* The C library would ask for O_LARGEFILE. */
static void open_files(struct own *own)
{
	static const struct {
		const char *path;
		int flags;
	} how[FILES] = {
		{"/dev/null", O_RDONLY},       {"fifo", O_RDWR | O_NONBLOCK},
		{".", O_RDWR | O_TMPFILE},     {"/dev/ptmx", O_RDWR | O_NOCTTY},
		{"/proc/self/stat", O_RDONLY}, {"file", O_RDWR | O_CREAT},
	};

	CHECK(mkfifo("fifo", 0600) == 0 || errno == EEXIST);
	for (int i = 0; i < FILES; i++) {
		own->fds[i] = (int)syscall(SYS_openat, AT_FDCWD, how[i].path, how[i].flags, 0600);
		CHECK(own->fds[i] >= 0);
		own->flags[i] = flags_of(own->fds[i]);
		CHECK_EQUAL(!!(own->flags[i] & O_LARGEFILE_BIT), sizeof(void *) == 8);
	}
}

static void set_up(struct own *own)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	pthread_mutexattr_t attr;

	local = 42;
	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
	CHECK(pthread_mutexattr_init(&attr) == 0);
	CHECK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
	CHECK(pthread_mutex_init(&robust, &attr) == 0);
	CHECK(pthread_create(&own->thread, NULL, thread, NULL) == 0);
	while (pthread_mutex_trylock(&robust) == 0) {
		pthread_mutex_unlock(&robust);
		test_sleep(0.005);
	}
	own->head = robust_head();
	open_files(own);
	own->auxv_len = test_read("/proc/self/auxv", own->auxv, sizeof(own->auxv));
	path_of(own->exe, sizeof(own->exe), false);
}

static void check(struct own *own)
{
	char auxv[4096], exe[4096];
	void *grown;

	CHECK_EQUAL(local, 42 + !!test_break(1));
	CHECK_EQUAL(got, 1);
	CHECK_EQUAL(on_local, 42);
	CHECK(got_value == (void *)0x12345678);
	CHECK(robust_head() == (test_break(2) ? NULL : own->head));
	for (int i = 0; i < FILES; i++)
		CHECKF(flags_of(own->fds[i]) == own->flags[i] + test_break(3),
		       "file %d: its flags are %lo and were %lo", i, flags_of(own->fds[i]),
		       own->flags[i]);
	CHECK_EQUAL(test_read("/proc/self/auxv", auxv, sizeof(auxv)), own->auxv_len);
	CHECK(!memcmp(auxv, own->auxv, own->auxv_len));
	path_of(exe, sizeof(exe), false);
	CHECK(!strcmp(exe, own->exe));
	CHECK(pthread_join(own->thread, NULL) == 0);
	CHECK_EQUAL(pthread_mutex_lock(&robust), EOWNERDEAD);
	CHECK(test_now() > 0);
	grown = malloc(1 << 22);
	CHECK(grown);
	memset(grown, 1, 1 << 22);
	free(grown);
}

/* A child of the other width, that says when it and those below it are ready. */
static pid_t make_child(int level, int *tell, int *ask)
{
	int to[2], from[2];
	char path[4200], number[16], byte;
	pid_t pid;

	CHECK(pipe(to) == 0 && pipe(from) == 0);
	path_of(path, sizeof(path), true);
	if (access(path, X_OK) < 0)
		test_skip("there is no such program of the other width");
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		snprintf(number, sizeof(number), "%d", level);
		dup2(to[0], 0);
		dup2(from[1], 1);
		for (int fd = 3; fd < 20; fd++)
			close(fd);
		execl(path, path, number, NULL);
		_exit(99);
	}
	close(to[0]);
	close(from[1]);
	CHECK_EQUAL(read(from[0], &byte, 1), 1);
	*tell = to[1];
	*ask = from[0];
	return pid;
}

static void check_child(pid_t pid, int tell, int ask)
{
	union sigval value = {.sival_ptr = (void *)0x12345678};
	char byte = 'c';

	CHECK(sigqueue(pid, SIGUSR1, value) == 0);
	CHECK_EQUAL(write(tell, &byte, 1), 1);
	CHECK_EQUAL(read(ask, &byte, 1), 1);
	test_reap(pid, 0);
}

int main(int argc, char **argv)
{
	int level = argc > 1 ? atoi(argv[1]) : 0, tell = -1, ask = -1;
	static struct own own;
	pid_t child = 0;
	char byte = 'r';

	test_init();
	set_up(&own);
	if (level < 2)
		child = make_child(level + 1, &tell, &ask);
	if (!level) {
		test_wait();
		CHECK(raise(SIGUSR1) == 0);
		got_value = (void *)0x12345678;
	} else {
		CHECK_EQUAL(write(1, &byte, 1), 1);
		while (read(0, &byte, 1) != 1)
			CHECK_EQUAL(errno, EINTR);
	}
	if (child)
		check_child(child, tell, ask);
	check(&own);
	if (!level)
		test_pass();
	CHECK_EQUAL(write(1, &byte, 1), 1);
	return 0;
}
