/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors reach a task by SCM_RIGHTS, over the control socket that every
 * stub has inherited. The task's part are recvmsg() calls in batches.
 */
#include "fs/send_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"

/* One message as the task receives it. */
struct receiver {
	uint32_t msg, control;
	int call;
};

/* Messages in flight at once: well below what a socket buffers. */
#define MESSAGES_MAX 8

static int send_message(struct restart *r, const int *fds, size_t n, struct error *e)
{
	char control[CMSG_SPACE(SCM_FDS_MAX * sizeof(int))] __attribute__((aligned(8))) = {};
	struct iovec iov = {.iov_base = (char[]){'F'}, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	ssize_t sent;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	do
		sent = sendmsg(r->control, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent != 1)
		return error_errno(e, sent < 0 ? -errno : -EIO, E_RESTORE,
				   "cannot send %zu descriptors to a task", n);
	return 0;
}

static void add_receive(struct batch *b, int socket, size_t n, struct receiver *rx)
{
	struct msghdr msg = {.msg_iovlen = 1, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct iovec iov = {.iov_len = 1};
	uint32_t byte = batch_data(b, NULL, 1), vec;

	rx->control = batch_data(b, NULL, (uint32_t)msg.msg_controllen);
	vec = batch_data(b, &iov, sizeof(iov));
	batch_pointer(b, vec + (uint32_t)offsetof(struct iovec, iov_base), byte);
	rx->msg = batch_data(b, &msg, sizeof(msg));
	batch_pointer(b, rx->msg + (uint32_t)offsetof(struct msghdr, msg_iov), vec);
	batch_pointer(b, rx->msg + (uint32_t)offsetof(struct msghdr, msg_control), rx->control);
	rx->call = batch_call(b, SYS_recvmsg, VAL(socket), DATA(rx->msg),
			      VAL(MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
	batch_must(b, rx->call);
}

static int collect(struct batch *b, const struct receiver *rx, size_t n, int *remote,
		   struct error *e)
{
	const struct msghdr *msg = batch_at(b, rx->msg);
	const struct cmsghdr *c = batch_at(b, rx->control);
	long got = batch_result(b, rx->call);

	if (got != 1)
		return error_errno(e, got < 0 ? (int)got : -EIO, E_REMOTE,
				   "a task cannot receive descriptors");
	if ((msg->msg_flags & MSG_CTRUNC) || c->cmsg_level != SOL_SOCKET ||
	    c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(n * sizeof(int)))
		return error_set(e, -EMFILE, E_RESTORE,
				 "a task cannot hold as many descriptors as it had: the limit of "
				 "open files (ulimit -Hn) is too low here");
	memcpy(remote, CMSG_DATA(c), n * sizeof(int));
	return 0;
}

static int send_some(struct restart *r, struct restart_task *t, int socket, const int *fds,
		     size_t n, int *remote, struct error *e)
{
	struct receiver rx[MESSAGES_MAX];
	struct batch b = {};
	int res = 0, k = 0;

	for (size_t at = 0; at < n && res >= 0; at += SCM_FDS_MAX, k++) {
		size_t part = n - at < SCM_FDS_MAX ? n - at : SCM_FDS_MAX;

		res = send_message(r, fds + at, part, e);
		if (res >= 0)
			add_receive(&b, socket, part, &rx[k]);
	}
	if (res >= 0)
		res = agent_run(t->process->agent, t->tid, NULL, &b, e);
	k = 0;
	for (size_t at = 0; at < n && res >= 0; at += SCM_FDS_MAX, k++)
		res = collect(&b, &rx[k], n - at < SCM_FDS_MAX ? n - at : SCM_FDS_MAX, remote + at,
			      e);
	batch_free(&b);
	return res;
}

int send_fds_over(struct restart *r, struct restart_task *t, int socket, const int *fds, size_t n,
		  int *remote, struct error *e)
{
	const size_t most = (size_t)MESSAGES_MAX * SCM_FDS_MAX;
	int res = 0;

	for (size_t at = 0; at < n && res >= 0; at += most)
		res = send_some(r, t, socket, fds + at, n - at < most ? n - at : most, remote + at,
				e);
	return res;
}

int restart_send_fds(struct restart *r, struct restart_task *t, const int *fds, size_t n,
		     int *remote, struct error *e)
{
	return send_fds_over(r, t, t->control ? t->control : r->control_remote, fds, n, remote, e);
}

/* ---- what sockets do not carry ---- */

int give_fd_pidfd(struct error *e)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	return fd < 0 ? error_errno(e, -errno, E_SYSTEM, "pidfd_open") : fd;
}

int give_fd_taken(struct restart_task *t, int pidfd, int fd, int wanted, bool cloexec, int *remote,
		  struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	int get = batch_call(&b, SYS_pidfd_getfd, VAL(pidfd), VAL(fd), VAL(0)), last = get, r;

	batch_must(&b, get);
	if (wanted >= 0) {
		batch_must(&b, batch_call(&b, SYS_dup3, RESULT(get), VAL(wanted),
					  VAL(cloexec ? O_CLOEXEC : 0)));
		last = batch_call(&b, SYS_close, RESULT(get));
		batch_must(&b, last);
	}
	r = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (r < 0)
		return r;
	r = batch_failed(&b);
	if (r >= 0)
		return error_errno(e, (int)batch_result(&b, r), E_RESTORE,
				   "task %d cannot take a descriptor over from reprise", t->vtid);
	*remote = wanted >= 0 ? wanted : (int)batch_result(&b, get);
	return 0;
}

int give_fd(struct restart *r, struct restart_task *t, int fd, int *remote, struct error *e)
{
	_cleanup_(close_fd) int self = give_fd_pidfd(e);
	uint64_t args[6] = {};
	int pidfd, res;

	if (self < 0)
		return self;
	res = restart_send_fds(r, t, &self, 1, &pidfd, e);
	if (res >= 0)
		res = give_fd_taken(t, pidfd, fd, -1, false, remote, e);
	if (res < 0)
		return res;
	args[0] = (uint64_t)pidfd;
	res = (int)agent_syscall(t->process->agent, t->tid, NULL, e, SYS_close, args);
	return res < 0 ? error_errno(e, res, E_RESTORE, "close") : 0;
}
