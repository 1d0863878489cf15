/* SPDX-License-Identifier: Apache-2.0 */
/* What rules and sets of nftables are made of. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "core/kabi.h"
#include "net/rtnl.h"
#include "ns/nftables.h"
#include "ns/xt_names.h"

/* What is in the headers of later kernels only. */
#define INNER_EXPRESSION 5 /* NFTA_INNER_EXPR */
#define DYNSET_F_EXPR	 2 /* NFT_DYNSET_F_EXPR */
#define DEPTH_MAX	 4

struct visit {
	nft_each each;
	void *arg;
	int depth;
};

static int visit_list(struct visit *v, const void *list, size_t len);

static const char *string_in(const void *attributes, size_t len, size_t fixed, uint16_t type)
{
	size_t n;
	const char *s = rtnl_find(attributes, len, fixed, type, &n);

	return s && n && !s[n - 1] ? s : "";
}

const char *nft_string(const void *body, size_t len, uint16_t type)
{
	return string_in(body, len, sizeof(struct nfgenmsg), type);
}

static int visit_one(struct visit *v, const void *expression, size_t len)
{
	struct nft_expression x = {.name = string_in(expression, len, 0, NFTA_EXPR_NAME)};
	const void *inner;
	size_t n;
	int r;

	x.data = rtnl_find(expression, len, 0, NFTA_EXPR_DATA, &x.len);
	if (!*x.name || !rtnl_valid(expression, len, 0) || v->depth > DEPTH_MAX)
		return -EPROTO;
	if (!x.data)
		x.len = 0;
	r = v->each(v->arg, &x);
	v->depth++;
	if (r >= 0 && !strcmp(x.name, "dynset")) {
		inner = rtnl_find(x.data, x.len, 0, NFTA_DYNSET_EXPR, &n);
		r = inner ? visit_one(v, inner, n) : 0;
		inner = rtnl_find(x.data, x.len, 0, NFTA_DYNSET_EXPRESSIONS, &n);
		if (r >= 0 && inner)
			r = visit_list(v, inner, n);
	} else if (r >= 0 && !strcmp(x.name, "inner")) {
		inner = rtnl_find(x.data, x.len, 0, INNER_EXPRESSION, &n);
		r = inner ? visit_one(v, inner, n) : -EPROTO;
	}
	v->depth--;
	return r;
}

static int visit_list(struct visit *v, const void *list, size_t len)
{
	struct rtnl_walk w = {list, len};
	const struct rtattr *a;
	int r = rtnl_valid(list, len, 0) ? 0 : -EPROTO;

	while (r >= 0 && (a = rtnl_next(&w)))
		r = visit_one(v, RTA_DATA(a), RTA_PAYLOAD(a));
	return r;
}

/* Either one expression or several are told. */
static int visit_both(struct visit *v, const void *body, size_t len, size_t fixed, uint16_t one,
		      uint16_t several)
{
	size_t n;
	const void *at = one ? rtnl_find(body, len, fixed, one, &n) : NULL;
	int r = at ? visit_one(v, at, n) : 0;

	at = rtnl_find(body, len, fixed, several, &n);
	return r >= 0 && at ? visit_list(v, at, n) : r;
}

static int visit_elements(struct visit *v, const void *list, size_t len)
{
	struct rtnl_walk w = {list, len};
	const struct rtattr *a;
	int r = rtnl_valid(list, len, 0) ? 0 : -EPROTO;

	while (r >= 0 && (a = rtnl_next(&w)))
		r = rtnl_valid(RTA_DATA(a), RTA_PAYLOAD(a), 0)
			    ? visit_both(v, RTA_DATA(a), RTA_PAYLOAD(a), 0, NFTA_SET_ELEM_EXPR,
					 NFTA_SET_ELEM_EXPRESSIONS)
			    : -EPROTO;
	return r;
}

int nft_expressions(uint32_t type, const void *body, size_t len, nft_each each, void *arg)
{
	struct visit v = {each, arg, 0};
	const size_t fixed = sizeof(struct nfgenmsg);
	size_t n;
	const void *list;

	switch (type) {
	case NFT_MSG_NEWRULE:
		return visit_both(&v, body, len, fixed, 0, NFTA_RULE_EXPRESSIONS);
	case NFT_MSG_NEWSET:
		return visit_both(&v, body, len, fixed, NFTA_SET_EXPR, NFTA_SET_EXPRESSIONS);
	case NFT_MSG_NEWSETELEM:
		list = rtnl_find(body, len, fixed, NFTA_SET_ELEM_LIST_ELEMENTS, &n);
		return list ? visit_elements(&v, list, n) : 0;
	default:
		return 0;
	}
}

/* ---- which there are ---- */

static int check_one(void *arg, const struct nft_expression *x)
{
	static const char *const known[] = {
		"immediate", "cmp",    "lookup", "bitwise",   "byteorder", "payload",
		"meta",	     "range",  "ct",	 "counter",   "quota",	   "limit",
		"log",	     "reject", "nat",	 "masq",      "redir",	   "queue",
		"objref",    "dynset", "exthdr", "fib",	      "rt",	   "hash",
		"numgen",    "socket", "tproxy", "xfrm",      "osf",	   "synproxy",
		"dup",	     "fwd",    "last",	 "connlimit", "notrack",   "inner",
	};
	struct error *e = arg;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i], x->name))
			return 0;
	if (!strcmp(x->name, "match"))
		return xt_match_check(string_in(x->data, x->len, 0, NFTA_MATCH_NAME), e);
	if (!strcmp(x->name, "target"))
		return xt_target_check(string_in(x->data, x->len, 0, NFTA_TARGET_NAME), e);
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
			 "the expression '%.30s' of nftables cannot be saved", x->name);
}

int nft_expressions_check(uint32_t type, const void *body, size_t len, struct error *e)
{
	return nft_expressions(type, body, len, check_one, e);
}

/* ---- what is told otherwise than it is taken ---- */

static void blank(const struct nft_expression *x, uint16_t type)
{
	size_t n;
	const char *data = rtnl_find(x->data, x->len, 0, type, &n);

	/* An attribute of this type is skipped (nla_parse_nested_deprecated()). */
	if (data)
		((struct rtattr *)(data - RTA_LENGTH(0)))->rta_type = 0;
}

static bool has(const struct nft_expression *x, uint16_t type)
{
	size_t n;

	return rtnl_find(x->data, x->len, 0, type, &n);
}

static int mend_one(void *arg, const struct nft_expression *x)
{
	static const uint64_t never;
	const uint32_t has_expressions = htonl(DYNSET_F_EXPR);
	size_t n;
	void *at;

	(void)arg;
	/* nft_exthdr_tcp_set_init(), nft_exthdr_tcp_strip_init() */
	if (!strcmp(x->name, "exthdr") && !has(x, NFTA_EXTHDR_DREG)) {
		blank(x, NFTA_EXTHDR_FLAGS);
		if (!has(x, NFTA_EXTHDR_SREG))
			blank(x, NFTA_EXTHDR_LEN);
	}
	if (strcmp(x->name, "dynset") != 0)
		return 0;
	/* nft_dynset_init() */
	at = (void *)rtnl_find(x->data, x->len, 0, NFTA_DYNSET_TIMEOUT, &n);
	if (at && n == sizeof(never) && !memcmp(at, &never, n))
		blank(x, NFTA_DYNSET_TIMEOUT);
	at = (void *)rtnl_find(x->data, x->len, 0, NFTA_DYNSET_FLAGS, &n);
	if (at && n == sizeof(uint32_t) && has(x, NFTA_DYNSET_EXPRESSIONS))
		*(uint32_t *)at |= has_expressions;
	return 0;
}

int nft_mend(uint32_t type, void *body, size_t len)
{
	return nft_expressions(type, body, len, mend_one, NULL);
}

/* ---- of which protocol extensions of iptables are ---- */

struct compat {
	bool extension, found, inverted;
	bool in_register[32]; /* which have the protocol in them */
	uint32_t protocol;
	uint8_t family;
};

static uint32_t be32(const struct nft_expression *x, uint16_t type)
{
	return ntohl(rtnl_number(x->data, x->len, 0, type));
}

/* What iptables-nft and its relatives write in front of their extensions: what is in a header. */
static bool loads_protocol(const struct compat *c, const struct nft_expression *x)
{
	const uint32_t base = be32(x, NFTA_PAYLOAD_BASE), at = be32(x, NFTA_PAYLOAD_OFFSET),
		       len = be32(x, NFTA_PAYLOAD_LEN);

	if (!strcmp(x->name, "meta"))
		return be32(x, NFTA_META_KEY) ==
		       (c->family == AF_BRIDGE ? NFT_META_PROTOCOL : NFT_META_L4PROTO);
	if (strcmp(x->name, "payload") != 0)
		return false;
	if (c->family == AF_BRIDGE)
		return base == NFT_PAYLOAD_LL_HEADER && at == 12 && len == 2;
	return base == NFT_PAYLOAD_NETWORK_HEADER && len == 1 &&
	       at == (c->family == AF_INET6 ? 6 : 9);
}

static int note_protocol(void *arg, const struct nft_expression *x)
{
	struct compat *c = arg;
	const uint16_t to = !strcmp(x->name, "meta") ? NFTA_META_DREG : NFTA_PAYLOAD_DREG;
	const uint32_t from = be32(x, NFTA_CMP_SREG);
	const uint8_t *value;
	const void *data;
	size_t n;

	c->extension |= !strcmp(x->name, "match") || !strcmp(x->name, "target");
	if (!strcmp(x->name, "meta") || !strcmp(x->name, "payload")) {
		if (be32(x, to) < 32)
			c->in_register[be32(x, to)] = loads_protocol(c, x);
		return 0;
	}
	if (strcmp(x->name, "cmp") != 0 || from >= 32 || !c->in_register[from] || c->found)
		return 0;
	data = rtnl_find(x->data, x->len, 0, NFTA_CMP_DATA, &n);
	value = data ? rtnl_find(data, n, 0, NFTA_DATA_VALUE, &n) : NULL;
	if (!value || !n || be32(x, NFTA_CMP_OP) > NFT_CMP_NEQ)
		return 0;
	c->found = true;
	c->inverted = be32(x, NFTA_CMP_OP) == NFT_CMP_NEQ;
	c->protocol = c->family == AF_BRIDGE && n > 1 ? (uint32_t)value[0] << 8 | value[1] : *value;
	return 0;
}

size_t nft_compat_protocol(const void *body, size_t len, uint8_t ret[20])
{
	struct compat c = {.family = ((const struct nfgenmsg *)body)->nfgen_family};
	struct {
		struct rtattr nest, a;
		uint32_t protocol;
		struct rtattr b;
		uint32_t flags;
	} compat = {
		.nest = {sizeof(compat), NFTA_RULE_COMPAT | NLA_F_NESTED},
		.a = {RTA_LENGTH(4), NFTA_RULE_COMPAT_PROTO},
		.b = {RTA_LENGTH(4), NFTA_RULE_COMPAT_FLAGS},
	};

	_Static_assert(sizeof(compat) == 20, "the attribute has this size");
	if (nft_expressions(NFT_MSG_NEWRULE, body, len, note_protocol, &c) < 0 || !c.extension ||
	    !c.found)
		return 0;
	compat.protocol = htonl(c.protocol);
	compat.flags = htonl(c.inverted ? NFT_RULE_COMPAT_F_INV : 0);
	memcpy(ret, &compat, sizeof(compat));
	return sizeof(compat);
}

/* ---- times ---- */

static int forget_time(void *arg, const struct nft_expression *x)
{
	size_t n;
	void *at;

	(void)arg;
	if (strcmp(x->name, "last") != 0)
		return 0;
	at = (void *)rtnl_find(x->data, x->len, 0, NFTA_LAST_MSECS, &n);
	if (at)
		memset(at, 0, n);
	return 0;
}

int nft_settle_times(uint32_t type, void *body, size_t len)
{
	return nft_expressions(type, body, len, forget_time, NULL);
}
