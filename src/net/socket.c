/* SPDX-License-Identifier: Apache-2.0 */
#include "net/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <pthread.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/bpf_attached.h"
#include "net/kernel_sock.h"
#include "net/sockopt.h"
#include "ns/cgroup_visit.h"

int socket_family(const struct file_seen *f)
{
	int family;
	socklen_t len = sizeof(family);

	if (!S_ISSOCK(f->st.st_mode) || (f->flags & O_PATH) ||
	    getsockopt(f->local, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0)
		return -1;
	return family;
}

static int get_int(int fd, int name, int *ret, struct error *e)
{
	socklen_t len = sizeof(*ret);

	if (getsockopt(fd, SOL_SOCKET, name, ret, &len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "getsockopt %d", name);
	return 0;
}

#define TRIES 5

int socket_put_back(int fd, int name, int value, struct error *e)
{
	for (int i = 0; i < TRIES; i++)
		if (setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)) == 0)
			return 0;
	return error_errno(e, -errno, E_SYSTEM, "cannot set option %d of a socket back", name);
}

int socket_number(int fd, int level, int name, int *ret, struct error *e)
{
	int value;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, level, name, &value, &len) < 0)
		return socket_unsure(errno)
			       ? error_errno(e, -errno, E_SYSTEM,
					     "cannot read option %d of level %d of a socket", name,
					     level)
			       : 0;
	*ret = value;
	return 1;
}

/* The length is counted in instructions, in both directions (sk_get_filter()). */
static int save_filter(struct checkpoint *c, const struct file_seen *f, Reprise__Socket *m,
		       struct scratch *s, struct error *e)
{
	const int fd = f->local;
	socklen_t n = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n) < 0)
		return errno == EACCES ? bpf_attached_note(c, f, m, e) : 0;
	if (!n)
		return 0;
	m->filter.len = n * sizeof(struct sock_filter);
	m->filter.data = scratch_alloc(s, m->filter.len);
	if (!m->filter.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket filter");
	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, m->filter.data, &n) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot read the filter of a socket");
	return 0;
}

static uint64_t namespace_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	/* 5.14; before, a socket of another namespace is not noticed */
	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

/* A task may hold sockets that were made in another network namespace than its own. */
static int check_namespace(struct checkpoint *c, int fd, struct error *e)
{
	uint64_t *own = &c->files->netns;

	if (!*own) {
		_cleanup_(close_fd) int fresh = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

		*own = fresh < 0 ? 0 : namespace_of(fresh);
	}
	if (namespace_of(fd) != *own)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it belongs to another network namespace than the task");
	return 0;
}

int socket_checkpoint(struct checkpoint *c, const struct file_seen *f, Reprise__Socket **ret,
		      struct scratch *s, struct error *e)
{
	Reprise__Socket *m = scratch_message(s, Reprise__Socket, reprise__socket__init);
	int r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket");
	*ret = m;
	r = check_namespace(c, f->local, e);
	if (r >= 0)
		r = get_int(f->local, SO_DOMAIN, &m->family, e);
	if (r >= 0)
		r = get_int(f->local, SO_TYPE, &m->type, e);
	if (r >= 0)
		r = get_int(f->local, SO_PROTOCOL, &m->protocol, e);
	if (r < 0)
		return r;
	m->uid = f->st.st_uid;
	m->gid = f->st.st_gid;
	m->mode = f->st.st_mode & 07777;
	if (c->own_groups)
		m->group = kernel_sock_group(c, f->local);
	r = save_filter(c, f, m, s, e);
	return r < 0 ? r : sockopt_save(f->local, m, &c->files->sockopts, s, e);
}

int socket_validate(const Reprise__Socket *m, int family, struct error *e)
{
	if (!m || (family >= 0 && m->family != family) || m->type < 1 || m->type > SOCK_PACKET)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a socket of an improper kind");
	if (m->filter.len % sizeof(struct sock_filter) || m->filter.len > 8 * BPF_MAXINSNS)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a socket with an improper filter");
	return sockopt_validate(m, e);
}

int socket_set_owner(int fd, const Reprise__Socket *m, struct error *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat of a socket");
	if ((st.st_uid != m->uid || st.st_gid != m->gid) && fchown(fd, m->uid, m->gid) < 0)
		return error_errno(e, -errno, E_CREDENTIALS,
				   "cannot give a socket to user %u, group %u", m->uid, m->gid);
	if ((st.st_mode & 07777) != m->mode && fchmod(fd, m->mode & 07777) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the mode of a socket");
	return 0;
}

struct making {
	const Reprise__Socket *m;
	int fd; /* or a negative error */
};

static void *make(void *arg)
{
	struct making *x = arg;

	x->fd = socket(x->m->family, x->m->type | SOCK_CLOEXEC, x->m->protocol);
	x->fd = x->fd < 0 ? -errno : x->fd;
	return NULL;
}

static void *make_as_owner(void *arg)
{
	const struct making *x = arg;

	setfsgid(x->m->gid);
	setfsuid(x->m->uid);
	return make(arg);
}

/*
 * Rules of a firewall go by the user for whom the description was opened (f_cred: `meta skuid`, `-m
 * owner`), which fchown() does not change. A process becomes undumpable by such a change
 * (commit_creds()), and only a thread of its own forgets it.
 */
static int make_owned(const Reprise__Socket *m)
{
	bool apart = (m->family == AF_INET || m->family == AF_INET6) &&
		     (m->uid != geteuid() || m->gid != getegid());
	struct making x = {.m = m};
	int dumpable = prctl(PR_GET_DUMPABLE), r;
	pthread_t thread;

	if (!apart) {
		make(&x);
		return x.fd;
	}
	r = pthread_create(&thread, NULL, make_as_owner, &x);
	if (r)
		return -r;
	pthread_join(thread, NULL);
	if (dumpable == 1)
		prctl(PR_SET_DUMPABLE, 1);
	return x.fd;
}

int socket_make(const struct restart *restart, const Reprise__Socket *m, int *ret_fd,
		struct error *e)
{
	int r = cgroup_visit_for_socket(restart, m->group, e);
	_cleanup_(close_fd) int fd = r < 0 ? r : make_owned(m);

	if (r > 0)
		r = cgroup_return_with_socket(restart, e);
	if (r < 0)
		return r;
	if (fd < 0)
		return error_errno(e, fd, fd == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot make a socket of family %d, type %d, protocol %d",
				   m->family, m->type, m->protocol);
	r = socket_set_owner(fd, m, e);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}

static int attach_filter(int fd, const Reprise__Socket *m, struct error *e)
{
	struct sock_fprog prog = {
		.len = (unsigned short)(m->filter.len / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)m->filter.data};

	if (prog.len && setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot attach the filter of a socket");
	return 0;
}

int socket_set_options(int fd, const Reprise__Socket *m, struct error *e)
{
	const int on = 1;
	int r = sockopt_restore(fd, m, e);

	/* That of a Unix socket would judge what is put into its queue. */
	if (r >= 0 && m->family != AF_UNIX)
		r = attach_filter(fd, m, e);
	if (r < 0)
		return r;
	if (m->type == SOCK_STREAM && m->family != AF_UNIX)
		ignore(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)),
		       "bind() will tell if it mattered");
	return 0;
}

int socket_settle(int fd, const Reprise__Socket *m, struct error *e)
{
	int reuse = 0;

	/* Of sockets of ICMP and raw ones it is on from the beginning (INET_PROTOSW_REUSE). */
	if (m->type != SOCK_STREAM || m->family == AF_UNIX)
		return sockopt_restore_late(fd, m, e);
	for (size_t i = 0; i < m->n_options; i++)
		if (m->options[i]->level == SOL_SOCKET && m->options[i]->name == SO_REUSEADDR)
			reuse = 1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse)) < 0)
		return error_errno(e, -errno, E_RESTORE, "SO_REUSEADDR");
	return sockopt_restore_late(fd, m, e);
}

int socket_set_last(int fd, const Reprise__Socket *m, struct error *e)
{
	int r = attach_filter(fd, m, e);

	return r < 0 ? r : sockopt_restore_late(fd, m, e);
}

int socket_address(int fd, int (*get)(int, struct sockaddr *, socklen_t *),
		   ProtobufCBinaryData *ret, struct scratch *s, struct error *e)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	if (get(fd, (struct sockaddr *)&ss, &len) < 0)
		return errno == ENOTCONN ? 0
					 : error_errno(e, -errno, E_SYSTEM, "address of a socket");
	ret->len = len;
	ret->data = scratch_copy(s, &ss, len);
	if (!ret->data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an address");
	return 0;
}
