/* SPDX-License-Identifier: Apache-2.0 */
#include "net/inet_diag.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/diag.h"

/* All sockets of one family and protocol, sorted by their inodes. */
struct inet_table {
	int family, protocol;
	VEC(struct inet_info) list;
	struct inet_table *next;
};

static int take_socket(void *arg, const struct nlmsghdr *h)
{
	const struct inet_diag_msg *m = NLMSG_DATA(h);
	const struct rtattr *a = (const struct rtattr *)(m + 1);
	long left = (long)h->nlmsg_len - (long)NLMSG_LENGTH(sizeof(*m));
	struct inet_table *t = arg;
	struct inet_info *x = left < 0 ? NULL : vec_push(&t->list);

	if (!x)
		return -ENOMEM;
	x->ino = m->idiag_inode;
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == INET_DIAG_SHUTDOWN && RTA_PAYLOAD(a))
			x->shutdown = *(const uint8_t *)RTA_DATA(a) & 3;
		else if (a->rta_type == INET_DIAG_MD5SIG)
			x->has_keys = true;
	return 0;
}

static int compare_ino(const void *a, const void *b)
{
	const struct inet_info *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int read_table(struct inet_table *t, struct error *e)
{
	const struct inet_diag_req_v2 request = {
		.sdiag_family = (uint8_t)t->family,
		.sdiag_protocol = (uint8_t)t->protocol,
		/* without this no keys are told of (inet_sk_diag_fill()) */
		.idiag_ext = 1 << (INET_DIAG_INFO - 1),
		.idiag_states = t->protocol == IPPROTO_TCP ? 1u << TCP_LISTEN : ~0u,
	};
	int r = diag_dump(&request, sizeof(request), "internet", take_socket, t, e);

	if (r == -ENOENT) {
		error_clear(e);
		return 0;
	}
	if (r >= 0 && t->list.n)
		qsort(t->list.v, t->list.n, sizeof(*t->list.v), compare_ino);
	return r;
}

static int get_table(struct checkpoint *c, int family, int protocol, struct inet_table **ret,
		     struct error *e)
{
	struct inet_table *t;

	for (t = c->files->inet_tables; t; t = t->next)
		if (t->family == family && t->protocol == protocol) {
			*ret = t;
			return 0;
		}
	t = calloc(1, sizeof(*t));
	if (!t)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a list of sockets");
	t->family = family;
	t->protocol = protocol;
	t->next = c->files->inet_tables;
	c->files->inet_tables = t;
	*ret = t;
	return read_table(t, e);
}

int inet_diag_find(struct checkpoint *c, int family, int protocol, uint64_t ino,
		   const struct inet_info **ret, struct error *e)
{
	const struct inet_info key = {.ino = (uint32_t)ino};
	struct inet_table *t = NULL;
	int r = get_table(c, family, protocol, &t, e);

	*ret = NULL;
	if (r >= 0 && t->list.n && ino == key.ino)
		*ret = bsearch(&key, t->list.v, t->list.n, sizeof(key), compare_ino);
	return r;
}

void inet_diag_end(struct checkpoint *c)
{
	while (c->files->inet_tables) {
		struct inet_table *t = c->files->inet_tables;

		c->files->inet_tables = t->next;
		vec_free(&t->list);
		free(t);
	}
}
