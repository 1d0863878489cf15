/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX message queues without messages: these an ordinary user can save. */
#include "harness.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static mqd_t queue;
static volatile int *early;

static int receiver(void *arg)
{
	char buf[64];

	CHECK_EQUAL(mq_receive(queue, buf, sizeof(buf), NULL), 5);
	CHECK(!*early && !memcmp(buf, "hello", 5));
	return 3;
}

static void send_fd(int socket, int fd)
{
	char byte = 'x', control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec part = {&byte, 1};
	struct msghdr m = {.msg_iov = &part,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	*c = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	CHECK_EQUAL(sendmsg(socket, &m, 0), 1);
}

static int receive_fd(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec part = {&byte, 1};
	struct msghdr m = {.msg_iov = &part,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	int fd;

	CHECK_EQUAL(recvmsg(socket, &m, 0), 1);
	CHECK(CMSG_FIRSTHDR(&m));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

int main(void)
{
	struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 64};
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
	mqd_t gone, flying;
	int epoll, pair[2];
	pid_t pid;

	test_init();
	early = test_shared(4096);
	*early = 1;
	queue = mq_open("/empty", O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
	gone = mq_open("/gone", O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
	CHECK(queue >= 0 && gone >= 0 && !mq_unlink("/gone"));
	epoll = epoll_create1(0);
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, gone, &event));
	/* In flight, and open nowhere else. */
	flying = mq_open("/empty", O_WRONLY | O_NONBLOCK);
	CHECK(flying >= 0 && !socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	send_fd(pair[0], flying);
	mq_close(flying);
	pid = test_fork(receiver, NULL);
	test_until_in(pid, SYS_mq_timedreceive);

	test_wait();
	if (test_break(1))
		mq_unlink("/empty");
	if (test_break(2))
		mq_send(gone, "x", 1, 1);
	CHECK(!mq_getattr(queue, &attr));
	CHECK_EQUAL(attr.mq_maxmsg, 2);
	CHECK_EQUAL(attr.mq_msgsize, 64);
	CHECK_EQUAL(attr.mq_curmsgs, 0);
	CHECK_EQUAL(epoll_wait(epoll, &event, 1, 0), 0);
	CHECK(!mq_send(gone, "event", 5, 1));
	CHECK_EQUAL(epoll_wait(epoll, &event, 1, 1000), 1);
	CHECK_EQUAL(event.data.u64, 77);
	test_until_in(pid, SYS_mq_timedreceive);
	*early = 0;
	flying = receive_fd(pair[1]);
	CHECK_EQUAL(fcntl(flying, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
	CHECK(!mq_send(flying, "hello", 5, 0));
	test_reap(pid, 3);
	CHECK(!mq_unlink("/empty"));
	test_pass();
}
