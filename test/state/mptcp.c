/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP that may take several paths (MPTCP): sockets that are fresh, bound, listening alone and in a
 * group, for both families, with a client in the backlog that is lost; and connections, which come
 * back closed.
 *
 * network: own
 * checkpoint: --tcp=closed
 * not-in: both: the ports are those of the original
 */
#include "harness.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static void set(int fd, int level, int name, int value)
{
	CHECK(!setsockopt(fd, level, name, &value, sizeof(value)));
}

static int get(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, level, name, &value, &len));
	return value;
}

static union address name_of(int fd)
{
	union address a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, &a.any, &len));
	return a;
}

static int make(int family)
{
	int fd = socket(family, SOCK_STREAM, IPPROTO_MPTCP);

	if (fd < 0)
		test_skip("no MPTCP here: %s", strerror(errno));
	return fd;
}

static int bound(int family, int port, bool share)
{
	union address a = {
		.in6 = {.sin6_family = (sa_family_t)family, .sin6_port = (in_port_t)port}};
	int fd = make(family);

	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set(fd, SOL_SOCKET, SO_REUSEPORT, share);
	CHECK(!bind(fd, &a.any, family == AF_INET ? sizeof(a.in) : sizeof(a.in6)));
	return fd;
}

static int connect_to(int listener, int family, int protocol)
{
	union address a = {.any.sa_family = (sa_family_t)family};
	int fd = socket(family, SOCK_STREAM, protocol);

	a.in.sin_port = name_of(listener).in.sin_port;
	if (family == AF_INET)
		a.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		a.in6.sin6_addr = in6addr_loopback;
	CHECK(!connect(fd, &a.any, family == AF_INET ? sizeof(a.in) : sizeof(a.in6)));
	return fd;
}

/* Whoever comes by one path is served, and whoever comes by several gets them. */
static void check_listener(int fd, int family)
{
	static const int protocols[] = {IPPROTO_TCP, IPPROTO_MPTCP};

	for (int i = 0; i < 2; i++) {
		int client = connect_to(fd, family, protocols[i]), server;
		char buf[4];

		CHECK_EQUAL(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 5000), 1);
		server = accept(fd, NULL, NULL);
		CHECK(server >= 0);
		CHECK_EQUAL(get(server, SOL_SOCKET, SO_PROTOCOL), protocols[i]);
		CHECK_EQUAL(send(client, "ping", 4, 0), 4);
		CHECK_EQUAL(recv(server, buf, 4, MSG_WAITALL), 4);
		close(client);
		close(server);
	}
}

static int backlog_of(int fd)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
	CHECK_EQUAL(info.tcpi_state, TCP_LISTEN);
	return (int)info.tcpi_sacked;
}

static int accept_from(int listener, int *client, int protocol)
{
	int fd;

	*client = connect_to(listener, AF_INET, protocol);
	fd = accept(listener, NULL, NULL);
	CHECK(fd >= 0);
	CHECK_EQUAL(get(fd, SOL_SOCKET, SO_PROTOCOL), protocol);
	return fd;
}

/* What had come can be read, then the connection is over. */
static void check_over(int fd, const char *unread, int error)
{
	char buf[16];
	size_t n = strlen(unread);

	CHECK_EQUAL(get(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_MPTCP);
	if (n) {
		CHECK_EQUAL(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), (ssize_t)n);
		CHECK(!memcmp(buf, unread, n));
	}
	if (error)
		CHECK(recv(fd, buf, 1, MSG_DONTWAIT) < 0 && errno == error);
	else
		CHECK_EQUAL(recv(fd, buf, 1, MSG_DONTWAIT), 0);
	CHECK(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
}

int main(void)
{
	int fresh, named, listener, dual, group[2], client[3], server[3], port;

	test_init();
	fresh = make(AF_INET);
	set(fresh, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fresh, IPPROTO_TCP, TCP_NODELAY, 1);
	CHECK(!fcntl(fresh, F_SETFL, O_RDWR | O_NONBLOCK));
	named = bound(AF_INET, 0, false);
	listener = bound(AF_INET, 0, false);
	set(listener, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	set(listener, IPPROTO_IP, IP_TOS, 0x10);
	CHECK(!setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	CHECK(!listen(listener, 9));
	dual = bound(AF_INET6, 0, false);
	CHECK(!listen(dual, 3));
	group[0] = bound(AF_INET, 0, true);
	port = name_of(group[0]).in.sin_port;
	group[1] = bound(AF_INET, port, true);
	for (int i = 0; i < 2; i++)
		CHECK(!listen(group[i], 4 + i));
	server[0] = accept_from(listener, &client[0], IPPROTO_MPTCP);
	CHECK_EQUAL(send(client[0], "unread", 6, 0), 6);
	server[1] = accept_from(listener, &client[1], IPPROTO_MPTCP);
	CHECK_EQUAL(send(client[1], "last", 4, 0), 4);
	CHECK(!shutdown(client[1], SHUT_WR));
	server[2] = accept_from(listener, &client[2], IPPROTO_TCP);
	CHECK_EQUAL(poll(&(struct pollfd){.fd = server[1], .events = POLLRDHUP}, 1, 5000), 1);
	CHECK_EQUAL(poll(&(struct pollfd){.fd = server[0], .events = POLLIN}, 1, 5000), 1);

	test_wait();
	if (test_break(1))
		set(listener, IPPROTO_TCP, TCP_KEEPIDLE, 78);
	if (test_break(2))
		close(group[1]);
	if (test_break(3))
		CHECK(!listen(dual, 4));
	CHECK_EQUAL(get(fresh, SOL_SOCKET, SO_PROTOCOL), IPPROTO_MPTCP);
	CHECK_EQUAL(get(fresh, SOL_SOCKET, SO_KEEPALIVE), 1);
	CHECK_EQUAL(get(fresh, IPPROTO_TCP, TCP_NODELAY), 1);
	CHECK_EQUAL(fcntl(fresh, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK(name_of(named).in.sin_port);
	CHECK_EQUAL(get(named, SOL_SOCKET, SO_REUSEADDR), 1);
	CHECK_EQUAL(get(listener, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	CHECK_EQUAL(get(listener, IPPROTO_IP, IP_TOS), 0x10);
	CHECK_EQUAL(backlog_of(listener), 9);
	CHECK_EQUAL(backlog_of(dual), 3);
	for (int i = 0; i < 2; i++) {
		CHECK_EQUAL(name_of(group[i]).in.sin_port, port);
		CHECK_EQUAL(get(group[i], SOL_SOCKET, SO_REUSEPORT), 1);
		CHECK_EQUAL(backlog_of(group[i]), 4 + i);
	}
	check_listener(listener, AF_INET);
	check_listener(dual, AF_INET);
	check_listener(dual, AF_INET6);
	CHECK(!listen(named, 1));
	check_listener(named, AF_INET);
	if (!test_mode_is("plain")) {
		check_over(server[0], "unread", ECONNRESET);
		check_over(server[1], "last", 0);
		check_over(client[0], "", ECONNRESET);
		CHECK_EQUAL(get(server[2], SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
	}
	test_pass();
}
