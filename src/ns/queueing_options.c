/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel tells of queueing disciplines and filters, in the form in which it takes it back.
 */
#include <errno.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_gact.h>
#include <linux/tc_act/tc_mirred.h>
#include <string.h>

#include "net/rtnl.h"
#include "ns/queueing.h"

#define BIT(n)	   (UINT64_C(1) << (n))
#define TICK_NS	   64 /* PSCHED_SHIFT */
#define NS_PER_SEC 1000000000ull

/* ---- queueing disciplines ---- */

/*
 * The largest packet (max_size) the kernel works out from the time that a burst takes, if the burst
 * is not told in bytes, and it may come out a byte smaller: so it is.
 */
static void put_burst(struct rtnl_message *to, uint16_t type, uint64_t rate, uint32_t ticks)
{
	const uint64_t ns = (uint64_t)ticks * TICK_NS;
	const uint64_t bytes =
		ns / NS_PER_SEC * rate + (ns % NS_PER_SEC * rate + NS_PER_SEC - 1) / NS_PER_SEC;
	const uint32_t burst = bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes;

	if (rate && rate < NS_PER_SEC && burst)
		rtnl_attribute(to, type, &burst, sizeof(burst));
}

static int take_tbf(const void *options, size_t len, struct rtnl_message *to, struct error *e)
{
	size_t n;
	const struct tc_tbf_qopt *q = rtnl_find(options, len, 0, TCA_TBF_PARMS, &n);

	if (!q || n != sizeof(*q))
		return error_set(e, -EPROTO, E_SYSTEM, "the kernel tells nothing sensible of it");
	put_burst(to, TCA_TBF_BURST, q->rate.rate, q->buffer);
	put_burst(to, TCA_TBF_PBURST, q->peakrate.rate, q->mtu);
	return 0;
}

/* It tells the version that it has (HTB_VER), and takes the first part of it. */
static int take_htb(const void *options, size_t len, struct rtnl_message *to, struct error *e)
{
	size_t n;
	struct tc_htb_glob *q =
		(void *)rtnl_find(NLMSG_DATA(&to->header), len, 0, TCA_HTB_INIT, &n);

	(void)options;
	if (to->full || !q || n != sizeof(*q))
		return error_set(e, -EPROTO, E_SYSTEM, "the kernel tells nothing sensible of it");
	q->version >>= 16;
	q->direct_pkts = 0;
	return 0;
}

/* Where times vary, the kernel does not tell by which distribution. */
static int check_netem(const void *options, size_t len, struct rtnl_message *to, struct error *e)
{
	const struct tc_netem_qopt *q = options;
	const struct tc_netem_slot *slot;
	const int64_t *jitter;
	size_t n;

	(void)to;
	if (len < sizeof(*q))
		return error_set(e, -EPROTO, E_SYSTEM, "the kernel tells nothing sensible of it");
	jitter = rtnl_find(options, len, sizeof(*q), TCA_NETEM_JITTER64, &n);
	if (q->jitter || (jitter && n == sizeof(*jitter) && *jitter))
		return error_set(
			e, -EOPNOTSUPP, E_CONTAINER_STATE,
			"a delay that varies cannot be saved, since the kernel does not tell "
			"how it is distributed");
	slot = rtnl_find(options, len, sizeof(*q), TCA_NETEM_SLOT, &n);
	if (slot && n == sizeof(*slot) && slot->dist_jitter)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "slots of varying length cannot be saved");
	return 0;
}

static const struct qdisc_kind {
	const char *name;
	bool classes;
	int (*more)(const void *options, size_t len, struct rtnl_message *to, struct error *e);
} qdiscs[] = {
	{"pfifo", false, NULL},	   {"bfifo", false, NULL},   {"pfifo_fast", false, NULL},
	{"noqueue", false, NULL},  {"mq", false, NULL},	     {"prio", false, NULL},
	{"htb", true, take_htb},   {"tbf", false, take_tbf}, {"fq", false, NULL},
	{"fq_codel", false, NULL}, {"codel", false, NULL},   {"sfq", false, NULL},
	{"ingress", false, NULL},  {"clsact", false, NULL},  {"netem", false, check_netem},
};

static const struct qdisc_kind *qdisc_of(const char *kind)
{
	for (size_t i = 0; i < sizeof(qdiscs) / sizeof(qdiscs[0]); i++)
		if (!strcmp(qdiscs[i].name, kind))
			return &qdiscs[i];
	return NULL;
}

bool queueing_has_classes(const char *kind)
{
	const struct qdisc_kind *k = qdisc_of(kind);

	return k && k->classes;
}

/* Bytes that are there already, and end at a boundary. */
static void put_raw(struct rtnl_message *to, const void *data, size_t len)
{
	if (NLMSG_ALIGN(len) > sizeof(to->bytes) - to->header.nlmsg_len) {
		to->full = true;
		return;
	}
	memcpy(to->bytes + to->header.nlmsg_len, data, len);
	to->header.nlmsg_len += (uint32_t)len;
}

int queueing_take_qdisc(const char *kind, const void *options, size_t len, struct rtnl_message *to,
			struct error *e)
{
	const struct qdisc_kind *k = qdisc_of(kind);

	if (!k)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE, "its kind cannot be saved");
	put_raw(to, options, len);
	return k->more ? k->more(options, len, to, e) : 0;
}

/* ---- filters ---- */

static const struct filter_kind {
	const char *name;
	uint64_t kept;
	uint16_t flags, actions; /* attributes */
} filters[] = {
	{"u32",
	 BIT(TCA_U32_CLASSID) | BIT(TCA_U32_HASH) | BIT(TCA_U32_LINK) | BIT(TCA_U32_SEL) |
		 BIT(TCA_U32_INDEV) | BIT(TCA_U32_MARK),
	 TCA_U32_FLAGS, TCA_U32_ACT},
	{"fw", BIT(TCA_FW_CLASSID) | BIT(TCA_FW_INDEV) | BIT(TCA_FW_MASK), 0, TCA_FW_ACT},
	/* Of other programs than classic ones only a number is told, which is in no image. */
	{"bpf", BIT(TCA_BPF_CLASSID) | BIT(TCA_BPF_OPS_LEN) | BIT(TCA_BPF_OPS) | BIT(TCA_BPF_FLAGS),
	 TCA_BPF_FLAGS_GEN, TCA_BPF_ACT},
	{"matchall", BIT(TCA_MATCHALL_CLASSID), TCA_MATCHALL_FLAGS, TCA_MATCHALL_ACT},
};

/* Counters. */
static bool is_counted(const char *kind, uint16_t type)
{
	return (!strcmp(kind, "u32") && (type == TCA_U32_PCNT || type == TCA_U32_PAD)) ||
	       (!strcmp(kind, "matchall") &&
		(type == TCA_MATCHALL_PCNT || type == TCA_MATCHALL_PAD));
}

static const struct filter_kind *filter_of(const char *kind)
{
	for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
		if (!strcmp(filters[i].name, kind))
			return &filters[i];
	return NULL;
}

bool queueing_known(uint32_t type, const char *kind)
{
	return type == RTM_NEWTFILTER ? filter_of(kind) != NULL : qdisc_of(kind) != NULL;
}

/* Of both kinds what is set has this number, and they need nothing else but a probability. */
_Static_assert((int)TCA_GACT_PARMS == (int)TCA_MIRRED_PARMS, "the same place");

static int take_action(const struct rtattr *a, struct rtnl_message *to, struct error *e)
{
	const uint8_t *body = RTA_DATA(a);
	const size_t len = RTA_PAYLOAD(a);
	struct rtnl_message options, action;
	size_t n = 0, size = 0, unused;
	const char *kind = rtnl_find(body, len, 0, TCA_ACT_KIND, &n);
	const void *told = rtnl_find(body, len, 0, TCA_ACT_OPTIONS, &size), *at;

	if (!kind || !n || kind[n - 1] || !told)
		return error_set(e, -EPROTO, E_SYSTEM, "the kernel tells nothing sensible of it");
	if (strcmp(kind, "mirred") != 0 && strcmp(kind, "gact") != 0)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a filter with an action of kind %s cannot be saved", kind);
	rtnl_begin(&options, 0, 0, "", 0);
	at = rtnl_find(told, size, 0, TCA_GACT_PARMS, &unused);
	if (at)
		rtnl_attribute(&options, TCA_GACT_PARMS, at, unused);
	at = strcmp(kind, "gact") ? NULL : rtnl_find(told, size, 0, TCA_GACT_PROB, &unused);
	if (at)
		rtnl_attribute(&options, TCA_GACT_PROB, at, unused);
	if (strcmp(kind, "mirred") == 0 && rtnl_find(told, size, 0, 4, &unused))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "an action that leads to a block of filters cannot be saved");
	rtnl_begin(&action, 0, 0, "", 0);
	rtnl_attribute(&action, TCA_ACT_KIND, kind, n);
	at = rtnl_find(body, len, 0, TCA_ACT_COOKIE, &unused);
	if (at)
		rtnl_attribute(&action, TCA_ACT_COOKIE, at, unused);
	rtnl_attribute(&action, TCA_ACT_OPTIONS | NLA_F_NESTED, NLMSG_DATA(&options.header),
		       options.header.nlmsg_len - NLMSG_HDRLEN);
	rtnl_attribute(to, a->rta_type, NLMSG_DATA(&action.header),
		       action.header.nlmsg_len - NLMSG_HDRLEN);
	return 0;
}

static int take_actions(const struct rtattr *list, struct rtnl_message *to, struct error *e)
{
	struct rtnl_walk w = {RTA_DATA(list), RTA_PAYLOAD(list)};
	struct rtnl_message all;
	const struct rtattr *a;
	int r = 0;

	rtnl_begin(&all, 0, 0, "", 0);
	while (r >= 0 && (a = rtnl_next(&w)))
		r = take_action(a, &all, e);
	rtnl_attribute(to, list->rta_type, NLMSG_DATA(&all.header),
		       all.header.nlmsg_len - NLMSG_HDRLEN);
	to->full |= all.full;
	return r;
}

/* Whether hardware has taken it (IN_HW, NOT_IN_HW) the kernel says itself. */
static void put_flags(struct rtnl_message *to, const struct rtattr *a)
{
	uint32_t flags = 0;

	if (RTA_PAYLOAD(a) == sizeof(flags))
		memcpy(&flags, RTA_DATA(a), sizeof(flags));
	flags &= TCA_CLS_FLAGS_SKIP_HW | TCA_CLS_FLAGS_SKIP_SW;
	if (flags)
		rtnl_attribute(to, a->rta_type, &flags, sizeof(flags));
}

int queueing_take_filter(const char *kind, const void *options, size_t len, struct rtnl_message *to,
			 struct error *e)
{
	const struct filter_kind *k = filter_of(kind);
	struct rtnl_walk w = {options, len};
	const struct rtattr *a;
	size_t n;
	int r = 0;

	if (!k)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a filter of this kind cannot be saved");
	if (!strcmp(kind, "bpf") && len && rtnl_find(options, len, 0, TCA_BPF_ID, &n))
		return error_set(
			e, -EOPNOTSUPP, E_CONTAINER_STATE,
			"a filter with a BPF program that is no classic one cannot be saved");
	while (r >= 0 && (a = rtnl_next(&w))) {
		const uint16_t type = a->rta_type & NLA_TYPE_MASK;

		if (k->flags && type == k->flags)
			put_flags(to, a);
		else if (type == k->actions)
			r = take_actions(a, to, e);
		else if (type < 64 && k->kept & BIT(type))
			rtnl_attribute(to, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a));
		else if (!is_counted(kind, type))
			r = error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				      "a filter with an attribute that cannot be saved (%u)", type);
	}
	return r;
}
