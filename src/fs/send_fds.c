/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors reach a task by SCM_RIGHTS, over the control socket that every
 * stub has inherited. The task's part are recvmsg() calls in batches.
 */
#include "fs/send_fds.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

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
	return send_fds_over(r, t, r->control_remote, fds, n, remote, e);
}
