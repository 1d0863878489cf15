/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that share what threads share: memory, descriptor table, handlers, each by itself. */
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK 65536

static volatile int *shared;
static volatile int private_word;

static void handler(int sig)
{
}

static int with_vm(void *arg)
{
	private_word = 1;
	test_hold();
	while (private_word != 2)
		usleep(1000);
	private_word = 3;
	return 11;
}

static int with_files(void *arg)
{
	int fd = -1;

	shared[1] = 1;
	test_hold();
	while (shared[1] != 2)
		usleep(1000);
	/* Opened by the other since. */
	fd = fcntl(50, F_GETFD);
	CHECK_EQUAL(fd, 0);
	CHECK_EQUAL(dup2(50, 51), 51);
	CHECK(private_word != 3 || arg);
	return 12;
}

static int with_handlers(void *arg)
{
	shared[2] = 1;
	test_hold();
	while (shared[2] != 2)
		usleep(1000);
	signal(SIGUSR2, handler);
	return 13;
}

static pid_t start(int (*fn)(void *), int flags)
{
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t pid = clone(fn, stack + STACK, flags | SIGCHLD, NULL);

	CHECK(pid > 0);
	return pid;
}

int main(void)
{
	struct sigaction action;
	pid_t vm, files, handlers;

	test_init();
	shared = test_shared(4096);
	vm = start(with_vm, CLONE_VM);
	files = start(with_files, CLONE_FILES);
	handlers = start(with_handlers, CLONE_VM | CLONE_SIGHAND);
	while (!private_word || !shared[1] || !shared[2])
		usleep(1000);
	test_wait();
	if (test_break(1))
		unshare(CLONE_FILES);
	private_word = 2;
	test_reap(vm, 11);
	CHECK_EQUAL(private_word, 3);
	CHECK_EQUAL(dup2(0, 50), 50);
	shared[1] = 2;
	test_reap(files, 12);
	CHECK_EQUAL(fcntl(51, F_GETFD), 0);
	shared[2] = 2;
	test_reap(handlers, 13);
	CHECK(!sigaction(SIGUSR2, NULL, &action) && action.sa_handler == handler);
	test_pass();
}
