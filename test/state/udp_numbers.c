/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams that are numbered, so that notices on the error queue can name them: what comes next
 * has the number that it would have had.
 *
 * needs: root
 * network: own
 * not-in: both: the ports are taken
 */
#include "harness.h"

#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Behind struct timespec. */
#include <linux/errqueue.h>

#define COUNT  150
#define STAMPS (SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE)

static int set_up(int family, int option, int value)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} at = {.any.sa_family = (sa_family_t)family};
	socklen_t len = family == AF_INET ? sizeof(at.in) : sizeof(at.in6);
	int fd = socket(family, SOCK_DGRAM, 0), to = socket(family, SOCK_DGRAM, 0);

	if (family == AF_INET)
		at.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		at.in6.sin6_addr = in6addr_loopback;
	if (fd < 0 || to < 0 || bind(to, &at.any, len) < 0)
		return -1;
	CHECK(!getsockname(to, &at.any, &len) && !connect(fd, &at.any, len));
	close(to);
	CHECK(!setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)));
	return fd;
}

static uint32_t notice(int fd)
{
	char control[512] __attribute__((aligned(8)));
	struct pollfd p = {.fd = fd};

	for (;;) {
		struct msghdr msg = {.msg_control = control, .msg_controllen = sizeof(control)};

		/* Nobody is there: that is told, too. */
		CHECK_EQUAL(poll(&p, 1, 5000), 1);
		if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
			int error;
			socklen_t len = sizeof(error);

			CHECK_EQUAL(errno == EAGAIN || errno == ECONNREFUSED, 1);
			CHECK(!getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
			continue;
		}
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
			const struct sock_extended_err *x = (const void *)CMSG_DATA(c);

			if (c->cmsg_level != SOL_SOCKET)
				return x->ee_data;
		}
	}
}

static uint32_t send_one(int fd, int flags)
{
	int error;
	socklen_t len = sizeof(error);

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
	CHECK_EQUAL(send(fd, "x", 1, flags), 1);
	return notice(fd);
}

static void calm(int fd)
{
	int error;
	socklen_t len = sizeof(error);

	CHECK(fd < 0 || !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
}

int main(void)
{
	int zero, zero6, stamped, on = 1;

	test_init();
	zero = set_up(AF_INET, SO_ZEROCOPY, 1);
	zero6 = set_up(AF_INET6, SO_ZEROCOPY, 1);
	stamped = set_up(AF_INET, SO_TIMESTAMPING, STAMPS);
	for (uint32_t i = 0; i < COUNT; i++) {
		CHECK_EQUAL(send_one(zero, MSG_ZEROCOPY), i);
		CHECK_EQUAL(send_one(stamped, 0), i);
	}
	if (zero6 >= 0)
		CHECK_EQUAL(send_one(zero6, MSG_ZEROCOPY), 0);
	calm(zero);
	calm(zero6);
	calm(stamped);

	test_wait();
	if (test_break(1))
		send_one(zero, MSG_ZEROCOPY);
	if (test_break(2)) {
		int off = 0, flags = STAMPS;

		CHECK(!setsockopt(stamped, SOL_SOCKET, SO_TIMESTAMPING, &off, sizeof(off)));
		CHECK(!setsockopt(stamped, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof(flags)));
	}
	CHECK_EQUAL(send_one(zero, MSG_ZEROCOPY), COUNT);
	CHECK_EQUAL(send_one(stamped, 0), COUNT);
	if (zero6 >= 0)
		CHECK_EQUAL(send_one(zero6, MSG_ZEROCOPY), 1);
	CHECK(!setsockopt(zero, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)));
	test_pass();
}
