/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams that wait in the queues of UDP and UDP-Lite sockets: in order, with their boundaries,
 * senders and what comes with them. Senders inside the tree and outside, open and closed.
 *
 * network: own
 * not-in: both: the ports are those of the original
 */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDPLITE_RECV_CSCOV
#define UDPLITE_RECV_CSCOV 11
#endif

#define LARGE 60000

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static union address of(int fd)
{
	union address a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, &a.any, &len));
	return a;
}

static socklen_t size_of(const union address *a)
{
	return a->any.sa_family == AF_INET ? sizeof(a->in) : sizeof(a->in6);
}

static void set(int fd, int level, int name, int value)
{
	CHECK(!setsockopt(fd, level, name, &value, sizeof(value)));
}

static int make(const char *ip, int protocol)
{
	union address a = {};
	int fd;

	if (inet_pton(AF_INET, ip, &a.in.sin_addr) == 1) {
		a.any.sa_family = AF_INET;
	} else {
		a.any.sa_family = AF_INET6;
		CHECK(inet_pton(AF_INET6, ip, &a.in6.sin6_addr) == 1);
	}
	fd = socket(a.any.sa_family, SOCK_DGRAM, protocol);
	CHECK(fd >= 0);
	CHECK(!bind(fd, &a.any, size_of(&a)));
	return fd;
}

static void send_to(int from, union address to, const void *data, size_t len)
{
	CHECK_EQUAL(sendto(from, data, len, 0, &to.any, size_of(&to)), len);
}

/* The next datagram must be this one. */
static void expect(int fd, union address from, const void *data, size_t len)
{
	static char buf[LARGE + 1];
	union address is = {};
	socklen_t is_len = sizeof(is);

	CHECK_EQUAL(recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT, &is.any, &is_len), len);
	CHECK(!memcmp(buf, data, len));
	CHECK_EQUAL(is_len, size_of(&from));
	CHECK(!memcmp(&is, &from, is_len));
}

static void expect_none(int fd)
{
	char c;

	CHECK(recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

static int control(int fd, int level, int type, void *value, size_t size)
{
	char c, room[256] __attribute__((aligned(8)));
	struct iovec iov = {&c, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = room,
			     .msg_controllen = sizeof(room)};

	CHECK_EQUAL(recvmsg(fd, &msg, MSG_DONTWAIT | MSG_PEEK), 1);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h; h = CMSG_NXTHDR(&msg, h))
		if (h->cmsg_level == level && h->cmsg_type == type) {
			memcpy(value, CMSG_DATA(h), size);
			return 1;
		}
	return 0;
}

static int peek_off(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &value, &len));
	return value;
}

static int buffer(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, &len));
	return value;
}

/* An error waits there, which only root can save. */
static int make_refused(void)
{
	int target = make("127.0.0.1", 0), fd = make("127.0.0.1", 0);
	union address to = of(target);

	CHECK(!connect(fd, &to.any, sizeof(to.in)));
	close(target);
	CHECK_EQUAL(send(fd, "x", 1, 0), 1);
	return fd;
}

static void check_refused(int fd)
{
	char c;

	if (fd < 0)
		return;
	CHECK(recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == ECONNREFUSED);
	expect_none(fd);
}

int main(void)
{
	static char large[LARGE];
	int any, sender, connected, six, sender6, lite, lite6, closed, fields, many, shut, mute,
		refused, ttl = 0;
	union address sender_at, sender6_at, closed_at, mapped, to;
	unsigned char tos = 0;
	struct in_pktinfo info = {};

	test_init();
	test_fill(large, LARGE, 3);
	sender = make("127.0.0.1", 0);
	sender_at = of(sender);
	any = make("0.0.0.0", 0);
	to = of(any);
	to.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	closed = make("127.0.0.7", 0);
	closed_at = of(closed);
	send_to(sender, to, "first", 5);
	send_to(closed, to, "second", 6);
	send_to(sender, to, large, LARGE);
	close(closed);
	/* One that is connected, with what came before and after. */
	connected = make("127.0.0.1", 0);
	send_to(sender, of(connected), "before", 6);
	CHECK(!connect(connected, &sender_at.any, sizeof(sender_at.in)));
	send_to(sender, of(connected), "", 0);
	/* IPv6 with IPv4 in it. */
	six = socket(AF_INET6, SOCK_DGRAM, 0);
	to = (union address){.in6 = {.sin6_family = AF_INET6}};
	CHECK(!bind(six, &to.any, sizeof(to.in6)));
	sender6 = make("::1", 0);
	sender6_at = of(sender6);
	to = of(six);
	to.in6.sin6_addr = in6addr_loopback;
	send_to(sender6, to, "six", 3);
	to.in = (struct sockaddr_in){.sin_family = AF_INET,
				     .sin_port = of(six).in6.sin6_port,
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	send_to(sender, to, "four", 4);
	lite = make("127.0.0.1", IPPROTO_UDPLITE);
	set(lite, IPPROTO_UDPLITE, UDPLITE_RECV_CSCOV, 8);
	send_to(lite, of(lite), "lite", 4);
	lite6 = make("::1", IPPROTO_UDPLITE);
	send_to(lite6, of(lite6), "lite6", 5);
	/* What comes with them, and where it was sent to. */
	fields = make("0.0.0.0", 0);
	set(fields, IPPROTO_IP, IP_RECVTTL, 1);
	set(fields, IPPROTO_IP, IP_RECVTOS, 1);
	set(fields, IPPROTO_IP, IP_PKTINFO, 1);
	to = of(fields);
	to.in.sin_addr.s_addr = htonl(0x7f000009);
	set(sender, IPPROTO_IP, IP_TTL, 17);
	set(sender, IPPROTO_IP, IP_TOS, 0x28);
	send_to(sender, to, "f", 1);
	/* Empty ones, and more than a buffer of the default size holds. */
	many = make("127.0.0.1", 0);
	set(many, SOL_SOCKET, SO_RCVBUF, 100000);
	for (int i = 0; i < 100; i++)
		send_to(sender, of(many), large, (size_t)(i % 3));
	shut = make("127.0.0.1", 0);
	send_to(sender, of(shut), "shut", 4);
	CHECK(!connect(shut, &sender_at.any, sizeof(sender_at.in)));
	CHECK(!shutdown(shut, SHUT_RD));
	refused = test_mode_is("user") ? -1 : make_refused();
	mute = make("127.0.0.1", 0);
	CHECK(!connect(mute, &sender_at.any, sizeof(sender_at.in)));
	CHECK(!shutdown(mute, SHUT_WR));

	test_wait();
	if (test_break(1))
		send_to(sender, of(any), "more", 4);
	if (test_break(2))
		expect(any, sender_at, "first", 5);
	if (test_break(3))
		CHECK(recv(many, large, 1, 0) >= 0);
	expect(any, sender_at, "first", 5);
	expect(any, closed_at, "second", 6);
	expect(any, sender_at, large, LARGE);
	expect_none(any);
	expect(connected, sender_at, "before", 6);
	expect(connected, sender_at, "", 0);
	expect_none(connected);
	expect(six, sender6_at, "six", 3);
	mapped = (union address){
		.in6 = {.sin6_family = AF_INET6, .sin6_port = sender_at.in.sin_port}};
	CHECK(inet_pton(AF_INET6, "::ffff:127.0.0.1", &mapped.in6.sin6_addr) == 1);
	expect(six, mapped, "four", 4);
	expect_none(six);
	expect(lite, of(lite), "lite", 4);
	expect(lite6, of(lite6), "lite6", 5);
	expect_none(lite6);
	CHECK(control(fields, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl)));
	CHECK_EQUAL(ttl, 17);
	CHECK(control(fields, IPPROTO_IP, IP_TOS, &tos, sizeof(tos)));
	CHECK_EQUAL(tos, 0x28);
	CHECK(control(fields, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info)));
	CHECK_EQUAL(ntohl(info.ipi_addr.s_addr), 0x7f000009);
	CHECK_EQUAL(info.ipi_ifindex, 1);
	expect(fields, sender_at, "f", 1);
	CHECK_EQUAL(buffer(many), 200000);
	for (int i = 0; i < 100; i++)
		expect(many, sender_at, large, (size_t)(i % 3));
	expect_none(many);
	CHECK_EQUAL(peek_off(any), -1);
	CHECK(peek_off(many) < 0);
	CHECK_EQUAL(buffer(any), buffer(sender));
	expect(shut, sender_at, "shut", 4);
	CHECK_EQUAL(recv(shut, large, 1, 0), 0);
	CHECK(send(mute, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	CHECK(recv(mute, large, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	check_refused(refused);
	/* All is as it was for what comes now. */
	to = of(any);
	to.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	send_to(sender, to, "new", 3);
	expect(any, sender_at, "new", 3);
	CHECK_EQUAL(send(connected, "reply", 5, 0), 5);
	expect(sender, of(connected), "reply", 5);
	test_pass();
}
