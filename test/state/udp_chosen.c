/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP sockets that are connected: what of their own address the kernel has chosen for it goes when
 * they are connected no more, and what the program has bound stays.
 *
 * needs: root
 * network: own
 * not-in: both: the ports are those of the original
 * may-refuse: kernel-too-old
 */
#include "harness.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define CASES 7

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static const struct {
	int family, protocol;
	bool address, port; /* bound by us */
} cases[CASES] = {
	{AF_INET, IPPROTO_UDP, false, false},	  {AF_INET, IPPROTO_UDP, false, true},
	{AF_INET, IPPROTO_UDP, true, true},	  {AF_INET6, IPPROTO_UDP, false, false},
	{AF_INET6, IPPROTO_UDP, false, true},	  {AF_INET6, IPPROTO_UDP, true, true},
	{AF_INET, IPPROTO_UDPLITE, false, false},
};

static socklen_t size_of(int family)
{
	return family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static union address make(int family, bool loopback, int port)
{
	union address a = {.any.sa_family = (sa_family_t)family};

	a.in.sin_port = htons((uint16_t)port);
	if (loopback && family == AF_INET)
		a.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else if (loopback)
		a.in6.sin6_addr = in6addr_loopback;
	return a;
}

static union address name_of(int fd)
{
	union address a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, &a.any, &len));
	return a;
}

static bool is_loopback(const union address *a)
{
	return a->any.sa_family == AF_INET
		       ? a->in.sin_addr.s_addr == htonl(INADDR_LOOPBACK)
		       : !memcmp(&a->in6.sin6_addr, &in6addr_loopback, sizeof(in6addr_loopback));
}

static int set_up(int i)
{
	int family = cases[i].family, fd = socket(family, SOCK_DGRAM, cases[i].protocol);
	union address own = make(family, cases[i].address, cases[i].port ? 4000 + i : 0),
		      to = make(family, true, 5000 + i);

	CHECK(fd >= 0);
	if (cases[i].address || cases[i].port)
		CHECK(!bind(fd, &own.any, size_of(family)));
	CHECK(!connect(fd, &to.any, size_of(family)));
	return fd;
}

static void disconnect(int fd)
{
	CHECK(!connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
}

int main(void)
{
	union address before[CASES], is;
	int fds[CASES], range = 0;
	socklen_t len = sizeof(range);
	const int to[2] = {51 /* IP_LOCAL_PORT_RANGE */, 50000 << 16 | 40000};

	test_init();
	for (int i = 0; i < CASES; i++) {
		fds[i] = set_up(i);
		before[i] = name_of(fds[i]);
		CHECK(is_loopback(&before[i]) && before[i].in.sin_port);
	}
	/* Not every kernel has it. */
	range = !setsockopt(fds[0], IPPROTO_IP, to[0], &to[1], sizeof(to[1]));

	test_wait();
	if (test_break(1))
		disconnect(fds[1]);
	if (test_break(2)) {
		close(fds[0]);
		fds[0] = set_up(0);
	}
	for (int i = 0; i < CASES; i++) {
		is = name_of(fds[i]);
		CHECKF(!memcmp(&is, &before[i], sizeof(is)), "case %d has another address", i);
		disconnect(fds[i]);
		is = name_of(fds[i]);
		CHECKF(is_loopback(&is) == cases[i].address, "case %d: address", i);
		if (range || cases[i].port)
			CHECKF(ntohs(is.in.sin_port) == (cases[i].port ? 4000 + i : 0),
			       "case %d: port %d", i, ntohs(is.in.sin_port));
	}
	if (range) {
		CHECK(!getsockopt(fds[0], IPPROTO_IP, to[0], &range, &len));
		CHECK_EQUAL(range, to[1]);
	}
	test_pass();
}
