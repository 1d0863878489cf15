/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What connect() has chosen of a UDP socket's own address goes when that is connected no more
 * (__udp_disconnect()): a program that then connects it to somebody else has the right address for
 * that. What was bound stays.
 */
#include "net/inet_chosen.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "net/inet.h"
#include "net/kernel_sock.h"

enum { CHOSEN_ADDRESS = 1, CHOSEN_PORT = 2 };

#define OPT_IP_LOCAL_PORT_RANGE 51 /* 6.3 */

int inet_chosen_save(struct checkpoint *c, int fd, Reprise__InetSocket *m, struct scratch *s,
		     struct error *e)
{
	struct kernel_memory *k = NULL;
	uint8_t locks = 0;
	uint64_t sk;

	/* Who may not look there cannot know. */
	if (!m->remote.len || !inet_is_udp(m->socket) || kernel_sock_memory(c, &k) < 0 ||
	    kernel_sock(k, fd, &sk) < 0 ||
	    kernel_member(k, sk, "sock", "sk_userlocks", &locks, sizeof(locks)) < 0 ||
	    locks & SOCK_BINDADDR_LOCK)
		return 0;
	if (!m->hidden)
		m->hidden = scratch_message(s, Reprise__InetHidden, reprise__inet_hidden__init);
	if (!m->hidden)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for options");
	m->hidden->chosen = CHOSEN_ADDRESS | (locks & SOCK_BINDPORT_LOCK ? 0 : CHOSEN_PORT);
	return 0;
}

bool inet_chosen_valid(const Reprise__InetSocket *m)
{
	return !m->hidden || !m->hidden->chosen ||
	       (inet_is_udp(m->socket) && m->hidden->chosen <= (CHOSEN_ADDRESS | CHOSEN_PORT));
}

/* ---- restart ---- */

struct own {
	int family;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static struct own own_of(const struct sockaddr *a)
{
	struct own o = {.family = a->sa_family};

	if (o.family == AF_INET)
		memcpy(&o.in, a, sizeof(o.in));
	else
		memcpy(&o.in6, a, sizeof(o.in6));
	return o;
}

static in_port_t port_of(const struct own *o)
{
	return o->family == AF_INET ? o->in.sin_port : o->in6.sin6_port;
}

static bool same_address(const struct own *a, const struct own *b)
{
	return a->family == AF_INET ? a->in.sin_addr.s_addr == b->in.sin_addr.s_addr
				    : memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr,
					     sizeof(a->in6.sin6_addr)) == 0;
}

static socklen_t size_of(const struct own *o)
{
	return o->family == AF_INET ? sizeof(o->in) : sizeof(o->in6);
}

static void disconnect(int fd)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};

	ignore(connect(fd, &none, sizeof(none)), "it was not connected, then");
}

/* Connects it; which address it has then. */
static int connect_to(int fd, const struct own *local, const struct sockaddr *remote,
		      struct own *ret)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	if (connect(fd, remote, size_of(local)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return -errno;
	*ret = own_of((struct sockaddr *)&a);
	return 0;
}

/* Of a range with one port that one is chosen; EAGAIN where it is in use (inet_autobind()). */
static int connect_by_range(int fd, const struct own *local, const struct sockaddr *remote)
{
	const uint32_t port = ntohs(port_of(local)), one = port | port << 16;
	uint32_t range = 0;
	socklen_t len = sizeof(range);
	struct own is;
	int r;

	if (getsockopt(fd, IPPROTO_IP, OPT_IP_LOCAL_PORT_RANGE, &range, &len) < 0 ||
	    setsockopt(fd, IPPROTO_IP, OPT_IP_LOCAL_PORT_RANGE, &one, sizeof(one)) < 0)
		return 0;
	r = connect_to(fd, local, remote, &is);
	if (r == 0)
		r = same_address(&is, local) && port_of(&is) == port_of(local);
	if (r == 0)
		disconnect(fd);
	ignore(setsockopt(fd, IPPROTO_IP, OPT_IP_LOCAL_PORT_RANGE, &range, sizeof(range)),
	       "it was so");
	return r == -EAGAIN ? -EADDRINUSE : r < 0 ? 0 : r;
}

int inet_chosen_restore(int fd, const Reprise__InetSocket *m, const struct sockaddr *local,
			const struct sockaddr *remote)
{
	struct own wanted, any, is;
	bool same;

	if (!m->hidden || !(m->hidden->chosen & CHOSEN_ADDRESS))
		return 0;
	wanted = own_of(local);
	same = connect_to(fd, &wanted, remote, &is) == 0 && same_address(&is, &wanted);
	disconnect(fd);
	if (!same)
		return 0;
	if (m->hidden->chosen & CHOSEN_PORT)
		return connect_by_range(fd, &wanted, remote);
	any = (struct own){.family = wanted.family,
			   .in = {.sin_family = AF_INET, .sin_port = port_of(&wanted)},
			   .in6 = {.sin6_family = AF_INET6, .sin6_port = port_of(&wanted)}};
	if (bind(fd,
		 any.family == AF_INET ? (struct sockaddr *)&any.in : (struct sockaddr *)&any.in6,
		 size_of(&any)) < 0)
		return errno == EADDRINUSE ? -EADDRINUSE : 0;
	return connect_to(fd, &wanted, remote, &is) < 0 ? -errno : 1;
}
