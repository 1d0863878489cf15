/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF programs that are attached to sockets, and that nobody has open: one that two sockets have,
 * and that counts in a map; another of a listener and of a socket whose filter is locked.
 *
 * needs: root
 * network: own
 * not-in: both: the ports are taken
 */
/* may-refuse: kernel-too-old */
#include "bpf_calls.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#define LONGEST 100
#define EVERY	0x7fffffff

static struct sockaddr_in at = {.sin_family = AF_INET};

static int load(const struct bpf_insn *insns, uint32_t n)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	return load_with(&attr, BPF_PROG_TYPE_SOCKET_FILTER, insns, n);
}

/* Counts, and lets nothing pass that is longer. */
static int counter(int map)
{
	const struct bpf_insn insns[] = {
		I(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0),
		I(BPF_ST | BPF_MEM | BPF_W, 10, 0, -4, 0),
		I(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
		I(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4),
		I(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, map),
		I(0, 0, 0, 0, 0),
		I(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
		I(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3, 0),
		I(BPF_LDX | BPF_MEM | BPF_DW, 1, 0, 0, 0),
		I(BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 0, 1),
		I(BPF_STX | BPF_MEM | BPF_DW, 0, 1, 0, 0),
		I(BPF_LDX | BPF_MEM | BPF_W, 2, 6, offsetof(struct __sk_buff, len), 0),
		I(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, EVERY),
		I(BPF_JMP | BPF_JLE | BPF_K, 2, 0, 1, LONGEST),
		I(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		I(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};

	return load(insns, sizeof(insns) / sizeof(insns[0]));
}

static int passer(void)
{
	const struct bpf_insn insns[] = {I(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, EVERY),
					 I(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)};

	return load(insns, 2);
}

static void attach(int fd, int program)
{
	CHECK(!setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)));
}

static bool arrives(int from, int to, size_t len)
{
	static char data[1000];
	struct pollfd p = {.fd = to, .events = POLLIN};
	ssize_t n;

	/* The sender of a Unix socket is told when a filter drops it. */
	n = send(from, data, len, 0);
	CHECK(n == (ssize_t)len || (n < 0 && errno == EPERM));
	if (poll(&p, 1, 0) == 0)
		return false;
	CHECK_EQUAL(recv(to, data, sizeof(data), 0), len);
	return true;
}

static bool has_program(int fd)
{
	socklen_t n = 0;

	return getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n) < 0 && errno == EACCES;
}

int main(void)
{
	int map, program, udp, sender, pair[2], listener, locked, on = 1;
	socklen_t len = sizeof(at);
	uint64_t before;

	test_init();
	map = map_make(BPF_MAP_TYPE_ARRAY, 4, 8, 1);
	program = counter(map);
	udp = socket(AF_INET, SOCK_DGRAM, 0);
	sender = socket(AF_INET, SOCK_DGRAM, 0);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	locked = socket(AF_PACKET, SOCK_DGRAM, 0);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	attach(udp, program);
	attach(pair[1], program);
	close(program);
	program = passer();
	attach(listener, program);
	attach(locked, program);
	close(program);
	CHECK(!setsockopt(locked, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)));
	CHECK(!bind(udp, (struct sockaddr *)&at, len) && !listen(listener, 1));
	CHECK(!getsockname(udp, (struct sockaddr *)&at, &len));
	CHECK(!connect(sender, (struct sockaddr *)&at, len));
	CHECK(arrives(sender, udp, 10) && !arrives(sender, udp, 200));
	CHECK(arrives(pair[0], pair[1], 10) && !arrives(pair[0], pair[1], 200));
	before = value_of(map, 0);

	test_wait();
	if (test_break(1))
		CHECK(!setsockopt(udp, SOL_SOCKET, SO_DETACH_BPF, &on, sizeof(on)));
	CHECK_EQUAL(value_of(map, 0), before);
	CHECK(arrives(sender, udp, 20) && !arrives(sender, udp, 300));
	CHECK(arrives(pair[0], pair[1], 20) && !arrives(pair[0], pair[1], 300));
	CHECK_EQUAL(value_of(map, 0), before + 4);
	CHECK(has_program(listener) && has_program(locked));
	CHECK(setsockopt(locked, SOL_SOCKET, SO_DETACH_BPF, &on, sizeof(on)) < 0);
	test_pass();
}
