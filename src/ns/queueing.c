/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/queueing.h"

#include <errno.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "net/rtnl.h"

#define ENTRIES_MAX 100000
#define FIXED	    sizeof(struct tcmsg)

/* One that was told, and is not in its place yet. */
struct item {
	struct tcmsg h;
	char kind[32];
	const uint8_t *body; /* attributes by which it is made */
	size_t len;
	bool placed;
	bool heads;	/* not a filter, but what those of one priority have in common */
	uint32_t table; /* of u32: it is one, which comes with a priority of filters; */
	uint32_t order; /* of a filter, that in which it is */
	size_t told;	/* which one was told before */
};

struct items {
	VEC(struct item) list;
};

struct look {
	int fd;
	const struct net_links *links;
	struct items qdiscs, classes, filters;
	struct items *to; /* where those go that are being told */
	uint16_t type;	  /* which they are */
	VEC(Reprise__QueueingEntry *) ret;
	struct scratch *s;
	struct error *e;
};

/* ---- checkpoint: what there is ---- */

static const char *name_of(const struct look *l, int index)
{
	vec_for_each (link, &l->links->list)
		if ((*link)->index == index)
			return (*link)->name;
	return NULL;
}

static int refused(const struct look *l, const struct item *i, int r)
{
	const char *what = l->type == RTM_NEWTFILTER  ? "filter"
			   : l->type == RTM_NEWTCLASS ? "class"
						      : "queueing discipline";

	return error_object(l->e, r, "network interface %s, %s %s",
			    name_of(l, i->h.tcm_ifindex) ?: "?", what, i->kind);
}

static int refuse(const struct look *l, const struct item *i, const char *why)
{
	return refused(l, i, error_set(l->e, -EOPNOTSUPP, E_CONTAINER_STATE, "%s", why));
}

/* Of a filter also its chain. A class is told and made in the same words. */
static int put_attributes(const struct look *l, const struct item *i, const void *body, size_t len,
			  struct rtnl_message *to)
{
	struct rtnl_message options;
	size_t n = 0;
	const void *told = rtnl_find(body, len, FIXED, TCA_OPTIONS, &n), *at;
	size_t unused;
	int r = 0;

	rtnl_begin(&options, 0, 0, "", 0);
	rtnl_attribute(to, TCA_KIND, i->kind, strlen(i->kind) + 1);
	at = rtnl_find(body, len, FIXED, TCA_CHAIN, &unused);
	if (at && l->type == RTM_NEWTFILTER)
		rtnl_attribute(to, TCA_CHAIN, at, unused);
	if (l->type == RTM_NEWQDISC)
		r = queueing_take_qdisc(i->kind, told, told ? n : 0, &options, l->e);
	else if (l->type == RTM_NEWTFILTER)
		r = queueing_take_filter(i->kind, told, told ? n : 0, &options, l->e);
	if (r < 0)
		return refused(l, i, r);
	if (l->type == RTM_NEWTCLASS && told)
		rtnl_attribute(to, TCA_OPTIONS, told, n);
	else if (told)
		rtnl_attribute(to, TCA_OPTIONS, NLMSG_DATA(&options.header),
			       options.header.nlmsg_len - NLMSG_HDRLEN);
	to->full |= options.full;
	return to->full ? -EMSGSIZE : 0;
}

static int check_parts(const struct look *l, const struct item *i, const void *body, size_t len)
{
	size_t n;

	if (rtnl_find(body, len, FIXED, TCA_STAB, &n))
		return refuse(l, i, "a table of sizes cannot be saved");
	if (rtnl_find(body, len, FIXED, TCA_INGRESS_BLOCK, &n) ||
	    rtnl_find(body, len, FIXED, TCA_EGRESS_BLOCK, &n))
		return refuse(l, i, "filters that interfaces have in common cannot be saved");
	return 0;
}

static int take(void *arg, const struct nlmsghdr *h)
{
	const struct tcmsg *t = NLMSG_DATA(h);
	const size_t len = NLMSG_PAYLOAD(h, 0);
	struct look *l = arg;
	struct item i = {}, *slot;
	struct rtnl_message m;
	size_t n;
	const char *kind;
	int r;

	/* Disciplines that nobody has set have no handle; others are of interfaces that are not
	 * ours. */
	if (h->nlmsg_type != l->type || len < FIXED || !name_of(l, t->tcm_ifindex) ||
	    (!t->tcm_handle && l->type != RTM_NEWTFILTER))
		return 0;
	kind = rtnl_find(t, len, FIXED, TCA_KIND, &n);
	if (!rtnl_valid(t, len, FIXED) || !kind || !n || kind[n - 1])
		return -EPROTO;
	snprintf(i.kind, sizeof(i.kind), "%s", kind);
	/* The others are there with their discipline, or for each flow. */
	if (l->type == RTM_NEWTCLASS && !queueing_has_classes(i.kind))
		return 0;
	i.h = *t;
	if (l->type != RTM_NEWTFILTER)
		i.h.tcm_info = 0;
	rtnl_begin(&m, 0, 0, "", 0);
	i.heads = l->type == RTM_NEWTFILTER && !t->tcm_handle;
	if (l->type == RTM_NEWTFILTER && !i.heads && !strcmp(i.kind, "u32") &&
	    !TC_U32_KEY(i.h.tcm_handle))
		i.table = i.h.tcm_handle;
	r = check_parts(l, &i, t, len);
	if (r >= 0 && !i.table)
		r = put_attributes(l, &i, t, len, &m);
	if (r < 0)
		return r;
	i.len = m.header.nlmsg_len - NLMSG_HDRLEN;
	i.body = scratch_copy(l->s, NLMSG_DATA(&m.header), i.len ?: 1);
	slot = i.body ? vec_push(&l->to->list) : NULL;
	if (!slot || l->to->list.n > ENTRIES_MAX)
		return -ENOMEM;
	*slot = i;
	slot->told = l->to->list.n;
	return 0;
}

static int ask(struct look *l, struct items *to, uint16_t get, uint16_t type, int index,
	       uint32_t parent)
{
	const struct tcmsg t = {.tcm_ifindex = index, .tcm_parent = parent};
	const size_t before = to->list.n;
	int r;

	l->to = to;
	l->type = type;
	for (int i = 0; i < 10; i++) {
		to->list.n = before;
		r = rtnl_dump(l->fd, get, &t, sizeof(t), take, l);
		if (r != -EAGAIN)
			break;
	}
	return r < 0 && !l->e->code ? error_errno(l->e, r, E_SYSTEM,
						  "cannot list queueing disciplines and filters")
				    : r;
}

/* ---- checkpoint: the order in which they can be made ---- */

static int place(struct look *l, struct item *i, uint16_t type)
{
	Reprise__QueueingEntry *m =
		scratch_message(l->s, Reprise__QueueingEntry, reprise__queueing_entry__init);
	Reprise__QueueingEntry **slot = m ? vec_push(&l->ret) : NULL;

	i->placed = true;
	if (!slot || !(m->body.data = scratch_alloc(l->s, FIXED + i->len)))
		return error_set(l->e, -ENOMEM, E_NO_MEMORY, "no memory for a queueing discipline");
	m->type = type;
	m->body.len = FIXED + i->len;
	memcpy(m->body.data, &i->h, FIXED);
	memcpy(m->body.data + FIXED, i->body, i->len);
	*slot = m;
	return 0;
}

static bool is_placed(const struct items *all, int index, uint32_t handle)
{
	vec_for_each (i, &all->list)
		if (i->placed && i->h.tcm_ifindex == index && i->h.tcm_handle == handle)
			return true;
	return false;
}

/* What it hangs on is there: an interface, a discipline, or a class that somebody has made. */
static bool is_next(const struct look *l, const struct item *i)
{
	const uint32_t parent = i->h.tcm_parent, major = TC_H_MAJ(parent);
	bool classes = false;

	if (parent == TC_H_ROOT && i->h.tcm_handle == TC_H_MAJ(i->h.tcm_handle))
		return true;
	if (parent == TC_H_INGRESS)
		return true;
	/* A class below the root of its discipline. */
	if (parent == TC_H_ROOT)
		return is_placed(&l->qdiscs, i->h.tcm_ifindex, TC_H_MAJ(i->h.tcm_handle));
	vec_for_each (q, &l->qdiscs.list)
		if (q->h.tcm_ifindex == i->h.tcm_ifindex && q->h.tcm_handle == major)
			classes = queueing_has_classes(q->kind);
	return is_placed(&l->qdiscs, i->h.tcm_ifindex, major) &&
	       (!classes || !TC_H_MIN(parent) || is_placed(&l->classes, i->h.tcm_ifindex, parent));
}

static int place_next(struct look *l, struct items *all, uint16_t type, size_t *n)
{
	vec_for_each (i, &all->list) {
		int r = !i->placed && is_next(l, i) ? place(l, i, type) : -EAGAIN;

		if (r < 0 && r != -EAGAIN)
			return r;
		*n += r >= 0;
	}
	return 0;
}

static int place_all(struct look *l)
{
	size_t done = 0, before;
	int r;

	do {
		before = done;
		r = place_next(l, &l->qdiscs, RTM_NEWQDISC, &done);
		if (r >= 0)
			r = place_next(l, &l->classes, RTM_NEWTCLASS, &done);
	} while (r >= 0 && done > before);
	if (r >= 0 && done < l->qdiscs.list.n + l->classes.list.n)
		return error_set(l->e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a queueing discipline hangs on a class that is not told, and "
				 "cannot be saved");
	return r;
}

static bool same_place(const struct item *a, const struct item *b)
{
	return a->h.tcm_ifindex == b->h.tcm_ifindex && a->h.tcm_parent == b->h.tcm_parent;
}

static bool is_u32_table(const struct item *i)
{
	return i->table != 0;
}

/* Without filters a classifier of marks (fw) takes the mark itself for a class. */
static int check_heads(const struct look *l)
{
	vec_for_each (i, &l->filters.list) {
		bool any = !i->heads || strcmp(i->kind, "fw") != 0;

		vec_for_each (other, &l->filters.list)
			any |= !other->heads && same_place(i, other) &&
			       other->h.tcm_info == i->h.tcm_info;
		if (!any)
			return refuse(l, i, "a filter without a handle cannot be saved");
	}
	return 0;
}

static bool same_discipline(const struct item *a, const struct item *b)
{
	return a->h.tcm_ifindex == b->h.tcm_ifindex &&
	       TC_H_MAJ(a->h.tcm_parent) == TC_H_MAJ(b->h.tcm_parent);
}

/*
 * Filters of u32 are named by a table that each priority gets in turn, 800:, 801: and so on in all
 * of a discipline (u32_init()): priorities are made in the order of these. Of the same priority in
 * two places each tells those of both.
 */
static int order_tables(struct look *l)
{
	vec_for_each (i, &l->filters.list) {
		uint32_t before = 0, others = 0;

		if (!is_u32_table(i))
			continue;
		vec_for_each (other, &l->filters.list) {
			if (!is_u32_table(other) || !same_discipline(i, other))
				continue;
			others += other != i &&
				  TC_H_MAJ(other->h.tcm_info) == TC_H_MAJ(i->h.tcm_info);
			before += other->table < i->table;
		}
		if (others || i->table != (0x800u + before) << 20)
			return refuse(
				l, i,
				"tables of hashes cannot be saved, nor filters of which earlier ones have been removed, or of one priority in two places");
	}
	return 0;
}

static uint32_t table_of(const struct look *l, const struct item *i)
{
	vec_for_each (t, &l->filters.list)
		if (is_u32_table(t) && same_place(t, i) && t->h.tcm_info == i->h.tcm_info)
			return t->table;
	return 0;
}

static int by_order(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->order != y->order)
		return x->order < y->order ? -1 : 1;
	return x->told < y->told ? -1 : x->told > y->told;
}

static int place_filters(struct look *l)
{
	int r = check_heads(l);

	if (r >= 0)
		r = order_tables(l);
	if (r < 0)
		return r;
	vec_for_each (i, &l->filters.list)
		if (!i->heads && !is_u32_table(i) && !strcmp(i->kind, "u32"))
			i->order = table_of(l, i);
	if (l->filters.list.n)
		qsort(l->filters.list.v, l->filters.list.n, sizeof(struct item), by_order);
	vec_for_each (i, &l->filters.list)
		if (r >= 0 && !i->heads && !is_u32_table(i))
			r = place(l, i, RTM_NEWTFILTER);
	return r;
}

/* Those of a discipline, or of the two directions of clsact. */
static int ask_filters(struct look *l)
{
	int r = 0;

	for (size_t i = 0; i < l->qdiscs.list.n && r >= 0; i++) {
		const struct item q = l->qdiscs.list.v[i];
		bool two = !strcmp(q.kind, "clsact");

		r = ask(l, &l->filters, RTM_GETTFILTER, RTM_NEWTFILTER, q.h.tcm_ifindex,
			q.h.tcm_handle | (two ? TC_H_MIN_INGRESS : 0));
		if (r >= 0 && two)
			r = ask(l, &l->filters, RTM_GETTFILTER, RTM_NEWTFILTER, q.h.tcm_ifindex,
				q.h.tcm_handle | TC_H_MIN_EGRESS);
	}
	for (size_t i = 0; i < l->classes.list.n && r >= 0; i++) {
		const struct item c = l->classes.list.v[i];

		r = ask(l, &l->filters, RTM_GETTFILTER, RTM_NEWTFILTER, c.h.tcm_ifindex,
			c.h.tcm_handle);
	}
	return r;
}

static int look_at_all(struct look *l)
{
	int last = 0, r = ask(l, &l->qdiscs, RTM_GETQDISC, RTM_NEWQDISC, 0, 0);

	for (size_t i = 0; i < l->qdiscs.list.n && r >= 0; i++) {
		const int index = l->qdiscs.list.v[i].h.tcm_ifindex;

		/* They come by interface. */
		if (index != last)
			r = ask(l, &l->classes, RTM_GETTCLASS, RTM_NEWTCLASS, index, 0);
		last = index;
	}
	if (r >= 0)
		r = ask_filters(l);
	if (r >= 0)
		r = place_all(l);
	return r < 0 ? r : place_filters(l);
}

int queueing_checkpoint(int fd, const struct net_links *links, Reprise__Network *m,
			struct scratch *s, struct error *e)
{
	struct look l = {.fd = fd, .links = links, .s = s, .e = e};
	int r = look_at_all(&l);

	if (r >= 0 && l.ret.n) {
		m->queueing = scratch_copy(s, l.ret.v, l.ret.n * sizeof(*l.ret.v));
		m->n_queueing = m->queueing ? l.ret.n : 0;
		r = m->queueing ? 0
				: error_set(e, -ENOMEM, E_NO_MEMORY,
					    "no memory for queueing disciplines");
	}
	vec_free(&l.qdiscs.list);
	vec_free(&l.classes.list);
	vec_free(&l.filters.list);
	vec_free(&l.ret);
	return r;
}

/* ---- restart ---- */

static const char *name_in(const Reprise__Network *m, int index)
{
	for (size_t i = 0; i < m->n_links; i++)
		if (m->links[i]->index == index)
			return m->links[i]->name;
	return NULL;
}

static const char *kind_of(const Reprise__QueueingEntry *entry)
{
	size_t n;
	const char *kind = rtnl_find(entry->body.data, entry->body.len, FIXED, TCA_KIND, &n);

	return kind && n && !kind[n - 1] ? kind : "";
}

static bool is_valid(const Reprise__Network *m, const Reprise__QueueingEntry *entry)
{
	struct tcmsg t;

	if ((entry->type != RTM_NEWQDISC && entry->type != RTM_NEWTCLASS &&
	     entry->type != RTM_NEWTFILTER) ||
	    entry->body.len > sizeof(struct rtnl_message) / 2 ||
	    !rtnl_valid(entry->body.data, entry->body.len, FIXED))
		return false;
	memcpy(&t, entry->body.data, FIXED);
	return t.tcm_handle && name_in(m, t.tcm_ifindex) &&
	       queueing_known(entry->type, kind_of(entry));
}

int queueing_validate(const Reprise__Network *m, struct error *e)
{
	for (size_t i = 0; i < m->n_queueing; i++)
		if (m->n_queueing > ENTRIES_MAX || !is_valid(m, m->queueing[i]))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an impossible queueing discipline");
	return 0;
}

int queueing_restart(int fd, const Reprise__Network *m, struct error *e)
{
	for (size_t i = 0; i < m->n_queueing; i++) {
		const Reprise__QueueingEntry *entry = m->queueing[i];
		struct rtnl_message message;
		struct tcmsg t;
		int r;

		memcpy(&t, entry->body.data, FIXED);
		rtnl_begin(&message, (uint16_t)entry->type, NLM_F_CREATE | NLM_F_EXCL,
			   entry->body.data, entry->body.len);
		r = rtnl_request(fd, &message);
		if (r < 0)
			return error_object(e,
					    error_errno(e, r, E_RESTORE,
							"cannot make a queueing discipline, class "
							"or filter (%.30s)",
							kind_of(entry)),
					    "network interface %s", name_in(m, t.tcm_ifindex));
	}
	return 0;
}
