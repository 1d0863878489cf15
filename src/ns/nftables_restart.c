/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of nftables are made again, all at once. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "net/nfnl.h"
#include "net/rtnl.h"
#include "ns/nftables.h"

#define FIXED	     sizeof(struct nfgenmsg)
#define SUBSYSTEM(x) (NFNL_SUBSYS_NFTABLES << 8 | (x))
#define GAPS_MAX     100000
#define GAP_CHAIN    "reprise-gap"

/* What has a handle, in the order in which it is made: that of the handles. */
struct item {
	const Reprise__NftablesEntry *m;
	size_t index;	   /* in the list */
	size_t table;	   /* number of its table */
	bool last;	   /* behind all rules of its chain that are made before it */
	uint64_t made;	   /* the handle that it gets */
	struct item *prev; /* the rule behind which it comes */
};

struct make {
	const Reprise__Network *net;
	struct nfnl_batch batch;
	struct item *items;
	size_t n;
	bool fill;				  /* handles that nobody has any more are used up */
	VEC(const Reprise__NftablesEntry *) sent; /* by number of their message */
	VEC(size_t) early; /* sets whose elements come before the next rule */
	uint32_t sets;
	int error;
	const Reprise__NftablesEntry *failed;
	struct error *e;
};

/* ---- validation ---- */

static bool known_type(uint32_t type)
{
	return type == NFT_MSG_NEWTABLE || type == NFT_MSG_NEWCHAIN || type == NFT_MSG_NEWSET ||
	       type == NFT_MSG_NEWSETELEM || type == NFT_MSG_NEWOBJ || type == NFT_MSG_NEWRULE;
}

static const char *table_of(const Reprise__NftablesEntry *m)
{
	return nft_string(m->body.data, m->body.len, 1); /* the first attribute of every kind */
}

static uint8_t family_of(const Reprise__NftablesEntry *m)
{
	return ((const struct nfgenmsg *)m->body.data)->nfgen_family;
}

static int any_expression(void *arg, const struct nft_expression *x)
{
	(void)arg;
	(void)x;
	return 0;
}

int nftables_validate(const Reprise__Network *m, struct error *e)
{
	size_t tables = 0;

	for (size_t i = 0; i < m->n_nftables; i++) {
		const Reprise__NftablesEntry *x = m->nftables[i];

		tables += x->type == NFT_MSG_NEWTABLE;
		if (!known_type(x->type) || (x->type == NFT_MSG_NEWTABLE && tables <= i) ||
		    x->body.len > NFTABLES_ENTRY_MAX || m->n_nftables > NFTABLES_ENTRIES_MAX ||
		    tables > NFTABLES_TABLES_MAX || !rtnl_valid(x->body.data, x->body.len, FIXED) ||
		    !*table_of(x) ||
		    nft_expressions(x->type, x->body.data, x->body.len, any_expression, NULL) < 0)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an impossible entry of nftables");
	}
	return 0;
}

/* ---- in which order ---- */

static bool has_handle(const Reprise__NftablesEntry *m)
{
	return m->type != NFT_MSG_NEWTABLE && m->type != NFT_MSG_NEWSETELEM;
}

static int by_handle(const void *first, const void *second)
{
	const struct item *a = first, *b = second;

	if (a->table != b->table)
		return a->table < b->table ? -1 : 1;
	if (a->m->handle != b->m->handle)
		return a->m->handle < b->m->handle ? -1 : 1;
	return a->index < b->index ? -1 : 1;
}

static int by_index(const void *first, const void *second)
{
	const struct item *a = *(struct item *const *)first, *b = *(struct item *const *)second;

	return a->index < b->index ? -1 : 1;
}

/* The number of the table that an entry belongs to; that of no table for one without. Tables stand
 * first. */
static size_t number_of_table(const Reprise__Network *net, const Reprise__NftablesEntry *m)
{
	size_t number = 0;

	for (size_t i = 0; i < net->n_nftables; i++) {
		const Reprise__NftablesEntry *t = net->nftables[i];

		if (t->type != NFT_MSG_NEWTABLE)
			break;
		if (family_of(t) == family_of(m) && !strcmp(table_of(t), table_of(m)))
			break;
		number++;
	}
	return number;
}

static bool same_chain(const Reprise__NftablesEntry *a, const Reprise__NftablesEntry *b)
{
	return family_of(a) == family_of(b) && !strcmp(table_of(a), table_of(b)) &&
	       !strcmp(nft_string(a->body.data, a->body.len, NFTA_RULE_CHAIN),
		       nft_string(b->body.data, b->body.len, NFTA_RULE_CHAIN));
}

/*
 * A rule comes behind the nearest before it in the chain that is older than itself: all between
 * them are made later.
 */
static int place_rules(struct make *mk)
{
	_cleanup_(free_ptr) struct item **rules = calloc(mk->n + 1, sizeof(struct item *));
	_cleanup_(free_ptr) struct item **older = calloc(mk->n + 1, sizeof(struct item *));
	size_t n = 0, depth = 0;

	if (!rules || !older)
		return -ENOMEM;
	for (size_t i = 0; i < mk->n; i++)
		if (mk->items[i].m->type == NFT_MSG_NEWRULE)
			rules[n++] = &mk->items[i];
	qsort(rules, n, sizeof(*rules), by_index);
	for (size_t i = 0; i < n; i++) {
		if (i && !same_chain(rules[i - 1]->m, rules[i]->m))
			depth = 0;
		while (depth && older[depth - 1]->m->handle > rules[i]->m->handle)
			depth--;
		rules[i]->prev = depth ? older[depth - 1] : NULL;
		older[depth++] = rules[i];
	}
	/* If none behind it is older, it is the last when it is made. */
	depth = 0;
	for (size_t i = n; i-- > 0;) {
		if (i + 1 < n && !same_chain(rules[i + 1]->m, rules[i]->m))
			depth = 0;
		rules[i]->last = !depth || older[0]->m->handle > rules[i]->m->handle;
		if (rules[i]->last)
			older[0] = rules[i];
		depth = 1;
	}
	return 0;
}

static int sort_items(struct make *mk)
{
	const Reprise__Network *net = mk->net;
	size_t table = 0;
	uint64_t gaps = 0;

	mk->items = calloc(net->n_nftables + 1, sizeof(*mk->items));
	if (!mk->items)
		return -ENOMEM;
	for (size_t i = 0; i < net->n_nftables; i++) {
		struct item *x = &mk->items[mk->n];

		if (!has_handle(net->nftables[i]))
			continue;
		/* Mostly the same as that of the one before. */
		if (!mk->n || family_of(x[-1].m) != family_of(net->nftables[i]) ||
		    strcmp(table_of(x[-1].m), table_of(net->nftables[i])) != 0)
			table = number_of_table(net, net->nftables[i]);
		*x = (struct item){.m = net->nftables[i], .index = i, .table = table};
		mk->n++;
	}
	qsort(mk->items, mk->n, sizeof(*mk->items), by_handle);
	mk->fill = true;
	for (size_t i = 0; i < mk->n && mk->fill; i++) {
		const struct item *x = &mk->items[i];
		const uint64_t before = i && x[-1].table == x->table ? x[-1].m->handle : 0;

		if (x->m->handle <= before || x->m->handle - before > GAPS_MAX)
			mk->fill = false;
		gaps += x->m->handle - before - 1;
		mk->fill &= gaps <= GAPS_MAX;
	}
	return place_rules(mk);
}

/* ---- messages ---- */

static void say(struct make *mk, uint8_t type, uint16_t flags, const Reprise__NftablesEntry *m,
		const void *body, size_t len)
{
	const Reprise__NftablesEntry **slot;

	nfnl_message(&mk->batch, SUBSYSTEM(type), flags, body, len);
	slot = vec_push(&mk->sent);
	if (slot)
		*slot = m;
	else
		mk->batch.too_much = true;
}

static void say_entry(struct make *mk, const Reprise__NftablesEntry *m, uint16_t flags)
{
	say(mk, (uint8_t)m->type, NLM_F_CREATE | flags, m, m->body.data, m->body.len);
}

/* Of a set: what follows it in the list. */
static void say_elements(struct make *mk, size_t set)
{
	for (size_t i = set + 1; i < mk->net->n_nftables; i++) {
		if (mk->net->nftables[i]->type != NFT_MSG_NEWSETELEM)
			break;
		say_entry(mk, mk->net->nftables[i], 0);
	}
}

/*
 * Handles are given one after the other (nf_tables_alloc_handle()), to chains and rules alike.
 * Those of what has been taken away are used up by rules of a chain that goes again in the same
 * instant.
 */
static void say_gap(struct make *mk, const Reprise__NftablesEntry *m, uint64_t n)
{
	const struct nfgenmsg g = {.nfgen_family = family_of(m)};
	const char *table = table_of(m);

	for (uint64_t i = 0; i <= n && n; i++) {
		const bool chain = i == 0 || i == n;

		say(mk,
		    i == n  ? NFT_MSG_DELCHAIN
		    : chain ? NFT_MSG_NEWCHAIN
			    : NFT_MSG_NEWRULE,
		    i == n  ? 0
		    : chain ? NLM_F_CREATE
			    : NLM_F_CREATE | NLM_F_APPEND,
		    m, &g, sizeof(g));
		nfnl_attribute(&mk->batch, chain ? NFTA_CHAIN_TABLE : NFTA_RULE_TABLE, table,
			       strlen(table) + 1);
		nfnl_attribute(&mk->batch, chain ? NFTA_CHAIN_NAME : NFTA_RULE_CHAIN, GAP_CHAIN,
			       sizeof(GAP_CHAIN));
	}
}

/* Elements of these cannot be added any more when a rule uses the set (nft_add_set_elem()). */
static bool is_early(const Reprise__NftablesEntry *set)
{
	uint32_t flags = be32toh(rtnl_number(set->body.data, set->body.len, FIXED, NFTA_SET_FLAGS));

	return flags & (NFT_SET_ANONYMOUS | NFT_SET_CONSTANT);
}

static int say_set(struct make *mk, const struct item *x)
{
	const uint32_t id = htonl(++mk->sets);
	size_t *slot;

	say_entry(mk, x->m, NLM_F_EXCL);
	nfnl_attribute(&mk->batch, NFTA_SET_ID, &id, sizeof(id));
	if (!is_early(x->m))
		return 0;
	slot = vec_push(&mk->early);
	if (!slot)
		return -ENOMEM;
	*slot = x->index;
	return 0;
}

static void say_early(struct make *mk)
{
	vec_for_each (set, &mk->early)
		say_elements(mk, *set);
	mk->early.n = 0;
}

static void say_rule(struct make *mk, const struct item *x)
{
	uint64_t position;

	say_early(mk);
	say_entry(mk, x->m, x->last || x->prev ? NLM_F_APPEND : 0);
	if (x->last || !x->prev)
		return;
	position = htobe64(x->prev->made);
	nfnl_attribute(&mk->batch, NFTA_RULE_POSITION, &position, sizeof(position));
}

static int say_items(struct make *mk)
{
	uint64_t next = 0;
	int r = 0;

	for (size_t i = 0; i < mk->n && r >= 0; i++) {
		struct item *x = &mk->items[i];

		if (!i || x[-1].table != x->table)
			next = 1;
		if (mk->fill && x->m->handle > next) {
			say_gap(mk, x->m, x->m->handle - next);
			next = x->m->handle;
		}
		x->made = next++;
		if (x->m->type == NFT_MSG_NEWRULE)
			say_rule(mk, x);
		else if (x->m->type == NFT_MSG_NEWSET)
			r = say_set(mk, x);
		else
			say_entry(mk, x->m, NLM_F_EXCL);
	}
	return r;
}

static int say_all(struct make *mk)
{
	const Reprise__Network *net = mk->net;
	int r;

	nfnl_begin(&mk->batch, NFNL_SUBSYS_NFTABLES);
	if (!vec_push(&mk->sent))
		return -ENOMEM;
	for (size_t i = 0; i < net->n_nftables; i++)
		if (net->nftables[i]->type == NFT_MSG_NEWTABLE)
			say_entry(mk, net->nftables[i], NLM_F_EXCL);
	r = say_items(mk);
	say_early(mk);
	/* The others may lead to any chain, and have any object. */
	for (size_t i = 0; i < net->n_nftables && r >= 0; i++)
		if (net->nftables[i]->type == NFT_MSG_NEWSET && !is_early(net->nftables[i]))
			say_elements(mk, i);
	nfnl_end(&mk->batch, NFNL_SUBSYS_NFTABLES);
	return r;
}

static void note_error(void *arg, uint32_t message, int error)
{
	struct make *mk = arg;

	if (mk->error)
		return;
	mk->error = error;
	mk->failed = message < mk->sent.n ? mk->sent.v[message] : NULL;
}

static const char *what_is(const Reprise__NftablesEntry *m)
{
	switch (m ? m->type : NFT_MSG_NEWTABLE) {
	case NFT_MSG_NEWCHAIN:
		return "a chain of ";
	case NFT_MSG_NEWRULE:
		return "a rule of ";
	case NFT_MSG_NEWSET:
		return "a set of ";
	case NFT_MSG_NEWSETELEM:
		return "an element of ";
	case NFT_MSG_NEWOBJ:
		return "an object of ";
	default:
		return "";
	}
}

static int make_all(struct make *mk)
{
	_cleanup_(close_fd) int fd = nfnl_open();
	int r = fd < 0 ? fd : sort_items(mk);

	if (r >= 0)
		r = say_all(mk);
	if (r >= 0)
		r = nfnl_send(fd, &mk->batch, note_error, mk);
	if (r >= 0 && mk->error)
		r = mk->error;
	if (r < 0)
		error_errno(mk->e, r, E_RESTORE, "cannot make %stable %.60s of nftables",
			    what_is(mk->failed), mk->failed ? table_of(mk->failed) : "?");
	return r;
}

/* ---- whether all is as it was ---- */

static bool runs_out(const Reprise__NftablesEntry *set)
{
	return be32toh(rtnl_number(set->body.data, set->body.len, FIXED, NFTA_SET_FLAGS)) &
	       NFT_SET_TIMEOUT;
}

static bool same(const Reprise__NftablesEntry *a, const Reprise__NftablesEntry *b, bool handles)
{
	_cleanup_(free_ptr) uint8_t *first = malloc(a->body.len + 1);
	_cleanup_(free_ptr) uint8_t *second = malloc(b->body.len + 1);

	if (a->type != b->type || a->body.len != b->body.len || !first || !second ||
	    (handles && a->handle != b->handle))
		return false;
	memcpy(first, a->body.data, a->body.len);
	memcpy(second, b->body.data, b->body.len);
	nft_settle_times(a->type, first, a->body.len);
	nft_settle_times(b->type, second, b->body.len);
	return !memcmp(first, second, a->body.len);
}

/* The next that does not run out by itself; n behind the last. */
static size_t next_lasting(size_t n, Reprise__NftablesEntry *const *list, size_t i)
{
	size_t set = i;

	while (i < n && list[i]->type == NFT_MSG_NEWSETELEM) {
		while (set && list[set]->type == NFT_MSG_NEWSETELEM)
			set--;
		if (list[set]->type != NFT_MSG_NEWSET || !runs_out(list[set]))
			break;
		i++;
	}
	return i;
}

static int compare(const struct make *mk, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	const Reprise__Network *net = mk->net;
	struct nftables now = {};
	size_t i = 0, k = 0;
	int r = nftables_look(NULL, &now, &s, e);

	while (r >= 0) {
		i = next_lasting(net->n_nftables, net->nftables, i);
		k = next_lasting(now.list.n, now.list.v, k);
		if (i == net->n_nftables && k == now.list.n)
			break;
		if (i == net->n_nftables || k == now.list.n ||
		    !same(net->nftables[i], now.list.v[k], mk->fill))
			r = error_set(e, -EIO, E_RESTORE,
				      "%stable %.60s of nftables did not come out as it was",
				      what_is(i < net->n_nftables ? net->nftables[i] : NULL),
				      i < net->n_nftables ? table_of(net->nftables[i]) : "?");
		i++;
		k++;
	}
	vec_free(&now.list);
	return r;
}

int nftables_restart(const Reprise__Network *m, struct error *e)
{
	struct make mk = {.net = m, .e = e};
	int r = m->n_nftables ? make_all(&mk) : 0;

	if (r >= 0 && m->n_nftables)
		r = compare(&mk, e);
	nfnl_batch_free(&mk.batch);
	vec_free(&mk.sent);
	vec_free(&mk.early);
	free(mk.items);
	return r;
}
