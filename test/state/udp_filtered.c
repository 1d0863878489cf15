/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams that wait in sockets which would not get them now, or where the kernel would choose
 * another: behind a filter, on a port that several share, of a multicast group, bound to a device.
 *
 * network: own
 * not-in: both: the ports are those of the original
 */
#include "harness.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define SENDERS 24

static struct sockaddr_in address(int fd)
{
	struct sockaddr_in a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, (struct sockaddr *)&a, &len));
	return a;
}

static int bound(uint32_t host, int port, bool shared)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(host)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), on = shared;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)));
	CHECK(!bind(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static void send_to(int from, int to, char byte)
{
	struct sockaddr_in a = address(to);

	if (!a.sin_addr.s_addr)
		a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK_EQUAL(sendto(from, &byte, 1, 0, (struct sockaddr *)&a, sizeof(a)), 1);
}

static void set(int fd, int level, int name, int value)
{
	CHECK(!setsockopt(fd, level, name, &value, sizeof(value)));
}

static void expect(int fd, int from, char byte)
{
	struct sockaddr_in a = {};
	socklen_t len = sizeof(a);
	char is = 0;

	CHECK_EQUAL(recvfrom(fd, &is, 1, MSG_DONTWAIT, (struct sockaddr *)&a, &len), 1);
	CHECK_EQUAL(is, byte);
	CHECK_EQUAL(a.sin_port, address(from).sin_port);
}

/* What is in a queue, without taking it. */
static int look(int fd, char *ret)
{
	int n = 0;

	set(fd, SOL_SOCKET, SO_PEEK_OFF, 0);
	while (recv(fd, &ret[n], 1, MSG_PEEK | MSG_DONTWAIT) == 1)
		n++;
	set(fd, SOL_SOCKET, SO_PEEK_OFF, -1);
	return n;
}

int main(void)
{
	struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {1, nothing};
	struct ip_mreqn membership = {.imr_ifindex = 1};
	int sender, filtered, group[2], multicast, device, n[2];
	char queued[2][SENDERS + 1], byte;

	test_init();
	sender = bound(INADDR_LOOPBACK, 0, false);
	filtered = bound(INADDR_ANY, 0, false);
	send_to(sender, filtered, 'f');
	CHECK(!setsockopt(filtered, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	group[0] = bound(INADDR_ANY, 0, true);
	group[1] = bound(INADDR_ANY, ntohs(address(group[0]).sin_port), true);
	for (char i = 0; i < SENDERS; i++) {
		int one = bound(INADDR_LOOPBACK, 0, false);

		send_to(one, group[0], i);
		close(one);
	}
	for (int i = 0; i < 2; i++)
		n[i] = look(group[i], queued[i]);
	CHECK_EQUAL(n[0] + n[1], SENDERS);
	multicast = bound(0xef070701, 0, false);
	membership.imr_multiaddr.s_addr = htonl(0xef070701);
	CHECK(!setsockopt(multicast, IPPROTO_IP, IP_ADD_MEMBERSHIP, &membership,
			  sizeof(membership)));
	CHECK(!setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &membership, sizeof(membership)));
	send_to(sender, multicast, 'm');
	device = bound(INADDR_ANY, 0, false);
	CHECK(!setsockopt(device, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2));
	send_to(sender, device, 'd');

	test_wait();
	if (test_break(1))
		send_to(sender, device, 'x');
	expect(filtered, sender, 'f');
	send_to(sender, filtered, 'g');
	CHECK(recv(filtered, &byte, 1, MSG_DONTWAIT) < 0);
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < n[i]; k++) {
			CHECK_EQUAL(recv(group[i], &byte, 1, MSG_DONTWAIT), 1);
			CHECK_EQUAL(byte, queued[i][k]);
		}
	expect(multicast, sender, 'm');
	send_to(sender, multicast, 'n');
	expect(multicast, sender, 'n');
	expect(device, sender, 'd');
	CHECK(recv(device, &byte, 1, MSG_DONTWAIT) < 0);
	test_pass();
}
