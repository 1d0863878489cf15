/* SPDX-License-Identifier: Apache-2.0 */
/* What every interface has, whatever its kind: sizes, addresses, names. */
#include <errno.h>
#include <linux/if_link.h>
#include <string.h>

#include "net/rtnl.h"
#include "ns/net_links.h"

#define ATTRIBUTES_MAX 2048

/* Older headers lack the last two. */
static const uint16_t settable[] = {
	IFLA_TXQLEN,
	IFLA_MTU,
	IFLA_LINKMODE,
	IFLA_GROUP,
	IFLA_GSO_MAX_SEGS,
	IFLA_GSO_MAX_SIZE,
	IFLA_GRO_MAX_SIZE,
	IFLA_IFALIAS,
	IFLA_ADDRESS,
	IFLA_BROADCAST,
	63,
	64,
};
#define SETTABLE (sizeof(settable) / sizeof(settable[0]))

static void put(uint8_t *buf, size_t *at, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = (struct rtattr *)(buf + *at);

	if (*at + RTA_SPACE(len) > ATTRIBUTES_MAX)
		return;
	memset(a, 0, RTA_SPACE(len));
	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	*at += RTA_SPACE(len);
}

int net_attributes_take(const void *info, size_t len, ProtobufCBinaryData *ret, struct scratch *s)
{
	uint8_t buf[ATTRIBUTES_MAX];
	size_t at = 0, n;

	for (size_t i = 0; i < SETTABLE; i++) {
		const void *data = rtnl_find(info, len, sizeof(struct ifinfomsg), settable[i], &n);

		if (data)
			put(buf, &at, settable[i], data, n);
	}
	ret->data = at ? scratch_copy(s, buf, at) : NULL;
	ret->len = at;
	return at && !ret->data ? -ENOMEM : 0;
}

static bool may_set(uint16_t type)
{
	for (size_t i = 0; i < SETTABLE; i++)
		if (settable[i] == type)
			return true;
	return false;
}

bool net_attributes_valid(const ProtobufCBinaryData *a)
{
	size_t at = 0;

	if (a->len > ATTRIBUTES_MAX || !rtnl_valid(a->data, a->len, 0))
		return false;
	while (at < a->len) {
		const struct rtattr *one = (const struct rtattr *)(a->data + at);

		if (!may_set(one->rta_type))
			return false;
		at += RTA_ALIGN(one->rta_len);
	}
	return true;
}

struct search {
	int index;
	struct rtnl_message *m;
	const ProtobufCBinaryData *wanted;
	bool differs;
};

/* Puts those into the message that are not what the kernel says. */
static int compare(void *arg, const struct nlmsghdr *h)
{
	const struct ifinfomsg *i = NLMSG_DATA(h);
	struct search *q = arg;
	size_t at = 0, n;

	if (h->nlmsg_type != RTM_NEWLINK || i->ifi_index != q->index)
		return 0;
	while (at < q->wanted->len) {
		const struct rtattr *a = (const struct rtattr *)(q->wanted->data + at);
		const void *is = rtnl_find(i, NLMSG_PAYLOAD(h, 0), sizeof(*i), a->rta_type, &n);

		if (!is || n != RTA_PAYLOAD(a) || memcmp(is, RTA_DATA(a), n) != 0) {
			rtnl_attribute(q->m, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a));
			q->differs = true;
		}
		at += RTA_ALIGN(a->rta_len);
	}
	return 0;
}

int net_attributes_set(int fd, int index, const ProtobufCBinaryData *wanted, struct error *e)
{
	const struct ifinfomsg i = {.ifi_index = index}, all = {};
	struct rtnl_message m;
	struct search q = {.index = index, .m = &m, .wanted = wanted};
	int r;

	rtnl_begin(&m, RTM_SETLINK, 0, &i, sizeof(i));
	r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), compare, &q);
	if (r >= 0 && q.differs)
		r = rtnl_request(fd, &m);
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot set it up") : 0;
}

int net_flags_set(int fd, int index, uint32_t flags)
{
	const struct ifinfomsg i = {
		.ifi_index = index, .ifi_flags = flags, .ifi_change = NET_LINK_FLAGS};
	struct rtnl_message m;

	rtnl_begin(&m, RTM_SETLINK, 0, &i, sizeof(i));
	return rtnl_request(fd, &m);
}
