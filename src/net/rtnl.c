/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rtnl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"

#define ANSWER_MAX 65536

int rtnl_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	return fd < 0 ? -errno : fd;
}

void rtnl_begin(struct rtnl_message *m, uint16_t type, uint16_t flags, const void *body, size_t len)
{
	memset(m, 0, sizeof(*m));
	m->full = NLMSG_SPACE(len) > sizeof(m->bytes);
	if (m->full)
		return;
	m->header.nlmsg_type = type;
	m->header.nlmsg_flags = NLM_F_REQUEST | flags;
	m->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(len);
	memcpy(NLMSG_DATA(&m->header), body, len);
}

void rtnl_attribute(struct rtnl_message *m, uint16_t type, const void *data, size_t len)
{
	size_t at = NLMSG_ALIGN(m->header.nlmsg_len);
	struct rtattr *a = (struct rtattr *)(m->bytes + at);

	if (m->full || at + RTA_SPACE(len) > sizeof(m->bytes)) {
		m->full = true;
		return;
	}
	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	m->header.nlmsg_len = (uint32_t)(at + RTA_LENGTH(len));
}

int rtnl_request(int fd, struct rtnl_message *m)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		uint8_t more[1024];
	} answer;
	ssize_t n;

	if (m->full)
		return -EMSGSIZE;
	m->header.nlmsg_flags |= NLM_F_ACK;
	if (send(fd, &m->header, m->header.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(fd, &answer, sizeof(answer), 0);
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof(answer.header) + sizeof(answer.error.error) ||
	    answer.header.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.error.error;
}

static int take_answer(const char *buf, size_t len, rtnl_each each, void *arg)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	ssize_t left = (ssize_t)len;

	for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
		const struct nlmsgerr *error = NLMSG_DATA(h);
		int r;

		if (h->nlmsg_flags & NLM_F_DUMP_INTR)
			return -EAGAIN;
		if (h->nlmsg_type == NLMSG_DONE)
			return 1;
		if (h->nlmsg_type == NLMSG_ERROR && h->nlmsg_len < NLMSG_LENGTH(sizeof(int)))
			return -EPROTO;
		if (h->nlmsg_type == NLMSG_ERROR)
			return error->error ? error->error : -EPROTO;
		r = each(arg, h);
		if (r < 0)
			return r;
	}
	return 0;
}

int rtnl_dump_message(int fd, const struct rtnl_message *m, rtnl_each each, void *arg)
{
	_cleanup_(free_ptr) char *buf = malloc(ANSWER_MAX);
	int r = 0;

	if (!buf)
		return -ENOMEM;
	if (m->full)
		return -EMSGSIZE;
	if (send(fd, &m->header, m->header.nlmsg_len, 0) < 0)
		return -errno;
	while (r == 0) {
		ssize_t n = recv(fd, buf, ANSWER_MAX, 0);

		if (n <= 0)
			return n ? -errno : -EPROTO;
		r = take_answer(buf, (size_t)n, each, arg);
	}
	return r < 0 ? r : 0;
}

int rtnl_dump(int fd, uint16_t type, const void *body, size_t len, rtnl_each each, void *arg)
{
	struct rtnl_message m;

	rtnl_begin(&m, type, NLM_F_DUMP, body, len);
	return rtnl_dump_message(fd, &m, each, arg);
}

const struct rtattr *rtnl_next(struct rtnl_walk *w)
{
	const struct rtattr *a = w->at;
	size_t size;

	if (w->left < sizeof(*a) || a->rta_len < sizeof(*a) || a->rta_len > w->left)
		return NULL;
	size = RTA_ALIGN(a->rta_len);
	if (size > w->left)
		size = w->left;
	w->at = (const char *)w->at + size;
	w->left -= size;
	return a;
}

const void *rtnl_find(const void *payload, size_t len, size_t fixed, uint16_t type, size_t *ret_len)
{
	size_t at = NLMSG_ALIGN(fixed);

	while (at + sizeof(struct rtattr) <= len) {
		const struct rtattr *a = (const struct rtattr *)((const char *)payload + at);

		if (a->rta_len < sizeof(*a) || a->rta_len > len - at)
			return NULL;
		if ((a->rta_type & NLA_TYPE_MASK) == type) {
			*ret_len = a->rta_len - RTA_LENGTH(0);
			return RTA_DATA(a);
		}
		at += RTA_ALIGN(a->rta_len);
	}
	return NULL;
}

uint32_t rtnl_number(const void *payload, size_t len, size_t fixed, uint16_t type)
{
	size_t n;
	const void *at = rtnl_find(payload, len, fixed, type, &n);
	uint32_t value = 0;

	if (at && n <= sizeof(value))
		memcpy(&value, at, n); /* little endian */
	return value;
}

bool rtnl_valid(const void *payload, size_t len, size_t fixed)
{
	size_t at = NLMSG_ALIGN(fixed);

	if (len < fixed)
		return false;
	while (at < len) {
		const struct rtattr *a = (const struct rtattr *)((const char *)payload + at);

		if (len - at < sizeof(*a) || a->rta_len < sizeof(*a) || a->rta_len > len - at)
			return false;
		at += RTA_ALIGN(a->rta_len);
	}
	return true;
}
