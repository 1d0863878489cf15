/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX message queues: messages with their priorities, attributes, descriptors of all kinds,
 * queues without a name, notification, tasks that wait.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BIG 8100

static char big[BIG];
static volatile int *early;
static mqd_t waited, full, notified, quiet;
static volatile sig_atomic_t signals, value;

static mqd_t make(const char *name, int flags, long maxmsg, long msgsize)
{
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	mqd_t queue = mq_open(name, O_CREAT | O_EXCL | flags, 0640, &attr);

	CHECKF(queue >= 0, "%s: %s", name, strerror(errno));
	return queue;
}

static void expect(mqd_t queue, const char *text, size_t len, unsigned int priority)
{
	const struct timespec past = {};
	static char buf[8192];
	unsigned int is = 99;
	ssize_t n = mq_timedreceive(queue, buf, sizeof(buf), &is, &past);

	CHECKF(n == (ssize_t)len, "%zd bytes instead of %zu: %s", n, len, strerror(errno));
	CHECK_EQUAL(is, priority);
	CHECK(!memcmp(buf, text, len));
}

static void handler(int sig, siginfo_t *info, void *context)
{
	signals++;
	value = info->si_value.sival_int;
	CHECK_EQUAL(info->si_code, SI_MESGQ);
}

static int receiver(void *arg)
{
	char buf[16];
	unsigned int priority;

	CHECK_EQUAL(mq_receive(waited, buf, sizeof(buf), &priority), 4);
	CHECK(!*early && !memcmp(buf, "late", 4) && priority == 3);
	return 3;
}

static int timed_sender(void *arg)
{
	struct timespec later;

	clock_gettime(CLOCK_REALTIME, &later);
	later.tv_sec += 3600;
	CHECK(!mq_timedsend(full, "more", 4, 2, &later));
	CHECK(!*early);
	return 4;
}

/* Is to be notified, without a signal. */
static int silent(void *arg)
{
	const struct sigevent event = {.sigev_notify = SIGEV_NONE};

	CHECK(!mq_notify(quiet, &event));
	test_hold();
	while (*early)
		usleep(1000);
	return 5;
}

static int status_pid(mqd_t queue)
{
	char text[128] = "", *at;

	CHECK(pread(queue, text, sizeof(text) - 1, 0) > 0);
	at = strstr(text, "NOTIFY_PID:");
	CHECK(at);
	return atoi(at + 11);
}

static void check_descriptors(mqd_t named, mqd_t same, mqd_t reader, mqd_t writer)
{
	struct mq_attr attr;
	struct stat a, b;

	CHECK(!mq_getattr(named, &attr));
	CHECK_EQUAL(attr.mq_flags, 0);
	CHECK_EQUAL(attr.mq_maxmsg, 7);
	CHECK_EQUAL(attr.mq_msgsize, 8192);
	CHECK_EQUAL(attr.mq_curmsgs, 5);
	CHECK(!mq_getattr(reader, &attr));
	CHECK_EQUAL(attr.mq_flags, O_NONBLOCK);
	CHECK(mq_send(reader, "", 0, 0) < 0 && errno == EBADF);
	CHECK(mq_receive(writer, big, sizeof(big), NULL) < 0 && errno == EBADF);
	CHECK(!fstat(named, &a) && !fstat(writer, &b));
	CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
	CHECK_EQUAL(a.st_mode & 0777, 0640);
	CHECK_EQUAL(a.st_nlink, 1);
	CHECK_EQUAL(fcntl(named, F_GETFD), FD_CLOEXEC);
	/* A description that is shared by two. */
	CHECK(!fcntl(same, F_SETFL, O_NONBLOCK));
	CHECK(fcntl(named, F_GETFL) & O_NONBLOCK);
	CHECK(!fcntl(named, F_SETFL, 0));
	CHECK_EQUAL(fcntl(writer, F_GETFL) & O_NONBLOCK, 0);
}

static void check_notified(void)
{
	CHECK_EQUAL(status_pid(notified), getpid());
	CHECK_EQUAL(signals, 0);
	CHECK(!mq_send(notified, "wake", 4, 1));
	for (int i = 0; i < 5000 && !signals; i++)
		usleep(1000);
	CHECK_EQUAL(signals, 1);
	CHECK_EQUAL(value, 0x1234567);
	expect(notified, "wake", 4, 1);
	CHECK_EQUAL(status_pid(notified), 0);
}

int main(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,
				 .sigev_signo = SIGUSR1,
				 .sigev_value.sival_int = 0x1234567};
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	mqd_t named, same, reader, writer, gone;
	struct stat st;
	pid_t pids[3];

	test_init();
	early = test_shared(4096);
	*early = 1;
	test_fill(big, sizeof(big), 1);
	named = make("/named", O_RDWR, 7, 8192);
	same = dup(named);
	CHECK(!fcntl(same, F_SETFD, 0));
	reader = mq_open("/named", O_RDONLY | O_NONBLOCK);
	/* Its description keeps the flag. */
	writer = mq_open("/named", O_WRONLY | O_CLOEXEC);
	CHECK(!fcntl(writer, F_SETFD, 0));
	gone = make("/gone", O_RDWR, 3, 100);
	CHECK(!mq_unlink("/gone"));
	waited = make("/waited", O_RDWR, 1, 10);
	full = make("/full", O_RDWR, 1, 10);
	notified = make("/notified", O_RDWR, 4, 100);
	quiet = make("/quiet", O_RDWR, 4, 100);
	CHECK(same >= 0 && reader >= 0 && writer >= 0);
	CHECK(!mq_send(writer, "low", 3, 0) && !mq_send(writer, "first", 5, 9) &&
	      !mq_send(writer, big, BIG, 4) && !mq_send(writer, "second", 6, 9) &&
	      !mq_send(writer, "", 0, 32767));
	CHECK(!mq_send(gone, "still", 5, 1) && !mq_send(full, "full", 4, 1));
	CHECK(!sigaction(SIGUSR1, &action, NULL));
	CHECK(!mq_notify(notified, &event));
	pids[0] = test_fork(receiver, NULL);
	pids[1] = test_fork(timed_sender, NULL);
	pids[2] = test_fork(silent, NULL);
	test_until_in(pids[0], SYS_mq_timedreceive);
	test_until_in(pids[1], SYS_mq_timedsend);
	while (status_pid(quiet) != pids[2])
		usleep(1000);

	test_wait();
	if (test_break(1))
		expect(named, "", 0, 32767);
	if (test_break(2))
		mq_notify(notified, NULL);
	if (test_break(3))
		CHECK(!mq_send(gone, "surplus", 7, 2));
	if (test_break(4))
		mq_unlink("/named");
	if (test_break(5))
		event.sigev_value.sival_int++, mq_notify(notified, NULL),
			mq_notify(notified, &event);
	CHECK_EQUAL(status_pid(quiet), pids[2]);
	check_descriptors(named, same, reader, writer);
	expect(reader, "", 0, 32767);
	expect(reader, "first", 5, 9);
	expect(reader, "second", 6, 9);
	expect(reader, big, BIG, 4);
	expect(named, "low", 3, 0);
	CHECK(!fstat(gone, &st));
	CHECK_EQUAL(st.st_nlink, 0);
	expect(gone, "still", 5, 1);
	check_notified();
	test_until_in(pids[0], SYS_mq_timedreceive);
	test_until_in(pids[1], SYS_mq_timedsend);
	*early = 0;
	CHECK(!mq_send(waited, "late", 4, 3));
	test_reap(pids[0], 3);
	expect(full, "full", 4, 1);
	test_reap(pids[1], 4);
	expect(full, "more", 4, 2);
	test_reap(pids[2], 5);
	mq_unlink("/named");
	mq_unlink("/waited");
	mq_unlink("/full");
	mq_unlink("/notified");
	mq_unlink("/quiet");
	test_pass();
}
