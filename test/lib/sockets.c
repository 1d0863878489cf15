/* SPDX-License-Identifier: Apache-2.0 */
/* sockets STATE: a program with sockets in a state that cannot be saved, or not without being asked
 * to. */
#include "harness.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Behind those of libc, whose names they have. */
#include <linux/in6.h>
#include <linux/mroute.h>
#include <linux/mroute6.h>
#include <linux/xfrm.h>

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

static int connect_by(int protocol)
{
	int fd = socket(AF_INET, SOCK_STREAM, protocol);

	CHECK(!connect(fd, (struct sockaddr *)&at, sizeof(at)));
	return fd;
}

static int connect_to(void)
{
	return connect_by(0);
}

static void mptcp_established(void)
{
	int listener;

	if (socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP) < 0)
		test_skip("no MPTCP here: %s", strerror(errno));
	listener = bound(SOCK_STREAM, IPPROTO_MPTCP);
	CHECK(!listen(listener, 1));
	connect_by(IPPROTO_MPTCP);
	CHECK(accept(listener, NULL, NULL) >= 0);
	close(listener);
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

/* The listener takes no packet. */
static void tcp_connecting(void)
{
	struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
	struct sock_fprog program = {1, &nothing};
	int listener = bound(SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	CHECK(!listen(listener, 1));
	CHECK(!setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	CHECK(connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0 && errno == EINPROGRESS);
}

static void tcp_failed(void)
{
	int listener = bound(SOCK_STREAM, 0), client;
	struct linger now = {1, 0};

	CHECK(!listen(listener, 1));
	client = connect_to();
	CHECK(!setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	/* The accepted one stays, with EPIPE. */
	CHECK(accept(listener, NULL, NULL) >= 0);
	CHECK(!shutdown(client, SHUT_WR));
	close(client);
	close(listener);
}

static void udp_error(void)
{
	int target = bound(SOCK_DGRAM, 0), fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in own;
	socklen_t len = sizeof(own);

	CHECK(!connect(fd, (struct sockaddr *)&at, sizeof(at)));
	CHECK(!getsockname(fd, (struct sockaddr *)&own, &len));
	/* Who looks at what waits there takes the error. */
	CHECK_EQUAL(sendto(target, "y", 1, 0, (struct sockaddr *)&own, len), 1);
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

/* What was sent without copying it is free again, and that has not been read. */
static void udp_notice(void)
{
	int fd = bound(SOCK_DGRAM, 0), to = bound(SOCK_DGRAM, 0);

	set(fd, SOL_SOCKET, SO_ZEROCOPY, 1);
	CHECK_EQUAL(sendto(fd, "x", 1, MSG_ZEROCOPY, (struct sockaddr *)&at, sizeof(at)), 1);
	close(to);
	CHECK_EQUAL(poll(&(struct pollfd){.fd = fd}, 1, 5000), 1);
}

static void raw_notice(void)
{
	int fd = socket(AF_INET, SOCK_RAW, 253);

	at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	set(fd, SOL_SOCKET, SO_TIMESTAMPING,
	    SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE);
	CHECK(!shutdown(fd, SHUT_RD) || errno == ENOTCONN);
	CHECK_EQUAL(sendto(fd, "x", 1, 0, (struct sockaddr *)&at, sizeof(at)), 1);
	/* What has come back is read, that it was sent is not. */
	while (recv(fd, &(char[100]){}, 100, MSG_DONTWAIT) >= 0)
		;
	CHECK_EQUAL(poll(&(struct pollfd){.fd = fd}, 1, 5000), 1);
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

static int told_of_path = -1;

/* Told that a datagram was too long for loopback, and has not read that; one waits behind it. */
static void udp_path(void)
{
	static char large[65500];
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	struct sockaddr_in6 own = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
	socklen_t len = sizeof(own);

	if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0)
		test_skip("no IPv6 here: %s", strerror(errno));
	CHECK(!getsockname(fd, (struct sockaddr *)&own, &len));
	set(fd, IPPROTO_IPV6, IPV6_RECVPATHMTU, 1);
	set(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1);
	CHECK_EQUAL(sendto(fd, large, sizeof(large), 0, (struct sockaddr *)&own, len), -1);
	CHECK_EQUAL(errno, EMSGSIZE);
	CHECK_EQUAL(sendto(fd, "x", 1, 0, (struct sockaddr *)&own, len), 1);
	told_of_path = fd;
}

/* Nobody has taken the notice. */
static void check_path(void)
{
	char control[100], byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};

	CHECK_EQUAL(recvmsg(told_of_path, &msg, MSG_DONTWAIT), 0);
	CHECK(msg.msg_controllen > 0);
}

static void udp_tunnel(void)
{
	set(bound(SOCK_DGRAM, 0), IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP);
}

static void raw_packet(int protocol, int option)
{
	int fd = socket(AF_INET, SOCK_RAW, protocol);

	at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (option)
		set(fd, SOL_SOCKET, option, 1);
	send_to_self(fd, 4);
}

static void raw_stamped(void)
{
	raw_packet(253, SO_TIMESTAMP);
}

static void raw_tunnel(void)
{
	raw_packet(IPPROTO_GRE, 0);
}

/* A program that has a map of the sockets among which it chooses. */
static void reuseport_program(void)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
			       .key_size = 4,
			       .value_size = 8,
			       .max_entries = 4};
	int map = (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)), program;
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 2, .src_reg = 10},
		{.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 2, .imm = -4},
		{.code = BPF_ST | BPF_MEM | BPF_W, .dst_reg = 10, .off = -4},
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 3, .src_reg = 2},
		{.code = BPF_LD | BPF_IMM | BPF_DW,
		 .dst_reg = 2,
		 .src_reg = BPF_PSEUDO_MAP_FD,
		 .imm = map},
		{},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 4},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_sk_select_reuseport},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = SK_PASS},
		{.code = BPF_JMP | BPF_EXIT}};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (map < 0)
		test_skip("no BPF here: %s", strerror(errno));
	attr = (union bpf_attr){.prog_type = BPF_PROG_TYPE_SK_REUSEPORT,
				.insns = (uintptr_t)insns,
				.insn_cnt = sizeof(insns) / sizeof(insns[0]),
				.license = (uintptr_t) "GPL"};
	program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
	CHECK(program >= 0);
	set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	at = (struct sockaddr_in){.sin_family = AF_INET};
	CHECK(!bind(fd, (struct sockaddr *)&at, sizeof(at)));
	set(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program);
	close(program);
	close(map);
}

/* The one that was bound first is found last. */
static void reuseport_order(void)
{
	struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {1, code};
	int later = socket(AF_INET, SOCK_DGRAM, 0), first = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof(at);

	set(first, SOL_SOCKET, SO_REUSEPORT, 1);
	set(later, SOL_SOCKET, SO_REUSEPORT, 1);
	at = (struct sockaddr_in){.sin_family = AF_INET};
	CHECK(!bind(first, (struct sockaddr *)&at, len));
	CHECK(!getsockname(first, (struct sockaddr *)&at, &len));
	CHECK(!bind(later, (struct sockaddr *)&at, len));
	CHECK(!setsockopt(first, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)));
}

static void tcp_keys(void)
{
	struct tcp_md5sig key = {.tcpm_keylen = 3, .tcpm_key = "key"};
	struct sockaddr_in *peer = (struct sockaddr_in *)&key.tcpm_addr;
	int listener = bound(SOCK_STREAM, 0);

	peer->sin_family = AF_INET;
	peer->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (setsockopt(listener, IPPROTO_TCP, TCP_MD5SIG, &key, sizeof(key)) < 0)
		test_skip("no TCP_MD5SIG here: %s", strerror(errno));
	CHECK(!listen(listener, 1));
}

static void tcp_keys_early(void)
{
	struct tcp_md5sig key = {.tcpm_keylen = 3, .tcpm_key = "key"};
	struct sockaddr_in *peer = (struct sockaddr_in *)&key.tcpm_addr;

	peer->sin_family = AF_INET;
	peer->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (setsockopt(bound(SOCK_STREAM, 0), IPPROTO_TCP, TCP_MD5SIG, &key, sizeof(key)) < 0)
		test_skip("no TCP_MD5SIG here: %s", strerror(errno));
}

static void udp_policy(void)
{
	struct xfrm_userpolicy_info policy = {
		.sel = {.family = AF_INET}, .dir = XFRM_POLICY_IN, .action = XFRM_POLICY_ALLOW};
	int fd = bound(SOCK_DGRAM, 0);

	if (setsockopt(fd, IPPROTO_IP, IP_XFRM_POLICY, &policy, sizeof(policy)) < 0)
		test_skip("no IP_XFRM_POLICY here: %s", strerror(errno));
}

static void udp_label(void)
{
	struct in6_flowlabel_req req = {.flr_dst = in6addr_loopback,
					.flr_action = IPV6_FL_A_GET,
					.flr_share = IPV6_FL_S_ANY,
					.flr_flags = IPV6_FL_F_CREATE};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	CHECK(!setsockopt(fd, IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, &req, sizeof(req)));
}

static void raw_alert(void)
{
	set(socket(AF_INET6, SOCK_RAW, IPPROTO_RAW), IPPROTO_IPV6, IPV6_ROUTER_ALERT, 5);
}

static void raw_router(int family)
{
	int fd;

	CHECK(!unshare(CLONE_NEWNET));
	fd = socket(family, SOCK_RAW, family == AF_INET ? IPPROTO_IGMP : IPPROTO_ICMPV6);
	CHECK(fd >= 0);
	set(fd, family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6,
	    family == AF_INET ? MRT_INIT : MRT6_INIT, 1);
}

static void raw_router4(void)
{
	raw_router(AF_INET);
}

static void raw_router6(void)
{
	raw_router(AF_INET6);
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

/* Of a family that nothing here knows. */
static void xdp(void)
{
	CHECK(socket(AF_XDP, SOCK_RAW, 0) >= 0);
}

static void netlink_netfilter(void)
{
	CHECK(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) >= 0);
}

static void send_fd(int to, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {}, byte = 'x';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	CHECK(fd >= 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	CHECK_EQUAL(sendmsg(to, &msg, 0), 1);
	close(fd);
}

/* Of a kind that cannot be saved: behind one that can, or not. */
static void flight(bool second)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
				       .size = sizeof(attr),
				       .config = PERF_COUNT_SW_DUMMY,
				       .exclude_kernel = 1};
	int pair[2], event = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	if (event < 0)
		test_skip("no perf events");
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	if (second)
		send_fd(pair[0], open("/dev/null", O_RDWR));
	send_fd(pair[0], event);
}

static void flight_first(void)
{
	flight(false);
}

static void flight_second(void)
{
	flight(true);
}

static void unix_covered(void)
{
	struct sockaddr_un un = {AF_UNIX, "covered/socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK(!mkdir("covered", 0700));
	CHECK(!bind(fd, (struct sockaddr *)&un, sizeof(un)));
}

static void unix_error(void)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};
	int pair[2];

	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	CHECK_EQUAL(send(pair[1], "x", 1, 0), 1);
	CHECK(!connect(pair[0], &none, sizeof(none)));
}

static const struct {
	const char *name;
	void (*make)(void);
} states[] = {
	{"tcp-established", tcp_established},
	{"mptcp-established", mptcp_established},
	{"tcp-backlog", tcp_backlog},
	{"tcp-connecting", tcp_connecting},
	{"tcp-failed", tcp_failed},
	{"udp-error", udp_error},
	{"udp-empty", udp_empty},
	{"udp-stamped", udp_stamped},
	{"udp-path", udp_path},
	{"udp-notice", udp_notice},
	{"raw-notice", raw_notice},
	{"udp-corked", udp_corked},
	{"udp-tunnel", udp_tunnel},
	{"raw-stamped", raw_stamped},
	{"raw-tunnel", raw_tunnel},
	{"reuseport-program", reuseport_program},
	{"reuseport-order", reuseport_order},
	{"tcp-keys", tcp_keys},
	{"tcp-keys-early", tcp_keys_early},
	{"udp-policy", udp_policy},
	{"udp-label", udp_label},
	{"raw-alert", raw_alert},
	{"raw-router4", raw_router4},
	{"raw-router6", raw_router6},
	{"other-namespace", other_namespace},
	{"packet-queue", packet_queue},
	{"packet-ring", packet_ring},
	{"netlink-queue", netlink_queue},
	{"netlink-netfilter", netlink_netfilter},
	{"xdp", xdp},
	{"flight-first", flight_first},
	{"flight-second", flight_second},
	{"unix-covered", unix_covered},
	{"unix-error", unix_error},
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
	if (told_of_path >= 0)
		check_path();
	test_pass();
}
