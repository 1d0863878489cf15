/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/iptables.h"

/* Before those of the kernel, which leave out then what it has. */
#include <netinet/in.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/netfilter_arp/arp_tables.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/xt_names.h"

#define SIZE_MAX_ALL (64 << 20)
#define TABLES_MAX   64
#define NAMES_MAX    1024

/* The three are alike but for the size of what a packet is compared with. */
struct family {
	const char *list; /* below /proc/net */
	const char *command;
	int domain, level;
	int get_info, get_entries, replace, add_counters;
	size_t hooks, info_size;
	size_t entry, target, next, comefrom, counters; /* size, and places in it */
	bool matches;
};

#define PLACES(type)                                                                 \
	sizeof(struct type), offsetof(struct type, target_offset),                   \
		offsetof(struct type, next_offset), offsetof(struct type, comefrom), \
		offsetof(struct type, counters)

static const struct family families[] = {
	{"ip_tables_names", "iptables", AF_INET, SOL_IP, IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES,
	 IPT_SO_SET_REPLACE, IPT_SO_SET_ADD_COUNTERS, NF_INET_NUMHOOKS, sizeof(struct ipt_getinfo),
	 PLACES(ipt_entry), true},
	{"ip6_tables_names", "ip6tables", AF_INET6, SOL_IPV6, IP6T_SO_GET_INFO, IP6T_SO_GET_ENTRIES,
	 IP6T_SO_SET_REPLACE, IP6T_SO_SET_ADD_COUNTERS, NF_INET_NUMHOOKS,
	 sizeof(struct ip6t_getinfo), PLACES(ip6t_entry), true},
	{"arp_tables_names", "arptables", AF_INET, SOL_IP, ARPT_SO_GET_INFO, ARPT_SO_GET_ENTRIES,
	 ARPT_SO_SET_REPLACE, ARPT_SO_SET_ADD_COUNTERS, NF_ARP_NUMHOOKS,
	 sizeof(struct arpt_getinfo), PLACES(arpt_entry), false},
};
#define FAMILIES (sizeof(families) / sizeof(families[0]))

/* struct ipt_getinfo, and the beginning of struct ipt_replace; arptables has less of each array. */
struct info {
	char name[XT_TABLE_MAXNAMELEN];
	uint32_t valid_hooks;
	uint32_t hook_entry[NF_INET_NUMHOOKS], underflow[NF_INET_NUMHOOKS];
	uint32_t n, size;
};

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a table of iptables");
}

static int named(const struct family *f, const char *name, int r, struct error *e)
{
	return r < 0 ? error_object(e, r, "table %.31s of %s", name, f->command) : r;
}

/* ---- what is in a table ---- */

static uint16_t u16_at(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* An extension begins with its size, its name and its revision (struct xt_entry_match), and stands
 * where such a structure may (XT_ALIGN()). */
static int check_extension(const uint8_t *at, size_t room, bool target, size_t *ret_size,
			   struct error *e)
{
	const struct xt_entry_match *x = (const struct xt_entry_match *)at;
	int r;

	if ((uintptr_t)at % __alignof__(*x) || room < sizeof(*x) ||
	    x->u.user.match_size < sizeof(*x) || x->u.user.match_size > room ||
	    !memchr(x->u.user.name, 0, sizeof(x->u.user.name)))
		return -EBADMSG;
	*ret_size = x->u.user.match_size;
	r = target ? xt_target_check(x->u.user.name, e) : xt_match_check(x->u.user.name, e);
	return r;
}

static int check_entry(const struct family *f, const uint8_t *entry, size_t size, struct error *e)
{
	const size_t target = u16_at(entry + f->target);
	size_t at = f->entry, step;
	int r = 0;

	if (target < f->entry || target > size)
		return -EBADMSG;
	for (; r >= 0 && at < target; at += step)
		r = f->matches ? check_extension(entry + at, target - at, false, &step, e)
			       : -EBADMSG;
	return r < 0 ? r : check_extension(entry + target, size - target, true, &step, e);
}

/* How many there are, or a negative errno. */
static int check_entries(const struct family *f, const uint8_t *entries, size_t len,
			 struct error *e)
{
	size_t at = 0, step;
	int n = 0;

	for (; at < len; at += step, n++) {
		int r;

		step = len - at < f->entry ? 0 : u16_at(entries + at + f->next);
		if (step < f->entry || step > len - at)
			return -EBADMSG;
		r = check_entry(f, entries + at, step, e);
		if (r < 0)
			return r;
	}
	return n;
}

/* What the kernel works out by itself (mark_source_chains()). */
static void settle(const struct family *f, uint8_t *entries, size_t len)
{
	for (size_t at = 0; at < len; at += u16_at(entries + at + f->next))
		memset(entries + at + f->comefrom, 0, sizeof(uint32_t));
}

/* ---- the kernel ---- */

static int get_info(const struct family *f, int fd, const char *name, struct info *ret)
{
	union {
		struct ipt_getinfo ip;
		struct arpt_getinfo arp;
	} info = {};
	socklen_t len = (socklen_t)f->info_size;

	strncpy(info.ip.name, name, sizeof(info.ip.name) - 1);
	if (getsockopt(fd, f->level, f->get_info, &info, &len) < 0)
		return -errno;
	memcpy(ret->name, info.ip.name, sizeof(ret->name));
	ret->valid_hooks = info.ip.valid_hooks;
	if (f->hooks == NF_INET_NUMHOOKS) {
		memcpy(ret->hook_entry, info.ip.hook_entry, sizeof(info.ip.hook_entry));
		memcpy(ret->underflow, info.ip.underflow, sizeof(info.ip.underflow));
	} else {
		memcpy(ret->hook_entry, info.arp.hook_entry, sizeof(info.arp.hook_entry));
		memcpy(ret->underflow, info.arp.underflow, sizeof(info.arp.underflow));
	}
	ret->n = f->hooks == NF_INET_NUMHOOKS ? info.ip.num_entries : info.arp.num_entries;
	ret->size = f->hooks == NF_INET_NUMHOOKS ? info.ip.size : info.arp.size;
	return 0;
}

/* Bytes of s. -EAGAIN: somebody has changed it meanwhile. */
static int get_entries(const struct family *f, int fd, const struct info *info,
		       ProtobufCBinaryData *ret, struct scratch *s)
{
	const size_t head = offsetof(struct ipt_get_entries, entrytable);
	socklen_t len = (socklen_t)(head + info->size);
	struct ipt_get_entries *get = scratch_alloc(s, len);

	_Static_assert(offsetof(struct ipt_get_entries, entrytable) ==
				       offsetof(struct arpt_get_entries, entrytable) &&
			       offsetof(struct ipt_get_entries, entrytable) ==
				       offsetof(struct ip6t_get_entries, entrytable),
		       "they begin alike");
	if (!get)
		return -ENOMEM;
	memcpy(get->name, info->name, sizeof(get->name));
	get->size = info->size;
	if (getsockopt(fd, f->level, f->get_entries, get, &len) < 0)
		return -errno;
	ret->data = (uint8_t *)get + head;
	ret->len = info->size;
	return 0;
}

/* ---- checkpoint ---- */

static int read_table(const struct family *f, int fd, const char *name, struct info *info,
		      ProtobufCBinaryData *entries, struct scratch *s)
{
	int r = -EAGAIN;

	for (int i = 0; i < 10 && r == -EAGAIN; i++) {
		r = get_info(f, fd, name, info);
		if (r >= 0)
			r = get_entries(f, fd, info, entries, s);
	}
	return r;
}

static int take_table(size_t family, int fd, const char *name, Reprise__IptablesTable **ret,
		      struct scratch *s, struct error *e)
{
	const struct family *f = &families[family];
	Reprise__IptablesTable *m =
		scratch_message(s, Reprise__IptablesTable, reprise__iptables_table__init);
	struct info info = {};
	int r;

	if (!m)
		return no_memory(e);
	r = read_table(f, fd, name, &info, &m->entries, s);
	if (r >= 0)
		r = check_entries(f, m->entries.data, m->entries.len, e);
	if (r < 0)
		return e->code ? r : error_errno(e, r, E_SYSTEM, "cannot be read");
	settle(f, m->entries.data, m->entries.len);
	m->family = (uint32_t)family;
	m->name = scratch_string(s, name);
	m->hooks = info.valid_hooks;
	m->count = info.n;
	m->hook_entries = scratch_copy(s, info.hook_entry, sizeof(info.hook_entry));
	m->underflows = scratch_copy(s, info.underflow, sizeof(info.underflow));
	m->n_hook_entries = m->n_underflows = f->hooks;
	*ret = m;
	return m->name && m->hook_entries && m->underflows ? 0 : no_memory(e);
}

/* Everything is accepted, and nothing was counted. */
static bool is_new(const struct family *f, const Reprise__IptablesTable *m)
{
	static const uint8_t uncounted[sizeof(struct xt_counters)];
	const uint8_t *entry = m->entries.data;

	if (m->count != (uint32_t)__builtin_popcount(m->hooks) + 1)
		return false;
	/* Behind the policies stands the end (XT_ERROR_TARGET). */
	for (uint32_t i = 0; i + 1 < m->count; i++, entry += u16_at(entry + f->next)) {
		struct xt_standard_target t = {};
		size_t at = u16_at(entry + f->target);

		if (u16_at(entry + f->next) - at < sizeof(t) ||
		    memcmp(entry + f->counters, uncounted, sizeof(uncounted)) != 0)
			return false;
		memcpy(&t, entry + at, sizeof(t));
		if (*t.target.u.user.name || t.verdict != -NF_ACCEPT - 1)
			return false;
	}
	return true;
}

static int take_family(size_t family, char *names, bool asked, Reprise__Network *m,
		       struct scratch *s, struct error *e)
{
	const struct family *f = &families[family];
	_cleanup_(close_fd) int fd = socket(f->domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char *rest = NULL;
	int r = 0;

	if (fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot ask about %s", f->command);
	for (char *name = strtok_r(names, "\n", &rest); name && r >= 0;
	     name = strtok_r(NULL, "\n", &rest)) {
		if (m->n_iptables == TABLES_MAX)
			return error_set(e, -E2BIG, E_CONTAINER_STATE, "more tables of %s than %d",
					 f->command, TABLES_MAX);
		r = named(f, name, take_table(family, fd, name, &m->iptables[m->n_iptables], s, e),
			  e);
		m->n_iptables += r >= 0 && !(asked && is_new(f, m->iptables[m->n_iptables]));
	}
	return r;
}

/*
 * The list is only for root of the network's user namespace, which may have no root: then each
 * table is asked for that the kernel may have. One that is not there yet is made by that, empty
 * (xt_find_table_lock()); no module is loaded. As there is no table of that size, nothing is told.
 */
static int ask_for_tables(const struct family *f, char names[NAMES_MAX], struct error *e)
{
	static const char *const known[] = {"filter", "nat", "mangle", "raw", "security"};
	_cleanup_(close_fd) int fd = socket(f->domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot ask about %s", f->command);
	*names = '\0';
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct ipt_get_entries get = {};
		socklen_t len = offsetof(struct ipt_get_entries, entrytable);

		strcpy(get.name, known[i]);
		if (getsockopt(fd, f->level, f->get_entries, &get, &len) < 0 && errno != EAGAIN) {
			if (errno == ENOENT || errno == ENOPROTOOPT)
				continue;
			return error_errno(e, -errno, E_CONTAINER_STATE,
					   "cannot ask about the rules of %s", f->command);
		}
		strcat(strcat(names, known[i]), "\n");
	}
	return 0;
}

static int list_tables(const struct family *f, int proc_fd, char names[NAMES_MAX], bool *ret_asked,
		       struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	char path[128];
	ssize_t n;

	snprintf(path, sizeof(path), "%sthread-self/net/%s", proc_fd < 0 ? "/proc/" : "", f->list);
	fd = openat(proc_fd < 0 ? AT_FDCWD : proc_fd, path, O_RDONLY | O_CLOEXEC);
	*ret_asked = fd < 0 && errno == EACCES;
	if (*ret_asked)
		return ask_for_tables(f, names, e);
	n = fd < 0 ? (errno == ENOENT ? 0 : -1) : read(fd, names, NAMES_MAX - 1);
	if (n < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot list the tables of %s", f->command);
	names[n] = '\0';
	return 0;
}

int iptables_checkpoint(int proc_fd, Reprise__Network *m, struct scratch *s, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < FAMILIES && r >= 0; i++) {
		char names[NAMES_MAX];
		bool asked = false;

		r = list_tables(&families[i], proc_fd, names, &asked, e);
		if (r < 0 || !*names)
			continue;
		if (!m->iptables)
			m->iptables = scratch_alloc(s, TABLES_MAX * sizeof(*m->iptables));
		r = m->iptables ? take_family(i, names, asked, m, s, e) : no_memory(e);
	}
	return r;
}

/* ---- restart ---- */

static int validate_table(const Reprise__IptablesTable *m, struct error *e)
{
	const struct family *f = &families[m->family];
	int n = check_entries(f, m->entries.data, m->entries.len, e);

	return n < 0 ? n : (uint32_t)n == m->count && n ? 0 : -EBADMSG;
}

int iptables_validate(const Reprise__Network *m, struct error *e)
{
	for (size_t i = 0; i < m->n_iptables; i++) {
		const Reprise__IptablesTable *t = m->iptables[i];
		int r = -EBADMSG;

		if (m->n_iptables <= TABLES_MAX && t->family < FAMILIES && *t->name &&
		    strlen(t->name) < XT_TABLE_MAXNAMELEN && t->entries.len <= SIZE_MAX_ALL &&
		    t->n_hook_entries == families[t->family].hooks &&
		    t->n_underflows == families[t->family].hooks)
			r = validate_table(t, e);
		if (r < 0)
			return e->code ? r
				       : error_set(e, r, E_IMAGE_INVALID,
						   "an impossible table of iptables");
	}
	return 0;
}

/* It takes counters of the entries before, and gives none to those after. */
static int replace(const struct family *f, int fd, const Reprise__IptablesTable *m, uint32_t before)
{
	_cleanup_(free_ptr) struct xt_counters *old = calloc(before + 1, sizeof(*old));
	const size_t head = f->hooks == NF_INET_NUMHOOKS ? sizeof(struct ipt_replace)
							 : sizeof(struct arpt_replace);
	_cleanup_(free_ptr) uint8_t *request = calloc(1, head + m->entries.len);
	struct ipt_replace *ip = (struct ipt_replace *)request;
	struct arpt_replace *arp = (struct arpt_replace *)request;
	const size_t arrays = f->hooks * sizeof(uint32_t);

	if (!old || !request)
		return -ENOMEM;
	strcpy(ip->name, m->name);
	ip->valid_hooks = m->hooks;
	ip->num_entries = m->count;
	ip->size = (uint32_t)m->entries.len;
	memcpy(request + offsetof(struct ipt_replace, hook_entry), m->hook_entries, arrays);
	memcpy(request + offsetof(struct ipt_replace, hook_entry) + arrays, m->underflows, arrays);
	*(f->hooks == NF_INET_NUMHOOKS ? &ip->num_counters : &arp->num_counters) = before;
	*(f->hooks == NF_INET_NUMHOOKS ? &ip->counters : &arp->counters) = old;
	memcpy(request + head, m->entries.data, m->entries.len);
	return setsockopt(fd, f->level, f->replace, request, (socklen_t)(head + m->entries.len)) < 0
		       ? -errno
		       : 0;
}

static int add_counters(const struct family *f, int fd, const Reprise__IptablesTable *m)
{
	const size_t size = sizeof(struct xt_counters_info) + m->count * sizeof(struct xt_counters);
	_cleanup_(free_ptr) struct xt_counters_info *info = calloc(1, size);
	size_t n = 0;

	if (!info)
		return -ENOMEM;
	strcpy(info->name, m->name);
	info->num_counters = m->count;
	for (size_t at = 0; at < m->entries.len && n < m->count;
	     at += u16_at(m->entries.data + at + f->next))
		memcpy(&info->counters[n++], m->entries.data + at + f->counters,
		       sizeof(struct xt_counters));
	return setsockopt(fd, f->level, f->add_counters, info, (socklen_t)size) < 0 ? -errno : 0;
}

static int compare(const struct family *f, int fd, const Reprise__IptablesTable *m, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	ProtobufCBinaryData now = {};
	struct info info = {};
	int r = read_table(f, fd, m->name, &info, &now, &s);

	if (r < 0)
		return r;
	if (check_entries(f, now.data, now.len, e) >= 0)
		settle(f, now.data, now.len);
	if (now.len != m->entries.len || memcmp(now.data, m->entries.data, now.len) != 0)
		return error_set(e, -EIO, E_RESTORE, "did not come out as it was");
	return 0;
}

static int restart_table(const Reprise__IptablesTable *m, struct error *e)
{
	const struct family *f = &families[m->family];
	_cleanup_(close_fd) int fd = socket(f->domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct info info = {};
	/* This makes an empty one. */
	int r = fd < 0 ? -errno : get_info(f, fd, m->name, &info);

	if (r >= 0)
		r = replace(f, fd, m, info.n);
	if (r >= 0)
		r = add_counters(f, fd, m);
	if (r >= 0)
		r = compare(f, fd, m, e);
	if (r < 0 && !e->code)
		error_errno(e, r, E_RESTORE, "cannot be made");
	return named(f, m->name, r, e);
}

int iptables_restart(const Reprise__Network *m, struct error *e)
{
	int r = 0;

	/* The youngest is told first. */
	for (size_t i = m->n_iptables; i-- > 0 && r >= 0;)
		r = restart_table(m->iptables[i], e);
	return r;
}
