/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink sockets without anything pending: their port, groups and options. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/netlink.h>
#include <linux/netlink_diag.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "fs/bpf_attached.h"
#include "net/diag.h"
#include "net/genl.h"
#include "net/socket.h"
#include "net/socket_kinds.h"

#define BIND_ATTEMPTS 8

static bool netlink_match(const struct file_seen *f)
{
	return socket_family(f) == AF_NETLINK;
}

/* The answer to AUDIT_GET comes before the acknowledgement, or an error alone. */
static pid_t take_daemon(int fd)
{
	union {
		struct nlmsghdr h;
		char bytes[8192];
	} answer;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, PATIENCE_MS) > 0) {
		ssize_t n = recv(fd, &answer, sizeof(answer), 0);
		const struct audit_status *status = NLMSG_DATA(&answer.h);

		if (n < (ssize_t)sizeof(answer.h) || answer.h.nlmsg_type == NLMSG_ERROR)
			return 0;
		if (answer.h.nlmsg_type == AUDIT_GET &&
		    n >= (ssize_t)NLMSG_LENGTH(offsetof(struct audit_status, rate_limit)))
			return (pid_t)status->pid;
	}
	return 0;
}

/*
 * Who gets the messages of the kernel is noted in the kernel. Nobody in a pid namespace can be that
 * one, nor may ask (audit_netlink_ok()): 0.
 */
static pid_t audit_daemon(void)
{
	_cleanup_(close_fd) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
	const struct nlmsghdr ask = {.nlmsg_len = NLMSG_LENGTH(0),
				     .nlmsg_type = AUDIT_GET,
				     .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK};

	if (fd < 0 || send(fd, &ask, sizeof(ask), 0) != sizeof(ask))
		return 0;
	return take_daemon(fd);
}

static const char *protocol_name(int protocol)
{
	switch (protocol) {
	case NETLINK_USERSOCK:
		return " (between programs)";
	case NETLINK_SELINUX:
		return " (SELinux)";
	case NETLINK_CONNECTOR:
		return " (events of processes and the like)";
	case NETLINK_NETFILTER:
		return " (netfilter)";
	case NETLINK_CRYPTO:
		return " (cryptography)";
	default:
		return "";
	}
}

/*
 * Families in which a socket is nothing but a place to ask and to listen. Others bind state of the
 * kernel to its port, such as the queues of nfnetlink, and do not tell.
 */
static int check_protocol(const struct checkpoint *c, const Reprise__Socket *m, struct error *e)
{
	pid_t daemon;

	switch (m->protocol) {
	case NETLINK_ROUTE:
	case NETLINK_SOCK_DIAG:
	case NETLINK_XFRM:
	case NETLINK_KOBJECT_UEVENT:
	case NETLINK_GENERIC:
		return 0;
	case NETLINK_AUDIT:
		daemon = audit_daemon();
		if (!daemon || !checkpoint_has_task(c, daemon))
			return 0;
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "task %d is the audit daemon of this machine", daemon);
	default:
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "netlink sockets of protocol %d%s cannot be saved", m->protocol,
				 protocol_name(m->protocol));
	}
}

static int save_groups(int fd, Reprise__NetlinkSocket *m, struct scratch *s, struct error *e)
{
	uint32_t bits[64] = {}; /* nlk->ngroups is 1024 at the most */
	socklen_t len = sizeof(bits);

	if (getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, bits, &len) < 0)
		return error_errno(e, -errno, E_KERNEL_TOO_OLD, "NETLINK_LIST_MEMBERSHIPS");
	if (len > sizeof(bits))
		return error_set(e, -E2BIG, E_FILE_STATE, "too many groups");
	m->groups = scratch_alloc(s, sizeof(bits) * 8 * sizeof(*m->groups));
	if (!m->groups)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for groups");
	for (uint32_t i = 0; i < len * 8; i++)
		if (bits[i / 32] & 1u << i % 32)
			m->groups[m->n_groups++] = i + 1;
	return 0;
}

static int save_names(Reprise__NetlinkSocket *m, struct scratch *s, struct error *e)
{
	_cleanup_(genl_groups_free) struct genl_groups all = {};
	int r;

	if (m->socket->protocol != NETLINK_GENERIC || !m->n_groups)
		return 0;
	r = genl_groups_read(&all, e);
	if (r < 0)
		return r;
	m->names = scratch_alloc(s, m->n_groups * sizeof(*m->names));
	if (!m->names)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for groups");
	for (size_t i = 0; i < m->n_groups; i++) {
		const char *name = genl_group_name(&all, m->groups[i]);

		if (!name)
			return error_set(e, -ENOENT, E_FILE_STATE,
					 "it is in group %u of generic netlink, which has gone",
					 m->groups[i]);
		m->names[m->n_names++] = scratch_string(s, name);
		if (!m->names[i])
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for groups");
	}
	return 0;
}

struct flags_of {
	uint64_t ino;
	uint32_t flags; /* NDIAG_FLAG_* */
};

static int take_flags(void *arg, const struct nlmsghdr *h)
{
	const struct netlink_diag_msg *m = NLMSG_DATA(h);
	struct flags_of *of = arg;
	const struct rtattr *a;
	int left;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || m->ndiag_ino != of->ino)
		return 0;
	left = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)));
	for (a = (const void *)(m + 1); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == NETLINK_DIAG_FLAGS && RTA_PAYLOAD(a) >= sizeof(of->flags))
			memcpy(&of->flags, RTA_DATA(a), sizeof(of->flags));
	return 0;
}

/* An option that getsockopt() has not known before 6.5; the list of sockets has always shown it. */
static int save_all_namespaces(const struct file_seen *f, Reprise__Socket *m, struct scratch *s,
			       struct error *e)
{
	const struct netlink_diag_req request = {
		.sdiag_family = AF_NETLINK,
		.sdiag_protocol = (uint8_t)m->protocol,
		.ndiag_show = NDIAG_SHOW_FLAGS,
	};
	struct flags_of of = {.ino = f->st.st_ino};
	int value = 1, r;
	socklen_t len = sizeof(value);
	Reprise__SocketOption *x, **list;

	if (getsockopt(f->local, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &value, &len) == 0)
		return 0;
	r = diag_dump(&request, sizeof(request), "netlink", take_flags, &of, e);
	if (r == -ENOENT)
		error_clear(e); /* this kernel does not list them */
	if (r < 0 || !(of.flags & NDIAG_FLAG_LISTEN_ALL_NSID))
		return r == -ENOENT ? 0 : r;
	x = scratch_message(s, Reprise__SocketOption, reprise__socket_option__init);
	list = scratch_alloc(s, (m->n_options + 1) * sizeof(*list));
	if (!x || !list)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for socket options");
	value = 1;
	x->level = SOL_NETLINK;
	x->name = NETLINK_LISTEN_ALL_NSID;
	x->value.len = sizeof(value);
	x->value.data = scratch_copy(s, &value, sizeof(value));
	if (!x->value.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for socket options");
	memcpy(list, m->options, m->n_options * sizeof(*list));
	list[m->n_options++] = x;
	m->options = list;
	return 0;
}

static int netlink_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	Reprise__NetlinkSocket *m =
		scratch_message(scratch, Reprise__NetlinkSocket, reprise__netlink_socket__init);
	struct pollfd p = {.fd = f->local, .events = POLLIN};
	struct sockaddr_nl at = {}, peer = {};
	socklen_t len = sizeof(at), peer_len = sizeof(peer);
	int r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket");
	msg->netlink = m;
	r = socket_checkpoint(c, f, &m->socket, scratch, e);
	if (r >= 0)
		r = check_protocol(c, m->socket, e);
	if (r >= 0)
		r = save_all_namespaces(f, m->socket, scratch, e);
	if (r < 0)
		return r;
	if (poll(&p, 1, 0) > 0 && (p.revents & (POLLIN | POLLERR)))
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "it holds messages that have not been read yet; try again");
	if (getsockname(f->local, (struct sockaddr *)&at, &len) < 0 ||
	    getpeername(f->local, (struct sockaddr *)&peer, &peer_len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "address of a netlink socket");
	m->port = at.nl_pid;
	m->peer_port = peer.nl_pid;
	m->peer_groups = peer.nl_groups;
	if (m->peer_port)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it is connected to another program (port %u)", m->peer_port);
	r = save_groups(f->local, m, scratch, e);
	return r < 0 ? r : save_names(m, scratch, e);
}

static int netlink_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->netlink)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a netlink socket without message");
	if (msg->netlink->n_names && msg->netlink->n_names != msg->netlink->n_groups)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a netlink socket in unknown groups");
	return socket_validate(msg->netlink->socket, AF_NETLINK, e);
}

/* The port is most often the pid of whoever bound first: where that is taken the kernel chooses. */
static int bind_port(struct restart *r, int fd, const Reprise__NetlinkSocket *m, struct error *e)
{
	struct sockaddr_nl at = {.nl_family = AF_NETLINK, .nl_pid = m->port};

	if (!m->port)
		return 0;
	/* The original may not be quite dead, or go on beside us. */
	for (int i = 0; i < BIND_ATTEMPTS; i++) {
		if (bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
			return 0;
		if (errno != EADDRINUSE || !files_restart_patience(r))
			break;
	}
	at.nl_pid = 0;
	if (errno != EADDRINUSE || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot bind a netlink socket");
	return 0;
}

/* Where messages go that are sent to nobody in particular. */
static int set_peer(int fd, const Reprise__NetlinkSocket *m, struct error *e)
{
	const struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = m->peer_groups};

	if (m->peer_groups && connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot connect a netlink socket");
	return 0;
}

static int join_groups(int fd, const Reprise__NetlinkSocket *m, struct error *e)
{
	_cleanup_(genl_groups_free) struct genl_groups all = {};
	int r = m->n_names ? genl_groups_read(&all, e) : 0;

	if (r < 0)
		return r;
	for (size_t i = 0; i < m->n_groups; i++) {
		uint32_t group = m->n_names ? genl_group_id(&all, m->names[i]) : m->groups[i];

		if (!group)
			return error_set(e, -ENOENT, E_RESTORE,
					 "there is no such group of generic netlink here: %s",
					 m->n_names ? m->names[i] : "0");
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot join netlink group %u",
					   group);
	}
	return 0;
}

static int netlink_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			   struct error *e)
{
	const Reprise__NetlinkSocket *m = msg->netlink;
	_cleanup_(close_fd) int fd = -EBADF;
	int res;

	res = socket_make(r, m->socket, &fd, e);
	if (res >= 0)
		res = socket_set_options(fd, m->socket, e);
	if (res >= 0)
		res = bpf_attached_restore(r, fd, m->socket, e);
	if (res >= 0)
		res = bind_port(r, fd, m, e);
	if (res >= 0)
		res = set_peer(fd, m, e);
	if (res >= 0)
		res = join_groups(fd, m, e);
	if (res >= 0)
		res = socket_settle(fd, m->socket, e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void netlink_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "protocol %d, port %u",
		 msg->netlink && msg->netlink->socket ? msg->netlink->socket->protocol : -1,
		 msg->netlink ? msg->netlink->port : 0);
}

const struct file_ops netlink_file_ops = {
	.kind = FILE_NETLINK,
	.name = "netlink socket",
	.support =
		"route, uevent, sock_diag, xfrm, audit (not of the audit daemon) and generic, without unread messages: port, groups, "
		"options; others are refused",
	.match = netlink_match,
	.checkpoint = netlink_checkpoint,
	.validate = netlink_validate,
	.restart = netlink_restart,
	.after_tasks = true, /* as late as can be: the port may be in use till then */
	.describe = netlink_describe,
};
