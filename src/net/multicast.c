/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel does not list the groups of a socket. It lists those of each
 * interface, and says for one of them whether a socket is a member, and what sources it has
 * chosen: every group that anybody has joined is tried on every socket. A membership in a group of
 * an interface that has gone is not found; it has no effect, and cannot get one again.
 */
#include "net/multicast.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/cleanup.h"
#include "core/procfs.h"

#define SOURCES_MAX \
	1024 /* net.ipv4.igmp_max_msf is 10, net.ipv6.mld_max_msf 64, if nobody said more */

struct group {
	char interface[IFNAMSIZ];
	uint32_t index;
	struct sockaddr_storage address;
};

struct multicast_groups {
	VEC(struct group) v;
	struct group_filter *filter; /* with room for SOURCES_MAX */
};

static size_t address_size(int family)
{
	return family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr);
}

static void *address_bytes(struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? (void *)&((struct sockaddr_in *)a)->sin_addr
				       : (void *)&((struct sockaddr_in6 *)a)->sin6_addr;
}

static int level_of(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
}

static struct group *add_group(struct multicast_groups *g, uint32_t index, const char *interface,
			       int family)
{
	struct group *x = vec_push(&g->v);

	if (!x)
		return NULL;
	x->index = index;
	snprintf(x->interface, sizeof(x->interface), "%s", interface);
	x->address.ss_family = (sa_family_t)family;
	return x;
}

/* A line of an interface, then lines of its groups, which begin with a tabulator
 * (igmp_mc_seq_show()).
 */
static int parse_igmp(struct multicast_groups *g, char *text)
{
	char interface[IFNAMSIZ] = "", *rest = text, *line;
	uint32_t index = 0, group;

	while ((line = strsep(&rest, "\n")) != NULL) {
		struct group *x;

		if (line[0] != '\t') {
			if (sscanf(line, "%u %15[^: ]", &index, interface) != 2)
				index = 0; /* the heading */
			continue;
		}
		if (!index || sscanf(line, " %8x", &group) != 1)
			return -EBADMSG;
		x = add_group(g, index, interface, AF_INET);
		if (!x)
			return -ENOMEM;
		memcpy(address_bytes(&x->address), &group, sizeof(group));
	}
	return 0;
}

static int parse_hex(const char *text, uint8_t *to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (sscanf(text + 2 * i, "%2hhx", &to[i]) != 1)
			return -EBADMSG;
	return 0;
}

static int parse_igmp6(struct multicast_groups *g, char *text)
{
	char interface[IFNAMSIZ], address[33], *rest = text, *line;
	uint32_t index;

	while ((line = strsep(&rest, "\n")) != NULL && *line) {
		struct group *x;

		if (sscanf(line, "%u %15s %32[0-9a-f]", &index, interface, address) != 3)
			return -EBADMSG;
		x = add_group(g, index, interface, AF_INET6);
		if (!x)
			return -ENOMEM;
		if (parse_hex(address, address_bytes(&x->address), sizeof(struct in6_addr)) < 0)
			return -EBADMSG;
	}
	return 0;
}

static int read_list(struct checkpoint *c, const char *name,
		     int (*parse)(struct multicast_groups *g, char *text),
		     struct multicast_groups *g, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	struct error ignored = {};
	ssize_t n = procfs_read(c->proc_fd, &text, &ignored, "thread-self/net/%s", name);
	int r;

	if (n == -ENOENT) /* a kernel without the protocol has no groups of it */
		return 0;
	if (n < 0)
		return error_errno(e, (int)n, E_SYSTEM, "cannot read /proc/net/%s", name);
	r = parse(g, text);
	if (r < 0)
		return error_errno(e, r, r == -ENOMEM ? E_NO_MEMORY : E_SYSTEM,
				   "cannot understand /proc/net/%s", name);
	return 0;
}

static int get_groups(struct checkpoint *c, struct multicast_groups **ret, struct error *e)
{
	struct multicast_groups *g = c->files->multicast;
	int r;

	*ret = g;
	if (g)
		return 0;
	g = c->files->multicast = calloc(1, sizeof(*g));
	if (!g)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for multicast groups");
	*ret = g;
	g->filter = malloc(GROUP_FILTER_SIZE(SOURCES_MAX));
	if (!g->filter)
		r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for multicast groups");
	else
		r = read_list(c, "igmp", parse_igmp, g, e);
	if (r >= 0)
		r = read_list(c, "igmp6", parse_igmp6, g, e);
	if (r < 0)
		multicast_checkpoint_end(c);
	return r;
}

void multicast_checkpoint_end(struct checkpoint *c)
{
	struct multicast_groups *g = c->files->multicast;

	if (!g)
		return;
	vec_free(&g->v);
	free(g->filter);
	free(g);
	c->files->multicast = NULL;
}

static void format_group(int family, const void *address, const char *interface, char *buf,
			 size_t size)
{
	char text[INET6_ADDRSTRLEN] = "?";

	inet_ntop(family, address, text, sizeof(text));
	snprintf(buf, size, "%s of %s", text, interface);
}

static int save_sources(const struct group_filter *f, Reprise__MulticastMembership *x,
			struct scratch *s)
{
	x->sources = scratch_alloc(s, f->gf_numsrc * sizeof(*x->sources));
	if (!x->sources)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->gf_numsrc; i++) {
		struct sockaddr_storage from = f->gf_slist[i];

		from.ss_family = f->gf_group.ss_family;
		x->sources[i].len = address_size(from.ss_family);
		x->sources[i].data = scratch_copy(s, address_bytes(&from), x->sources[i].len);
		if (!x->sources[i].data)
			return -ENOMEM;
	}
	x->n_sources = f->gf_numsrc;
	return 0;
}

static int save_membership(struct group *of, const struct group_filter *f, Reprise__InetSocket *m,
			   struct scratch *s, struct error *e)
{
	Reprise__MulticastMembership *x = scratch_message(s, Reprise__MulticastMembership,
							  reprise__multicast_membership__init);
	char text[80];

	format_group(of->address.ss_family, address_bytes(&of->address), of->interface, text,
		     sizeof(text));
	/* One from which all sources have been taken: it cannot be joined like that. */
	if (f->gf_numsrc > SOURCES_MAX || (f->gf_fmode == MCAST_INCLUDE && !f->gf_numsrc))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it has joined multicast group %s with %u sources", text,
				 f->gf_numsrc);
	if (!x)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for multicast groups");
	x->interface = scratch_string(s, of->interface);
	x->include = f->gf_fmode == MCAST_INCLUDE;
	x->group.len = address_size(of->address.ss_family);
	x->group.data = scratch_copy(s, address_bytes(&of->address), x->group.len);
	if (!x->interface || !x->group.data || save_sources(f, x, s) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for multicast groups");
	m->memberships[m->n_memberships++] = x;
	return 0;
}

/* Returns whether the socket is a member, and then what the filter is. */
static int get_filter(int fd, const struct group *of, struct group_filter *f, struct error *e)
{
	socklen_t len = GROUP_FILTER_SIZE(SOURCES_MAX);

	memset(f, 0, GROUP_FILTER_SIZE(0));
	f->gf_interface = of->index;
	f->gf_group = of->address;
	f->gf_numsrc = SOURCES_MAX;
	if (getsockopt(fd, level_of(&of->address), MCAST_MSFILTER, f, &len) == 0)
		return 1;
	/* A raw socket of IPv6 has no options of IPv4, one of MPTCP has no groups. */
	if (errno == EADDRNOTAVAIL || errno == ENOPROTOOPT || errno == EOPNOTSUPP)
		return 0;
	return error_errno(e, -errno, E_SYSTEM, "cannot ask for the multicast groups of a socket");
}

int multicast_save(struct checkpoint *c, int fd, Reprise__InetSocket *m, struct scratch *s,
		   struct error *e)
{
	struct multicast_groups *g = NULL;
	int r = get_groups(c, &g, e);

	if (r < 0)
		return r;
	m->memberships = scratch_alloc(s, (g->v.n + 1) * sizeof(*m->memberships));
	if (!m->memberships)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for multicast groups");
	vec_for_each (of, &g->v) {
		/* An IPv6 socket may be a member of groups of either. */
		if (of->address.ss_family == AF_INET6 && m->socket->family != AF_INET6)
			continue;
		r = get_filter(fd, of, g->filter, e);
		if (r > 0)
			r = save_membership(of, g->filter, m, s, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- restart ---- */

static int check_membership(const Reprise__MulticastMembership *x, int family)
{
	size_t size = x->group.len, interface = strlen(x->interface);

	if ((size != sizeof(struct in_addr) && size != sizeof(struct in6_addr)) ||
	    (family == AF_INET && size != sizeof(struct in_addr)) || !interface ||
	    interface >= IFNAMSIZ || (x->include && !x->n_sources))
		return -EBADMSG;
	for (size_t i = 0; i < x->n_sources; i++)
		if (x->sources[i].len != size)
			return -EBADMSG;
	return 0;
}

int multicast_validate(const Reprise__InetSocket *m, struct error *e)
{
	for (size_t i = 0; i < m->n_memberships; i++)
		if (check_membership(m->memberships[i], m->socket->family) < 0)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an improper membership in a multicast group");
	return 0;
}

static struct sockaddr_storage make_address(const ProtobufCBinaryData *bytes)
{
	struct sockaddr_storage a = {.ss_family = bytes->len == sizeof(struct in_addr) ? AF_INET
										       : AF_INET6};

	memcpy(address_bytes(&a), bytes->data, bytes->len);
	return a;
}

/* The first source of those that are to be included joins the group, so there is no moment in which
 * others could send. */
static int join(int fd, uint32_t index, const Reprise__MulticastMembership *x)
{
	struct group_req all = {.gr_interface = index, .gr_group = make_address(&x->group)};
	struct group_source_req one = {.gsr_interface = index, .gsr_group = all.gr_group};
	int level = level_of(&all.gr_group);

	if (!x->include && setsockopt(fd, level, MCAST_JOIN_GROUP, &all, sizeof(all)) < 0)
		return -errno;
	for (size_t i = 0; i < x->n_sources; i++) {
		one.gsr_source = make_address(&x->sources[i]);
		if (setsockopt(fd, level, x->include ? MCAST_JOIN_SOURCE_GROUP : MCAST_BLOCK_SOURCE,
			       &one, sizeof(one)) < 0)
			return -errno;
	}
	return 0;
}

int multicast_restore(int fd, const Reprise__InetSocket *m, struct error *e)
{
	for (size_t i = 0; i < m->n_memberships; i++) {
		const Reprise__MulticastMembership *x = m->memberships[i];
		uint32_t index = if_nametoindex(x->interface);
		int r = index ? join(fd, index, x) : -ENODEV;
		char text[80];

		if (r == 0)
			continue;
		format_group(x->group.len == sizeof(struct in_addr) ? AF_INET : AF_INET6,
			     x->group.data, x->interface, text, sizeof(text));
		return error_errno(e, r, E_RESTORE, "cannot join multicast group %s", text);
	}
	return 0;
}
