/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of fanotify that decide about the accesses of others, while nobody waits for an answer: a
 * child answers, and denies some. A second group has an unread event of what has been done.
 *
 * not-in: both: who opens a file waits for both
 * not-in: user: needs root
 * may-refuse: file-state
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int decider, other, *decisions;

static void answer(const struct fanotify_event_metadata *event)
{
	struct fanotify_response response = {.fd = event->fd, .response = FAN_ALLOW};
	struct stat st, denied;

	CHECK(!fstat(event->fd, &st) && !stat("denied", &denied));
	if (st.st_ino == denied.st_ino)
		response.response = FAN_DENY;
	__atomic_add_fetch(decisions, 1, __ATOMIC_SEQ_CST);
	CHECK_EQUAL(write(decider, &response, sizeof(response)), (ssize_t)sizeof(response));
	close(event->fd);
}

static int decide(void *arg)
{
	static char buf[4096] __attribute__((aligned(8)));
	ssize_t n;

	while ((n = read(decider, buf, sizeof(buf))) > 0)
		for (const struct fanotify_event_metadata *event = (const void *)buf;
		     FAN_EVENT_OK(event, n); event = FAN_EVENT_NEXT(event, n))
			answer(event);
	return 1;
}

static void try_both(void)
{
	int before = __atomic_load_n(decisions, __ATOMIC_SEQ_CST), fd = open("in/file", O_RDONLY);
	char byte;

	CHECK(fd >= 0 && read(fd, &byte, 1) == 1 && byte == 'f');
	close(fd);
	CHECK(open("in/denied", O_RDONLY) < 0);
	CHECK_EQUAL(errno, EPERM);
	CHECK_EQUAL(__atomic_load_n(decisions, __ATOMIC_SEQ_CST) - before, 2);
}

static void check_unread(void)
{
	struct fanotify_event_metadata event;
	struct stat st, is;

	CHECK_EQUAL(read(other, &event, sizeof(event)), (ssize_t)sizeof(event));
	CHECK_EQUAL(event.mask, FAN_CLOSE_WRITE);
	CHECK_EQUAL(event.pid, getpid());
	CHECK(!stat("in/written", &st) && !fstat(event.fd, &is));
	CHECK_EQUAL(is.st_ino, st.st_ino);
	close(event.fd);
	CHECK(read(other, &event, sizeof(event)) < 0 && errno == EAGAIN);
}

static void write_it(void)
{
	int fd = open("in/written", O_WRONLY);

	CHECK(fd >= 0 && !close(fd));
}

int main(void)
{
	pid_t pid;

	test_init();
	CHECK(!mkdir("in", 0700));
	test_write("in/file", "file", 4);
	test_write("in/denied", "", 0);
	test_write("in/written", "", 0);
	CHECK(!link("in/denied", "denied"));
	decisions = test_shared(4096);
	decider = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);
	if (decider < 0 && (errno == EPERM || errno == EINVAL))
		test_skip("fanotify: %s", strerror(errno));
	other = fanotify_init(FAN_CLASS_PRE_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);
	CHECK(decider >= 0 && other >= 0);
	CHECK(!fanotify_mark(other, FAN_MARK_ADD, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, AT_FDCWD,
			     "in"));
	pid = test_fork(decide, NULL);
	CHECK(!fanotify_mark(decider, FAN_MARK_ADD, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD, AT_FDCWD,
			     "in"));
	try_both();
	write_it();
	__atomic_store_n(decisions, 0, __ATOMIC_SEQ_CST);

	test_wait();
	if (test_break(1))
		check_unread();
	if (test_break(2))
		CHECK(!fanotify_mark(decider, FAN_MARK_FLUSH, 0, AT_FDCWD, "."));
	check_unread();
	try_both();
	write_it();
	check_unread();
	CHECK_EQUAL(__atomic_load_n(decisions, __ATOMIC_SEQ_CST), 3);
	CHECK(!kill(pid, SIGKILL));
	CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
	test_pass();
}
