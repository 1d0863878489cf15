/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that share a port, among which a program chooses: a classic one, or one that counts in a
 * map, and that nobody has open.
 *
 * needs: root
 * network: own
 * not-in: both: the ports are taken
 */
/* may-refuse: kernel-too-old */
#include "bpf_calls.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEMBERS 3
#define PORT	4711

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

/* By the first byte, as well. */
static int chooser(int map)
{
	const struct bpf_insn p[] = {
		MOV(6, 1),
		ST(BPF_W, 10, -4, 1),
		MAP(1, map),
		MOV(2, 10),
		ADDI(2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ(0, 0, 2),
		SET(1, 1),
		I(BPF_STX | BPF_ATOMIC | BPF_DW, 0, 1, 0, BPF_ADD),
		I(BPF_LD | BPF_ABS | BPF_B, 0, 0, 0, 0),
		EXIT,
	};
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	return load_with(&attr, BPF_PROG_TYPE_SOCKET_FILTER, p, N(p));
}

/* Who gets it is said by its first byte. */
static void check_datagrams(const int *fds)
{
	int from = socket(AF_INET, SOCK_DGRAM, 0);

	for (int round = 0; round < 4; round++)
		for (char i = 0; i < MEMBERS; i++) {
			struct pollfd p[MEMBERS];
			char is = -1;

			CHECK_EQUAL(sendto(from, &i, 1, 0, (struct sockaddr *)&at, sizeof(at)), 1);
			for (int k = 0; k < MEMBERS; k++)
				p[k] = (struct pollfd){.fd = fds[k], .events = POLLIN};
			CHECK_EQUAL(poll(p, MEMBERS, 5000), 1);
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
		struct pollfd p = {.fd = fds[MEMBERS - 1], .events = POLLIN};

		CHECK(!connect(client, (struct sockaddr *)&at, sizeof(at)));
		CHECK_EQUAL(poll(&p, 1, 5000), 1);
		accepted = accept(fds[MEMBERS - 1], NULL, NULL);
		CHECK(accepted >= 0);
		close(accepted);
		close(client);
	}
}

int main(void)
{
	const struct sock_filter by_byte[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
					      BPF_STMT(BPF_RET | BPF_A, 0)};
	const struct sock_filter last[] = {BPF_STMT(BPF_RET | BPF_K, MEMBERS - 1)};
	int datagrams[MEMBERS], listeners[MEMBERS], others[MEMBERS], program, map;

	test_init();
	at.sin_port = htons(PORT);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (int i = 0; i < MEMBERS; i++) {
		datagrams[i] = member(SOCK_DGRAM);
		listeners[i] = member(SOCK_STREAM);
	}
	attach(datagrams[1], by_byte, 2);
	attach(listeners[2], last, 1);
	at.sin_port = htons(PORT + 1);
	for (int i = 0; i < MEMBERS; i++)
		others[i] = member(SOCK_DGRAM);
	map = map_make(BPF_MAP_TYPE_ARRAY, 4, 8, 4);
	program = chooser(map);
	CHECK(!setsockopt(others[1], SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program,
			  sizeof(program)));
	close(program);
	check_datagrams(others);
	CHECK_EQUAL(value_of(map, 1), 4 * MEMBERS);

	test_wait();
	if (test_break(1)) {
		int other = listeners[0];

		listeners[0] = listeners[MEMBERS - 1];
		listeners[MEMBERS - 1] = other;
	}
	if (test_break(2))
		CHECK(!setsockopt(others[0], SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &map,
				  sizeof(map)));
	check_datagrams(others);
	CHECK_EQUAL(value_of(map, 1), 8 * MEMBERS);
	at.sin_port = htons(PORT);
	check_datagrams(datagrams);
	check_listeners(listeners);
	test_pass();
}
