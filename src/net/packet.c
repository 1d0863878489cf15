/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_PACKET sockets without packets that wait: interface and protocol,
 * memberships, fanout group, options. Their filters are among what all sockets have.
 */
#include <errno.h>
#include <limits.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/bpf_attached.h"
#include "net/packet_diag.h"
#include "net/packet_ring.h"
#include "net/socket.h"
#include "net/socket_kinds.h"

#ifndef PACKET_VNET_HDR_SZ
#define PACKET_VNET_HDR_SZ 24 /* 6.5 */
#endif

#define ADDRESS_MAX 32 /* MAX_ADDR_LEN of the kernel */
#define FANOUT_ID   0xffff
#define FANOUT_TYPE 0xff

/* All are numbers, and zero in a new socket. */
static const int options[] = {
	PACKET_VERSION,	     PACKET_RESERVE,	     PACKET_LOSS,
	PACKET_AUXDATA,	     PACKET_ORIGDEV,	     PACKET_VNET_HDR,
	PACKET_VNET_HDR_SZ,  PACKET_TIMESTAMP,	     PACKET_TX_HAS_OFF,
	PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING, PACKET_COPY_THRESH,
};

#define NOPTIONS (sizeof(options) / sizeof(options[0]))

static bool packet_match(const struct file_seen *f)
{
	return socket_family(f) == AF_PACKET;
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket");
}

/* ---- checkpoint ---- */

static int find_info(struct checkpoint *c, uint64_t ino, const struct packet_info **ret,
		     struct error *e)
{
	struct packet_table *t = c->files->packets;
	int r;

	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t)
			return no_memory(e);
		c->files->packets = t;
		r = packet_table_read(t, e);
		if (r < 0)
			return r;
	}
	*ret = packet_table_find(t, ino);
	return *ret ? 0 : error_set(e, -ENOENT, E_FILE_STATE, "the kernel does not list it");
}

static void packet_checkpoint_end(struct checkpoint *c)
{
	if (!c->files->packets)
		return;
	packet_table_free(c->files->packets);
	free(c->files->packets);
	c->files->packets = NULL;
}

static int save_options(int fd, const struct packet_info *p, Reprise__PacketSocket *m,
			struct scratch *s, struct error *e)
{
	m->options = scratch_alloc(s, NOPTIONS * sizeof(*m->options));
	if (!m->options)
		return no_memory(e);
	for (size_t i = 0; i < NOPTIONS; i++) {
		int value = (int)p->info.pdi_copy_thresh;
		socklen_t len = sizeof(value);
		Reprise__SocketOption *x;

		if (options[i] != PACKET_COPY_THRESH &&
		    getsockopt(fd, SOL_PACKET, options[i], &value, &len) < 0)
			continue; /* an older kernel, where nobody can have set it */
		if (!value)
			continue;
		x = scratch_message(s, Reprise__SocketOption, reprise__socket_option__init);
		if (!x)
			return no_memory(e);
		x->level = SOL_PACKET;
		x->name = options[i];
		x->value.len = sizeof(value);
		x->value.data = scratch_copy(s, &value, sizeof(value));
		if (!x->value.data)
			return no_memory(e);
		m->options[m->n_options++] = x;
	}
	return 0;
}

static int save_interface(uint32_t index, char **ret, struct scratch *s, struct error *e)
{
	char name[IF_NAMESIZE];

	if (!if_indextoname(index, name))
		return error_set(e, -ENODEV, E_FILE_STATE,
				 "a network interface that it used (%u) has gone", index);
	*ret = scratch_string(s, name);
	return *ret ? 0 : no_memory(e);
}

static int save_memberships(const struct packet_info *p, Reprise__PacketSocket *m,
			    struct scratch *s, struct error *e)
{
	m->memberships = scratch_alloc(s, (p->n_memberships + 1) * sizeof(*m->memberships));
	if (!m->memberships)
		return no_memory(e);
	for (size_t i = p->n_memberships; i > 0; i--) { /* the kernel adds in front */
		const struct packet_diag_mclist *is = &p->memberships[i - 1];
		Reprise__PacketMembership *x = scratch_message(s, Reprise__PacketMembership,
							       reprise__packet_membership__init);
		int r;

		if (!x)
			return no_memory(e);
		r = save_interface(is->pdmc_index, &x->interface, s, e);
		if (r < 0)
			return r;
		x->type = is->pdmc_type;
		x->count = is->pdmc_count;
		x->address.len = is->pdmc_alen < ADDRESS_MAX ? is->pdmc_alen : ADDRESS_MAX;
		x->address.data = scratch_copy(s, is->pdmc_addr, ADDRESS_MAX);
		if (!x->address.data)
			return no_memory(e);
		m->memberships[m->n_memberships++] = x;
	}
	return 0;
}

static int save_fanout(int fd, const struct packet_info *p, Reprise__PacketSocket *m,
		       struct error *e)
{
	uint32_t type = p->fanout >> 16 & FANOUT_TYPE;
	socklen_t len = sizeof(m->fanout);

	if (!p->in_fanout)
		return 0;
	if (type == PACKET_FANOUT_CBPF || type == PACKET_FANOUT_EBPF)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a program distributes packets in its fanout group, and cannot be "
				 "read");
	m->fanout_member = true;
	if (getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &m->fanout, &len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "PACKET_FANOUT");
	return 0;
}

static int save_binding(int fd, const struct packet_info *p, Reprise__PacketSocket *m,
			struct scratch *s, struct error *e)
{
	struct sockaddr_ll at = {};
	socklen_t len = sizeof(at);

	if (getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "address of a packet socket");
	m->protocol = ntohs(at.sll_protocol);
	if (m->protocol && !(p->info.pdi_flags & PDI_RUNNING))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "its network interface is down, or has gone");
	return at.sll_ifindex ? save_interface((uint32_t)at.sll_ifindex, &m->interface, s, e) : 0;
}

static int refuse_states(int fd, const Reprise__Socket *m, const struct packet_info *p,
			 struct error *e)
{
	struct pollfd poll_for = {.fd = fd, .events = POLLIN};
	char byte;

	if (m->type == SOCK_PACKET)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it is of the obsolete type SOCK_PACKET");
	/* An error would be taken by recv(); and poll() speaks of the ring, if there is one. */
	if ((poll(&poll_for, 1, 0) > 0 && (poll_for.revents & POLLERR)) ||
	    recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "it holds packets that have not been read yet, or an error; try "
				 "again");
	return 0;
}

static int packet_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			     struct scratch *s, struct error *e)
{
	Reprise__PacketSocket *m =
		scratch_message(s, Reprise__PacketSocket, reprise__packet_socket__init);
	const struct packet_info *p = NULL;
	int r;

	if (!m)
		return no_memory(e);
	msg->packet = m;
	r = socket_checkpoint(c, f, &m->socket, s, e);
	if (r >= 0)
		r = find_info(c, f->st.st_ino, &p, e);
	if (r >= 0)
		r = refuse_states(f->local, m->socket, p, e);
	if (r >= 0)
		r = save_binding(f->local, p, m, s, e);
	if (r >= 0)
		r = save_options(f->local, p, m, s, e);
	if (r >= 0)
		r = packet_ring_save(c, f->local, p, m, s, e);
	if (r >= 0)
		r = save_memberships(p, m, s, e);
	return r < 0 ? r : save_fanout(f->local, p, m, e);
}

/* ---- restart ---- */

static bool option_valid(const Reprise__SocketOption *x)
{
	bool known = false;

	for (size_t i = 0; i < NOPTIONS; i++)
		known |= x->name == options[i];
	return known && x->level == SOL_PACKET && x->value.len == sizeof(int);
}

static bool membership_valid(const Reprise__PacketMembership *x)
{
	size_t len = strlen(x->interface);

	return len && len < IF_NAMESIZE && x->type <= USHRT_MAX && x->address.len <= ADDRESS_MAX &&
	       x->count && x->count <= USHRT_MAX;
}

static int packet_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__PacketSocket *m = msg->packet;
	bool valid = m && m->protocol <= USHRT_MAX && strlen(m->interface) < IF_NAMESIZE;

	for (size_t i = 0; valid && i < m->n_options; i++)
		valid = option_valid(m->options[i]);
	for (size_t i = 0; valid && i < m->n_memberships; i++)
		valid = membership_valid(m->memberships[i]);
	valid = valid && packet_ring_valid(m);
	if (!valid)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper packet socket");
	return socket_validate(m->socket, AF_PACKET, e);
}

static int index_of(const char *interface, unsigned int *ret, struct error *e)
{
	*ret = *interface ? if_nametoindex(interface) : 0;
	if (*interface && !*ret)
		return error_set(e, -ENODEV, E_RESTORE, "there is no network interface %s here",
				 interface);
	return 0;
}

static int set_options(int fd, const Reprise__PacketSocket *m, struct error *e)
{
	for (size_t i = 0; i < m->n_options; i++) {
		const Reprise__SocketOption *x = m->options[i];

		if (setsockopt(fd, SOL_PACKET, x->name, x->value.data, (socklen_t)x->value.len) < 0)
			return error_errno(e, -errno, E_RESTORE,
					   "cannot set option %d of a packet socket", x->name);
	}
	return 0;
}

static int join(int fd, const Reprise__PacketMembership *x, struct error *e)
{
	struct {
		int index;
		unsigned short type, len;
		unsigned char address[ADDRESS_MAX];
	} req = {.type = (unsigned short)x->type, .len = (unsigned short)x->address.len};
	unsigned int index = 0;
	int r = index_of(x->interface, &index, e);

	if (r < 0)
		return r;
	req.index = (int)index;
	if (x->address.len)
		memcpy(req.address, x->address.data, x->address.len);
	for (uint32_t i = 0; i < x->count; i++)
		if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &req, sizeof(req)) < 0)
			return error_errno(e, -errno, E_RESTORE,
					   "cannot make it a member of a group of %s",
					   x->interface);
	return 0;
}

static int bind_packet(int fd, const Reprise__PacketSocket *m, struct error *e)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET,
				 .sll_protocol = htons((uint16_t)m->protocol)};
	unsigned int index = 0;
	int r = index_of(m->interface, &index, e);

	if (r < 0 || (!m->protocol && !index))
		return r;
	at.sll_ifindex = (int)index;
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot bind a packet socket to %s",
				   index ? m->interface : "all network interfaces");
	return 0;
}

static size_t fanout_members(uint16_t id, struct error *e, int *ret_err)
{
	_cleanup_(packet_table_free) struct packet_table t = {};

	*ret_err = packet_table_read(&t, e);
	return packet_table_fanout(&t, id);
}

/* A group is found by its number alone: one of somebody else would take us in. */
static int join_fanout(struct restart *r, int fd, const Reprise__File *msg, struct error *e)
{
	const Reprise__PacketSocket *m = msg->packet;
	uint16_t id = (uint16_t)(m->fanout & FANOUT_ID);
	size_t ours = 0, all;
	int res;

	if (!m->fanout_member)
		return 0;
	vec_for_each (f, &r->files->files) {
		const Reprise__PacketSocket *other = f->msg->packet;

		ours += f->fd >= 0 && other && other->fanout_member &&
			f->msg->network == msg->network && (other->fanout & FANOUT_ID) == id;
	}
	do
		all = fanout_members(id, e, &res);
	while (res >= 0 && all > ours && files_restart_patience(r));
	if (res < 0)
		return res;
	if (all > ours)
		return error_set(e, -EADDRINUSE, E_RESTORE,
				 "fanout group %u is in use by another program (the original, if "
				 "it still runs)",
				 id);
	if (setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &m->fanout, sizeof(m->fanout)) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot join fanout group %u", id);
	return 0;
}

/* It has no protocol until it is bound, so that nothing comes before all is set. */
static int packet_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			  struct error *e)
{
	const Reprise__PacketSocket *m = msg->packet;
	_cleanup_(close_fd) int fd = -EBADF;
	int res = socket_make(r, m->socket, &fd, e);

	if (res >= 0)
		res = set_options(fd, m, e);
	if (res >= 0)
		res = packet_ring_restore(fd, m, e);
	if (res >= 0)
		res = socket_set_options(fd, m->socket, e);
	if (res >= 0)
		res = bpf_attached_restore(r, fd, m->socket, e);
	for (size_t i = 0; i < m->n_memberships && res >= 0; i++)
		res = join(fd, m->memberships[i], e);
	if (res >= 0)
		res = bind_packet(fd, m, e);
	if (res >= 0)
		res = join_fanout(r, fd, msg, e);
	if (res >= 0)
		res = socket_settle(fd, m->socket, e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void packet_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__PacketSocket *m = msg->packet;

	if (!m || !m->socket)
		snprintf(buf, size, "?");
	else
		snprintf(buf, size, "%s, protocol %#x, %s",
			 m->socket->type == SOCK_RAW ? "raw" : "cooked", m->protocol,
			 *m->interface ? m->interface : "all interfaces");
}

const struct file_ops packet_file_ops = {
	.kind = FILE_PACKET,
	.name = "packet socket",
	.support =
		"interface, protocol, filter, memberships, fanout groups, options; rings "
		"with their mappings (versions 1 to 3, for sending 1 and 2); other unread packets are "
		"refused",
	.match = packet_match,
	.checkpoint = packet_checkpoint,
	.checkpoint_all = packet_map_save,
	.checkpoint_end = packet_checkpoint_end,
	.validate = packet_validate,
	.restart = packet_restart,
	.restart_all = packet_map_restore,
	.after_tasks = true, /* as late as can be: packets come as soon as it is bound */
	.describe = packet_describe,
};
