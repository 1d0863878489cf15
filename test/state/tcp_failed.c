/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP sockets with an error that nobody has asked for yet: a connection that was reset, with unread
 * data, and one that was refused. Which error it is tells only the memory of the kernel.
 *
 * needs: root
 * network: own
 * may-refuse: tcp-connection
 */
#include "harness.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in at = {.sin_family = AF_INET};

static int bound(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(at);

	at.sin_port = 0;
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(!bind(fd, (struct sockaddr *)&at, sizeof(at)));
	CHECK(!getsockname(fd, (struct sockaddr *)&at, &len));
	return fd;
}

static void until_failed(int fd)
{
	struct pollfd p = {.fd = fd};

	CHECK_EQUAL(poll(&p, 1, 5000), 1);
	CHECK(p.revents & POLLERR);
}

static int error_of(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len));
	return value;
}

int main(void)
{
	struct linger now = {1, 0};
	int listener, reset, peer, refused;
	char buf[8] = "";

	test_init();
	listener = bound();
	refused = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	CHECK(connect(refused, (struct sockaddr *)&at, sizeof(at)) < 0);
	until_failed(refused);
	CHECK(!listen(listener, 1));
	reset = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!connect(reset, (struct sockaddr *)&at, sizeof(at)));
	peer = accept(listener, NULL, NULL);
	CHECK_EQUAL(send(peer, "rest", 4, 0), 4);
	CHECK_EQUAL(recv(reset, buf, 4, MSG_PEEK | MSG_WAITALL), 4);
	CHECK(!setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(peer);
	close(listener);
	until_failed(reset);

	test_wait();
	if (test_break(1))
		error_of(reset);
	if (test_break(2))
		error_of(refused);
	until_failed(reset);
	memset(buf, 0, sizeof(buf));
	CHECK_EQUAL(recv(reset, buf, sizeof(buf), 0), 4);
	CHECK(!strcmp(buf, "rest"));
	CHECK(recv(reset, buf, 1, 0) < 0 && errno == ECONNRESET);
	CHECK_EQUAL(recv(reset, buf, 1, 0), 0);
	until_failed(refused);
	CHECK_EQUAL(error_of(refused), ECONNREFUSED);
	/* It may try again. */
	listener = bound();
	CHECK(!listen(listener, 1));
	CHECK(!connect(refused, (struct sockaddr *)&at, sizeof(at)) || errno == EINPROGRESS ||
	      errno == ECONNABORTED);
	test_pass();
}
