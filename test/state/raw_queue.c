/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets that wait in raw sockets, and answers in those of ICMP, of both families. Each comes back
 * where it was, whole, and nowhere else; the kernel answers none of them.
 *
 * network: own
 * needs: root
 * not-in: user: what waits there is read in the memory of the kernel
 * not-in: both: numbers of ICMP sockets are those of the original
 */
#include "harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>
#include <unistd.h>

#define NUMBER 0x1234 /* of the ICMP sockets */

struct packet {
	unsigned char bytes[1500];
	size_t len;
};

static int sender4, sender6;

static uint32_t sum_up(const void *data, size_t len, uint32_t sum)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void make4(struct packet *p, const char *from, const char *to, int protocol, int type,
		  const char *text)
{
	struct iphdr ip = {.version = 4,
			   .ihl = 5,
			   .tos = 0x10,
			   .ttl = 17,
			   .id = htons(4711),
			   .protocol = (uint8_t)protocol};
	struct icmphdr icmp = {.type = (uint8_t)type};

	inet_pton(AF_INET, from, &ip.saddr);
	inet_pton(AF_INET, to, &ip.daddr);
	icmp.un.echo.id = htons(NUMBER);
	p->len = sizeof(ip) + sizeof(icmp) + strlen(text);
	ip.tot_len = htons((uint16_t)p->len);
	ip.check = fold(sum_up(&ip, sizeof(ip), 0));
	icmp.checksum = fold(sum_up(text, strlen(text), sum_up(&icmp, sizeof(icmp), 0)));
	memcpy(p->bytes, &ip, sizeof(ip));
	memcpy(p->bytes + sizeof(ip), &icmp, sizeof(icmp));
	memcpy(p->bytes + sizeof(ip) + sizeof(icmp), text, strlen(text));
}

static void make6(struct packet *p, const char *from, const char *to, int type, const char *text)
{
	struct ip6_hdr ip = {
		.ip6_flow = htonl(0x61200abc), .ip6_nxt = IPPROTO_ICMPV6, .ip6_hlim = 9};
	struct icmp6_hdr icmp = {.icmp6_type = (uint8_t)type};
	size_t len = sizeof(icmp) + strlen(text);
	uint32_t sum = (uint32_t)len + IPPROTO_ICMPV6;

	inet_pton(AF_INET6, from, &ip.ip6_src);
	inet_pton(AF_INET6, to, &ip.ip6_dst);
	ip.ip6_plen = htons((uint16_t)len);
	icmp.icmp6_id = htons(NUMBER);
	sum = sum_up(&icmp, sizeof(icmp), sum_up(&ip.ip6_src, 32, sum));
	icmp.icmp6_cksum = fold(sum_up(text, strlen(text), sum));
	p->len = sizeof(ip) + len;
	memcpy(p->bytes, &ip, sizeof(ip));
	memcpy(p->bytes + sizeof(ip), &icmp, sizeof(icmp));
	memcpy(p->bytes + sizeof(ip) + sizeof(icmp), text, strlen(text));
}

static void send4(const struct packet *p)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	CHECK_EQUAL(sendto(sender4, p->bytes, p->len, 0, (const void *)&to, sizeof(to)), p->len);
}

static void send6(const struct packet *p)
{
	const struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};

	CHECK_EQUAL(sendto(sender6, p->bytes, p->len, 0, (const void *)&to, sizeof(to)), p->len);
}

/* The next one: all of p but the first `cut` bytes, from `from`. */
static void expect(int fd, const struct packet *p, size_t cut, const char *from)
{
	unsigned char is[2000];
	struct sockaddr_storage a = {};
	socklen_t len = sizeof(a);
	char text[INET6_ADDRSTRLEN] = "";
	ssize_t n = recvfrom(fd, is, sizeof(is), MSG_DONTWAIT, (struct sockaddr *)&a, &len);

	CHECK_EQUAL(n, p->len - cut);
	CHECK(!memcmp(is, p->bytes + cut, p->len - cut));
	if (a.ss_family == AF_INET)
		inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, text, sizeof(text));
	else
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&a)->sin6_addr, text, sizeof(text));
	CHECKF(!strcmp(text, from), "from %s", text);
}

static void expect_none(int fd)
{
	char byte;

	CHECK(recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

static void set_system(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		test_skip("%s may not be set here", path);
	close(fd);
}

static void let_kernel_answer(bool answers)
{
	set_system("/proc/sys/net/ipv4/icmp_echo_ignore_all", answers ? "0" : "1");
	set_system("/proc/sys/net/ipv6/icmp/echo_ignore_all", answers ? "0" : "1");
}

static int ping(int family)
{
	struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family,
				 .sin6_port = htons(NUMBER)}; /* at the same place of both */
	int fd = socket(family, SOCK_DGRAM, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	int on = 1;

	CHECK(fd >= 0);
	CHECK(!bind(fd, (struct sockaddr *)&a,
		    family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(a)));
	if (family == AF_INET)
		CHECK(!setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof(on)));
	return fd;
}

static int ttl_of_next(int fd)
{
	char byte, control[100] __attribute__((aligned(8)));
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};

	CHECK_EQUAL(recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT), 1);
	CHECK(CMSG_FIRSTHDR(&msg) && CMSG_FIRSTHDR(&msg)->cmsg_type == IP_TTL);
	return *(int *)(void *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
}

static void shut(int fd)
{
	struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {1, nothing};

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
}

int main(void)
{
	struct sockaddr_in there = {.sin_family = AF_INET};
	struct packet ask, unreachable, answer, other, ask6, answer6;
	int on = 1, watcher, raw4, second4, empty4, connected, odd, raw6, empty6, ping4, ping6;

	test_init();
	set_system("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
	let_kernel_answer(false);
	inet_pton(AF_INET, "127.0.0.9", &there.sin_addr);
	watcher = socket(AF_PACKET, SOCK_DGRAM, 0);
	CHECK(!bind(watcher,
		    (struct sockaddr *)&(struct sockaddr_ll){.sll_family = AF_PACKET,
							     .sll_protocol = htons(ETH_P_ALL),
							     .sll_ifindex = 1},
		    sizeof(struct sockaddr_ll)));
	sender4 = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	sender6 = socket(AF_INET6, SOCK_RAW, IPPROTO_RAW);
	CHECK(!setsockopt(sender6, IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof(on)));
	make4(&ask, "127.0.0.1", "127.0.0.1", IPPROTO_ICMP, ICMP_ECHO, "is there anybody?");
	make4(&unreachable, "192.0.2.9", "198.51.100.7", IPPROTO_ICMP, ICMP_DEST_UNREACH, "no");
	make4(&answer, "192.0.2.9", "127.0.0.1", IPPROTO_ICMP, ICMP_ECHOREPLY, "yes");
	make4(&other, "192.0.2.9", "203.0.113.1", 253, 0, "another protocol");
	make6(&ask6, "::1", "::1", ICMP6_ECHO_REQUEST, "who?");
	make6(&answer6, "2001:db8::2", "::1", ICMP6_ECHO_REPLY, "me");

	/* Without those of ICMP, which would see the same. */
	raw4 = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	send4(&ask);
	send4(&unreachable);
	send4(&answer);
	shut(raw4);
	second4 = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	send4(&answer);
	connected = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	send4(&answer);
	CHECK(!connect(connected, (struct sockaddr *)&there, sizeof(there)));
	odd = socket(AF_INET, SOCK_RAW, 253);
	send4(&other);
	raw6 = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
	send6(&ask6);
	send6(&answer6);
	shut(raw6);
	ping4 = ping(AF_INET);
	ping6 = ping(AF_INET6);
	send6(&answer6);
	shut(second4);
	shut(connected);
	send4(&answer);
	send4(&answer);
	empty4 = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	empty6 = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
	let_kernel_answer(true);
	while (recv(watcher, &on, sizeof(on), MSG_DONTWAIT) >= 0)
		;

	test_wait();
	if (test_break(1))
		send4(&ask);
	if (test_break(2))
		send6(&ask6);
	if (test_break(3))
		CHECK(recv(raw4, &on, 1, MSG_DONTWAIT) == 1);
	if (test_break(4))
		CHECK(recv(ping6, &on, 1, MSG_DONTWAIT) == 1);
	expect_none(empty4);
	expect_none(empty6);
	expect_none(watcher);
	expect(raw4, &ask, 0, "127.0.0.1");
	expect(raw4, &unreachable, 0, "192.0.2.9");
	expect(raw4, &answer, 0, "192.0.2.9");
	expect_none(raw4);
	expect(second4, &answer, 0, "192.0.2.9");
	expect(second4, &answer, 0, "192.0.2.9");
	expect_none(second4);
	expect(connected, &answer, 0, "192.0.2.9");
	expect_none(connected);
	expect(odd, &other, 0, "192.0.2.9");
	expect_none(odd);
	expect(raw6, &ask6, sizeof(struct ip6_hdr), "::1");
	expect(raw6, &answer6, sizeof(struct ip6_hdr), "2001:db8::2");
	expect_none(raw6);
	CHECK_EQUAL(ttl_of_next(ping4), 17);
	for (int i = 0; i < 2; i++)
		expect(ping4, &answer, sizeof(struct iphdr), "192.0.2.9");
	expect_none(ping4);
	expect(ping6, &answer6, sizeof(struct ip6_hdr), "2001:db8::2");
	expect_none(ping6);
	/* They hear again what they heard before. */
	send4(&ask);
	expect(empty4, &ask, 0, "127.0.0.1");
	expect_none(raw4);
	send4(&other);
	expect(odd, &other, 0, "192.0.2.9");
	test_pass();
}
