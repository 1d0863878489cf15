/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that share a port, among which a program chooses.
 *
 * needs: root
 * network: own
 * not-in: both: the ports are taken
 */
#include "harness.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define N    3
#define PORT 4711

static struct sockaddr_in at = {.sin_family = AF_INET};

static int member(int type)
{
	int fd = socket(AF_INET, type, 0), on = 1;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)));
	CHECK(!bind(fd, (struct sockaddr *)&at, sizeof(at)));
	CHECK(type == SOCK_DGRAM || !listen(fd, 5));
	return fd;
}

static void attach(int fd, const struct sock_filter *code, int n)
{
	const struct sock_fprog program = {(unsigned short)n, (struct sock_filter *)code};

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)));
}

/* Who gets it is said by its first byte. */
static void check_datagrams(const int *fds)
{
	int from = socket(AF_INET, SOCK_DGRAM, 0);

	for (int round = 0; round < 4; round++)
		for (char i = 0; i < N; i++) {
			struct pollfd p[N];
			char is = -1;

			CHECK_EQUAL(sendto(from, &i, 1, 0, (struct sockaddr *)&at, sizeof(at)), 1);
			for (int k = 0; k < N; k++)
				p[k] = (struct pollfd){.fd = fds[k], .events = POLLIN};
			CHECK_EQUAL(poll(p, N, 5000), 1);
			CHECK(p[(int)i].revents & POLLIN);
			CHECK_EQUAL(recv(fds[(int)i], &is, 1, 0), 1);
			CHECK_EQUAL(is, i);
		}
	close(from);
}

/* The last one is chosen always. */
static void check_listeners(const int *fds)
{
	for (int round = 0; round < 4; round++) {
		int client = socket(AF_INET, SOCK_STREAM, 0), accepted;
		struct pollfd p = {.fd = fds[N - 1], .events = POLLIN};

		CHECK(!connect(client, (struct sockaddr *)&at, sizeof(at)));
		CHECK_EQUAL(poll(&p, 1, 5000), 1);
		accepted = accept(fds[N - 1], NULL, NULL);
		CHECK(accepted >= 0);
		close(accepted);
		close(client);
	}
}

int main(void)
{
	const struct sock_filter by_byte[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
					      BPF_STMT(BPF_RET | BPF_A, 0)};
	const struct sock_filter last[] = {BPF_STMT(BPF_RET | BPF_K, N - 1)};
	int datagrams[N], listeners[N];

	test_init();
	at.sin_port = htons(PORT);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (int i = 0; i < N; i++) {
		datagrams[i] = member(SOCK_DGRAM);
		listeners[i] = member(SOCK_STREAM);
	}
	attach(datagrams[1], by_byte, 2);
	attach(listeners[2], last, 1);

	test_wait();
	if (test_break(1)) {
		int other = listeners[0];

		listeners[0] = listeners[N - 1];
		listeners[N - 1] = other;
	}
	check_datagrams(datagrams);
	check_listeners(listeners);
	test_pass();
}
