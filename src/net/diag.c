/* SPDX-License-Identifier: Apache-2.0 */
#include "net/diag.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"

#define REQUEST_MAX 256
#define ANSWER_MAX  (256 * 1024)

static int send_request(int fd, const void *request, size_t size)
{
	struct {
		struct nlmsghdr h;
		unsigned char request[REQUEST_MAX];
	} msg = {.h = {.nlmsg_len = (uint32_t)(sizeof(struct nlmsghdr) + size),
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};

	if (size > REQUEST_MAX)
		return -EINVAL;
	memcpy(msg.request, request, size);
	return send(fd, &msg, msg.h.nlmsg_len, 0) < 0 ? -errno : 0;
}

int diag_take(const void *buf, size_t len, int (*take)(void *arg, const struct nlmsghdr *h),
	      void *arg)
{
	const struct nlmsghdr *h = buf;
	ssize_t left = (ssize_t)len; /* below 0 if the last one has no padding */

	for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
		int r;

		if (h->nlmsg_type == NLMSG_DONE)
			return 1;
		if (h->nlmsg_type == NLMSG_ERROR)
			return h->nlmsg_len < NLMSG_LENGTH(sizeof(int))
				       ? -EIO
				       : ((const struct nlmsgerr *)NLMSG_DATA(h))->error ?: -EIO;
		r = take(arg, h);
		if (r < 0)
			return r;
	}
	return 0;
}

int diag_dump(const void *request, size_t size, const char *what,
	      int (*take)(void *arg, const struct nlmsghdr *h), void *arg, struct error *e)
{
	_cleanup_(close_fd) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	_cleanup_(free_ptr) void *buf = malloc(ANSWER_MAX);
	int r;

	if (fd < 0 || !buf)
		return error_errno(e, -errno, E_KERNEL_TOO_OLD, "cannot use sock_diag");
	r = send_request(fd, request, size);
	while (r == 0) {
		ssize_t n = recv(fd, buf, ANSWER_MAX, 0);

		if (n < 0 && errno == EINTR)
			continue;
		r = n < 0 ? -errno : diag_take(buf, (size_t)n, take, arg);
	}
	if (r < 0)
		return error_errno(e, r, r == -ENOENT ? E_KERNEL_TOO_OLD : E_SYSTEM,
				   "cannot list the %s sockets", what);
	return 0;
}
