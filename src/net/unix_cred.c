/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Unix socket shows of its peer (SO_PEERCRED, SO_PEERGROUPS, SO_PEERPIDFD) are the process
 * and the ids of who made the connection (init_peercred()). So the process that did makes it again,
 * if it is in the tree, with those ids put on for that one call. Otherwise we do, in a thread of
 * its own, as the raw system calls change the ids of their caller only. A server that trusts
 * SO_PEERCRED must not find root where somebody else was.
 */
#include "net/unix_cred.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/unix.h"
#include "remote/agent.h"

struct as {
	const Reprise__UnixSocket *seen_by;
	int (*call)(void *arg);
	void *arg;
	int dressed, result;
};

int unix_cred_save(int fd, Reprise__UnixSocket *m, struct scratch *s, struct error *e)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.uid == (uid_t)-1)
		return 0; /* not connected */
	m->peer_cred = true;
	m->peer_uid = cred.uid;
	m->peer_gid = cred.gid;
	m->peer_pid = cred.pid;
	len = 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE)
		return 0;
	m->peer_groups = scratch_alloc(s, len);
	if (!m->peer_groups)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the groups of a peer");
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, m->peer_groups, &len) == 0)
		m->n_peer_groups = len / sizeof(uint32_t);
	return 0;
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

/* Groups are put on where that is permitted: few look at them. */
static void *run_as(void *arg)
{
	struct as *as = arg;

	if (as->seen_by->peer_pid)
		ignore(syscall(SYS_setgroups, as->seen_by->n_peer_groups, as->seen_by->peer_groups),
		       "for root only, and not in all user namespaces");
	if (syscall(SYS_setresgid, -1, as->seen_by->peer_gid, -1) < 0 ||
	    syscall(SYS_setresuid, -1, as->seen_by->peer_uid, -1) < 0)
		as->dressed = -errno;
	else
		as->dressed = raise_capabilities();
	if (as->dressed == 0)
		as->result = as->call(as->arg);
	return NULL;
}

static bool are_ours(const Reprise__UnixSocket *seen_by)
{
	gid_t groups[64];
	int n = getgroups(64, groups);

	if (seen_by->peer_uid != geteuid() || seen_by->peer_gid != getegid())
		return false;
	return !seen_by->peer_pid ||
	       (n == (int)seen_by->n_peer_groups &&
		(!n || !memcmp(groups, seen_by->peer_groups, (size_t)n * sizeof(*groups))));
}

int unix_cred_run(const Reprise__UnixSocket *seen_by, int (*call)(void *arg), void *arg,
		  struct error *e)
{
	struct as as = {.seen_by = seen_by, .call = call, .arg = arg};
	int dumpable = prctl(PR_GET_DUMPABLE), r;
	pthread_t thread;

	if (!seen_by->peer_cred || are_ours(seen_by))
		return call(arg);
	r = pthread_create(&thread, NULL, run_as, &as);
	if (r)
		return error_errno(e, -r, E_SYSTEM, "cannot make a thread");
	pthread_join(thread, NULL);
	if (dumpable == 1)
		prctl(PR_SET_DUMPABLE, 1);
	if (as.dressed < 0)
		return error_errno(e, as.dressed, E_CREDENTIALS, "cannot act as user %u, group %u",
				   seen_by->peer_uid, seen_by->peer_gid);
	return as.result;
}

int unix_cred_as(uid_t uid, gid_t gid, int (*call)(void *arg), void *arg, struct error *e)
{
	Reprise__UnixSocket seen_by = REPRISE__UNIX_SOCKET__INIT;

	seen_by.peer_cred = true;
	seen_by.peer_uid = uid;
	seen_by.peer_gid = gid;
	return unix_cred_run(&seen_by, call, arg, e);
}

/* ---- in a task ---- */

/* Who called, if it is a process of the tree that can execute something for us. */
static struct restart_task *caller_of(struct restart *r, const Reprise__UnixSocket *seen_by)
{
	if (!seen_by->peer_cred || !seen_by->peer_pid)
		return NULL;
	vec_for_each (p, &r->processes) {
		if (p->vpid != seen_by->peer_pid || p->pid <= 0 || !p->agent)
			continue;
		vec_for_each (t, &p->tasks)
			if (t->tid > 0 && !t->msg->is_zombie)
				return t;
	}
	return NULL;
}

static void add_capset(struct batch *b)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};

	ignore(syscall(SYS_capget, &header, data), "a valid call");
	for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		data[i].effective = data[i].permitted;
	header.pid = 0;
	batch_call(b, SYS_capset, DATA(batch_data(b, &header, sizeof(header))),
		   DATA(batch_data(b, data, sizeof(data))));
}

static void add_groups(struct batch *b, const uint32_t *groups, size_t n)
{
	batch_call(b, SYS_setgroups, VAL(n),
		   DATA(batch_data(b, groups, (uint32_t)(n * sizeof(*groups)))));
}

/* Whoever changes his ids is not dumpable any more (commit_creds()): from within a user namespace
 * nobody would come at a task then that is a child of one outside (ptrace_may_access()). */
static void add_dumpable(struct batch *b)
{
	if (prctl(PR_GET_DUMPABLE) == 1)
		batch_call(b, SYS_prctl, VAL(PR_SET_DUMPABLE), VAL(1), VAL(0), VAL(0), VAL(0));
}

/* A task has all ids and capabilities that we have (it is our child), and gets them back. */
struct dress {
	const Reprise__UnixSocket *as;
	gid_t groups[256];
	int ngroups;
	bool ids;
	int call; /* that tells whether it worked */
};

static void put_on(struct batch *b, struct dress *d)
{
	d->ids = !are_ours(d->as);
	d->ngroups = getgroups(256, d->groups);
	if (!d->ids || d->ngroups < 0)
		return;
	add_groups(b, d->as->peer_groups, d->as->n_peer_groups);
	batch_call(b, SYS_setresgid, VAL(-1), VAL(d->as->peer_gid), VAL(-1));
	d->call = batch_call(b, SYS_setresuid, VAL(-1), VAL(d->as->peer_uid), VAL(-1));
	add_capset(b);
}

static void take_off(struct batch *b, const struct dress *d)
{
	if (!d->ids || d->ngroups < 0)
		return;
	batch_call(b, SYS_setresuid, VAL(-1), VAL(geteuid()), VAL(-1));
	batch_call(b, SYS_setresgid, VAL(-1), VAL(getegid()), VAL(-1));
	add_capset(b);
	add_groups(b, d->groups, (size_t)d->ngroups);
	add_dumpable(b);
}

static int worn(const struct batch *b, const struct dress *d, struct error *e)
{
	if (d->ids && (d->ngroups < 0 || batch_result(b, d->call) < 0))
		return error_errno(e, d->ngroups < 0 ? -EPERM : (int)batch_result(b, d->call),
				   E_CREDENTIALS, "cannot connect a socket as user %u, group %u",
				   d->as->peer_uid, d->as->peer_gid);
	return 0;
}

static int fetch(const struct restart_task *t, const int remote[2], int fds[2], struct error *e)
{
	_cleanup_(close_fd) int pidfd = (int)syscall(SYS_pidfd_open, t->process->pid, 0);

	for (int i = 0; i < 2; i++) {
		fds[i] = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, remote[i], 0);
		if (fds[i] < 0)
			return error_errno(e, -errno, E_RESTORE,
					   "cannot take a pair of sockets from a task");
	}
	return 0;
}

static int pair_in_task(struct restart_task *t, const Reprise__UnixSocket *seen_by, int fds[2],
			struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct dress d = {.as = seen_by};
	int remote[2], call, r;
	uint32_t at;

	put_on(&b, &d);
	at = batch_data(&b, NULL, sizeof(remote));
	call = batch_call(&b, SYS_socketpair, VAL(AF_UNIX),
			  VAL(seen_by->socket->type | SOCK_CLOEXEC), VAL(0), DATA(at));
	take_off(&b, &d);
	r = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (r < 0)
		return r;
	if (batch_result(&b, call) < 0)
		return error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				   "cannot make a pair of sockets");
	memcpy(remote, batch_at(&b, at), sizeof(remote));
	r = worn(&b, &d, e);
	if (r >= 0)
		r = fetch(t, remote, fds, e);
	batch_reset(&b);
	batch_call(&b, SYS_close, VAL(remote[0]));
	batch_call(&b, SYS_close, VAL(remote[1]));
	return r < 0 ? r : agent_run(t->process->agent, t->tid, NULL, &b, e);
}

/* listen() or connect() with a socket of ours, the latter from a directory if there is one. */
static int call_in_task(struct restart *r, struct restart_task *t,
			const Reprise__UnixSocket *seen_by, int fd, int backlog,
			const struct unix_address *to, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	_cleanup_(close_fd) int dir = -EBADF;
	struct dress d = {.as = seen_by};
	int fds[2] = {fd, -1}, remote[2] = {}, n = 1, call, res;

	if (to && to->directory) {
		dir = open(to->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot open %s", to->directory);
		fds[n++] = dir;
	}
	res = restart_send_fds(r, t, fds, (size_t)n, remote, e);
	if (res < 0)
		return res;
	if (n > 1) /* its own comes later */
		batch_call(&b, SYS_fchdir, VAL(remote[1]));
	put_on(&b, &d);
	if (to)
		call = batch_call(&b, SYS_connect, VAL(remote[0]),
				  DATA(batch_data(&b, &to->un, sizeof(to->un))), VAL(to->len));
	else
		call = batch_call(&b, SYS_listen, VAL(remote[0]), VAL(backlog));
	take_off(&b, &d);
	for (int i = 0; i < n; i++)
		batch_call(&b, SYS_close, VAL(remote[i]));
	res = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (res >= 0 && batch_result(&b, call) < 0 && to)
		res = error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				  "cannot connect a socket to %.*s",
				  (int)sizeof(to->un.sun_path) - !to->un.sun_path[0],
				  to->un.sun_path + !to->un.sun_path[0]);
	else if (res >= 0 && batch_result(&b, call) < 0)
		res = error_errno(e, (int)batch_result(&b, call), E_RESTORE, "cannot listen");
	return res < 0 ? res : worn(&b, &d, e);
}

/* ---- the three calls ---- */

struct call {
	int type, *fds;
	int fd, backlog;
	const struct unix_address *to;
	struct error *e;
};

static int call_pair(void *arg)
{
	struct call *p = arg;

	if (socketpair(AF_UNIX, p->type | SOCK_CLOEXEC, 0, p->fds) < 0)
		return error_errno(p->e, -errno, E_RESTORE, "cannot make a pair of sockets");
	return 0;
}

int unix_cred_pair(struct restart *r, const Reprise__UnixSocket *seen_by, int fds[2],
		   struct error *e)
{
	struct call p = {.type = seen_by->socket->type, .fds = fds, .e = e};
	struct restart_task *t = caller_of(r, seen_by);

	if (t)
		return pair_in_task(t, seen_by, fds, e);
	return unix_cred_run(seen_by, call_pair, &p, e);
}

static int call_listen(void *arg)
{
	struct call *l = arg;

	if (listen(l->fd, l->backlog) < 0)
		return error_errno(l->e, -errno, E_RESTORE, "cannot listen");
	return 0;
}

int unix_cred_listen(struct restart *r, const Reprise__UnixSocket *seen_by, int fd, int backlog,
		     struct error *e)
{
	struct call l = {.fd = fd, .backlog = backlog, .e = e};
	struct restart_task *t = caller_of(r, seen_by);

	if (t)
		return call_in_task(r, t, seen_by, fd, backlog, NULL, e);
	return unix_cred_run(seen_by, call_listen, &l, e);
}

static int call_connect(void *arg)
{
	struct call *x = arg;

	return unix_address_connect(x->fd, x->to, x->e);
}

int unix_cred_connect(struct restart *r, const Reprise__UnixSocket *seen_by, int fd,
		      const struct unix_address *to, struct error *e)
{
	struct call x = {.fd = fd, .to = to, .e = e};
	struct restart_task *t = caller_of(r, seen_by);

	if (t)
		return call_in_task(r, t, seen_by, fd, 0, to, e);
	return unix_cred_run(seen_by, call_connect, &x, e);
}
