/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions shared by fork and by passing; descriptors that are only alike are not shared. */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int inherited, passed, alike, pair[2];
static volatile int *shared;

static void send_fd(int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, c = 'f';
	struct iovec data = {&c, 1};
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	CHECK_EQUAL(sendmsg(pair[0], &message, 0), 1);
}

static int receive_fd(void)
{
	char control[CMSG_SPACE(sizeof(int))], c;
	struct iovec data = {&c, 1};
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	int fd;

	CHECK_EQUAL(recvmsg(pair[1], &message, 0), 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return fd;
}

static int child(void *arg)
{
	int got = receive_fd(), other = dup2(inherited, 90);

	close(inherited);
	close(pair[0]);
	close(pair[1]);
	shared[0] = 1;
	test_hold();
	while (shared[1] != 1)
		usleep(1000);
	CHECK_EQUAL(lseek(other, 0, SEEK_CUR), 222);
	CHECK_EQUAL(lseek(got, 0, SEEK_CUR), 333);
	CHECK_EQUAL(lseek(alike, 0, SEEK_CUR), 100);
	CHECK_EQUAL(lseek(got, 444, SEEK_SET), 444);
	CHECK(!fcntl(other, F_SETFL, O_APPEND));
	return 3;
}

int main(void)
{
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	inherited = test_file("inherited", 1000, 1);
	passed = -1;
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	alike = open("inherited", O_RDWR);
	lseek(inherited, 100, SEEK_SET);
	lseek(alike, 100, SEEK_SET);
	pid = test_fork(child, NULL);
	passed = test_file("passed", 1000, 2);
	send_fd(passed);
	while (!shared[0])
		usleep(1000);
	/* The same name again, by itself. */
	close(pair[0]);
	close(pair[1]);
	test_wait();
	if (test_break(1)) {
		int other = open("passed", O_RDWR);

		dup2(other, passed);
	}
	CHECK_EQUAL(lseek(inherited, 222, SEEK_SET), 222);
	CHECK_EQUAL(lseek(passed, 333, SEEK_SET), 333);
	shared[1] = 1;
	test_reap(pid, 3);
	CHECK_EQUAL(lseek(passed, 0, SEEK_CUR), 444);
	CHECK(fcntl(inherited, F_GETFL) & O_APPEND);
	CHECK(!(fcntl(alike, F_GETFL) & O_APPEND));
	test_pass();
}
