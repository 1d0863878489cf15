/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Harness of the self-judging test programs.
 *
 * A program sets up a kind of state, calls test_wait(), and then verifies that
 * all is as it was. Meanwhile the runner may have saved it, killed it and
 * brought it back, once or many times at once, or have done nothing. The
 * harness must not be part of the state: while it waits it has no descriptor,
 * no signal, no memory but the program's own static data; it only asks with
 * access(2) whether a file exists.
 */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <string.h>
#include <sys/types.h>

/* First call of every program. */
void test_init(void);
/* A directory of our own, which is the working directory when the program starts. */
const char *test_dir(void);
/* How the program is being run: plain, break, tree, pidns, both, pipe, socket, user. */
bool test_mode_is(const char *mode);
/* The control directory is found there from now on (after chroot). */
void test_move_control(const char *path);

/* Tells the runner that the state is there. */
void test_ready(void);
/* Whether the runner has said to go on. */
bool test_going(void);
/* Sleeps until it has: for children and threads. */
void test_hold(void);
/* Both, for the main task. */
void test_wait(void);
/*
 * True when this run is to show that the test finds the n-th kind of damage:
 * `if (test_break(1)) damage();` after test_wait().
 */
bool test_break(int n);

/* Verdicts. Any task may fail; one passes, at the end. */
_Noreturn void test_pass(void);
_Noreturn void test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void test_fail_equal(const char *file, int line, const char *what, long long is,
			       long long should_be);

#define CHECKF(condition, ...)                                      \
	do {                                                        \
		if (!(condition))                                   \
			test_fail(__FILE__, __LINE__, __VA_ARGS__); \
	} while (0)
/* The condition in words, with errno. */
#define CHECK(condition) \
	CHECKF(condition, "not so: %s (errno %d, %s)", #condition, errno, strerror(errno))
#define CHECK_EQUAL(is, should_be)                                                    \
	do {                                                                          \
		long long is_ = (long long)(is), should_be_ = (long long)(should_be); \
		if (is_ != should_be_)                                                \
			test_fail_equal(__FILE__, __LINE__, #is, is_, should_be_);    \
	} while (0)

/* fork() that must work; the child runs fn(arg) and ends with what it returns. */
pid_t test_fork(int (*fn)(void *), void *arg);
/* Reaps a child that must have ended with this exit status. */
void test_reap(pid_t pid, int status);
/* Waits until the task (of any process) is asleep in this system call. */
void test_until_in(pid_t tid, long nr);
/* Waits until the task has this state letter. */
void test_until_state(pid_t tid, char state);
char test_state(pid_t tid);
/* The n-th field of /proc/TID/stat as a number, counted as in proc(5). */
long long test_stat(pid_t tid, int field);

/* A whole small file into buf, ended by a NUL; its length. */
size_t test_read(const char *path, char *buf, size_t size);
/* The value of a "Name: value" line of such a file, without leading blanks; fails if there is none.
 */
void test_line(const char *path, const char *name, char *value, size_t size);
/* Writes a file anew. */
void test_write(const char *path, const void *data, size_t size);

/* Numbers that depend on the place, to fill memory with and compare. */
void test_fill(void *at, size_t size, uint64_t seed);
/* First offset, not below `from`, where there is not what test_fill() made; -1 if there is none. */
ssize_t test_differs(const void *at, size_t from, size_t size, uint64_t seed);
#define CHECK_FILLED(at, size, seed) CHECK_FILLED_FROM(at, 0, size, seed)
/* All but the first bytes. */
#define CHECK_FILLED_FROM(at, from, size, seed)                                        \
	do {                                                                           \
		ssize_t off_ = test_differs(at, from, size, seed);                     \
		CHECKF(off_ < 0, "%s: wrong contents at offset %zd of %zu", #at, off_, \
		       (size_t)(size));                                                \
	} while (0)

/* The VmFlags of the mapping that holds an address, with a blank before and after each. */
void test_vm_flags(const void *at, char *flags, size_t size);
bool test_vm_flag(const void *at, const char *flag);
/* A number of the smaps entry, in KiB. */
long test_smaps(const void *at, const char *name);
/* The line of /proc/self/maps. */
void test_map(const void *at, char *line, size_t size);
/* Whether there is a page, present or swapped, in our page table. */
bool test_populated(const void *at);
/* A file of our directory with test_fill() contents, open for reading and writing. */
int test_file(const char *name, size_t size, uint64_t seed);

/* A mapping of anonymous memory shared between parent and children. */
void *test_shared(size_t size);

double test_now(void);
/* Seconds that may have passed since the program was ready: on a loaded machine, and in long runs.
 */
double test_duration(void);
void test_sleep(double seconds);

#endif
