/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces that lead from one network namespace of the tree to another one, and over a third:
 * sockets on both sides still reach each other, and interfaces have their numbers and addresses.
 *
 * needs: root
 * network: own
 */
#include "harness.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define NETWORKS 3 /* the one in the middle routes between the others */
#define PORT	 5555

static const char *const own[NETWORKS] = {"10.1.0.1", "10.1.0.2", "10.2.0.2"};

static volatile struct {
	int apart[NETWORKS], ready[NETWORKS], listening, deleted;
} * shared;

static void run(const char *command)
{
	CHECKF(system(command) == 0, "%s", command);
}

static struct sockaddr_in at(const char *address, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	CHECK(inet_pton(AF_INET, address, &a.sin_addr) == 1);
	return a;
}

static int index_of(int fd, const char *name, uint8_t *mac)
{
	struct ifreq ifr = {};

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	CHECK(!ioctl(fd, SIOCGIFHWADDR, &ifr));
	memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	CHECK(!ioctl(fd, SIOCGIFINDEX, &ifr));
	return ifr.ifr_ifindex;
}

/*
 * Asks the one at the other end, over the one in the middle: as often as it takes while the
 * interfaces are new (what is sent before the kernel has them ready is dropped), once after that.
 */
static void ask(int fd, int times)
{
	struct sockaddr_in to = at(own[2], PORT);
	struct timeval patience = {.tv_sec = times > 1 ? 5 : 30};
	char text[16];
	ssize_t n = -1;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)));
	for (int i = 0; i < times && n < 0; i++) {
		CHECK(sendto(fd, "hello", 5, 0, (struct sockaddr *)&to, sizeof(to)) == 5);
		n = recv(fd, text, sizeof(text), 0);
	}
	CHECK(n == 6 && !memcmp(text, "answer", 6));
}

static void answer(int fd)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char text[16];

	CHECK(recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&from, &len) == 5);
	CHECK(from.sin_addr.s_addr == at(own[0], 0).sin_addr.s_addr);
	CHECK(sendto(fd, "answer", 6, 0, (struct sockaddr *)&from, len) == 6);
}

static int in_network(void *arg)
{
	const int i = *(int *)arg;
	struct sockaddr_in here = at(own[i], PORT);
	uint8_t mac[6], now[6];
	int fd, index;

	CHECK(!unshare(CLONE_NEWNET));
	shared->apart[i] = 1;
	while (!shared->ready[i])
		usleep(1000);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&here, sizeof(here)));
	index = index_of(fd, "left", mac);
	CHECK_EQUAL(index, 20 + i);
	if (i == 2) {
		shared->listening = 1;
		answer(fd);
	} else if (i == 0) {
		while (!shared->listening)
			usleep(1000);
		ask(fd, 10);
	}
	shared->ready[i] = 2;
	test_hold();
	if (i == 1 && test_break(1)) {
		run("ip link del right");
		shared->deleted = 1;
	}
	while (i == 0 && test_break(1) && !shared->deleted)
		usleep(1000);
	if (i == 2 && test_break(2))
		run("ip link set left address 02:00:00:00:00:99");
	CHECK_EQUAL(index_of(fd, "left", now), index);
	CHECK(!memcmp(mac, now, 6));
	if (i == 0)
		ask(fd, 1);
	if (i == 2)
		answer(fd);
	return 10 + i;
}

static void connect_all(const pid_t *pid)
{
	char command[1024];

	snprintf(
		command, sizeof(command),
		"set -e\n"
		"ip link add left index 20 netns %d mtu 1400 type veth peer name left index 21 netns %d\n"
		"ip link add right index 30 netns %d type veth peer name left index 22 netns %d\n"
		"go() { nsenter -n -t \"$@\"; }\n"
		"go %d ip addr add 10.1.0.1/24 dev left; go %d ip link set left up\n"
		"go %d ip addr add 10.1.0.2/24 dev left; go %d ip link set left up\n"
		"go %d ip addr add 10.2.0.1/24 dev right; go %d ip link set right up\n"
		"go %d ip addr add 10.2.0.2/24 dev left; go %d ip link set left up\n"
		"go %d ip route add default via 10.1.0.2; go %d ip route add default via 10.2.0.1\n"
		"go %d sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'",
		pid[0], pid[1], pid[1], pid[2], pid[0], pid[0], pid[1], pid[1], pid[1], pid[1],
		pid[2], pid[2], pid[0], pid[2], pid[1]);
	run(command);
}

int main(void)
{
	int number[NETWORKS] = {0, 1, 2};
	pid_t pid[NETWORKS];

	test_init();
	if (access("/usr/sbin/ip", X_OK) < 0)
		test_skip("no iproute2");
	shared = test_shared(4096);
	for (int i = 0; i < NETWORKS; i++) {
		pid[i] = test_fork(in_network, &number[i]);
		while (!shared->apart[i])
			usleep(1000);
	}
	connect_all(pid);
	for (int i = NETWORKS - 1; i >= 0; i--)
		shared->ready[i] = 1;
	for (int i = 0; i < NETWORKS; i++)
		while (shared->ready[i] != 2)
			usleep(1000);

	test_wait();
	for (int i = 0; i < NETWORKS; i++)
		test_reap(pid[i], 10 + i);
	test_pass();
}
