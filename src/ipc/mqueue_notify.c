/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is notified when a message comes into an empty queue (mq_notify(2)): by a signal with
 * a value, by nothing, or, which the C library makes a thread of, by 32 bytes that come out of a
 * netlink socket of the process. Values, bytes and socket are told by kernel memory only.
 */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ipc/mqueue.h"
#include "ipc/sysv.h"

#define COOKIE_LEN 32 /* NOTIFY_COOKIE_LEN */

int mqueue_notify_save(struct checkpoint *c, int fd, Reprise__Mqueue *m, int notify, int signo,
		       pid_t pid, struct scratch *s, struct error *e)
{
	Reprise__MqueueNotify *n =
		scratch_message(s, Reprise__MqueueNotify, reprise__mqueue_notify__init);
	int r = 0;

	if (!n)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a notification");
	m->notify = n;
	n->pid = pid;
	n->notify = notify;
	n->signo = signo;
	n->socket = -1;
	if (notify == SIGEV_NONE)
		return 0;
	if (notify != SIGEV_SIGNAL && notify != SIGEV_THREAD)
		return error_set(e, -EOPNOTSUPP, E_IPC_STATE,
				 "process %d is notified in an unknown way (%d)", pid, notify);
	if (!ipc_kernel_memory(c))
		return error_set(e, -EOPNOTSUPP, E_IPC_STATE,
				 "process %d is notified by a %s, whose value cannot be read: %s",
				 pid, notify == SIGEV_SIGNAL ? "signal" : "thread",
				 c->ipc->kernel_error.text);
	if (c->checking)
		return 0;
	if (notify == SIGEV_SIGNAL)
		return mqueue_notify_value(c->ipc->kernel, fd, &n->value, e);
	n->cookie.data = scratch_alloc(s, COOKIE_LEN);
	n->cookie.len = COOKIE_LEN;
	if (!n->cookie.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a notification");
	r = mqueue_notify_thread(c->ipc->kernel, fd, n->cookie.data, COOKIE_LEN, &n->value, e);
	return r;
}

/* Is it the socket at that address of the kernel? */
static bool is_socket(struct kernel_memory *k, int fd, uint64_t address)
{
	int private = kernel_offset(k, "file", "private_data");
	int sk = kernel_offset(k, "socket", "sk"), domain = 0;
	socklen_t len = sizeof(domain);
	uint64_t file;

	if (private < 0 || sk < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
	    domain != AF_NETLINK || kernel_file(k, fd, &file) < 0)
		return false;
	return kernel_pointer(k, kernel_pointer(k, file + (uint64_t) private) + (uint64_t)sk) ==
	       address;
}

/* Of a notification by a socket: which descriptor of the process that is. */
int mqueue_notify_socket(struct checkpoint *c, Reprise__MqueueNotify *n, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	_cleanup_(close_fd) int pidfd = -EBADF;
	struct dirent *d;
	int fd, ended = 0;

	if (n->notify != SIGEV_THREAD || c->checking)
		return 0;
	pidfd = (int)syscall(SYS_pidfd_open, n->pid, 0);
	fd = procfs_open(c->proc_fd, O_RDONLY | O_DIRECTORY | O_CLOEXEC, e, "%d/fd", n->pid);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (pidfd < 0 || !dir) {
		close_fd(&fd);
		return error_errno(e, -errno, E_IPC_STATE, "cannot look into process %d", n->pid);
	}
	while (n->socket < 0 && (d = next_entry(dir, &ended))) {
		_cleanup_(close_fd) int local = -EBADF;

		if (d->d_name[0] == '.')
			continue;
		local = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(d->d_name), 0);
		if (local >= 0 && is_socket(c->ipc->kernel, local, n->value))
			n->socket = atoi(d->d_name);
	}
	n->value = 0; /* was an address of this kernel */
	if (ended < 0)
		return error_errno(e, ended, E_IPC_STATE, "cannot look into process %d", n->pid);
	if (n->socket < 0)
		return error_set(e, -EOPNOTSUPP, E_IPC_STATE,
				 "process %d is notified by a socket that it does not have open",
				 n->pid);
	return 0;
}

/* ---- restart ---- */

int mqueue_notify_validate(const Reprise__MqueueNotify *n)
{
	if (n->notify == SIGEV_THREAD)
		return n->cookie.len == COOKIE_LEN && n->socket >= 0 ? 0 : -EBADMSG;
	return (n->notify == SIGEV_SIGNAL || n->notify == SIGEV_NONE) && n->signo >= 0 &&
			       n->signo <= 64
		       ? 0
		       : -EBADMSG;
}

/* A task that acts for the process: its first thread that lives. */
static struct restart_task *process_actor(struct restart *r, pid_t vpid)
{
	vec_for_each (p, &r->processes)
		if (p->vpid == vpid && !p->msg->zombie)
			return &p->tasks.v[p->tasks.v[0].msg->is_zombie && p->tasks.n > 1];
	return NULL;
}

static int descriptor_of(const struct restart *r, const Reprise__Files *table, uint64_t queue)
{
	for (size_t i = 0; i < table->n_fds; i++) {
		const Reprise__File *file = restart_find(r, RECORD_FILE, table->fds[i]->file);

		if (file && file->mqueue && file->mqueue->queue == queue)
			return table->fds[i]->fd;
	}
	return -1;
}

static int notify(struct restart_task *t, int fd, const Reprise__MqueueNotify *n, struct error *e)
{
	const struct sigevent event = {.sigev_notify = n->notify,
				       .sigev_signo =
					       n->notify == SIGEV_THREAD ? n->socket : n->signo,
				       .sigev_value.sival_ptr = (void *)(uintptr_t)n->value};
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at = batch_data(&b, &event, sizeof(event));
	uint32_t cookie = batch_data(&b, n->cookie.data, (uint32_t)n->cookie.len);
	int call = batch_call(&b, SYS_mq_notify, VAL(fd), DATA(at)), r;

	if (n->notify == SIGEV_THREAD)
		batch_pointer(&b, at + (uint32_t)offsetof(struct sigevent, sigev_value), cookie);
	r = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (r < 0)
		return r;
	r = (int)batch_result(&b, call);
	return r < 0 ? error_errno(e, r, E_RESTORE, "descriptor %d: cannot be notified of messages",
				   fd)
		     : 0;
}

int mqueue_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			 struct error *e)
{
	vec_for_each (q, &r->ipc->queues) {
		const Reprise__MqueueNotify *n = q->msg->notify;
		struct restart_task *owner = n ? process_actor(r, n->pid) : NULL;
		int fd, res;

		if (!owner || owner->msg->files != t->msg->files)
			continue;
		fd = descriptor_of(r, table, q->id);
		res = fd < 0 ? error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "is notified by a queue that it does not have open")
			     : notify(owner, fd, n, e);
		if (res < 0)
			return res;
	}
	return 0;
}
