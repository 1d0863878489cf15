/* SPDX-License-Identifier: Apache-2.0 */
/* Notification of a POSIX message queue by a thread, which the C library begins.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static mqd_t queue;
static volatile int called;

static void notified(union sigval value)
{
	CHECK_EQUAL(value.sival_int, 0x1234567);
	called = 1;
}

static int status_pid(void)
{
	char text[128] = "", *at;

	CHECK(pread(queue, text, sizeof(text) - 1, 0) > 0);
	at = strstr(text, "NOTIFY_PID:");
	CHECK(at);
	return atoi(at + 11);
}

int main(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD,
				 .sigev_notify_function = notified,
				 .sigev_value.sival_int = 0x1234567};
	struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 64};

	test_init();
	queue = mq_open("/thread", O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
	CHECK(queue >= 0 && !mq_notify(queue, &event));

	test_wait();
	if (test_break(1))
		mq_notify(queue, NULL);
	CHECK_EQUAL(status_pid(), getpid());
	CHECK(!called);
	CHECK(!mq_send(queue, "wake", 4, 1));
	for (int i = 0; i < 5000 && !called; i++)
		usleep(1000);
	CHECK(called);
	CHECK_EQUAL(status_pid(), 0);
	CHECK(!mq_unlink("/thread"));
	test_pass();
}
