/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of internet sockets, by level; both families on one socket; sockets that share a port.
 *
 * network: own
 * not-in: both: the ports are those of the original
 */
#include "harness.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define UDPLITE_SEND_CSCOV 10
#define UDPLITE_RECV_CSCOV 11

struct option {
	int level, name, value;
};

static const struct option tcp[] = {
	{IPPROTO_TCP, TCP_MAXSEG, 1000},
	{IPPROTO_TCP, TCP_KEEPINTVL, 33},
	{IPPROTO_TCP, TCP_KEEPCNT, 4},
	{IPPROTO_TCP, TCP_SYNCNT, 3},
	{IPPROTO_TCP, TCP_LINGER2, 12},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, 4321},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT, 8192},
	{IPPROTO_TCP, TCP_FASTOPEN, 6},
	{IPPROTO_TCP, TCP_CORK, 1},
	{IPPROTO_IP, IP_TOS, 0x10},
	{IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT},
	{IPPROTO_IP, IP_MINTTL, 5},
	{IPPROTO_IP, IP_FREEBIND, 1},
};
static const struct option udp[] = {
	{IPPROTO_UDP, UDP_SEGMENT, 1200},    {IPPROTO_UDP, UDP_GRO, 1},
	{IPPROTO_IP, IP_RECVORIGDSTADDR, 1}, {IPPROTO_IP, IP_RECVERR, 1},
	{IPPROTO_IP, IP_MULTICAST_TTL, 9},   {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1},
};
static const struct option six[] = {
	{IPPROTO_IPV6, IPV6_V6ONLY, 0},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, 21},
	{IPPROTO_IPV6, IPV6_TCLASS, 0x20},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, 1},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1},
	{IPPROTO_IPV6, IPV6_DONTFRAG, 1},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO},
	{IPPROTO_UDP, UDP_NO_CHECK6_RX, 1},
};
static const struct option lite[] = {
	{IPPROTO_UDPLITE, UDPLITE_SEND_CSCOV, 20},
	{IPPROTO_UDPLITE, UDPLITE_RECV_CSCOV, 12},
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static void set(int fd, const struct option *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		CHECKF(!setsockopt(fd, list[i].level, list[i].name, &list[i].value,
				   sizeof(list[i].value)),
		       "option %d of level %d: %s", list[i].name, list[i].level, strerror(errno));
}

static void check(int fd, const struct option *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int value = 0;
		socklen_t len = sizeof(value);

		CHECK(!getsockopt(fd, list[i].level, list[i].name, &value, &len));
		CHECKF(value == list[i].value, "option %d of level %d is %d, not %d", list[i].name,
		       list[i].level, value, list[i].value);
	}
}

static int bound(int family, int type, int protocol, int port, bool share)
{
	struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family,
				 .sin6_port = htons((uint16_t)port)};
	const int on = 1;
	int fd = socket(family, type, protocol);

	CHECK(fd >= 0);
	if (share)
		CHECK(!setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)));
	CHECK(!bind(fd, (struct sockaddr *)&a,
		    family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(a)));
	return fd;
}

static int port_of(int fd)
{
	struct sockaddr_in6 a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, (struct sockaddr *)&a, &len));
	return ntohs(a.sin6_port);
}

/* A client of IPv4 gets in. */
static void check_client(const int *listeners, int n)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port_of(listeners[0])),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct pollfd p[3] = {};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(!connect(fd, (struct sockaddr *)&to, sizeof(to)));
	for (int i = 0; i < n; i++)
		p[i] = (struct pollfd){.fd = listeners[i], .events = POLLIN};
	CHECK_EQUAL(poll(p, (nfds_t)n, 5000), 1);
	close(fd);
}

int main(void)
{
	int stream, datagram, other, partial, dual, group[3], devices, port;
	char key[16] = "0123456789abcde", is[32] = "", device[16] = "";
	socklen_t len = sizeof(is), device_len = sizeof(device);

	test_init();
	stream = socket(AF_INET, SOCK_STREAM, 0);
	set(stream, tcp, COUNT(tcp));
	CHECK(!setsockopt(stream, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	CHECK(!setsockopt(stream, IPPROTO_TCP, TCP_FASTOPEN_KEY, key, sizeof(key)));
	datagram = bound(AF_INET, SOCK_DGRAM, 0, 0, false);
	set(datagram, udp, COUNT(udp));
	other = bound(AF_INET6, SOCK_DGRAM, 0, 0, false);
	set(other, six + 1, COUNT(six) - 1);
	partial = bound(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, 0, false);
	set(partial, lite, COUNT(lite));
	dual = bound(AF_INET6, SOCK_STREAM, 0, 0, false);
	CHECK(!listen(dual, 3));
	group[0] = bound(AF_INET, SOCK_STREAM, 0, 0, true);
	for (int i = 1; i < 3; i++)
		group[i] = bound(AF_INET, SOCK_STREAM, 0, port_of(group[0]), true);
	for (int i = 0; i < 3; i++)
		CHECK(!listen(group[i], 4 + i));
	port = port_of(group[0]);
	devices = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!setsockopt(devices, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2));
	CHECK(!listen(devices, 1));

	test_wait();
	if (test_break(1))
		CHECK(!setsockopt(stream, IPPROTO_TCP, TCP_MAXSEG, &(int){900}, sizeof(int)));
	if (test_break(2))
		close(group[1]);
	check(stream, tcp, COUNT(tcp));
	CHECK(!getsockopt(stream, IPPROTO_TCP, TCP_CONGESTION, is, &len));
	CHECK(!strcmp(is, "reno"));
	len = sizeof(is);
	CHECK(!getsockopt(stream, IPPROTO_TCP, TCP_FASTOPEN_KEY, is, &len));
	CHECK_EQUAL(len, sizeof(key));
	CHECK(!memcmp(is, key, sizeof(key)));
	check(datagram, udp, COUNT(udp));
	check(other, six, COUNT(six));
	check(partial, lite, COUNT(lite));
	check(dual, six, 1);
	check_client(&dual, 1);
	for (int i = 0; i < 3; i++) {
		CHECK_EQUAL(port_of(group[i]), port);
		check(group[i], (const struct option[]){{SOL_SOCKET, SO_REUSEPORT, 1}}, 1);
	}
	check_client(group, 3);
	/* One more may join them. */
	close(bound(AF_INET, SOCK_STREAM, 0, port, true));
	CHECK(!getsockopt(devices, SOL_SOCKET, SO_BINDTODEVICE, device, &device_len));
	CHECK(!strcmp(device, "lo"));
	check_client(&devices, 1);
	test_pass();
}
