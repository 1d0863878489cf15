/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients in the backlog of a listener: with data sent before they are accepted, more of them than
 * there is room by now, closed or shut down on their side.
 *
 * not-in: both: names of sockets are taken by the original
 * not-in: user: what waits to be accepted is seen by root only
 * needs: root
 * may-refuse: file-state
 */
#include "harness.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int to(const char *name, int type, int (*call)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", name);
	CHECK(!call(fd, (struct sockaddr *)&un, sizeof(un)));
	return fd;
}

static void put(int fd, const void *text, size_t size)
{
	CHECK_EQUAL(send(fd, text, size, 0), (ssize_t)size);
}

static void expect(int fd, const char *text)
{
	char got[64] = "", control[128] __attribute__((aligned(8)));
	struct iovec iov = {got, sizeof(got)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	struct ucred cred = {};
	int on = 1;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
	CHECK_EQUAL(recvmsg(fd, &msg, MSG_DONTWAIT), (ssize_t)strlen(text));
	CHECKF(!strcmp(got, text), "'%s' instead of '%s'", got, text);
	c = CMSG_FIRSTHDR(&msg);
	CHECK(c && c->cmsg_type == SCM_CREDENTIALS);
	memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	CHECK_EQUAL(cred.pid, getpid());
	CHECK_EQUAL(cred.uid, 0);
}

static void check_end(int fd)
{
	char byte;

	CHECK_EQUAL(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

int main(void)
{
	static char big[3000], got[3000];
	int listener, silent, talker, half, gone, server, packets, packet;

	test_init();
	listener = to("server", SOCK_STREAM, bind);
	CHECK(!listen(listener, 10));
	silent = to("server", SOCK_STREAM, connect);
	talker = to("server", SOCK_STREAM, connect);
	put(talker, "hello, ", 7);
	put(talker, "server", 6);
	half = to("server", SOCK_STREAM, connect);
	put(half, "request", 7);
	CHECK(!shutdown(half, SHUT_WR));
	gone = to("server", SOCK_STREAM, connect);
	put(gone, "never mind", 10);
	close(gone);
	gone = to("server", SOCK_STREAM, connect);
	test_fill(big, sizeof(big), 3);
	put(gone, big, sizeof(big));
	close(gone);
	CHECK(!listen(listener, 1));
	packets = to("packets", SOCK_SEQPACKET, bind);
	CHECK(!listen(packets, 1));
	packet = to("packets", SOCK_SEQPACKET, connect);
	put(packet, "one", 3);
	put(packet, "two", 3);

	test_wait();
	if (test_break(1))
		CHECK(accept(listener, NULL, NULL) >= 0);
	if (test_break(2))
		put(talker, "!", 1);
	server = accept(listener, NULL, NULL);
	put(silent, "now", 3);
	CHECK_EQUAL(recv(server, got, 9, MSG_DONTWAIT), 3);
	server = accept(listener, NULL, NULL);
	expect(server, "hello, server");
	put(server, "hello", 5);
	expect(talker, "hello");
	server = accept(listener, NULL, NULL);
	expect(server, "request");
	check_end(server);
	put(server, "answer", 6);
	expect(half, "answer");
	server = accept(listener, NULL, NULL);
	expect(server, "never mind");
	check_end(server);
	server = accept(listener, NULL, NULL);
	CHECK_EQUAL(recv(server, got, sizeof(got), MSG_DONTWAIT), (ssize_t)sizeof(got));
	CHECK_FILLED(got, sizeof(got), 3);
	check_end(server);
	server = accept(packets, NULL, NULL);
	expect(server, "one");
	expect(server, "two");
	test_pass();
}
