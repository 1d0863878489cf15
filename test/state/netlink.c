/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Netlink sockets: port, groups, options; and they answer and hear.
 *
 * needs: root
 * network: own
 * not-in: both: a port is in use by the original
 */
#include "harness.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <linux/netlink_diag.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PORT 4711

static const int options[] = {
	NETLINK_PKTINFO, NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS,	  NETLINK_EXT_ACK,
	NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK,  NETLINK_LISTEN_ALL_NSID};

#define NOPTIONS (sizeof(options) / sizeof(options[0]))

/* As the list of sockets shows it: getsockopt() does not know NETLINK_LISTEN_ALL_NSID before 6.5.
 */
static int listens_to_all(int fd)
{
	struct {
		struct nlmsghdr h;
		struct netlink_diag_req r;
	} req = {.h = {.nlmsg_len = sizeof(req),
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		 .r = {.sdiag_family = AF_NETLINK,
		       .sdiag_protocol = NETLINK_ROUTE,
		       .ndiag_show = NDIAG_SHOW_FLAGS}};
	static char answer[65536];
	int found = -1, diag = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
	struct stat st;
	ssize_t n;

	CHECK(!fstat(fd, &st) && diag >= 0 && send(diag, &req, sizeof(req), 0) > 0);
	while (found < 0 && (n = recv(diag, answer, sizeof(answer), 0)) > 0)
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			struct netlink_diag_msg *m = NLMSG_DATA(h);
			int left = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)));

			CHECK(h->nlmsg_type == SOCK_DIAG_BY_FAMILY);
			for (struct rtattr *a = (void *)(m + 1);
			     m->ndiag_ino == st.st_ino && RTA_OK(a, left); a = RTA_NEXT(a, left))
				if (a->rta_type == NETLINK_DIAG_FLAGS)
					found = *(int *)RTA_DATA(a) & NDIAG_FLAG_LISTEN_ALL_NSID;
		}
	close(diag);
	return found > 0;
}

static int get(int fd, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, SOL_NETLINK, name, &value, &len) == 0)
		return value;
	CHECK(name == NETLINK_LISTEN_ALL_NSID && errno == ENOPROTOOPT);
	return listens_to_all(fd);
}

static bool is_member(int fd, unsigned int group)
{
	uint32_t bits[32] = {};
	socklen_t len = sizeof(bits);

	CHECK(!getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, bits, &len));
	return bits[(group - 1) / 32] >> (group - 1) % 32 & 1;
}

static unsigned int port_of(int fd)
{
	struct sockaddr_nl at = {};
	socklen_t len = sizeof(at);

	CHECK(!getsockname(fd, (struct sockaddr *)&at, &len));
	return at.nl_pid;
}

/* Takes the loopback device down, or up: all who listen are told. */
static void set_link(int fd, unsigned int flags)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} req = {.h = {.nlmsg_len = sizeof(req),
		       .nlmsg_type = RTM_NEWLINK,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		 .i = {.ifi_index = 1, .ifi_flags = flags, .ifi_change = IFF_UP}};
	char buf[8192];
	struct nlmsghdr *h = (struct nlmsghdr *)buf;

	CHECK_EQUAL(send(fd, &req, sizeof(req), 0), sizeof(req));
	CHECK(recv(fd, buf, sizeof(buf), 0) > 0);
	CHECK_EQUAL(h->nlmsg_type, NLMSG_ERROR);
	CHECK_EQUAL(((struct nlmsgerr *)NLMSG_DATA(h))->error, 0);
}

static int made(int protocol, unsigned int port, unsigned int groups)
{
	struct sockaddr_nl at = {.nl_family = AF_NETLINK, .nl_pid = port, .nl_groups = groups};
	int fd = socket(AF_NETLINK, SOCK_RAW, protocol);

	CHECK(fd >= 0);
	CHECK(!bind(fd, (struct sockaddr *)&at, sizeof(at)));
	return fd;
}

int main(void)
{
	int route, asks, uevent, diag, generic, fresh, audit, protocol,
		group = RTNLGRP_IPV6_NETCONF, notify = GENL_ID_CTRL;
	struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK}, peer = {};
	struct pollfd p;
	socklen_t len = sizeof(peer);

	test_init();
	route = made(NETLINK_ROUTE, PORT, RTMGRP_LINK);
	CHECK(!setsockopt(route, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)));
	for (size_t i = 0; i < NOPTIONS; i++)
		CHECK(!setsockopt(route, SOL_NETLINK, options[i], &(int){1}, sizeof(int)));
	asks = made(NETLINK_ROUTE, 0, 0);
	/* The group of udevd: to that of the kernel other tests' devices would send at any time. */
	uevent = made(NETLINK_KOBJECT_UEVENT, 0, 2);
	CHECK(!connect(uevent, (struct sockaddr *)&to, sizeof(to)));
	diag = made(NETLINK_SOCK_DIAG, PORT + 1, 0);
	generic = made(NETLINK_GENERIC, PORT + 2, 0);
	CHECK(!setsockopt(generic, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &notify, sizeof(notify)));
	fresh = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK, NETLINK_ROUTE);
	/* Not every kernel has it. */
	audit = socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);

	test_wait();
	if (test_break(1))
		CHECK(!setsockopt(route, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group,
				  sizeof(group)));
	CHECK_EQUAL(port_of(route), PORT);
	CHECK_EQUAL(port_of(diag), PORT + 1);
	CHECK_EQUAL(port_of(generic), PORT + 2);
	CHECK_EQUAL(port_of(fresh), 0);
	if (audit >= 0) {
		CHECK(!getsockopt(audit, SOL_SOCKET, SO_PROTOCOL, &protocol, &(socklen_t){4}));
		CHECK_EQUAL(protocol, NETLINK_AUDIT);
	}
	CHECK(port_of(asks));
	for (size_t i = 0; i < NOPTIONS; i++) {
		CHECK_EQUAL(get(route, options[i]), 1);
		CHECK_EQUAL(get(asks, options[i]), 0);
	}
	CHECK(is_member(route, RTNLGRP_LINK) && is_member(route, RTNLGRP_IPV6_NETCONF));
	CHECK(!is_member(asks, RTNLGRP_LINK));
	CHECK(is_member(uevent, 2));
	CHECK(is_member(generic, (unsigned int)notify));
	CHECK(!getpeername(uevent, (struct sockaddr *)&peer, &len));
	CHECK_EQUAL(peer.nl_groups, RTMGRP_LINK);
	p = (struct pollfd){.fd = route, .events = POLLIN};
	CHECK_EQUAL(poll(&p, 1, 0), 0);
	set_link(asks, 0);
	CHECK_EQUAL(poll(&p, 1, 5000), 1);
	set_link(asks, IFF_UP);
	test_pass();
}
