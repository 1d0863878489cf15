/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/nftables.h"

#include <errno.h>
#include <endian.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/cleanup.h"
#include "net/nfnl.h"
#include "net/rtnl.h"

#define BIT(n)	     (UINT64_C(1) << (n))
#define FIXED	     sizeof(struct nfgenmsg)
#define CHUNK	     24000 /* of elements in one entry */
#define INTERVAL_END 1	   /* NFT_SET_ELEM_INTERVAL_END */
#define SUBSYSTEM(x) (NFNL_SUBSYS_NFTABLES << 8 | (x))

/* Numbers that older headers lack. */
#define SET_TYPE	 19 /* NFTA_SET_TYPE */
#define SET_COUNT	 20 /* NFTA_SET_COUNT */
#define TABLE_F_OWNER	 2  /* NFT_TABLE_F_OWNER */
#define HOOK_DEVICES	 4  /* NFTA_HOOK_DEVS */
#define TABLE_FLAGS_KEPT NFT_TABLE_F_DORMANT
#define OBJECT_TUNNEL	 6  /* NFT_OBJECT_TUNNEL */
#define OBJECT_LAST	 10 /* NFT_OBJECT_SYNPROXY */

/*
 * Numbers of what is told: kept, as the kernel takes it back, or of the moment. Others are refused.
 */
struct kind {
	const char *what;
	uint8_t get, add;
	uint16_t name, handle;
	uint64_t kept, dropped;
};

static const struct kind kinds[] = {
	{"table", NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, NFTA_TABLE_NAME, 0,
	 BIT(NFTA_TABLE_NAME) | BIT(NFTA_TABLE_FLAGS) | BIT(NFTA_TABLE_USERDATA),
	 BIT(NFTA_TABLE_USE) | BIT(NFTA_TABLE_HANDLE) | BIT(NFTA_TABLE_PAD)},
	{"chain", NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, NFTA_CHAIN_NAME, NFTA_CHAIN_HANDLE,
	 BIT(NFTA_CHAIN_TABLE) | BIT(NFTA_CHAIN_NAME) | BIT(NFTA_CHAIN_HOOK) |
		 BIT(NFTA_CHAIN_POLICY) | BIT(NFTA_CHAIN_TYPE) | BIT(NFTA_CHAIN_COUNTERS) |
		 BIT(NFTA_CHAIN_FLAGS) | BIT(NFTA_CHAIN_USERDATA),
	 BIT(NFTA_CHAIN_HANDLE) | BIT(NFTA_CHAIN_USE) | BIT(NFTA_CHAIN_PAD) | BIT(NFTA_CHAIN_ID)},
	{"set", NFT_MSG_GETSET, NFT_MSG_NEWSET, NFTA_SET_NAME, NFTA_SET_HANDLE,
	 BIT(NFTA_SET_TABLE) | BIT(NFTA_SET_NAME) | BIT(NFTA_SET_FLAGS) | BIT(NFTA_SET_KEY_TYPE) |
		 BIT(NFTA_SET_KEY_LEN) | BIT(NFTA_SET_DATA_TYPE) | BIT(NFTA_SET_DATA_LEN) |
		 BIT(NFTA_SET_POLICY) | BIT(NFTA_SET_DESC) | BIT(NFTA_SET_TIMEOUT) |
		 BIT(NFTA_SET_GC_INTERVAL) | BIT(NFTA_SET_USERDATA) | BIT(NFTA_SET_OBJ_TYPE) |
		 BIT(NFTA_SET_EXPR) | BIT(NFTA_SET_EXPRESSIONS),
	 BIT(NFTA_SET_ID) | BIT(NFTA_SET_PAD) | BIT(NFTA_SET_HANDLE) | BIT(SET_TYPE) |
		 BIT(SET_COUNT)},
	{"object", NFT_MSG_GETOBJ, NFT_MSG_NEWOBJ, NFTA_OBJ_NAME, NFTA_OBJ_HANDLE,
	 BIT(NFTA_OBJ_TABLE) | BIT(NFTA_OBJ_NAME) | BIT(NFTA_OBJ_TYPE) | BIT(NFTA_OBJ_DATA) |
		 BIT(NFTA_OBJ_USERDATA),
	 BIT(NFTA_OBJ_USE) | BIT(NFTA_OBJ_HANDLE) | BIT(NFTA_OBJ_PAD)},
	{"rule", NFT_MSG_GETRULE, NFT_MSG_NEWRULE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE,
	 BIT(NFTA_RULE_TABLE) | BIT(NFTA_RULE_CHAIN) | BIT(NFTA_RULE_EXPRESSIONS) |
		 BIT(NFTA_RULE_USERDATA),
	 BIT(NFTA_RULE_HANDLE) | BIT(NFTA_RULE_POSITION) | BIT(NFTA_RULE_PAD)},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

struct element {
	const struct rtattr *a;
	const void *key, *end; /* bytes */
	size_t key_len, end_len;
	bool ends;
};

struct look {
	int fd;
	const struct kind *kind;
	const struct net_others *others;
	struct nftables *ret;
	struct scratch *s;
	struct error *e;
	bool any, changed;
	uint16_t generation; /* of all rules of the namespace; every answer tells it */
	VEC(struct element) elements;
};

/* ---- looking ---- */

static int refuse(struct look *l, const char *table, const char *what, const char *name)
{
	return error_set(l->e, -EOPNOTSUPP, E_CONTAINER_STATE,
			 "table %.60s of nftables has %s%s%.60s, which cannot be saved", table,
			 what, *name ? " " : "", name);
}

/* If somebody changes the rules between two answers, all begins again. */
static bool steady(struct look *l, const struct nlmsghdr *h)
{
	const struct nfgenmsg *g = NLMSG_DATA(h);

	if (NLMSG_PAYLOAD(h, 0) < FIXED)
		return false;
	l->changed |= l->any && l->generation != g->res_id;
	l->any = true;
	l->generation = g->res_id;
	return true;
}

static int push(struct look *l, uint32_t type, uint64_t handle, const void *body, size_t len)
{
	Reprise__NftablesEntry *m =
		scratch_message(l->s, Reprise__NftablesEntry, reprise__nftables_entry__init);
	Reprise__NftablesEntry **slot = m ? vec_push(&l->ret->list) : NULL;

	if (!slot)
		return -ENOMEM;
	if (len > NFTABLES_ENTRY_MAX || l->ret->list.n > NFTABLES_ENTRIES_MAX)
		return refuse(l, nft_string(body, len, 1), "more than can be told", "");
	m->type = type;
	m->handle = handle;
	m->body.data = scratch_copy(l->s, body, len ?: 1);
	m->body.len = len;
	*slot = m;
	return m->body.data ? 0 : -ENOMEM;
}

/* A program that holds the table by its socket; the kernel takes it away when that is closed. */
static int check_table(struct look *l, const char *table, const void *body, size_t len)
{
	uint32_t flags = be32toh(rtnl_number(body, len, FIXED, NFTA_TABLE_FLAGS));

	if (flags & TABLE_F_OWNER)
		return refuse(l, table, "a program as its owner", "");
	if (flags & ~(uint32_t)TABLE_FLAGS_KEPT)
		return refuse(l, table, "flags that are not known", "");
	return 0;
}

static int check_device(struct look *l, const char *table, const char *name, size_t len)
{
	if (len && net_others_have_name(l->others, name, len - 1))
		return refuse(l, table, "a chain for the interface of a descriptor", name);
	return 0;
}

static int check_chain(struct look *l, const char *table, const void *body, size_t len)
{
	struct rtnl_walk w = {};
	const struct rtattr *a;
	size_t n, name_len;
	const void *hook = rtnl_find(body, len, FIXED, NFTA_CHAIN_HOOK, &n);
	const char *name = hook ? rtnl_find(hook, n, 0, NFTA_HOOK_DEV, &name_len) : NULL;
	int r = name ? check_device(l, table, name, name_len) : 0;

	if (hook)
		w.at = rtnl_find(hook, n, 0, HOOK_DEVICES, &w.left);
	while (r >= 0 && w.at && (a = rtnl_next(&w)))
		r = check_device(l, table, RTA_DATA(a), RTA_PAYLOAD(a));
	return r;
}

static int check_object(struct look *l, const char *table, const void *body, size_t len)
{
	uint32_t type = be32toh(rtnl_number(body, len, FIXED, NFTA_OBJ_TYPE));

	if (type == OBJECT_TUNNEL || type > OBJECT_LAST)
		return refuse(l, table, "an object of a kind that is not known,",
			      nft_string(body, len, NFTA_OBJ_NAME));
	return 0;
}

static int check_expressions(struct look *l, uint32_t type, const void *body, size_t len)
{
	int r = nft_expressions_check(type, body, len, l->e);

	return r < 0 ? error_object(l->e, r, "table %.60s of nftables", nft_string(body, len, 1))
		     : 0;
}

static int check(struct look *l, const void *body, size_t len)
{
	const char *table = nft_string(body, len, 1);

	switch (l->kind->add) {
	case NFT_MSG_NEWTABLE:
		return check_table(l, table, body, len);
	case NFT_MSG_NEWCHAIN:
		return check_chain(l, table, body, len);
	case NFT_MSG_NEWOBJ:
		return check_object(l, table, body, len);
	default:
		return check_expressions(l, l->kind->add, body, len);
	}
}

static uint64_t handle_of(const struct kind *k, const void *body, size_t len)
{
	size_t n;
	const void *at = k->handle ? rtnl_find(body, len, FIXED, k->handle, &n) : NULL;
	uint64_t value = 0;

	if (at && n == sizeof(value))
		memcpy(&value, at, n);
	return be64toh(value);
}

static int take(void *arg, const struct nlmsghdr *h)
{
	struct look *l = arg;
	const uint8_t *body = NLMSG_DATA(h);
	const size_t len = NLMSG_PAYLOAD(h, 0);
	struct rtnl_walk w = {body + FIXED, len - FIXED};
	uint8_t *kept = malloc(len + 32);
	const struct rtattr *a;
	size_t n = FIXED;
	int r = kept ? 0 : -ENOMEM;

	if (r >= 0 && (!steady(l, h) || !rtnl_valid(body, len, FIXED)))
		r = -EPROTO;
	if (r >= 0)
		r = check(l, body, len);
	if (r >= 0) {
		memcpy(kept, body, FIXED);
		((struct nfgenmsg *)kept)->res_id = 0;
	}
	while (r >= 0 && (a = rtnl_next(&w))) {
		const uint16_t type = a->rta_type & NLA_TYPE_MASK;

		if (type >= 64 || !((l->kind->kept | l->kind->dropped) & BIT(type)))
			r = refuse(l, nft_string(body, len, 1), "something that is not known in",
				   l->kind->what);
		else if (l->kind->kept & BIT(type)) {
			memset(kept + n, 0, RTA_ALIGN(a->rta_len));
			memcpy(kept + n, a, a->rta_len);
			n += RTA_ALIGN(a->rta_len);
		}
	}
	if (r >= 0 && l->kind->add == NFT_MSG_NEWRULE)
		n += nft_compat_protocol(body, len, kept + n);
	if (r >= 0)
		r = nft_mend(l->kind->add, kept, n);
	if (r >= 0)
		r = push(l, l->kind->add, handle_of(l->kind, body, len), kept, n);
	free(kept);
	return r;
}

static int take_flowtable(void *arg, const struct nlmsghdr *h)
{
	struct look *l = arg;
	const void *body = NLMSG_DATA(h);

	return refuse(l, nft_string(body, NLMSG_PAYLOAD(h, 0), NFTA_FLOWTABLE_TABLE),
		      "the flow table", nft_string(body, NLMSG_PAYLOAD(h, 0), NFTA_FLOWTABLE_NAME));
}

/* ---- elements of sets ---- */

/* They come in any order, and those of intervals have to be added in that of their keys. */
static int by_key(const void *first, const void *second)
{
	const struct element *a = first, *b = second;
	size_t n = a->key_len < b->key_len ? a->key_len : b->key_len;
	int r = n ? memcmp(a->key, b->key, n) : 0;

	if (!r && a->key_len != b->key_len)
		return a->key_len < b->key_len ? -1 : 1;
	if (!r && a->ends != b->ends)
		return a->ends ? -1 : 1;
	if (!r && a->end_len == b->end_len && a->end_len)
		r = memcmp(a->end, b->end, a->end_len);
	return r;
}

static const void *value_of(const struct rtattr *element, uint16_t type, size_t *n)
{
	const void *at = rtnl_find(RTA_DATA(element), RTA_PAYLOAD(element), 0, type, n);

	at = at ? rtnl_find(at, *n, 0, NFTA_DATA_VALUE, n) : NULL;
	if (!at)
		*n = 0;
	return at;
}

static int take_elements(void *arg, const struct nlmsghdr *h)
{
	struct look *l = arg;
	const void *body = NLMSG_DATA(h);
	const size_t len = NLMSG_PAYLOAD(h, 0);
	const uint64_t known = BIT(NFTA_SET_ELEM_EXPRESSIONS + 1) - 1;
	struct rtnl_walk w = {};
	const struct rtattr *a, *part;
	int r;

	if (!steady(l, h) || !rtnl_valid(body, len, FIXED))
		return -EPROTO;
	r = check_expressions(l, NFT_MSG_NEWSETELEM, body, len);
	w.at = rtnl_find(body, len, FIXED, NFTA_SET_ELEM_LIST_ELEMENTS, &w.left);
	while (r >= 0 && w.at && (a = rtnl_next(&w))) {
		struct rtnl_walk parts = {RTA_DATA(a), RTA_PAYLOAD(a)};
		struct element *x = vec_push(&l->elements);

		if (!x || !(x->a = scratch_copy(l->s, a, a->rta_len)))
			return -ENOMEM;
		while ((part = rtnl_next(&parts)))
			if (!(known & BIT(part->rta_type & 63)))
				return refuse(l, nft_string(body, len, 1),
					      "something that is not known in an element of", "");
		x->key = value_of(x->a, NFTA_SET_ELEM_KEY, &x->key_len);
		x->end = value_of(x->a, NFTA_SET_ELEM_KEY_END, &x->end_len);
		x->ends = be32toh(rtnl_number(RTA_DATA(x->a), RTA_PAYLOAD(x->a), 0,
					      NFTA_SET_ELEM_FLAGS)) &
			  INTERVAL_END;
	}
	return r;
}

/* As many of them as go into one entry. */
static int push_elements(struct look *l, const struct rtnl_message *of)
{
	const size_t head = NLMSG_PAYLOAD(&of->header, 0);
	uint8_t entry[NFTABLES_ENTRY_MAX];
	size_t i = 0;
	int r = 0;

	while (r >= 0 && i < l->elements.n) {
		struct rtattr *list = (struct rtattr *)(entry + NLMSG_ALIGN(head));
		size_t n = NLMSG_ALIGN(head) + RTA_LENGTH(0), begin = i;

		memset(entry, 0, NLMSG_ALIGN(head) + RTA_LENGTH(0));
		memcpy(entry, NLMSG_DATA(&of->header), head);
		for (; i < l->elements.n; i++) {
			const struct rtattr *a = l->elements.v[i].a;
			const size_t size = RTA_ALIGN(a->rta_len);

			if (i > begin && n + size > CHUNK)
				break;
			if (n + size > sizeof(entry))
				return -EMSGSIZE;
			memset(entry + n, 0, size);
			memcpy(entry + n, a, a->rta_len);
			n += size;
		}
		list->rta_type = NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED;
		list->rta_len = (uint16_t)(n - NLMSG_ALIGN(head));
		r = push(l, NFT_MSG_NEWSETELEM, 0, entry, n);
	}
	return r;
}

static int look_at_elements(struct look *l, const Reprise__NftablesEntry *set)
{
	const struct nfgenmsg *of = (const struct nfgenmsg *)set->body.data;
	const struct nfgenmsg g = {.nfgen_family = of->nfgen_family};
	const char *table = nft_string(of, set->body.len, NFTA_SET_TABLE);
	const char *name = nft_string(of, set->body.len, NFTA_SET_NAME);
	struct rtnl_message m;
	int r;

	rtnl_begin(&m, SUBSYSTEM(NFT_MSG_GETSETELEM), NLM_F_DUMP, &g, sizeof(g));
	rtnl_attribute(&m, NFTA_SET_ELEM_LIST_TABLE, table, strlen(table) + 1);
	rtnl_attribute(&m, NFTA_SET_ELEM_LIST_SET, name, strlen(name) + 1);
	l->elements.n = 0;
	r = rtnl_dump_message(l->fd, &m, take_elements, l);
	if (r < 0 || !l->elements.n)
		return r;
	qsort(l->elements.v, l->elements.n, sizeof(*l->elements.v), by_key);
	return push_elements(l, &m);
}

/* ---- all ---- */

static int dump(struct look *l, uint8_t get, rtnl_each each)
{
	const struct nfgenmsg all = {};

	return rtnl_dump(l->fd, SUBSYSTEM(get), &all, sizeof(all), each, l);
}

/* Elements stand behind their set. */
static int look_at_sets(struct look *l)
{
	struct nftables sets = {}, *all = l->ret;
	int r;

	l->ret = &sets;
	r = dump(l, l->kind->get, take);
	l->ret = all;
	for (size_t i = 0; i < sets.list.n && r >= 0; i++) {
		Reprise__NftablesEntry **slot = vec_push(&all->list);

		r = slot ? 0 : -ENOMEM;
		if (slot)
			*slot = sets.list.v[i];
		if (r >= 0)
			r = look_at_elements(l, sets.list.v[i]);
	}
	vec_free(&sets.list);
	return r;
}

static int look_once(struct look *l)
{
	int r = 0;

	l->ret->list.n = 0;
	l->any = l->changed = false;
	for (size_t i = 0; i < KINDS && r >= 0; i++) {
		l->kind = &kinds[i];
		r = l->kind->add == NFT_MSG_NEWSET ? look_at_sets(l) : dump(l, l->kind->get, take);
		/* A namespace without tables has nothing else; most have none. */
		if (r < 0 || !l->ret->list.n)
			return r;
		if (!i && l->ret->list.n > NFTABLES_TABLES_MAX)
			return refuse(l, "?", "too many beside it", "");
	}
	r = dump(l, NFT_MSG_GETFLOWTABLE, take_flowtable);
	/* They are younger than the rest. */
	if (!l->e->code && (r == -EINVAL || r == -EOPNOTSUPP || r == -ENOENT))
		r = 0;
	return r >= 0 && l->changed ? -EAGAIN : r;
}

int nftables_look(const struct net_others *others, struct nftables *ret, struct scratch *s,
		  struct error *e)
{
	_cleanup_(close_fd) int fd = nfnl_open();
	struct look l = {.fd = fd, .others = others, .ret = ret, .s = s, .e = e};
	int r = 0;

	/* What the kernel has not got nobody can have set. */
	if (fd < 0)
		return fd == -EPROTONOSUPPORT
			       ? 0
			       : error_errno(e, fd, E_SYSTEM, "cannot ask about nftables");
	for (int i = 0; i < 10; i++) {
		r = look_once(&l);
		if (r != -EAGAIN && (r != -ENOENT || !ret->list.n))
			break;
	}
	vec_free(&l.elements);
	if (!e->code && !ret->list.n && (r == -EOPNOTSUPP || r == -EINVAL || r == -ENOENT))
		return 0;
	return r < 0 && !e->code ? error_errno(e, r, E_SYSTEM, "cannot list the rules of nftables")
				 : r;
}
