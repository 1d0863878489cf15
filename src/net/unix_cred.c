/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ids that a Unix socket shows of its peer are those that a task had when it
 * made the connection (init_peercred()): they are put on for that one call, in a thread of its own,
 * as the raw system calls change the ids of their caller only. A server that trusts
 * SO_PEERCRED must not find root where somebody else was.
 */
#include "net/unix_cred.h"

#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct as {
	uid_t uid;
	gid_t gid;
	int (*call)(void *arg);
	void *arg;
	int dressed, result;
};

void unix_cred_save(int fd, Reprise__UnixSocket *m)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.uid == (uid_t)-1)
		return; /* not connected */
	m->peer_cred = true;
	m->peer_uid = cred.uid;
	m->peer_gid = cred.gid;
}

/* The capabilities are lost with the user id 0, but only from those in effect. */
static int raise_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		data[i].effective = data[i].permitted;
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static void *run_as(void *arg)
{
	struct as *as = arg;

	if (syscall(SYS_setresgid, -1, as->gid, -1) < 0 ||
	    syscall(SYS_setresuid, -1, as->uid, -1) < 0)
		as->dressed = -errno;
	else
		as->dressed = raise_capabilities();
	if (as->dressed == 0)
		as->result = as->call(as->arg);
	return NULL;
}

int unix_cred_as(uid_t uid, gid_t gid, int (*call)(void *arg), void *arg, struct error *e)
{
	struct as as = {.uid = uid, .gid = gid, .call = call, .arg = arg};
	pthread_t thread;
	int r;

	if (as.uid == geteuid() && as.gid == getegid())
		return call(arg);
	r = pthread_create(&thread, NULL, run_as, &as);
	if (r)
		return error_errno(e, -r, E_SYSTEM, "cannot make a thread");
	pthread_join(thread, NULL);
	if (as.dressed < 0)
		return error_errno(e, as.dressed, E_CREDENTIALS, "cannot act as user %u, group %u",
				   as.uid, as.gid);
	return as.result;
}

int unix_cred_run(const Reprise__UnixSocket *seen_by, int (*call)(void *arg), void *arg,
		  struct error *e)
{
	if (!seen_by->peer_cred)
		return call(arg);
	return unix_cred_as(seen_by->peer_uid, seen_by->peer_gid, call, arg, e);
}

struct pair {
	int type, *fds;
	struct error *e;
};

static int call_pair(void *arg)
{
	struct pair *p = arg;

	if (socketpair(AF_UNIX, p->type | SOCK_CLOEXEC, 0, p->fds) < 0)
		return error_errno(p->e, -errno, E_RESTORE, "cannot make a pair of sockets");
	return 0;
}

int unix_cred_pair(const Reprise__UnixSocket *seen_by, int fds[2], struct error *e)
{
	struct pair p = {.type = seen_by->socket->type, .fds = fds, .e = e};

	return unix_cred_run(seen_by, call_pair, &p, e);
}

struct listener {
	int fd, backlog;
	struct error *e;
};

static int call_listen(void *arg)
{
	struct listener *l = arg;

	if (listen(l->fd, l->backlog) < 0)
		return error_errno(l->e, -errno, E_RESTORE, "cannot listen");
	return 0;
}

int unix_cred_listen(const Reprise__UnixSocket *seen_by, int fd, int backlog, struct error *e)
{
	struct listener l = {.fd = fd, .backlog = backlog, .e = e};

	return unix_cred_run(seen_by, call_listen, &l, e);
}
