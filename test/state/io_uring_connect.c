/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in flight of io_uring that connect TCP sockets whose peers do not answer yet: one that
 * nobody has bound, one that is bound, with options, and one that is registered only later; and a
 * chain that connects, sends without copies, from a registered buffer and by a message, and
 * receives.
 *
 * network: own
 * not-in: both: the ports are those of the original
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define OP_SEND_ZC    47
#define OP_SENDMSG_ZC 48
#define SEND_FIXED    (1u << 2) /* IORING_RECVSEND_FIXED_BUF */

static struct ring ring;
static int listener, six, plain, bound, chained, of_six, bound_port;
static char sent[] = "sent without copies", second[] = "and a message", into[64];
static const struct iovec registered[] = {{second, sizeof(second)}, {sent, sizeof(sent)}};

static const struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = 0x0100007f};
static const struct sockaddr_in6 loopback6 = {.sin6_family = AF_INET6,
					      .sin6_addr = {.s6_addr[15] = 1}};

static int port_of(int fd)
{
	struct sockaddr_in6 a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, (struct sockaddr *)&a, &len));
	return a.sin6_port;
}

/* It takes no packet, so that nobody gets an answer. */
static int deaf_listener(const void *address, socklen_t len, int family)
{
	struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
	struct sock_fprog program = {1, &nothing};
	int fd = socket(family, SOCK_STREAM, 0);

	CHECK(fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
	CHECK(!bind(fd, address, len) && !listen(fd, 5));
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))
		test_skip("no filters of sockets here");
	return fd;
}

static int client(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	CHECK(fd >= 0);
	CHECK(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
	return fd;
}

static void ask_connect(int fd, int family, uint64_t data, uint8_t flags)
{
	static union {
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} a;
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_CONNECT, data);

	if (family == AF_INET) {
		a.in = loopback;
		a.in.sin_port = (in_port_t)port_of(listener);
	} else {
		a.in6 = loopback6;
		a.in6.sin6_port = (in_port_t)port_of(six);
	}
	sqe->fd = fd;
	sqe->addr = (uintptr_t)&a;
	sqe->off = family == AF_INET ? sizeof(a.in) : sizeof(a.in6);
	sqe->flags = flags;
	if (flags)
		return;
	ring_enter(&ring, 1, 0);
	memset(&a, 0, sizeof(a));
}

static void ask_chain(void)
{
	struct iovec place = {second, sizeof(second)};
	struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1};
	struct io_uring_sqe *sqe;

	ring_register(&ring, IORING_REGISTER_BUFFERS, registered, 2);
	ask_connect(chained, AF_INET, 3, IOSQE_IO_LINK);
	sqe = ring_sqe(&ring, OP_SEND_ZC, 4);
	sqe->fd = chained;
	sqe->addr = (uintptr_t)sent;
	sqe->len = sizeof(sent);
	sqe->ioprio = SEND_FIXED;
	sqe->buf_index = 1;
	sqe->flags = IOSQE_IO_LINK;
	sqe = ring_sqe(&ring, OP_SENDMSG_ZC, 7);
	sqe->fd = chained;
	sqe->addr = (uintptr_t)&message;
	sqe->len = 1;
	sqe->flags = IOSQE_IO_LINK;
	sqe = ring_sqe(&ring, IORING_OP_RECV, 5);
	sqe->fd = chained;
	sqe->addr = (uintptr_t)into;
	sqe->len = sizeof(into);
	ring_enter(&ring, 4, 0);
	memset(&message, 0, sizeof(message));
	memset(&place, 0, sizeof(place));
}

static void set_up(void)
{
	struct sockaddr_in a = loopback;
	struct tcp_info info;
	socklen_t len = sizeof(info);
	int mss = 700;

	ring_make(&ring, 16, 0);
	ring_nops(&ring, 3, 0);
	listener = deaf_listener(&loopback, sizeof(loopback), AF_INET);
	six = deaf_listener(&loopback6, sizeof(loopback6), AF_INET6);
	plain = client();
	bound = client();
	chained = client();
	of_six = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK(!setsockopt(bound, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
	CHECK(!setsockopt(bound, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof(mss)));
	CHECK(!bind(bound, (void *)&a, sizeof(a)));
	bound_port = port_of(bound);
	ask_connect(plain, AF_INET, 1, 0);
	ask_connect(bound, AF_INET, 2, 0);
	ask_connect(of_six, AF_INET6, 6, 0);
	ask_chain();
	CHECK(!ring_peek(&ring));
	CHECK(!getsockopt(plain, IPPROTO_TCP, TCP_INFO, &info, &len));
	CHECK_EQUAL(info.tcpi_state, TCP_SYN_SENT);
}

static int32_t results[8], notices;

static void take_one(void)
{
	const struct io_uring_cqe *cqe;

	while (!(cqe = ring_peek(&ring)))
		ring_enter(&ring, 0, 1);
	CHECK(cqe->user_data < 8);
	if (cqe->flags & (1u << 3)) { /* IORING_CQE_F_NOTIF */
		CHECK(cqe->user_data == 4 || cqe->user_data == 7);
		notices++;
	} else {
		CHECK_EQUAL(results[cqe->user_data], INT32_MAX);
		results[cqe->user_data] = cqe->res;
	}
	ring_taken(&ring);
}

static void open_up(int fd)
{
	CHECK(!setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &(int){0}, sizeof(int)));
}

/* Those that come first are not those that have asked first. */
static int accept_from(int fd, int port)
{
	for (;;) {
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		int one = accept(fd, (void *)&from, &len);

		CHECK(one >= 0);
		if (!port || from.sin_port == port)
			return one;
	}
}

/* Without a peer each has the address that it was bound to. */
static void check_disconnected(void)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int mss = 0;

	CHECK(!connect(plain, &none, sizeof(none)) && !connect(bound, &none, sizeof(none)));
	CHECK(!getsockname(plain, (void *)&a, &len));
	CHECK(!a.sin_addr.s_addr);
	CHECK(!getsockname(bound, (void *)&a, &len));
	CHECK_EQUAL(a.sin_addr.s_addr, loopback.sin_addr.s_addr);
	len = sizeof(mss);
	CHECK(!getsockopt(bound, IPPROTO_TCP, TCP_MAXSEG, &mss, &len));
	/* as it was agreed upon, with or without time stamps */
	CHECK(mss == 700 || mss == 700 - 12);
}

int main(void)
{
	const struct io_uring_cqe *early;
	int server, value = 0;
	socklen_t len = sizeof(value);

	test_init();
	for (int i = 0; i < 8; i++)
		results[i] = INT32_MAX;
	set_up();
	test_wait();
	early = ring_peek(&ring);
	CHECKF(!early, "request %llu has ended with %d", (unsigned long long)early->user_data,
	       early->res);
	if (test_break(1))
		CHECK(!shutdown(chained, SHUT_RDWR));
	if (test_break(2))
		CHECK(!close(six));
	open_up(listener);
	open_up(six);
	while (results[1] == INT32_MAX || results[2] == INT32_MAX || results[4] == INT32_MAX ||
	       results[6] == INT32_MAX || results[7] == INT32_MAX || notices < 2)
		take_one();
	CHECK_EQUAL(results[1], 0);
	CHECK_EQUAL(results[2], 0);
	CHECK_EQUAL(results[3], 0);
	CHECK_EQUAL(results[4], sizeof(sent));
	CHECK_EQUAL(results[6], 0);
	CHECK_EQUAL(results[7], sizeof(second));
	CHECK_EQUAL(port_of(bound), bound_port);
	server = accept_from(listener, port_of(chained));
	CHECK_EQUAL(recv(server, into, sizeof(sent) + sizeof(second), MSG_WAITALL),
		    sizeof(sent) + sizeof(second));
	CHECK(!memcmp(into, sent, sizeof(sent)));
	CHECK(!memcmp(into + sizeof(sent), second, sizeof(second)));
	CHECK_EQUAL(write(server, "answer", 6), 6);
	while (results[5] == INT32_MAX)
		take_one();
	CHECK_EQUAL(results[5], 6);
	CHECK(!memcmp(into, "answer", 6));
	CHECK(!getsockopt(plain, IPPROTO_TCP, TCP_NODELAY, &value, &len));
	CHECK_EQUAL(value, 1);
	ring_empty(&ring);
	check_disconnected();
	test_pass();
}
