/* SPDX-License-Identifier: Apache-2.0 */
/* Options of internet sockets that no getsockopt() tells: struct inet_sock and ipv6_pinfo do. */
#include "net/inet_hidden.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "net/inet.h"
#include "net/inet_chosen.h"
#include "net/inet_numbers.h"
#include "net/kernel_sock.h"
#include "net/socket.h"

#define OPT_SO_BUSY_POLL_BUDGET	 70
#define DEFAULT_BUSY_POLL_BUDGET 8 /* BUSY_POLL_BUDGET of include/net/busy_poll.h */
#define ANYCAST_MAX		 1024

#define SOCK_MAX 4096 /* bytes of struct inet_sock, and of ipv6_pinfo: read at once */

struct image {
	uint8_t bytes[SOCK_MAX];
	size_t size;
};

struct reader {
	struct kernel_memory *k;
	struct scratch *s;
	struct image sk, v6; /* struct inet_sock; struct ipv6_pinfo, of no size if it has none */
	Reprise__InetHidden *m;
	bool any; /* something is not as of a new socket */
};

/* 0 and no interface; the name of one that is there; an error. */
static int name_of(struct reader *rd, int index, char **ret)
{
	char name[IF_NAMESIZE];

	if (!index)
		return 0;
	if (!if_indextoname((unsigned int)index, name))
		return -ENODEV;
	*ret = scratch_string(rd->s, name);
	return *ret ? 0 : -ENOMEM;
}

static int copy(struct reader *rd, ProtobufCBinaryData *ret, const void *data, size_t len)
{
	ret->data = scratch_copy(rd->s, data, len);
	ret->len = ret->data ? len : 0;
	return ret->data ? 0 : -ENOMEM;
}

static int member(const struct reader *rd, const struct image *from, const char *structure,
		  const char *name, void *buf, size_t size)
{
	int is = 0, offset = kernel_offset_size(rd->k, structure, name, &is);

	if (offset < 0)
		return offset;
	if ((size_t)is != size || (size_t)offset + size > from->size)
		return -EOPNOTSUPP;
	memcpy(buf, from->bytes + offset, size);
	return 0;
}

static int read_common(struct reader *rd)
{
	uint16_t budget = DEFAULT_BUSY_POLL_BUDGET;
	uint32_t address = 0;
	int index = 0, r;

	/* Kernels without CONFIG_NET_RX_BUSY_POLL have none. */
	r = member(rd, &rd->sk, "sock", "sk_busy_poll_budget", &budget, sizeof(budget));
	if (r == -ENOENT)
		budget = DEFAULT_BUSY_POLL_BUDGET;
	else if (r < 0)
		return r;
	rd->m->busy_poll_budget = budget == DEFAULT_BUSY_POLL_BUDGET ? 0 : budget;
	rd->any |= rd->m->busy_poll_budget != 0;
	r = member(rd, &rd->sk, "inet_sock", "mc_index", &index, sizeof(index));
	if (r < 0 || !index)
		return r;
	r = member(rd, &rd->sk, "inet_sock", "mc_addr", &address, sizeof(address));
	if (r >= 0)
		r = copy(rd, &rd->m->multicast_address, &address, sizeof(address));
	if (r >= 0)
		r = name_of(rd, index, &rd->m->multicast_interface);
	/* By an interface that has gone nothing is sent, and by default neither. */
	rd->any |= r >= 0;
	return r == -ENODEV ? 0 : r;
}

static int add_anycast(struct reader *rd, uint64_t at, uint64_t *next)
{
	static const char type[] = "ipv6_ac_socklist";
	Reprise__InetAnycast *x =
		scratch_message(rd->s, Reprise__InetAnycast, reprise__inet_anycast__init);
	struct in6_addr address;
	int index, r;

	if (!x)
		return -ENOMEM;
	r = kernel_member(rd->k, at, type, "acl_addr", &address, sizeof(address));
	if (r >= 0)
		r = kernel_member(rd->k, at, type, "acl_ifindex", &index, sizeof(index));
	if (r >= 0)
		r = kernel_member(rd->k, at, type, "acl_next", next, sizeof(*next));
	if (r >= 0)
		r = copy(rd, &x->address, &address, sizeof(address));
	if (r >= 0)
		r = name_of(rd, index, &x->interface);
	if (r >= 0)
		rd->m->anycast[rd->m->n_anycast++] = x;
	return r == -ENODEV ? 0 : r;
}

static int read_anycast(struct reader *rd)
{
	uint64_t at;
	int r = member(rd, &rd->v6, "ipv6_pinfo", "ipv6_ac_list", &at, sizeof(at));

	if (r < 0 || !at)
		return r;
	rd->any = true;
	rd->m->anycast = scratch_alloc(rd->s, ANYCAST_MAX * sizeof(*rd->m->anycast));
	if (!rd->m->anycast)
		return -ENOMEM;
	while (r >= 0 && at)
		r = rd->m->n_anycast < ANYCAST_MAX ? add_anycast(rd, at, &at) : -E2BIG;
	return r;
}

static int read_v6(struct reader *rd)
{
	static const struct in6_pktinfo none;
	struct in6_pktinfo source;
	int r = member(rd, &rd->v6, "ipv6_pinfo", "sticky_pktinfo", &source, sizeof(source));

	if (r >= 0)
		r = member(rd, &rd->v6, "ipv6_pinfo", "frag_size", &rd->m->mtu, sizeof(rd->m->mtu));
	if (r < 0)
		return r;
	rd->any |= rd->m->mtu != 0;
	if (memcmp(&source, &none, sizeof(none)) != 0) {
		rd->any = true;
		r = copy(rd, &rd->m->source, &source.ipi6_addr, sizeof(source.ipi6_addr));
		if (r >= 0)
			r = name_of(rd, (int)source.ipi6_ifindex, &rd->m->source_interface);
	}
	return r < 0 ? r : read_anycast(rd);
}

/* The numbers of the next ones, for which notices on the error queue come. */
static int read_numbers(struct reader *rd, int fd, const char **obstacle)
{
	uint32_t flags = 0;
	socklen_t len = sizeof(flags);
	int r = member(rd, &rd->sk, "sock", "sk_zckey", &rd->m->zerocopies,
		       sizeof(rd->m->zerocopies));

	if (r >= 0 && getsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, &len) == 0 &&
	    (flags & SOF_TIMESTAMPING_OPT_ID))
		r = member(rd, &rd->sk, "sock", "sk_tskey", &rd->m->stamps, sizeof(rd->m->stamps));
	if (rd->m->zerocopies > INET_NUMBERS_MAX || rd->m->stamps > INET_NUMBERS_MAX)
		*obstacle = "it has sent so many datagrams with numbers (MSG_ZEROCOPY, "
			    "SOF_TIMESTAMPING_OPT_ID) that to count there again would take too "
			    "long";
	rd->any |= rd->m->zerocopies || rd->m->stamps;
	return r;
}

/* The keys of a socket that listens are listed (inet_diag.c), of others they are not. */
static int find_keys(struct reader *rd, int fd, const char **ret)
{
	static const struct {
		const char *member, *option;
	} kinds[] = {{"md5sig_info", "it has keys for signatures (TCP_MD5SIG), which cannot be "
				     "restored"},
		     {"ao_info", "it has keys for signatures (TCP_AO_ADD_KEY), which cannot be "
				 "restored"}};
	int r = 0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && r >= 0; i++) {
		int offset = kernel_offset(rd->k, "tcp_sock", kinds[i].member);
		uint64_t keys = 0;

		if (offset < 0) /* a kernel that is built without */
			continue;
		r = kernel_of_sock(rd->k, fd, offset, &keys, sizeof(keys));
		*ret = keys ? kinds[i].option : *ret;
	}
	return r;
}

/* What nobody could set as it is. */
static int find_obstacle(struct reader *rd, int fd, const Reprise__Socket *sock, const char **ret)
{
	uint64_t policies[2] = {}, labels = 0, notice = 0;
	int r = member(rd, &rd->sk, "sock", "sk_policy", policies, sizeof(policies));

	if (r == -ENOENT) /* a kernel without CONFIG_XFRM */
		r = 0;
	if (r >= 0 && (policies[0] || policies[1]))
		*ret = "it has rules of IPsec of its own (IP_XFRM_POLICY), which cannot be read";
	if (r >= 0 && rd->v6.size) {
		r = member(rd, &rd->sk, "inet_sock", "ipv6_fl_list", &labels, sizeof(labels));
		if (r == -ENOENT) /* some time before 6.18 */
			r = member(rd, &rd->v6, "ipv6_pinfo", "ipv6_fl_list", &labels,
				   sizeof(labels));
	}
	if (labels)
		*ret = "it has labels of flows (IPV6_FLOWLABEL_MGR), which others may have too";
	if (r >= 0 && rd->v6.size)
		r = member(rd, &rd->v6, "ipv6_pinfo", "rxpmtu", &notice, sizeof(notice));
	if (notice)
		*ret = "a notice waits to be read there of how much a path takes at once "
		       "(IPV6_RECVPATHMTU)";
	/* struct mptcp_sock is none, and such a socket takes no keys. */
	return r >= 0 && sock->protocol == IPPROTO_TCP && inet_is_tcp(sock) ? find_keys(rd, fd, ret)
									    : r;
}

static int set_size(struct image *ret, int size)
{
	if (size < 0)
		return size;
	ret->size = (size_t)size;
	return ret->size > SOCK_MAX ? -EOPNOTSUPP : 0;
}

static int read_all(struct reader *rd, int fd, uint32_t family)
{
	uint64_t v6 = 0;
	int r = set_size(&rd->sk, kernel_size(rd->k, "inet_sock"));

	if (r >= 0)
		r = kernel_of_sock(rd->k, fd, 0, rd->sk.bytes, rd->sk.size);
	if (r >= 0)
		r = read_common(rd);
	if (r < 0 || family != AF_INET6)
		return r;
	r = member(rd, &rd->sk, "inet_sock", "pinet6", &v6, sizeof(v6));
	if (r < 0 || !v6)
		return r;
	r = set_size(&rd->v6, kernel_size(rd->k, "ipv6_pinfo"));
	if (r >= 0)
		r = kernel_read(rd->k, v6, rd->v6.bytes, rd->v6.size);
	return r < 0 ? r : read_v6(rd);
}

/* Whoever receives takes the notice, also who only looks (udpv6_recvmsg()), and nothing tells of
 * it. */
static int refuse_untold(int fd, const Reprise__Socket *sock, struct error *e)
{
	int on = 0, r = 0;

	if (sock->family == AF_INET6 && !inet_is_tcp(sock))
		r = socket_number(fd, IPPROTO_IPV6, IPV6_RECVPATHMTU, &on, e);
	if (r >= 0 && on)
		r = error_set(e, -EPERM, E_PERMISSION,
			      "it wants to be told how much a path takes at once "
			      "(IPV6_RECVPATHMTU), and whether it is still to be told, only the "
			      "memory of the kernel tells");
	return r < 0 ? r : 0;
}

int inet_hidden_save(struct checkpoint *c, int fd, Reprise__InetSocket *m, struct scratch *s,
		     struct error *e)
{
	const char *obstacle = NULL;
	struct reader rd;
	int r;

	rd.s = s;
	rd.any = false;
	rd.v6.size = 0;
	if (kernel_sock_memory(c, &rd.k) < 0)
		return refuse_untold(fd, m->socket, e);
	rd.m = scratch_message(s, Reprise__InetHidden, reprise__inet_hidden__init);
	if (!rd.m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for options");
	r = read_all(&rd, fd, m->socket->family);
	if (r >= 0 && inet_is_udp(m->socket))
		r = read_numbers(&rd, fd, &obstacle);
	if (r >= 0)
		r = find_obstacle(&rd, fd, m->socket, &obstacle);
	if (obstacle)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE, "%s", obstacle);
	if (r == -ENODEV)
		return error_set(e, r, E_FILE_STATE,
				 "it sends from a network interface that has gone (IPV6_PKTINFO)");
	if (r < 0)
		return error_errno(e, r, E_FILE_STATE, "options of it cannot be read");
	if (rd.any)
		m->hidden = rd.m;
	return 0;
}

/* ---- restart ---- */

int inet_hidden_validate(const Reprise__InetSocket *m, struct error *e)
{
	const Reprise__InetHidden *h = m->hidden;
	bool good = !h || ((!h->multicast_address.len ||
			    h->multicast_address.len == sizeof(struct in_addr)) &&
			   (!h->source.len || h->source.len == sizeof(struct in6_addr)) &&
			   h->mtu <= INT32_MAX && h->busy_poll_budget <= UINT16_MAX &&
			   h->zerocopies <= INET_NUMBERS_MAX && h->stamps <= INET_NUMBERS_MAX &&
			   (inet_is_udp(m->socket) || (!h->zerocopies && !h->stamps)));

	for (size_t i = 0; good && h && i < h->n_anycast; i++)
		good = h->anycast[i]->address.len == sizeof(struct in6_addr);
	return good && inet_chosen_valid(m)
		       ? 0
		       : error_set(e, -EBADMSG, E_IMAGE_INVALID, "improper options of a socket");
}

static int set(int fd, int level, int name, const void *value, size_t len)
{
	return setsockopt(fd, level, name, value, (socklen_t)len) < 0 ? -errno : 0;
}

static int set_common(int fd, const Reprise__InetHidden *h)
{
	struct ip_mreqn by = {.imr_ifindex = (int)if_nametoindex(h->multicast_interface)};
	int budget = (int)h->busy_poll_budget, r = 0;

	if (budget)
		r = set(fd, SOL_SOCKET, OPT_SO_BUSY_POLL_BUDGET, &budget, sizeof(budget));
	if (r < 0 || !h->multicast_address.len)
		return r;
	memcpy(&by.imr_address, h->multicast_address.data, sizeof(by.imr_address));
	return by.imr_ifindex ? set(fd, IPPROTO_IP, IP_MULTICAST_IF, &by, sizeof(by)) : -ENODEV;
}

static int set_v6(int fd, const Reprise__InetHidden *h)
{
	struct in6_pktinfo source = {.ipi6_ifindex = if_nametoindex(h->source_interface)};
	int mtu = (int)h->mtu, r = 0;

	if (h->source.len) {
		memcpy(&source.ipi6_addr, h->source.data, sizeof(source.ipi6_addr));
		r = h->source_interface[0] && !source.ipi6_ifindex
			    ? -ENODEV
			    : set(fd, IPPROTO_IPV6, IPV6_PKTINFO, &source, sizeof(source));
	}
	if (r >= 0 && mtu)
		r = set(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, sizeof(mtu));
	/* The newest comes first in the list of the kernel (ipv6_sock_ac_join()). */
	for (size_t i = h->n_anycast; i-- > 0 && r >= 0;) {
		struct ipv6_mreq join = {.ipv6mr_interface =
						 if_nametoindex(h->anycast[i]->interface)};

		memcpy(&join.ipv6mr_multiaddr, h->anycast[i]->address.data,
		       sizeof(join.ipv6mr_multiaddr));
		r = join.ipv6mr_interface
			    ? set(fd, IPPROTO_IPV6, IPV6_JOIN_ANYCAST, &join, sizeof(join))
			    : -ENODEV;
	}
	return r;
}

int inet_hidden_restore(int fd, const Reprise__InetSocket *m, struct error *e)
{
	int r = m->hidden ? set_common(fd, m->hidden) : 0;

	if (r >= 0 && m->hidden && m->socket->family == AF_INET6)
		r = set_v6(fd, m->hidden);
	return r < 0 ? error_errno(e, r, E_RESTORE,
				   "cannot set options of a socket that belong to interfaces and "
				   "addresses of the machine")
		     : 0;
}
