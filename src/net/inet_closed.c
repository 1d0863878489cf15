/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Only a connection can end, so one is made over the loopback device and cut
 * by its other side; the error that this leaves is read away.
 */
#include "net/inet_closed.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/socket.h"

struct endpoint {
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} addr;
	socklen_t len;
};

static struct endpoint loopback(int family)
{
	struct endpoint p = {};

	if (family == AF_INET) {
		p.addr.in.sin_family = AF_INET;
		p.addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		p.len = sizeof(p.addr.in);
	} else {
		p.addr.in6.sin6_family = AF_INET6;
		p.addr.in6.sin6_addr = in6addr_loopback;
		p.len = sizeof(p.addr.in6);
	}
	return p;
}

/* With a linger time of zero close() sends a reset: nothing of the connection stays behind in the
 * kernel. */
static int cut(int *fd)
{
	const struct linger now = {.l_onoff = 1};

	if (setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0)
		return -errno;
	close_fd(fd);
	return 0;
}

static int connect_and_cut(int fd, int family)
{
	_cleanup_(close_fd) int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_(close_fd) int peer = -EBADF;
	struct endpoint at = loopback(family);
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};
	socklen_t len = sizeof(int);
	int r, pending;

	if (listener < 0 || bind(listener, &at.addr.any, at.len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, &at.addr.any, &at.len) < 0 ||
	    connect(fd, &at.addr.any, at.len) < 0)
		return -errno;
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (peer < 0)
		return -errno;
	r = cut(&peer);
	if (r < 0)
		return r;
	if (poll(&p, 1, 1000) <= 0)
		return -ETIMEDOUT;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &pending, &len) < 0 ? -errno : 0;
}

int inet_closed_make(const Reprise__Socket *m, int *ret_fd, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	int r;

	r = socket_make(m, &fd, e);
	if (r < 0)
		return r;
	r = connect_and_cut(fd, m->family);
	if (r < 0)
		return error_errno(e, r, E_RESTORE, "cannot make a closed TCP connection");
	r = socket_set_options(fd, m, e);
	if (r >= 0)
		r = socket_settle(fd, m, e);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}
