/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages without bytes that have been looked at before (SO_PEEK_OFF): whoever looks again sees
 * them only in the kernel's memory. With the names and credentials of who sent them. And SO_INQ.
 *
 * needs: root
 * not-in: both: names of sockets are taken by the original
 */
#include "unix_named.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SO_INQ_ 84 /* 6.17 */

static void expect(int fd, const char *text, const char *sender, bool credentials)
{
	struct sockaddr_un un = {};
	char got[64] = "", control[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec iov = {got, sizeof(got)};
	struct msghdr msg = {.msg_name = &un,
			     .msg_namelen = sizeof(un),
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	struct ucred cred;

	CHECK_EQUAL(recvmsg(fd, &msg, MSG_DONTWAIT), (ssize_t)strlen(text));
	CHECK(!strcmp(got, text));
	CHECKF(!strcmp(un.sun_path, sender), "sender '%s', not '%s'", un.sun_path, sender);
	c = CMSG_FIRSTHDR(&msg);
	CHECK_EQUAL(c != NULL, credentials);
	if (!c)
		return;
	memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	CHECK_EQUAL(cred.pid, getpid());
	CHECK_EQUAL(cred.uid, getuid());
}

/* All that is there. */
static void look(int fd)
{
	int none = -1, zero = 0;
	char byte;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero)));
	while (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC) >= 0)
		;
	CHECK_EQUAL(errno, EAGAIN);
	CHECK(!setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &none, sizeof(none)));
}

static int inq(int fd)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	int left = -1;

	CHECK_EQUAL(recvmsg(fd, &msg, MSG_DONTWAIT), 1);
	if (CMSG_FIRSTHDR(&msg))
		memcpy(&left, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(left));
	return left;
}

int main(void)
{
	int server, sender, other, mixed[2], stream[2], on = 1;
	bool tells;
	char byte;

	test_init();
	server = bound("server");
	sender = bound("sender");
	other = bound("other");
	CHECK(!setsockopt(server, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
	send_to(sender, "server", "");
	send_to(sender, "server", "first");
	send_to(other, "server", "");
	send_to(sender, "server", "");
	send_to(other, "server", "second");
	look(server);
	send_to(other, "server", ""); /* after the look */
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, mixed));
	CHECK_EQUAL(send(mixed[0], "x", 1, 0), 1);
	CHECK_EQUAL(send(mixed[0], "", 0, 0), 0);
	look(mixed[1]);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
	CHECK_EQUAL(write(stream[0], "abcd", 4), 4);
	tells = !setsockopt(stream[1], SOL_SOCKET, SO_INQ_, &on, sizeof(on));

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(recv(server, &byte, 1, 0), 0);
	if (test_break(2))
		CHECK_EQUAL(recv(mixed[1], &byte, 1, 0), 1);
	expect(server, "", "sender", true);
	expect(server, "first", "sender", true);
	expect(server, "", "other", true);
	expect(server, "", "sender", true);
	expect(server, "second", "other", true);
	expect(server, "", "other", true);
	CHECK(recv(server, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	expect(mixed[1], "x", "", false);
	CHECK_EQUAL(recv(mixed[1], &byte, 1, MSG_DONTWAIT), 0);
	CHECK(recv(mixed[1], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	CHECK_EQUAL(inq(stream[1]), tells ? 3 : -1);
	test_pass();
}
