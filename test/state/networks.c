/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets of several network namespaces: the same addresses and names in each, held by tasks
 * in the namespace and by one outside of it, and a connection from one to the other.
 *
 * needs: root
 * network: own
 * not-in: both: names of sockets are taken by the original
 */
#include "harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define NETWORKS 3 /* that of the root, and two more */
#define PORT	 5555
#define PROTOCOL 0x88b5 /* for local experiments */
#define GROUP	 4711

static volatile struct {
	uint64_t cookie[NETWORKS];
	int ready[NETWORKS];
} * shared;

struct sockets {
	int listener, datagram, name, pair[2], packets[2];
};

static const struct sockaddr_in at = {
	.sin_family = AF_INET, .sin_port = 0xb315, .sin_addr.s_addr = 0x0100007f};
static const struct sockaddr_un abstract = {.sun_family = AF_UNIX, .sun_path = "\0of-test"};
#define ABSTRACT_LEN (offsetof(struct sockaddr_un, sun_path) + 8)

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len));
	return cookie;
}

static void bring_up(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

	CHECK(fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &ifr));
	close(fd);
}

/* Each gets the packets of its own network, by a group that has the same number in all. */
static int open_packets(bool in_group)
{
	struct sockaddr_ll of = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(PROTOCOL),
				 .sll_ifindex = (int)if_nametoindex("lo")};
	int fd = socket(AF_PACKET, SOCK_DGRAM, 0), group = GROUP;

	CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&of, sizeof(of)));
	CHECK(!in_group || !setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof(group)));
	return fd;
}

static void check_packets(const struct sockets *s, int i)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(PROTOCOL),
				 .sll_ifindex = (int)if_nametoindex("lo"),
				 .sll_halen = 6};
	int from = socket(AF_PACKET, SOCK_DGRAM, 0), group = 0;
	socklen_t len = sizeof(group);
	char byte = (char)i, got;

	CHECK(from >= 0);
	CHECK(sendto(from, &byte, 1, 0, (struct sockaddr *)&to, sizeof(to)) == 1);
	for (int n = 0; n < 2; n++) {
		CHECK(recv(s->packets[n], &got, 1, 0) == 1 && got == byte);
		CHECK(recv(s->packets[n], &got, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
		CHECK_EQUAL(cookie_of(s->packets[n]), cookie_of(from));
	}
	CHECK(!getsockopt(s->packets[1], SOL_PACKET, PACKET_FANOUT, &group, &len));
	CHECK_EQUAL(group & 0xffff, GROUP);
	close(from);
}

static void set_up(struct sockets *s, int i)
{
	int from = socket(AF_INET, SOCK_DGRAM, 0);
	char text[16];

	s->listener = socket(AF_INET, SOCK_STREAM, 0);
	s->datagram = socket(AF_INET, SOCK_DGRAM, 0);
	s->name = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(!bind(s->listener, (const struct sockaddr *)&at, sizeof(at)));
	CHECK(!listen(s->listener, 3 + i));
	CHECK(!bind(s->datagram, (const struct sockaddr *)&at, sizeof(at)));
	CHECK(!bind(s->name, (const struct sockaddr *)&abstract, ABSTRACT_LEN));
	CHECK(!listen(s->name, 2) && !socketpair(AF_UNIX, SOCK_STREAM, 0, s->pair));
	snprintf(text, sizeof(text), "to %d", i);
	CHECK(sendto(from, text, 5, 0, (const struct sockaddr *)&at, sizeof(at)) == 5);
	CHECK(write(s->pair[1], text, 5) == 5);
	s->packets[0] = open_packets(false);
	s->packets[1] = open_packets(true);
	close(from);
}

static void check(const struct sockets *s, int i)
{
	int client = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_STREAM, 0), ttl;
	socklen_t len = sizeof(ttl);
	char text[16], wanted[16];

	snprintf(wanted, sizeof(wanted), "to %d", i);
	CHECK(!connect(client, (const struct sockaddr *)&at, sizeof(at)));
	CHECK(accept(s->listener, NULL, NULL) >= 0);
	CHECK(!connect(other, (const struct sockaddr *)&abstract, ABSTRACT_LEN));
	CHECK(accept(s->name, NULL, NULL) >= 0);
	CHECK(recv(s->datagram, text, 16, MSG_DONTWAIT) == 5 && !strcmp(text, wanted));
	CHECK(read(s->pair[0], text, 16) == 5 && !strcmp(text, wanted));
	CHECK(!getsockopt(s->listener, IPPROTO_IP, IP_TTL, &ttl, &len));
	CHECK_EQUAL(ttl, i ? 90 + i : 64);
	CHECK_EQUAL(cookie_of(s->listener), cookie_of(client));
	CHECK_EQUAL(cookie_of(s->datagram), cookie_of(client));
	CHECK_EQUAL(cookie_of(s->name), cookie_of(client));
	CHECK_EQUAL(cookie_of(s->pair[0]), cookie_of(client));
	shared->cookie[i] = cookie_of(client);
	check_packets(s, i);
}

static int in_network(void *arg)
{
	int i = *(int *)arg, peer = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "socket"};
	struct sockets s;
	char text[16];

	close(peer);
	CHECK(!unshare(CLONE_NEWNET));
	bring_up();
	snprintf(text, sizeof(text), "%d", 90 + i);
	test_write("/proc/sys/net/ipv4/ip_default_ttl", text, 2);
	set_up(&s, i);
	peer = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(!connect(peer, (struct sockaddr *)&path, sizeof(path)));
	CHECK(write(peer, "hello", 5) == 5);
	shared->ready[i] = 1;
	test_hold();
	if (test_break(1) && i == 1) {
		CHECK(!unshare(CLONE_NEWNET));
		bring_up();
	}
	check(&s, i);
	CHECK_EQUAL(cookie_of(peer), shared->cookie[i]);
	CHECK(read(peer, text, 16) == 6 && !memcmp(text, "answer", 6));
	return i;
}

int main(void)
{
	struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "socket"};
	int listener, peer[NETWORKS], there, home, number[NETWORKS] = {0, 1, 2};
	pid_t pid[NETWORKS];
	struct sockets s;
	char text[16];

	test_init();
	shared = test_shared(4096);
	bring_up();
	set_up(&s, 0);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(!bind(listener, (struct sockaddr *)&path, sizeof(path)) && !listen(listener, 5));
	for (int i = 1; i < NETWORKS; i++) {
		pid[i] = test_fork(in_network, &number[i]);
		while (!shared->ready[i])
			usleep(1000);
		peer[i] = accept(listener, NULL, NULL);
		CHECK(peer[i] >= 0);
	}
	snprintf(text, sizeof(text), "/proc/%d/ns", pid[1]);
	CHECK((home = open("/proc/self/ns/net", O_RDONLY)) >= 0);
	there = open(text, O_RDONLY | O_DIRECTORY);
	CHECK(there >= 0);
	listener = openat(there, "net", O_RDONLY);
	CHECK(listener >= 0 && !setns(listener, CLONE_NEWNET) && !close(listener));
	close(there);
	there = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK(!setns(home, CLONE_NEWNET) && !close(home));

	test_wait();
	check(&s, 0);
	for (int i = 1; i < NETWORKS; i++) {
		CHECK(read(peer[i], text, 16) == 5 && !memcmp(text, "hello", 5));
		CHECK(write(peer[i], "answer", 6) == 6);
		test_reap(pid[i], i);
		CHECK(shared->cookie[i] != shared->cookie[0]);
	}
	CHECK(shared->cookie[1] != shared->cookie[2]);
	if (test_break(2))
		there = s.datagram;
	CHECK_EQUAL(cookie_of(there), shared->cookie[1]);
	test_pass();
}
