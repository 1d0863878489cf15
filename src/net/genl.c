/* SPDX-License-Identifier: Apache-2.0 */
#include "net/genl.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/diag.h"

#define ANSWER_MAX 65536

/* A string of the kernel's ends with a zero byte. */
static const char *text_of(const struct rtattr *a)
{
	const char *text = RTA_DATA(a);

	return memchr(text, '\0', RTA_PAYLOAD(a)) ? text : NULL;
}

static int add_group(struct genl_groups *g, const char *family, const struct rtattr *of)
{
	const struct rtattr *a = RTA_DATA(of);
	const char *name = NULL;
	uint32_t id = 0;
	struct genl_group *x;

	for (int left = (int)RTA_PAYLOAD(of); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == CTRL_ATTR_MCAST_GRP_NAME)
			name = text_of(a);
		else if (a->rta_type == CTRL_ATTR_MCAST_GRP_ID && RTA_PAYLOAD(a) >= sizeof(id))
			memcpy(&id, RTA_DATA(a), sizeof(id));
	if (!name || !id)
		return 0;
	x = vec_push(&g->list);
	if (!x)
		return -ENOMEM;
	x->id = id;
	snprintf(x->name, sizeof(x->name), "%s/%s", family, name);
	return 0;
}

static int take_family(void *arg, const struct nlmsghdr *h)
{
	struct genl_groups *g = arg;
	const struct rtattr *a = (const struct rtattr *)((const char *)NLMSG_DATA(h) + GENL_HDRLEN);
	int left = (int)h->nlmsg_len - (int)NLMSG_LENGTH(GENL_HDRLEN), r = 0;
	const struct rtattr *groups = NULL, *x;
	const char *family = "?";

	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == CTRL_ATTR_FAMILY_NAME)
			family = text_of(a) ?: family;
		else if ((a->rta_type & NLA_TYPE_MASK) == CTRL_ATTR_MCAST_GROUPS)
			groups = a;
	if (!groups)
		return 0;
	left = (int)RTA_PAYLOAD(groups);
	for (x = RTA_DATA(groups); r >= 0 && RTA_OK(x, left); x = RTA_NEXT(x, left))
		r = add_group(g, family, x);
	return r;
}

int genl_groups_read(struct genl_groups *ret, struct error *e)
{
	const struct {
		struct nlmsghdr h;
		struct genlmsghdr g;
	} request = {.h = {.nlmsg_len = sizeof(request),
			   .nlmsg_type = GENL_ID_CTRL,
			   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		     .g = {.cmd = CTRL_CMD_GETFAMILY, .version = 2}};
	_cleanup_(close_fd) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	_cleanup_(free_ptr) void *buf = malloc(ANSWER_MAX);
	int r = fd < 0 || !buf || send(fd, &request, sizeof(request), 0) < 0 ? -errno : 0;

	while (r == 0) {
		ssize_t n = recv(fd, buf, ANSWER_MAX, 0);

		if (n < 0 && errno == EINTR)
			continue;
		r = n < 0 ? -errno : diag_take(buf, (size_t)n, take_family, ret);
	}
	return r < 0 ? error_errno(e, r, E_SYSTEM, "cannot list the groups of generic netlink") : 0;
}

const char *genl_group_name(const struct genl_groups *g, uint32_t id)
{
	vec_for_each (x, &g->list)
		if (x->id == id)
			return x->name;
	return NULL;
}

uint32_t genl_group_id(const struct genl_groups *g, const char *name)
{
	vec_for_each (x, &g->list)
		if (!strcmp(x->name, name))
			return x->id;
	return 0;
}

void genl_groups_free(struct genl_groups *g)
{
	vec_free(&g->list);
}
