/* SPDX-License-Identifier: Apache-2.0 */
/* AF_VSOCK: sockets that are not connected, bound or not, and those that listen. */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/bpf_attached.h"
#include "net/socket.h"
#include "net/socket_kinds.h"

#define BACKLOG 4096 /* the kernel does not tell what it was */

static bool vsock_match(const struct file_seen *f)
{
	return socket_family(f) == AF_VSOCK;
}

static int get(int fd, int name, void *ret, size_t size, struct error *e)
{
	socklen_t len = (socklen_t)size;

	if (getsockopt(fd, AF_VSOCK, name, ret, &len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "option %d of AF_VSOCK", name);
	return 0;
}

static int save_options(int fd, Reprise__VsockSocket *m, struct error *e)
{
	struct timeval timeout = {};
	int r = get(fd, SO_VM_SOCKETS_BUFFER_SIZE, &m->buffer_size, sizeof(m->buffer_size), e);

	if (r >= 0)
		r = get(fd, SO_VM_SOCKETS_BUFFER_MIN_SIZE, &m->buffer_min, sizeof(m->buffer_min),
			e);
	if (r >= 0)
		r = get(fd, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &m->buffer_max, sizeof(m->buffer_max),
			e);
	if (r >= 0)
		r = get(fd, SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout, sizeof(timeout), e);
	m->timeout_sec = timeout.tv_sec;
	m->timeout_usec = timeout.tv_usec;
	return r;
}

/* One that is not connected, and not about to be, is writable (vsock_poll()). */
static int refuse_states(int fd, const Reprise__VsockSocket *m, struct error *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
	struct sockaddr_vm peer;
	socklen_t len = sizeof(peer);

	if (m->socket->type == SOCK_DGRAM)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE, "it is for datagrams");
	if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it is connected to port %u of machine %u", peer.svm_port,
				 peer.svm_cid);
	if (poll(&p, 1, 0) < 0 || p.revents != (m->listening ? 0 : POLLOUT))
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "a connection waits to be accepted or made there, has ended or "
				 "has failed");
	return 0;
}

static int vsock_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			    struct scratch *s, struct error *e)
{
	Reprise__VsockSocket *m =
		scratch_message(s, Reprise__VsockSocket, reprise__vsock_socket__init);
	int listening = 0, r;
	socklen_t len = sizeof(listening);

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket");
	msg->vsock = m;
	if (getsockopt(f->local, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "SO_ACCEPTCONN");
	m->listening = listening;
	r = socket_checkpoint(c, f, &m->socket, s, e);
	if (r >= 0)
		r = refuse_states(f->local, m, e);
	if (r >= 0)
		r = save_options(f->local, m, e);
	return r < 0 ? r : socket_address(f->local, getsockname, &m->local, s, e);
}

/* ---- restart ---- */

static int vsock_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__VsockSocket *m = msg->vsock;
	const struct sockaddr_vm *at;

	if (!m || m->local.len != sizeof(*at))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper socket of AF_VSOCK");
	at = (const struct sockaddr_vm *)m->local.data;
	if (at->svm_family != AF_VSOCK)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper address of AF_VSOCK");
	return socket_validate(m->socket, AF_VSOCK, e);
}

static int set(int fd, int name, const void *value, size_t size, struct error *e)
{
	if (setsockopt(fd, AF_VSOCK, name, value, (socklen_t)size) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set option %d of AF_VSOCK", name);
	return 0;
}

/* The size must lie between the other two at all times. */
static int set_options(int fd, const Reprise__VsockSocket *m, struct error *e)
{
	const struct timeval timeout = {.tv_sec = m->timeout_sec, .tv_usec = m->timeout_usec};
	int r = set(fd, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &m->buffer_max, sizeof(m->buffer_max), e);

	if (r >= 0)
		r = set(fd, SO_VM_SOCKETS_BUFFER_MIN_SIZE, &m->buffer_min, sizeof(m->buffer_min),
			e);
	if (r >= 0)
		r = set(fd, SO_VM_SOCKETS_BUFFER_SIZE, &m->buffer_size, sizeof(m->buffer_size), e);
	return r < 0 ? r : set(fd, SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout, sizeof(timeout), e);
}

static int bind_and_listen(struct restart *r, int fd, const Reprise__VsockSocket *m,
			   struct error *e)
{
	const struct sockaddr_vm *at = (const struct sockaddr_vm *)m->local.data;
	int res = 0;

	if (at->svm_port == VMADDR_PORT_ANY)
		return 0;
	do
		res = bind(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 ? -errno : 0;
	while (res == -EADDRINUSE && files_restart_patience(r));
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot bind a socket to port %u of AF_VSOCK",
				   at->svm_port);
	if (m->listening && listen(fd, BACKLOG) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot listen");
	return 0;
}

static int vsock_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			 struct error *e)
{
	const Reprise__VsockSocket *m = msg->vsock;
	_cleanup_(close_fd) int fd = -EBADF;
	int res = socket_make(r, m->socket, &fd, e);

	if (res >= 0)
		res = socket_set_options(fd, m->socket, e);
	if (res >= 0)
		res = bpf_attached_restore(r, fd, m->socket, e);
	if (res >= 0)
		res = set_options(fd, m, e);
	if (res >= 0)
		res = bind_and_listen(r, fd, m, e);
	if (res >= 0)
		res = socket_settle(fd, m->socket, e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void vsock_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__VsockSocket *m = msg->vsock;
	const struct sockaddr_vm *at =
		m && m->local.len == sizeof(*at) ? (const struct sockaddr_vm *)m->local.data : NULL;

	if (!at || at->svm_port == VMADDR_PORT_ANY)
		snprintf(buf, size, "not bound");
	else
		snprintf(buf, size, "port %u, %s", at->svm_port,
			 m->listening ? "listening" : "not connected");
}

const struct file_ops vsock_file_ops = {
	.kind = FILE_VSOCK,
	.name = "vsock socket",
	.support = "bound or not, listening (with a backlog of 4096); connections are refused",
	.match = vsock_match,
	.checkpoint = vsock_checkpoint,
	.validate = vsock_validate,
	.restart = vsock_restart,
	.after_tasks = true, /* as late as can be: the port may be in use till then */
	.describe = vsock_describe,
};
