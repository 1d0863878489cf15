/* SPDX-License-Identifier: Apache-2.0 */
/* Unix datagram sockets: several senders, message boundaries, credentials, connected one way.
 *
 * not-in: both: names of sockets are taken by the original
 */
#include "unix_named.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void expect(int fd, const char *text, const char *sender)
{
	struct sockaddr_un un = {};
	socklen_t len = sizeof(un);
	char got[64] = "";

	CHECK_EQUAL(recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&un, &len),
		    (ssize_t)strlen(text));
	CHECK(!strcmp(got, text));
	if (sender)
		CHECKF(!strcmp(un.sun_path, sender), "sender %s, not %s", un.sun_path, sender);
	else
		CHECK(len <= offsetof(struct sockaddr_un, sun_path));
}

static void expect_credentials(int fd, pid_t pid)
{
	char got[64] = "", control[128];
	struct iovec iov = {got, sizeof(got)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	struct ucred cred;

	CHECK_EQUAL(recvmsg(fd, &msg, 0), 2);
	c = CMSG_FIRSTHDR(&msg);
	CHECK(c && c->cmsg_type == SCM_CREDENTIALS);
	memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	if (!test_mode_is("user"))
		CHECK_EQUAL(cred.pid, pid);
	CHECK_EQUAL(cred.uid, getuid());
}

int main(void)
{
	int server, sender, anonymous, gone, connected, pair[2], cred[2], on = 1;
	char byte;

	test_init();
	server = bound("server");
	sender = bound("sender");
	anonymous = socket(AF_UNIX, SOCK_DGRAM, 0);
	gone = bound("gone");
	send_to(sender, "server", "first");
	send_to(anonymous, "server", "second");
	send_to(sender, "server", "");
	send_to(gone, "server", "third");
	close(gone);
	CHECK(!unlink("gone"));
	connected = bound("connected");
	CHECK(!connect(connected, (struct sockaddr *)&(struct sockaddr_un){AF_UNIX, "server"},
		       sizeof(struct sockaddr_un)));
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair));
	CHECK_EQUAL(send(pair[0], "a", 1, 0), 1);
	CHECK_EQUAL(send(pair[0], "bc", 2, 0), 2);
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, cred));
	CHECK(!setsockopt(cred[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
	CHECK_EQUAL(send(cred[0], "me", 2, 0), 2);

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(recv(server, &byte, 1, 0), 1);
	expect(server, "first", "sender");
	expect(server, "second", NULL);
	expect(server, "", "sender");
	expect(server, "third", "gone");
	CHECK(recv(server, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	CHECK_EQUAL(send(connected, "fourth", 6, 0), 6);
	expect(server, "fourth", "connected");
	expect(pair[1], "a", NULL);
	expect(pair[1], "bc", NULL);
	CHECK(recv(pair[1], &byte, 1, 0) < 0 && errno == EAGAIN);
	CHECK_EQUAL(send(pair[1], "d", 1, 0), 1);
	expect(pair[0], "d", NULL);
	expect_credentials(cred[1], getpid());
	test_pass();
}
