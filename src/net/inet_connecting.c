/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP sockets that are about to be connected (SYN_SENT). Nothing has been agreed upon with anybody
 * yet. Where a request of io_uring connects one, it is saved as it was before: not connected, bound
 * to what the application has bound it to. The request is submitted again and connects it. Whoever
 * else waits for a connection would have to be told of it, so that all others are refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/inet.h"
#include "net/kernel_sock.h"
#include "net/tcp.h"

int inet_connecting_add(struct checkpoint *c, const struct file_seen *f, struct error *e)
{
	struct tcp_connecting *slot = vec_push(&c->files->tcp_connecting);

	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket");
	*slot = (struct tcp_connecting){.entry = f->entry,
					.fd = fcntl(f->local, F_DUPFD_CLOEXEC, 3)};
	return slot->fd < 0 ? error_errno(e, -errno, E_SYSTEM, "fcntl") : 0;
}

/* What connect() has chosen goes; an address that was bound keeps the port that it got. */
static void keep_bound(Reprise__InetSocket *m, uint8_t locks)
{
	struct sockaddr_in *in = (struct sockaddr_in *)m->local.data;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)m->local.data;

	if (!(locks & (SOCK_BINDADDR_LOCK | SOCK_BINDPORT_LOCK)))
		m->local.len = 0;
	else if (!(locks & SOCK_BINDADDR_LOCK) && m->socket->family == AF_INET)
		in->sin_addr.s_addr = 0;
	else if (!(locks & SOCK_BINDADDR_LOCK))
		memset(&in6->sin6_addr, 0, sizeof(in6->sin6_addr));
}

/* While a socket is being connected, this option tells something else (do_tcp_getsockopt()). */
static void keep_mss(Reprise__Socket *m, int mss)
{
	for (size_t i = 0; i < m->n_options; i++)
		if (mss && m->options[i]->level == IPPROTO_TCP &&
		    m->options[i]->name == TCP_MAXSEG && m->options[i]->value.len == sizeof(mss)) {
			memcpy(m->options[i]->value.data, &mss, sizeof(mss));
			return;
		}
	inet_drop_option(m, IPPROTO_TCP, TCP_MAXSEG);
}

static int claim(struct checkpoint *c, struct tcp_connecting *one, struct error *e)
{
	Reprise__InetSocket *m = one->entry->msg->inet;
	struct kernel_memory *k = NULL;
	uint16_t mss = 0;
	uint8_t locks = 0;
	uint64_t sk;
	int r = kernel_sock_memory(c, &k);

	if (r >= 0)
		r = kernel_sock(k, one->fd, &sk);
	if (r >= 0)
		r = kernel_member(k, sk, "sock", "sk_userlocks", &locks, sizeof(locks));
	if (r >= 0)
		r = kernel_member(k, sk, "tcp_sock", "rx_opt.user_mss", &mss, sizeof(mss));
	if (r < 0)
		return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell how a socket was bound that is about "
				 "to be connected");
	keep_bound(m, locks);
	keep_mss(m->socket, mss);
	one->claimed = true;
	return 0;
}

int inet_connecting_claim(struct checkpoint *c, uint64_t id, struct error *e)
{
	vec_for_each (one, &c->files->tcp_connecting)
		if (one->entry->id == id && !one->claimed)
			return claim(c, one, e);
	return 0;
}

static int check(const struct tcp_connecting *one, struct error *e)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	if (!one->claimed)
		return inet_tcp_refuse(one->entry->msg->inet, TCP_SYN_SENT, e);
	if (getsockopt(one->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "TCP_INFO");
	if (info.tcpi_state == TCP_SYN_SENT)
		return 0;
	return error_set(e, -EBUSY, E_TCP_CONNECTION,
			 "it has been connected while the tasks stood still; try again");
}

int inet_connecting_check(struct checkpoint *c, struct error *e)
{
	int r = 0;

	vec_for_each (one, &c->files->tcp_connecting) {
		if (r >= 0)
			r = check(one, e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, one->entry), e);
	}
	return r;
}

void inet_connecting_cut(struct checkpoint *c)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};

	vec_for_each (one, &c->files->tcp_connecting)
		ignore(connect(one->fd, &none, sizeof(none)), "it has gone already");
	inet_connecting_end(c);
}

void inet_connecting_end(struct checkpoint *c)
{
	vec_for_each (one, &c->files->tcp_connecting)
		close_fd(&one->fd);
	vec_free(&c->files->tcp_connecting);
}
