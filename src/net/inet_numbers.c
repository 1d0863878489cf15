/* SPDX-License-Identifier: Apache-2.0 */
#include "net/inet_numbers.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Behind struct timespec. */
#include <linux/errqueue.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "net/loopback.h"

#define AT_ONCE 64 /* notices that may wait: their memory is limited (net.core.optmem_max) */
#define STAMPS \
	(SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_TX_SOFTWARE)
#ifndef SO_EE_ORIGIN_ZEROCOPY
#define SO_EE_ORIGIN_ZEROCOPY 5
#endif

static int set(int fd, int name, int value)
{
	return setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* Somebody who takes it, and reads none. */
static int connect_to(int fd, int holder, int family, bool mapped)
{
	struct endpoint at = loopback(family);

	if (mapped) {
		at.addr.in6.sin6_addr = (struct in6_addr){};
		at.addr.in6.sin6_addr.s6_addr16[5] = 0xffff;
		at.addr.in6.sin6_addr.s6_addr32[3] = htonl(INADDR_LOOPBACK);
	}
	if (bind(holder, &at.addr.any, at.len) < 0 ||
	    getsockname(holder, &at.addr.any, &at.len) < 0)
		return -errno;
	return connect(fd, &at.addr.any, at.len) < 0 ? -errno : 0;
}

/* The number of the last one that a notice tells of, or an error. */
static int64_t take_notice(int fd, uint8_t origin)
{
	char control[512] __attribute__((aligned(8)));
	struct msghdr msg = {.msg_control = control, .msg_controllen = sizeof(control)};

	if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		const struct sock_extended_err *x = (const void *)CMSG_DATA(c);

		if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
		    (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR))
			return x->ee_origin == origin ? (int64_t)x->ee_data : -EAGAIN;
	}
	return -EAGAIN;
}

/* Until notices have come of all that were sent, so that none is left. */
static int take_all(int fd, uint8_t origin, uint32_t sent)
{
	struct pollfd p = {.fd = fd};
	int64_t last = -1;

	while (last + 1 != sent) {
		int64_t is = take_notice(fd, origin);

		if (is >= 0)
			last = is;
		else if (is != -EAGAIN)
			return (int)is;
		else if (poll(&p, 1, PATIENCE_MS) <= 0)
			return -ETIMEDOUT;
	}
	return 0;
}

static int count(int fd, uint32_t n, int flags, uint8_t origin)
{
	int r = 0;

	for (uint32_t i = 0; i < n && r >= 0; i++) {
		if (send(fd, "", 1, flags) < 0)
			r = -errno;
		else if (i % AT_ONCE == AT_ONCE - 1 || i == n - 1)
			r = take_all(fd, origin, i + 1);
	}
	return r;
}

static int count_both(int fd, const Reprise__InetHidden *h)
{
	int r = 0;

	if (h->zerocopies) {
		r = set(fd, SO_ZEROCOPY, 1);
		if (r >= 0)
			r = count(fd, h->zerocopies, MSG_ZEROCOPY, SO_EE_ORIGIN_ZEROCOPY);
		if (r >= 0)
			r = set(fd, SO_ZEROCOPY, 0);
	}
	/* That option stays on: the count begins anew when it is set (sock_set_timestamping()). */
	if (r >= 0 && h->stamps)
		r = set(fd, SO_TIMESTAMPING, STAMPS);
	if (r >= 0 && h->stamps)
		r = count(fd, h->stamps, 0, SO_EE_ORIGIN_TIMESTAMPING);
	return r;
}

int inet_numbers_restore(int fd, const Reprise__InetSocket *m, struct error *e)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};
	const int family = m->socket->family;
	_cleanup_(close_fd) int holder = -EBADF;
	int r;

	if (!m->hidden || (!m->hidden->zerocopies && !m->hidden->stamps))
		return 0;
	holder = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	r = holder < 0 ? -errno : connect_to(fd, holder, family, false);
	if (r < 0 && holder >= 0 && family == AF_INET6) /* ::1 may be switched off */
		r = connect_to(fd, holder, family, true);
	if (r >= 0)
		r = count_both(fd, m->hidden);
	if (r >= 0 && connect(fd, &none, sizeof(none)) < 0)
		r = -errno;
	return r < 0 ? error_errno(e, r, E_RESTORE,
				   "cannot count what the socket has sent (MSG_ZEROCOPY, "
				   "SOF_TIMESTAMPING_OPT_ID), for which it sends to itself")
		     : 0;
}
