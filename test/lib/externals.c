/* SPDX-License-Identifier: Apache-2.0 */
/*
 * externals DIRECTORY [DEVICE PORT]: a program that uses what is outside: the pipe that it was
 * given as descriptor 20 (or any other file), a server at DIRECTORY/server, a device, a server on a
 * TCP port; and a file. The pipe is shared by dup, by fork, and in flight; the connection does not
 * block, and is in an epoll set.
 */
#include "harness.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PIPE 20

static int child(void *arg)
{
	(void)arg;
	test_hold();
	CHECK_EQUAL(write(PIPE, "child", 5), 5);
	return 0;
}

static int connect_to(const char *directory)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK((size_t)snprintf(un.sun_path, sizeof(un.sun_path), "%s/server", directory) <
	      sizeof(un.sun_path));
	CHECK(!connect(fd, (struct sockaddr *)&un, sizeof(un)));
	CHECK(!fcntl(fd, F_SETFL, O_NONBLOCK));
	return fd;
}

static int connect_tcp(const char *port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)atoi(port)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(fd >= 0 && !connect(fd, (struct sockaddr *)&in, sizeof(in)));
	return fd;
}

static void pass(int socket, int *fd, bool send)
{
	char byte = 0, room[CMSG_SPACE(sizeof(int))] = {};
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io,
			   .msg_iovlen = 1,
			   .msg_control = room,
			   .msg_controllen = sizeof(room)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	if (send) {
		*c = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(c), fd, sizeof(int));
		CHECK_EQUAL(sendmsg(socket, &m, 0), 1);
	} else {
		CHECK_EQUAL(recvmsg(socket, &m, 0), 1);
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	}
}

int main(int argc, char **argv)
{
	int copy, fd = PIPE, connection, file, device, tcp, set, pair[2];
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 4711};
	char text[16] = "";
	pid_t pid;

	test_init();
	if (fcntl(PIPE, F_GETFD) < 0)
		CHECK_EQUAL(dup2(open("pipe", O_WRONLY | O_CREAT | O_APPEND, 0600), PIPE), PIPE);
	copy = dup(PIPE);
	connection = connect_to(argv[1]);
	file = open("file", O_WRONLY | O_CREAT, 0600);
	device = argc > 2 ? open(argv[2], O_RDWR | O_CLOEXEC) : -1;
	tcp = argc > 3 ? connect_tcp(argv[3]) : -1;
	set = epoll_create1(0);
	CHECK(copy >= 0 && file >= 0 && set >= 0 && (argc == 2 || device >= 0));
	CHECK_EQUAL(write(file, "before", 6), 6);
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, connection, &event));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	pass(pair[0], &fd, true);
	pid = test_fork(child, NULL);

	test_wait();
	test_reap(pid, 0);
	CHECK_EQUAL(write(copy, "copy", 4), 4);
	pass(pair[1], &fd, false);
	CHECK_EQUAL(write(fd, "flight", 6), 6);
	CHECK_EQUAL(write(file, "after", 5), 5);
	CHECK_EQUAL(fcntl(connection, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	CHECK_EQUAL(write(connection, "again\n", 6), 6);
	CHECK_EQUAL(epoll_wait(set, &event, 1, 20000), 1);
	CHECK_EQUAL(event.data.u64, 4711);
	CHECK_EQUAL(read(connection, text, sizeof(text)), 6);
	CHECKF(!strcmp(text, "again\n"), "the answer is %s", text);
	if (tcp >= 0)
		CHECK_EQUAL(write(tcp, "request", 7), 7);
	if (device >= 0) {
		struct stat st, wanted;

		CHECK(!fstat(device, &st) && !stat(argv[2], &wanted));
		CHECK_EQUAL(st.st_rdev, wanted.st_rdev);
		CHECK_EQUAL(fcntl(device, F_GETFD), FD_CLOEXEC);
	}
	test_pass();
}
