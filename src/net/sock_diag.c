/* SPDX-License-Identifier: Apache-2.0 */
#include "net/sock_diag.h"

#include <errno.h>
#include <linux/unix_diag.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/diag.h"

static int copy_bytes(const struct rtattr *a, void *ret, uint32_t *ret_len, size_t unit)
{
	size_t len = RTA_PAYLOAD(a);
	void *copy = *(void **)ret ? NULL : malloc(len + 1);

	if (!copy)
		return *(void **)ret ? -EBADMSG : -ENOMEM;
	memcpy(copy, RTA_DATA(a), len);
	*(void **)ret = copy;
	*ret_len = (uint32_t)(len / unit);
	return 0;
}

/* As many bytes as are made use of. */
static bool is_short(const struct rtattr *a)
{
	static const size_t least[] = {
		[UNIX_DIAG_VFS] = sizeof(struct unix_diag_vfs),
		[UNIX_DIAG_PEER] = sizeof(uint32_t),
		[UNIX_DIAG_RQLEN] = sizeof(struct unix_diag_rqlen),
		[UNIX_DIAG_SHUTDOWN] = sizeof(uint8_t),
	};

	return a->rta_type < sizeof(least) / sizeof(least[0]) &&
	       RTA_PAYLOAD(a) < least[a->rta_type];
}

static int take_attribute(struct unix_info *u, const struct rtattr *a)
{
	if (is_short(a))
		return -EBADMSG;
	switch (a->rta_type) {
	case UNIX_DIAG_NAME:
		return copy_bytes(a, &u->name, &u->name_len, 1);
	case UNIX_DIAG_ICONS:
		return copy_bytes(a, &u->clients, &u->nclients, sizeof(uint32_t));
	case UNIX_DIAG_VFS: {
		const struct unix_diag_vfs *v = RTA_DATA(a);

		u->has_file = true;
		u->file_ino = v->udiag_vfs_ino;
		u->file_dev = v->udiag_vfs_dev;
		return 0;
	}
	case UNIX_DIAG_PEER:
		u->has_peer = true;
		memcpy(&u->peer, RTA_DATA(a), sizeof(u->peer));
		return 0;
	case UNIX_DIAG_RQLEN: {
		const struct unix_diag_rqlen *q = RTA_DATA(a);

		u->rqueue = q->udiag_rqueue;
		u->wqueue = q->udiag_wqueue;
		return 0;
	}
	case UNIX_DIAG_SHUTDOWN:
		u->shutdown = *(const uint8_t *)RTA_DATA(a);
		return 0;
	default:
		return 0;
	}
}

static int take_socket(void *arg, const struct nlmsghdr *h)
{
	struct unix_table *t = arg;
	const struct unix_diag_msg *m = NLMSG_DATA(h);
	const struct rtattr *a = (const struct rtattr *)(m + 1);
	long left = (long)h->nlmsg_len - (long)NLMSG_LENGTH(sizeof(*m));
	struct unix_info *u = left < 0 ? NULL : vec_push(&t->list);
	int r = 0;

	if (!u)
		return -ENOMEM;
	u->ino = m->udiag_ino;
	u->type = m->udiag_type;
	u->state = m->udiag_state;
	for (; r >= 0 && RTA_OK(a, left); a = RTA_NEXT(a, left))
		r = take_attribute(u, a);
	return r;
}

static int compare_ino(const void *a, const void *b)
{
	const struct unix_info *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

int unix_table_read(struct unix_table *ret, struct error *e)
{
	const struct unix_diag_req request = {
		.sdiag_family = AF_UNIX,
		.udiag_states = ~0u,
		.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER |
			      UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN,
	};
	int r = diag_dump(&request, sizeof(request), "Unix", take_socket, ret, e);

	if (r >= 0 && ret->list.n)
		qsort(ret->list.v, ret->list.n, sizeof(*ret->list.v), compare_ino);
	return r;
}

const struct unix_info *unix_table_find(const struct unix_table *t, uint64_t ino)
{
	struct unix_info key = {.ino = (uint32_t)ino};

	if (!t->list.n || ino != key.ino)
		return NULL;
	return bsearch(&key, t->list.v, t->list.n, sizeof(key), compare_ino);
}

void unix_table_free(struct unix_table *t)
{
	vec_for_each (u, &t->list) {
		free(u->name);
		free(u->clients);
	}
	vec_free(&t->list);
}
