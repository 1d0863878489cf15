/* SPDX-License-Identifier: Apache-2.0 */
#include "net/nfnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"

#define ANSWER_MAX 65536

int nfnl_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER), yes = 1;

	if (fd < 0)
		return -errno;
	/* An error is told without the message that it is about. */
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &yes, sizeof(yes));
	return fd;
}

void nfnl_batch_free(struct nfnl_batch *b)
{
	free(b->bytes);
	*b = (struct nfnl_batch){};
}

/* Zeroed room at the end, of which all but the padding counts. */
static void *more(struct nfnl_batch *b, size_t len)
{
	const size_t size = NLMSG_ALIGN(len);
	void *at;

	if (b->too_much || size > INT_MAX / 2 - b->len) {
		b->too_much = true;
		return NULL;
	}
	if (b->len + size > b->cap) {
		size_t cap = (b->len + size) * 2;
		void *bytes = realloc(b->bytes, cap);

		b->too_much = !bytes;
		if (!bytes)
			return NULL;
		b->bytes = bytes;
		b->cap = cap;
	}
	at = memset(b->bytes + b->len, 0, size);
	b->len += size;
	return at;
}

void nfnl_message(struct nfnl_batch *b, uint16_t type, uint16_t flags, const void *body, size_t len)
{
	const size_t last = b->len;
	struct nlmsghdr *h = more(b, NLMSG_LENGTH(len));

	if (!h)
		return;
	b->last = last;
	h->nlmsg_len = (uint32_t)NLMSG_LENGTH(len);
	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	h->nlmsg_seq = b->n++;
	memcpy(NLMSG_DATA(h), body, len);
}

void nfnl_attribute(struct nfnl_batch *b, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = len > UINT16_MAX - RTA_LENGTH(0) ? NULL : more(b, RTA_LENGTH(len));
	struct nlmsghdr *h = (struct nlmsghdr *)(b->bytes + b->last);

	if (!a) {
		b->too_much = true;
		return;
	}
	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	h->nlmsg_len = (uint32_t)(NLMSG_ALIGN(h->nlmsg_len) + RTA_LENGTH(len));
}

void nfnl_begin(struct nfnl_batch *b, uint16_t subsystem)
{
	const struct nfgenmsg g = {.version = NFNETLINK_V0, .res_id = htons(subsystem)};

	nfnl_message(b, NFNL_MSG_BATCH_BEGIN, 0, &g, sizeof(g));
}

void nfnl_end(struct nfnl_batch *b, uint16_t subsystem)
{
	const struct nfgenmsg g = {.version = NFNETLINK_V0, .res_id = htons(subsystem)};

	nfnl_message(b, NFNL_MSG_BATCH_END, 0, &g, sizeof(g));
}

static void take_errors(const char *buf, size_t len, nfnl_error each, void *arg)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	ssize_t left = (ssize_t)len;

	for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
		const struct nlmsgerr *error = NLMSG_DATA(h);

		if (h->nlmsg_type == NLMSG_ERROR && h->nlmsg_len >= NLMSG_LENGTH(sizeof(int)) &&
		    error->error)
			each(arg, h->nlmsg_seq, error->error);
	}
}

int nfnl_send(int fd, struct nfnl_batch *b, nfnl_error each, void *arg)
{
	_cleanup_(free_ptr) char *buf = malloc(ANSWER_MAX);
	int room = (int)b->len * 2;
	ssize_t n;

	if (!buf || b->too_much)
		return -ENOMEM;
	/* One that is sent at once has to fit into the socket (netlink_sendmsg()). */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	if (send(fd, b->bytes, b->len, 0) < 0)
		return -errno;
	/* The kernel has answered before send() returns. */
	while ((n = recv(fd, buf, ANSWER_MAX, MSG_DONTWAIT)) > 0)
		take_errors(buf, (size_t)n, each, arg);
	return n < 0 && errno != EAGAIN ? -errno : 0;
}
