/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters and options that are about raw sockets, and IP options of others.
 *
 * needs: root
 */
#include "harness.h"

#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <sys/socket.h>

#define FILTER_V4 0xfffffffeu /* all but echo replies */

static void check_v6(int fd, const struct icmp6_filter *want)
{
	struct icmp6_filter is = {};
	socklen_t len = sizeof(is);

	CHECK(!getsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &is, &len));
	CHECK(!memcmp(&is, want, sizeof(is)));
}

static void check_number(int fd, int level, int name, unsigned int want)
{
	unsigned int is = 0;
	socklen_t len = sizeof(is);

	CHECK(!getsockopt(fd, level, name, &is, &len));
	CHECK_EQUAL(is, want);
}

int main(void)
{
	static const unsigned char none[] = {IPOPT_NOP, IPOPT_NOP, IPOPT_NOP, IPOPT_EOL};
	struct icmp_filter v4 = {.data = FILTER_V4};
	struct icmp6_filter v6;
	unsigned char is[40];
	socklen_t len = sizeof(is);
	int ping, ping6, other, router, udp, offset = 2, on = 1, off = 0;

	test_init();
	ping = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	CHECK(!setsockopt(ping, SOL_RAW, ICMP_FILTER, &v4, sizeof(v4)));
	ping6 = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
	ICMP6_FILTER_SETBLOCKALL(&v6);
	ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &v6);
	CHECK(!setsockopt(ping6, IPPROTO_ICMPV6, ICMP6_FILTER, &v6, sizeof(v6)));
	other = socket(AF_INET6, SOCK_RAW, 253);
	CHECK(!setsockopt(other, IPPROTO_IPV6, IPV6_CHECKSUM, &offset, sizeof(offset)));
	router = socket(AF_INET, SOCK_RAW, 254);
	CHECK(!setsockopt(router, IPPROTO_IP, IP_ROUTER_ALERT, &on, sizeof(on)));
	udp = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK(!setsockopt(udp, IPPROTO_IP, IP_OPTIONS, none, sizeof(none)));

	CHECK(!setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off)));
	check_number(ping, SOL_SOCKET, SO_REUSEADDR, 1);

	test_wait();
	if (test_break(1)) {
		v4.data = 0;
		CHECK(!setsockopt(ping, SOL_RAW, ICMP_FILTER, &v4, sizeof(v4)));
	}
	if (test_break(2))
		CHECK(!setsockopt(router, IPPROTO_IP, IP_ROUTER_ALERT, &(int){0}, sizeof(int)));
	check_number(ping, SOL_RAW, ICMP_FILTER, FILTER_V4);
	check_number(router, IPPROTO_IP, IP_ROUTER_ALERT, 1);
	/* It is on from the beginning. */
	check_number(ping, SOL_SOCKET, SO_REUSEADDR, 1);
	check_number(other, SOL_SOCKET, SO_REUSEADDR, 0);
	check_v6(ping6, &v6);
	check_number(other, IPPROTO_IPV6, IPV6_CHECKSUM, (unsigned int)offset);
	CHECK(!getsockopt(udp, IPPROTO_IP, IP_OPTIONS, is, &len));
	CHECK_EQUAL(len, sizeof(none));
	CHECK(!memcmp(is, none, sizeof(none)));
	test_pass();
}
