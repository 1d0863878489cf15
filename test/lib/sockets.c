/* SPDX-License-Identifier: Apache-2.0 */
/* sockets STATE: a program with sockets in a state that cannot be saved, or not without being asked
 * to. */
#include "harness.h"

#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in at;

static void set(int fd, int level, int name, int value)
{
	CHECK(!setsockopt(fd, level, name, &value, sizeof(value)));
}

static int bound(int type, int protocol)
{
	int fd = socket(AF_INET, type, protocol);
	socklen_t len = sizeof(at);

	CHECK(fd >= 0);
	at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	CHECK(!bind(fd, (struct sockaddr *)&at, sizeof(at)));
	CHECK(!getsockname(fd, (struct sockaddr *)&at, &len));
	return fd;
}

static void send_to_self(int fd, size_t len)
{
	CHECK_EQUAL(sendto(fd, "data", len, 0, (struct sockaddr *)&at, sizeof(at)), len);
}

static int connect_to(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(!connect(fd, (struct sockaddr *)&at, sizeof(at)));
	return fd;
}

static void tcp_established(void)
{
	int listener = bound(SOCK_STREAM, 0);

	CHECK(!listen(listener, 1));
	connect_to();
	CHECK(accept(listener, NULL, NULL) >= 0);
	close(listener);
}

static void tcp_backlog(void)
{
	int listener = bound(SOCK_STREAM, 0);

	CHECK(!listen(listener, 1));
	connect_to();
	CHECK_EQUAL(poll(&(struct pollfd){.fd = listener, .events = POLLIN}, 1, 5000), 1);
}

static void tcp_failed(void)
{
	int listener = bound(SOCK_STREAM, 0), client;
	struct linger now = {1, 0};

	CHECK(!listen(listener, 1));
	client = connect_to();
	CHECK(!setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	/* The accepted one stays, with the error. */
	CHECK(accept(listener, NULL, NULL) >= 0);
	close(client);
	close(listener);
}

static void udp_error(void)
{
	int target = bound(SOCK_DGRAM, 0), fd = socket(AF_INET, SOCK_DGRAM, 0);

	CHECK(!connect(fd, (struct sockaddr *)&at, sizeof(at)));
	close(target);
	CHECK_EQUAL(send(fd, "x", 1, 0), 1);
}

static void udp_empty(void)
{
	int fd = bound(SOCK_DGRAM, 0);

	send_to_self(fd, 1);
	send_to_self(fd, 0);
	send_to_self(fd, 2);
}

static void udp_stamped(void)
{
	int fd = bound(SOCK_DGRAM, 0);

	set(fd, SOL_SOCKET, SO_TIMESTAMP, 1);
	send_to_self(fd, 1);
}

static void udp_corked(void)
{
	int fd = bound(SOCK_DGRAM, 0);

	set(fd, IPPROTO_UDP, UDP_CORK, 1);
	send_to_self(fd, 4);
}

static void udp_tunnel(void)
{
	set(bound(SOCK_DGRAM, 0), IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP);
}

static void raw_queue(void)
{
	at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	send_to_self(socket(AF_INET, SOCK_RAW, 253), 4);
}

static void other_namespace(void)
{
	int own = open("/proc/self/ns/net", O_RDONLY);

	CHECK(!unshare(CLONE_NEWNET));
	CHECK(socket(AF_INET, SOCK_DGRAM, 0) >= 0);
	CHECK(!setns(own, CLONE_NEWNET));
	close(own);
}

static void packet_queue(void)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(ETH_P_ALL),
				 .sll_ifindex = (int)if_nametoindex("lo")};
	int fd = socket(AF_PACKET, SOCK_DGRAM, 0);

	CHECK(!bind(fd, (struct sockaddr *)&to, sizeof(to)));
	send_to_self(bound(SOCK_DGRAM, 0), 1);
}

static void packet_ring(void)
{
	struct tpacket_req3 req = {
		.tp_block_size = 4096, .tp_block_nr = 2, .tp_frame_size = 2048, .tp_frame_nr = 4};
	int fd = socket(AF_PACKET, SOCK_DGRAM, 0), version = TPACKET_V3;

	CHECK(!setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)));
	CHECK(!setsockopt(fd, SOL_PACKET, PACKET_TX_RING, &req, sizeof(req)));
}

static void netlink_queue(void)
{
	struct {
		struct nlmsghdr h;
		struct rtgenmsg r;
	} req = {.h = {.nlmsg_len = sizeof(req),
		       .nlmsg_type = RTM_GETLINK,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	CHECK_EQUAL(send(fd, &req, sizeof(req), 0), sizeof(req));
}

static void netlink_netfilter(void)
{
	CHECK(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) >= 0);
}

static const struct {
	const char *name;
	void (*make)(void);
} states[] = {
	{"tcp-established", tcp_established},
	{"tcp-backlog", tcp_backlog},
	{"tcp-failed", tcp_failed},
	{"udp-error", udp_error},
	{"udp-empty", udp_empty},
	{"udp-stamped", udp_stamped},
	{"udp-corked", udp_corked},
	{"udp-tunnel", udp_tunnel},
	{"raw-queue", raw_queue},
	{"other-namespace", other_namespace},
	{"packet-queue", packet_queue},
	{"packet-ring", packet_ring},
	{"netlink-queue", netlink_queue},
	{"netlink-netfilter", netlink_netfilter},
};

int main(int argc, char **argv)
{
	bool found = false;

	test_init();
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (argc > 1 && !strcmp(states[i].name, argv[1])) {
			states[i].make();
			found = true;
		}
	CHECK(found);
	test_wait();
	test_pass();
}
