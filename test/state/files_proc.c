/* SPDX-License-Identifier: Apache-2.0 */
/* Files of /proc and /sys: of oneself, a child, a thread, of nobody; directories; their contents.
 */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t thread_id;

static void *thread(void *arg)
{
	__atomic_store_n(&thread_id, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	for (;;)
		pause();
	return 0;
}

static int child(void *arg)
{
	for (;;)
		pause();
	return 0;
}

static long field(int fd, const char *name)
{
	char text[8000], *at;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	CHECKF(n > 0, "no contents of %s", name);
	text[n] = 0;
	at = strstr(text, name);
	CHECKF(at, "there is no %s", name);
	return atol(at + strlen(name));
}

static int open_of(const char *format, pid_t pid, pid_t tid, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), format, pid, tid);
	fd = open(path, flags);
	CHECKF(fd >= 0, "%s", path);
	return fd;
}

int main(void)
{
	int self, of_child, of_thread, memory, directory, machine, tree, setting, system, task;
	char buffer[32], seen[32], line[64];
	pthread_t t;
	pid_t pid;

	test_init();
	pid = test_fork(child, NULL);
	CHECK(!pthread_create(&t, NULL, thread, NULL));
	while (!__atomic_load_n(&thread_id, __ATOMIC_SEQ_CST))
		usleep(1000);
	self = open("/proc/self/status", O_RDONLY);
	of_child = open_of("/proc/%d/status", pid, 0, O_RDONLY | O_CLOEXEC);
	of_thread = open_of("/proc/%d/task/%d/status", getpid(), thread_id, O_RDONLY);
	directory = open_of("/proc/%d", pid, 0, O_RDONLY | O_DIRECTORY);
	task = open_of("/proc/%d/task/%d", getpid(), thread_id, O_PATH);
	memory = open("/proc/self/mem", O_RDWR);
	machine = open("/proc/meminfo", O_RDONLY);
	tree = open("/proc", O_RDONLY | O_DIRECTORY);
	setting = open("/proc/sys/kernel/ostype", O_RDONLY);
	system = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
	CHECK_EQUAL(lseek(self, 10, SEEK_SET), 10);
	CHECK(!chdir("/proc/self"));

	test_wait();
	if (test_break(1)) {
		close(of_child);
		of_child = dup(self);
	}
	CHECK_EQUAL(lseek(self, 0, SEEK_CUR), 10);
	CHECK_EQUAL(field(self, "\nPid:\t"), getpid());
	CHECK_EQUAL(field(of_child, "\nPid:\t"), pid);
	CHECK_EQUAL(field(of_child, "\nPPid:\t"), getpid());
	CHECK_EQUAL(fcntl(of_child, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(field(of_thread, "\nPid:\t"), thread_id);
	CHECK_EQUAL(pread(memory, buffer, 8, (off_t)(uintptr_t) "contents"), 8);
	CHECK(!memcmp(buffer, "contents", 8));
	CHECK(field(machine, "MemTotal:") > 1000);
	CHECK_EQUAL(read(setting, buffer, sizeof(buffer)), 6);
	if (system >= 0)
		CHECK(pread(system, buffer, 5, 0) == 5);
	CHECK(!faccessat(directory, "status", R_OK, 0) && !faccessat(task, "comm", R_OK, 0));
	/* That is the /proc in which we have our number. */
	snprintf(line, sizeof(line), "%d/status", getpid());
	CHECK(!faccessat(tree, line, R_OK, 0));
	CHECK(readlinkat(tree, "self", seen, sizeof(seen)) > 0);
	CHECK_EQUAL(atoi(seen), getpid());
	test_line("status", "Pid", line, sizeof(line));
	CHECK_EQUAL(atoi(line), getpid());
	kill(pid, SIGKILL);
	CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
	test_pass();
}
