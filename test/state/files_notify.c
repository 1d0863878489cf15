/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories watched with F_NOTIFY: again and again, once, once and over, by a child through the
 * description of its parent, and one that has an owner and is not watched.
 *
 * needs: root
 * not-in: both: what one does in a directory the other is told of
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIGNAL (SIGRTMIN + 3)

static int shared_dir;
static sigset_t set;

static int open_dir(const char *name)
{
	int fd;

	CHECK(!mkdir(name, 0700));
	fd = open(name, O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0 && !fcntl(fd, F_SETSIG, SIGNAL));
	return fd;
}

static void make(const char *dir, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	test_write(path, "", 0);
}

static void expect_signal(int fd)
{
	struct timespec patience = {10, 0};
	siginfo_t info;

	CHECK_EQUAL(sigtimedwait(&set, &info, &patience), SIGNAL);
	CHECK_EQUAL(info.si_fd, fd);
	CHECK_EQUAL(info.si_code, POLL_MSG);
}

static void expect_none(void)
{
	struct timespec now = {};

	CHECK_EQUAL(sigtimedwait(&set, NULL, &now), -1);
}

static int child(void *arg)
{
	struct f_owner_ex owner = {.type = F_OWNER_PID, .pid = getpid()};
	int fd = dup2(shared_dir, 77);

	CHECK_EQUAL(fd, 77);
	CHECK(!fcntl(fd, F_SETOWN_EX, &owner));
	CHECK(!fcntl(fd, F_NOTIFY, DN_RENAME | DN_MULTISHOT));
	make(".", "watching");
	test_hold();
	CHECK(!rename("shared/old", "shared/new"));
	expect_signal(fd);
	return 0;
}

int main(void)
{
	int always, once, over, plain;
	pid_t pid;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGNAL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	always = open_dir("always");
	once = dup2(open_dir("once"), 50);
	over = open_dir("over");
	plain = open_dir("plain");
	shared_dir = open_dir("shared");
	make("shared", "old");
	CHECK(!fcntl(always, F_NOTIFY, DN_CREATE | DN_DELETE | DN_MULTISHOT));
	CHECK(!fcntl(once, F_NOTIFY, DN_CREATE));
	CHECK(!fcntl(over, F_NOTIFY, DN_CREATE));
	make("over", "first");
	expect_signal(over);
	CHECK(!fcntl(plain, F_SETOWN, getpid()));
	pid = test_fork(child, NULL);
	while (access("watching", F_OK))
		usleep(1000);

	test_wait();
	if (test_break(1))
		close(always);
	if (test_break(2))
		CHECK(!fcntl(over, F_NOTIFY, DN_CREATE));
	make("always", "one");
	expect_signal(always);
	CHECK(!unlink("always/one"));
	expect_signal(always);
	make("once", "one");
	expect_signal(once);
	make("once", "two");
	make("over", "two");
	make("plain", "one");
	expect_none();
	test_reap(pid, 0);
	expect_none();
	test_pass();
}
