/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options that no getsockopt() tells: multicast by the number of an interface, interface and
 * MTU of IPv6, anycast addresses, the budget of busy polling.
 *
 * needs: root
 * network: own
 * not-in: both: the addresses are those of the original
 */
#include "harness.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOPBACK	    1
#define BUSY_POLL_BUDGET    70
#define ADDRESS		    "fd00::5"
#define ANYCAST		    "fd00::a"
#define GROUP		    "239.1.2.3"
#define RECEIVED_OPTIONS    6 /* IPV6_2292PKTOPTIONS */
#define PORT		    4711
#define MTU		    1300
#define SIOCSIFADDR_REQUEST 0x8916

struct in6_ifreq { /* linux/ipv6.h */
	struct in6_addr addr;
	uint32_t prefixlen;
	int ifindex;
};

static struct in6_addr v6(const char *text)
{
	struct in6_addr a;

	CHECK_EQUAL(inet_pton(AF_INET6, text, &a), 1);
	return a;
}

static void add_address(void)
{
	struct in6_ifreq req = {.addr = v6(ADDRESS), .prefixlen = 128, .ifindex = LOOPBACK};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	CHECK(!ioctl(fd, SIOCSIFADDR_REQUEST, &req) || errno == EEXIST);
	close(fd);
	/* Only routers have anycast addresses that are not of a prefix of theirs. */
	test_write("/proc/sys/net/ipv6/conf/all/forwarding", "1", 1);
}

static int set_up_v6(void)
{
	struct ipv6_mreq join = {v6(ANYCAST), LOOPBACK};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0), mtu = MTU, discover = IPV6_PMTUDISC_DO;

	CHECK(!setsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, sizeof(mtu)));
	CHECK(!setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &discover, sizeof(discover)));
	CHECK(!setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_ANYCAST, &join, sizeof(join)));
	return fd;
}

static int set_up_v4(void)
{
	struct ip_mreqn by = {.imr_ifindex = LOOPBACK};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), budget = 3;

	CHECK(!setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &by, sizeof(by)));
	CHECK(!setsockopt(fd, SOL_SOCKET, BUSY_POLL_BUDGET, &budget, sizeof(budget)) ||
	      errno == ENOPROTOOPT);
	return fd;
}

static bool has_anycast(void)
{
	FILE *f = fopen("/proc/net/anycast6", "r");
	char line[128];
	bool found = false;

	while (f && fgets(line, sizeof(line), f))
		found |= strstr(line, "fd00000000000000000000000000000a") != NULL;
	if (f)
		fclose(f);
	return found;
}

static void check_v4(int fd)
{
	struct ip_mreqn join = {.imr_ifindex = LOOPBACK};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	int receiver = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	char byte;

	CHECK(!bind(receiver, (struct sockaddr *)&to, sizeof(to)));
	CHECK_EQUAL(inet_pton(AF_INET, GROUP, &to.sin_addr), 1);
	join.imr_multiaddr = to.sin_addr;
	CHECK(!setsockopt(receiver, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof(join)));
	/* There is no route but by that option. */
	CHECK_EQUAL(sendto(fd, "m", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
	CHECK_EQUAL(recv(receiver, &byte, 1, 0), 1);
	close(receiver);
}

/* With a stream, what has been set can be seen among what would be received. */
static void check_source(int fd)
{
	char control[256] = {};
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof(control)};
	struct in6_addr source = v6(ADDRESS);
	struct in6_pktinfo is;
	socklen_t len = sizeof(control);

	CHECK(!getsockopt(fd, IPPROTO_IPV6, RECEIVED_OPTIONS, control, &len));
	CHECK(CMSG_FIRSTHDR(&m) && CMSG_FIRSTHDR(&m)->cmsg_type == IPV6_PKTINFO);
	memcpy(&is, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(is));
	CHECK(!memcmp(&is.ipi6_addr, &source, sizeof(source)));
	CHECK_EQUAL(is.ipi6_ifindex, LOOPBACK);
}

static int set_up_source(void)
{
	struct in6_pktinfo source = {v6(ADDRESS), LOOPBACK};
	int fd = socket(AF_INET6, SOCK_STREAM, 0), on = 1;

	CHECK(!setsockopt(fd, IPPROTO_IPV6, IPV6_PKTINFO, &source, sizeof(source)));
	CHECK(!setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on)));
	return fd;
}

/* No datagram is longer than was chosen. */
static void check_mtu(int fd)
{
	const struct sockaddr_in6 to = {
		.sin6_family = AF_INET6, .sin6_port = htons(PORT), .sin6_addr = in6addr_loopback};
	static const char data[MTU];

	CHECK(sendto(fd, data, MTU, 0, (const struct sockaddr *)&to, sizeof(to)) < 0);
	CHECK_EQUAL(errno, EMSGSIZE);
	CHECK_EQUAL(sendto(fd, data, MTU - 100, 0, (const struct sockaddr *)&to, sizeof(to)),
		    MTU - 100);
}

int main(void)
{
	struct ip_mreqn by = {};
	int four, six, stream, mtu = 0;

	test_init();
	add_address();
	four = set_up_v4();
	six = set_up_v6();
	stream = set_up_source();
	CHECK(has_anycast());

	test_wait();
	if (test_break(1))
		CHECK(!setsockopt(four, IPPROTO_IP, IP_MULTICAST_IF, &by, sizeof(by)));
	if (test_break(2))
		CHECK(!setsockopt(six, IPPROTO_IPV6, IPV6_MTU, &mtu, sizeof(mtu)));
	if (test_break(3))
		six = socket(AF_INET6, SOCK_DGRAM, 0);
	if (test_break(4))
		stream = socket(AF_INET6, SOCK_STREAM, 0);
	check_v4(four);
	check_source(stream);
	check_mtu(six);
	CHECK(has_anycast());
	close(six);
	CHECK(!has_anycast());
	test_pass();
}
