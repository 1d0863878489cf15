/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multicast groups that sockets have joined, with and without chosen sources, and the options
 * of those who send. Ports are taken at the end only: copies may run beside each other.
 */
#include "harness.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_MULTICAST_ALL
#define IP_MULTICAST_ALL 49
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif

#define NOT_A_MEMBER (-1)
#define FROM_ALL     0
#define ONLY_FROM(n) (100 + (n))
#define NOT_FROM(n)  (n)

static unsigned int lo;

static struct sockaddr_storage address(const char *text)
{
	struct sockaddr_storage a = {};

	if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&a)->sin_addr) == 1) {
		a.ss_family = AF_INET;
	} else {
		a.ss_family = AF_INET6;
		CHECK(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&a)->sin6_addr) == 1);
	}
	return a;
}

static int level(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
}

static void group(int fd, int what, const char *text)
{
	struct group_req req = {.gr_interface = lo, .gr_group = address(text)};

	CHECK(!setsockopt(fd, level(&req.gr_group), what, &req, sizeof(req)));
}

static void source(int fd, int what, const char *text, const char *from)
{
	struct group_source_req req = {
		.gsr_interface = lo, .gsr_group = address(text), .gsr_source = address(from)};

	CHECK(!setsockopt(fd, level(&req.gsr_group), what, &req, sizeof(req)));
}

/* How a socket is a member; `from`: the first source. */
static int membership(int fd, const char *text, const char *from)
{
	char room[GROUP_FILTER_SIZE(8)] __attribute__((aligned(8))) = {};
	struct group_filter *f = (struct group_filter *)room;
	struct sockaddr_storage want, *is = &f->gf_slist[0];
	socklen_t len = sizeof(room);

	f->gf_interface = lo;
	f->gf_group = address(text);
	f->gf_numsrc = 8;
	if (getsockopt(fd, level(&f->gf_group), MCAST_MSFILTER, f, &len) < 0) {
		CHECK_EQUAL(errno, EADDRNOTAVAIL);
		return NOT_A_MEMBER;
	}
	if (from) {
		want = address(from);
		CHECK(f->gf_numsrc > 0);
		if (want.ss_family == AF_INET)
			CHECK(((struct sockaddr_in *)is)->sin_addr.s_addr ==
			      ((struct sockaddr_in *)&want)->sin_addr.s_addr);
		else
			CHECK(!memcmp(&((struct sockaddr_in6 *)is)->sin6_addr,
				      &((struct sockaddr_in6 *)&want)->sin6_addr, 16));
	}
	return (int)f->gf_numsrc + (f->gf_fmode == MCAST_INCLUDE ? 100 : 0);
}

static void set(int fd, int of, int name, int value)
{
	CHECK(!setsockopt(fd, of, name, &value, sizeof(value)));
}

static int get(int fd, int of, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, of, name, &value, &len));
	return value;
}

/* Whether what is sent to a group from 127.0.0.1 arrives at the socket, which gets a port now. */
static bool arrives(int fd, const char *text)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	struct ip_mreqn by = {.imr_ifindex = (int)lo};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	socklen_t len = sizeof(at);
	int from = socket(AF_INET, SOCK_DGRAM, 0);

	CHECK(!bind(fd, (struct sockaddr *)&at, sizeof(at)));
	CHECK(!getsockname(fd, (struct sockaddr *)&at, &len));
	CHECK(inet_pton(AF_INET, text, &at.sin_addr) == 1);
	by.imr_address.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(!setsockopt(from, IPPROTO_IP, IP_MULTICAST_IF, &by, sizeof(by)));
	CHECK_EQUAL(sendto(from, "hello", 5, 0, (struct sockaddr *)&at, sizeof(at)), 5);
	close(from);
	return poll(&p, 1, 200) > 0;
}

int main(void)
{
	int any, ssm, blocked, aside, six, both, options4, options6;

	test_init();
	lo = if_nametoindex("lo");
	CHECK(lo > 0);
	any = socket(AF_INET, SOCK_DGRAM, 0);
	group(any, MCAST_JOIN_GROUP, "239.7.7.1");
	group(any, MCAST_JOIN_GROUP, "239.7.7.2");
	ssm = socket(AF_INET, SOCK_DGRAM, 0);
	source(ssm, MCAST_JOIN_SOURCE_GROUP, "232.7.7.1", "127.0.0.9");
	source(ssm, MCAST_JOIN_SOURCE_GROUP, "232.7.7.1", "127.0.0.10");
	blocked = socket(AF_INET, SOCK_DGRAM, 0);
	group(blocked, MCAST_JOIN_GROUP, "239.7.7.1");
	source(blocked, MCAST_BLOCK_SOURCE, "239.7.7.1", "127.0.0.1");
	aside = socket(AF_INET, SOCK_DGRAM, 0);
	set(aside, IPPROTO_IP, IP_MULTICAST_ALL, 0);
	six = socket(AF_INET6, SOCK_DGRAM, 0);
	group(six, MCAST_JOIN_GROUP, "ff15::7:1");
	source(six, MCAST_JOIN_SOURCE_GROUP, "ff35::7:2", "fd00::99");
	both = socket(AF_INET6, SOCK_DGRAM, 0);
	group(both, MCAST_JOIN_GROUP, "ff15::7:3");
	group(both, MCAST_JOIN_GROUP, "239.7.7.3");
	options4 = socket(AF_INET, SOCK_DGRAM, 0);
	set(options4, IPPROTO_IP, IP_MULTICAST_TTL, 7);
	set(options4, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
	set(options4, IPPROTO_IP, IP_MULTICAST_IF, (int)htonl(INADDR_LOOPBACK));
	options6 = socket(AF_INET6, SOCK_DGRAM, 0);
	set(options6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 9);
	set(options6, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0);
	set(options6, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)lo);
	set(options6, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);

	test_wait();
	if (test_break(1))
		group(any, MCAST_LEAVE_GROUP, "239.7.7.1");
	if (test_break(2))
		group(both, MCAST_LEAVE_GROUP, "ff15::7:3");
	if (test_break(3))
		source(blocked, MCAST_UNBLOCK_SOURCE, "239.7.7.1", "127.0.0.1");
	CHECK_EQUAL(membership(any, "239.7.7.1", NULL), FROM_ALL);
	CHECK_EQUAL(membership(any, "239.7.7.2", NULL), FROM_ALL);
	CHECK_EQUAL(membership(any, "232.7.7.1", NULL), NOT_A_MEMBER);
	CHECK_EQUAL(membership(ssm, "232.7.7.1", "127.0.0.9"), ONLY_FROM(2));
	CHECK_EQUAL(membership(ssm, "239.7.7.1", NULL), NOT_A_MEMBER);
	CHECK_EQUAL(membership(blocked, "239.7.7.1", "127.0.0.1"), NOT_FROM(1));
	CHECK_EQUAL(membership(aside, "239.7.7.1", NULL), NOT_A_MEMBER);
	CHECK_EQUAL(membership(six, "ff15::7:1", NULL), FROM_ALL);
	CHECK_EQUAL(membership(six, "ff35::7:2", "fd00::99"), ONLY_FROM(1));
	CHECK_EQUAL(membership(six, "239.7.7.3", NULL), NOT_A_MEMBER);
	CHECK_EQUAL(membership(both, "ff15::7:3", NULL), FROM_ALL);
	CHECK_EQUAL(membership(both, "239.7.7.3", NULL), FROM_ALL);
	CHECK(arrives(any, "239.7.7.1"));
	CHECK(!arrives(ssm, "232.7.7.1"));
	CHECK(!arrives(blocked, "239.7.7.1"));
	CHECK(!arrives(aside, "239.7.7.1"));
	CHECK_EQUAL(get(options4, IPPROTO_IP, IP_MULTICAST_TTL), 7);
	CHECK_EQUAL(get(options4, IPPROTO_IP, IP_MULTICAST_LOOP), 0);
	CHECK_EQUAL(get(options4, IPPROTO_IP, IP_MULTICAST_IF), (int)htonl(INADDR_LOOPBACK));
	CHECK_EQUAL(get(options6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS), 9);
	CHECK_EQUAL(get(options6, IPPROTO_IPV6, IPV6_MULTICAST_LOOP), 0);
	CHECK_EQUAL(get(options6, IPPROTO_IPV6, IPV6_MULTICAST_IF), lo);
	CHECK_EQUAL(get(options6, IPPROTO_IPV6, IPV6_MULTICAST_ALL), 0);
	group(any, MCAST_LEAVE_GROUP, "239.7.7.1");
	test_pass();
}
