/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_PACKET sockets: bound and not, with options, filter, memberships and a fanout group; and
 * packets reach them.
 *
 * needs: root
 * network: own
 * not-in: both: the fanout group is that of the original
 */
#include "harness.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROTOCOL   0x88b5 /* for local experiments */
#define PROTOCOL_2 0x88b6
#define GROUP	   4711

static unsigned int lo;

static void set(int fd, int name, int value)
{
	CHECK(!setsockopt(fd, SOL_PACKET, name, &value, sizeof(value)));
}

static int get(int fd, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, SOL_PACKET, name, &value, &len));
	return value;
}

static int bound(int type, unsigned int index, int protocol)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET,
				 .sll_protocol = htons((uint16_t)protocol),
				 .sll_ifindex = (int)index};
	int fd = socket(AF_PACKET, type, 0);

	CHECK(fd >= 0);
	CHECK(!bind(fd, (struct sockaddr *)&at, sizeof(at)));
	return fd;
}

static void check_bound(int fd, unsigned int index, int protocol)
{
	struct sockaddr_ll at = {};
	socklen_t len = sizeof(at);

	CHECK(!getsockname(fd, (struct sockaddr *)&at, &len));
	CHECK_EQUAL(at.sll_ifindex, index);
	CHECK_EQUAL(ntohs(at.sll_protocol), protocol);
}

static void send_frame(int protocol, char byte)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
				 .sll_protocol = htons((uint16_t)protocol),
				 .sll_ifindex = (int)lo,
				 .sll_halen = 6};
	char data[50] = {byte};
	int fd = socket(AF_PACKET, SOCK_DGRAM, 0);

	CHECK_EQUAL(sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&to, sizeof(to)),
		    sizeof(data));
	close(fd);
}

static bool waits(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/* The first byte of what has come. */
static int take(int fd, size_t header)
{
	char buf[100];

	CHECK_EQUAL(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 50 + header);
	return buf[header];
}

static void join(int fd, int type, const char *address, int times)
{
	struct packet_mreq m = {.mr_ifindex = (int)lo, .mr_type = (unsigned short)type};

	if (address) {
		m.mr_alen = 6;
		memcpy(m.mr_address, address, 6);
	}
	while (times-- > 0)
		CHECK(!setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof(m)));
}

static void leave(int fd, int type)
{
	struct packet_mreq m = {.mr_ifindex = (int)lo, .mr_type = (unsigned short)type};

	CHECK(!setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &m, sizeof(m)));
}

/* The flag of the device is only that which was set on the device. */
static bool is_promiscuous(void)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} req = {.h = {.nlmsg_len = sizeof(req),
		       .nlmsg_type = RTM_GETLINK,
		       .nlmsg_flags = NLM_F_REQUEST},
		 .i = {.ifi_index = (int)lo}};
	char buf[8192] __attribute__((aligned(8)));
	struct nlmsghdr *h = (struct nlmsghdr *)buf;
	struct rtattr *a = IFLA_RTA((struct ifinfomsg *)NLMSG_DATA(h));
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), left;

	CHECK_EQUAL(send(fd, &req, sizeof(req), 0), sizeof(req));
	CHECK(recv(fd, buf, sizeof(buf), 0) > (ssize_t)sizeof(req));
	CHECK_EQUAL(h->nlmsg_type, RTM_NEWLINK);
	close(fd);
	for (left = (int)IFLA_PAYLOAD(h); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == IFLA_PROMISCUITY)
			return *(unsigned int *)RTA_DATA(a);
	test_fail(__FILE__, __LINE__, "no promiscuity");
}

static bool has_group(void)
{
	char text[4096];

	test_read("/proc/self/net/dev_mcast", text, sizeof(text));
	return strstr(text, "01005e010203");
}

int main(void)
{
	/* The first byte behind the header must be 'y'. */
	struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
				     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
				     BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
				     BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {4, code};
	int raw, cooked, idle, all, fan[2], count = 0;

	test_init();
	lo = if_nametoindex("lo");
	raw = bound(SOCK_RAW, lo, PROTOCOL);
	set(raw, PACKET_AUXDATA, 1);
	set(raw, PACKET_ORIGDEV, 1);
	set(raw, PACKET_QDISC_BYPASS, 1);
	set(raw, PACKET_VERSION, TPACKET_V2);
	set(raw, PACKET_RESERVE, 32);
	cooked = bound(SOCK_DGRAM, lo, PROTOCOL);
	CHECK(!setsockopt(cooked, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	set(cooked, PACKET_IGNORE_OUTGOING, 1);
	idle = socket(AF_PACKET, SOCK_RAW, 0);
	set(idle, PACKET_VNET_HDR, 1);
	join(idle, PACKET_MR_PROMISC, NULL, 1);
	join(idle, PACKET_MR_MULTICAST, "\1\0\x5e\1\2\3", 2);
	all = bound(SOCK_RAW, 0, ETH_P_ALL);
	set(all, PACKET_TIMESTAMP, 1 << 4); /* SOF_TIMESTAMPING_SOFTWARE */
	for (int i = 0; i < 2; i++) {
		fan[i] = bound(SOCK_DGRAM, lo, PROTOCOL_2);
		set(fan[i], PACKET_FANOUT, GROUP | PACKET_FANOUT_LB << 16);
	}

	test_wait();
	if (test_break(1))
		set(cooked, PACKET_IGNORE_OUTGOING, 0);
	if (test_break(2))
		leave(idle, PACKET_MR_PROMISC);
	check_bound(raw, lo, PROTOCOL);
	CHECK_EQUAL(get(raw, PACKET_AUXDATA), 1);
	CHECK_EQUAL(get(raw, PACKET_ORIGDEV), 1);
	CHECK_EQUAL(get(raw, PACKET_QDISC_BYPASS), 1);
	CHECK_EQUAL(get(raw, PACKET_VERSION), TPACKET_V2);
	CHECK_EQUAL(get(raw, PACKET_RESERVE), 32);
	check_bound(cooked, lo, PROTOCOL);
	CHECK_EQUAL(get(cooked, PACKET_IGNORE_OUTGOING), 1);
	check_bound(idle, 0, 0);
	CHECK_EQUAL(get(idle, PACKET_VNET_HDR), 1);
	CHECK(is_promiscuous());
	CHECK(has_group());
	check_bound(all, 0, ETH_P_ALL);
	CHECK_EQUAL(get(all, PACKET_TIMESTAMP), 1 << 4);
	CHECK(!waits(raw) && !waits(cooked) && !waits(idle));
	send_frame(PROTOCOL, 'n');
	send_frame(PROTOCOL, 'y');
	CHECK_EQUAL(take(raw, 14), 'n');
	CHECK_EQUAL(take(raw, 14), 'y');
	CHECK_EQUAL(take(cooked, 0), 'y');
	CHECK(!waits(cooked));
	CHECK(!waits(idle));
	CHECK(waits(all));
	for (int i = 0; i < 2; i++)
		CHECK_EQUAL((unsigned int)get(fan[i], PACKET_FANOUT),
			    GROUP | PACKET_FANOUT_LB << 16);
	send_frame(PROTOCOL_2, 'f');
	for (int i = 0; i < 2; i++)
		while (waits(fan[i])) {
			CHECK_EQUAL(take(fan[i], 0), 'f');
			count++;
		}
	CHECK_EQUAL(count, 1);
	close(idle);
	CHECK(!is_promiscuous());
	CHECK(!has_group());
	test_pass();
}
