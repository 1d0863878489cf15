/* SPDX-License-Identifier: Apache-2.0 */
#include "net/packet_diag.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/diag.h"

static int take_attribute(struct packet_info *p, const struct rtattr *a)
{
	size_t len = RTA_PAYLOAD(a), i;

	switch (a->rta_type) {
	case PACKET_DIAG_INFO:
		if (len < sizeof(p->info))
			return -EBADMSG;
		memcpy(&p->info, RTA_DATA(a), sizeof(p->info));
		return 0;
	case PACKET_DIAG_MCLIST:
		if (p->memberships)
			return -EBADMSG;
		p->n_memberships = len / sizeof(*p->memberships);
		p->memberships = malloc(len + 1);
		if (!p->memberships)
			return -ENOMEM;
		memcpy(p->memberships, RTA_DATA(a), len);
		return 0;
	case PACKET_DIAG_RX_RING:
	case PACKET_DIAG_TX_RING:
		i = a->rta_type == PACKET_DIAG_TX_RING;
		if (len < sizeof(p->rings[i]))
			return -EBADMSG;
		p->has_ring[i] = true;
		memcpy(&p->rings[i], RTA_DATA(a), sizeof(p->rings[i]));
		return 0;
	case PACKET_DIAG_FANOUT:
		if (len < sizeof(p->fanout))
			return -EBADMSG;
		p->in_fanout = true;
		memcpy(&p->fanout, RTA_DATA(a), sizeof(p->fanout));
		return 0;
	default:
		return 0;
	}
}

static int take_socket(void *arg, const struct nlmsghdr *h)
{
	struct packet_table *t = arg;
	const struct packet_diag_msg *m = NLMSG_DATA(h);
	const struct rtattr *a = (const struct rtattr *)(m + 1);
	long left = (long)h->nlmsg_len - (long)NLMSG_LENGTH(sizeof(*m));
	struct packet_info *p = left < 0 ? NULL : vec_push(&t->list);
	int r = 0;

	if (!p)
		return -ENOMEM;
	p->ino = m->pdiag_ino;
	for (; r >= 0 && RTA_OK(a, left); a = RTA_NEXT(a, left))
		r = take_attribute(p, a);
	return r;
}

static int compare_ino(const void *a, const void *b)
{
	const struct packet_info *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

int packet_table_read(struct packet_table *ret, struct error *e)
{
	const struct packet_diag_req request = {
		.sdiag_family = AF_PACKET,
		.pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG |
			      PACKET_SHOW_FANOUT,
	};
	int r = diag_dump(&request, sizeof(request), "packet", take_socket, ret, e);

	if (r >= 0 && ret->list.n)
		qsort(ret->list.v, ret->list.n, sizeof(*ret->list.v), compare_ino);
	return r;
}

const struct packet_info *packet_table_find(const struct packet_table *t, uint64_t ino)
{
	struct packet_info key = {.ino = (uint32_t)ino};

	if (!t->list.n || ino != key.ino)
		return NULL;
	return bsearch(&key, t->list.v, t->list.n, sizeof(key), compare_ino);
}

size_t packet_table_fanout(const struct packet_table *t, uint16_t id)
{
	size_t n = 0;

	vec_for_each (p, &t->list)
		n += p->in_fanout && (p->fanout & 0xffff) == id;
	return n;
}

void packet_table_free(struct packet_table *t)
{
	vec_for_each (p, &t->list)
		free(p->memberships);
	vec_free(&t->list);
}
