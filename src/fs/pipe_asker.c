/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/pipe_asker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/clocks.h"
#include "fs/pipe_private.h"

#define NS_PER_MS 1000000

struct pipe_asker {
	pid_t pid;
	int socket;
	size_t unanswered;
};

/* Behind it: a message of protobuf, or the struct error if ret is one. */
struct answer {
	int ret;
	bool fresh;
	size_t size;
};

/* ---- the process ---- */

static int receive_question(int socket, struct pipe_question *q)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {};
	struct iovec iov = {q, sizeof(*q)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *h;
	int fd = -1;

	if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL) != sizeof(*q))
		return -ESRCH;
	h = CMSG_FIRSTHDR(&m);
	if (h && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(h), sizeof(fd));
	return fd < 0 ? -EBADF : fd;
}

/* Nothing is taken by tee(2), which finds an end of file where nobody writes. */
static bool is_at_end(int fd)
{
	_cleanup_(close_pair) int copy[2] = {-EBADF, -EBADF};

	return pipe2(copy, O_CLOEXEC | O_NONBLOCK) == 0 &&
	       tee(fd, copy[1], 1, SPLICE_F_NONBLOCK) == 0;
}

static int look(int proc_fd, int fd, const struct pipe_question *q, Reprise__Pipe *msg,
		struct scratch *s, struct error *e)
{
	int capacity;

	if (!q->contents)
		return 0;
	capacity = fcntl(fd, F_GETPIPE_SZ);
	if (capacity < 0)
		return error_errno(e, -errno, E_SYSTEM, "F_GETPIPE_SZ");
	msg->capacity = (uint64_t)capacity;
	return pipe_contents_save(proc_fd, fd, q->packets, msg, s, e);
}

static bool send_all(int socket, const void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = send(socket, (const char *)data + done, size - done, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static bool answer(int socket, int proc_fd, int fd, const struct pipe_question *q)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Pipe msg = REPRISE__PIPE__INIT;
	struct error e = {};
	struct answer a = {.ret = look(proc_fd, fd, q, &msg, &s, &e)};
	uint8_t *packed = NULL;

	a.fresh = a.ret >= 0 && q->fresh && is_at_end(fd);
	if (a.ret >= 0 && q->contents) {
		a.size = reprise__pipe__get_packed_size(&msg);
		packed = scratch_alloc(&s, a.size);
		if (packed)
			reprise__pipe__pack(&msg, packed);
		else
			a.ret = error_set(&e, -ENOMEM, E_NO_MEMORY,
					  "no memory for the contents of a pipe");
	}
	if (a.ret < 0)
		a.size = sizeof(e);
	/* Before the answer: later, it might be the last one, and the end takes the lock as well.
	 */
	close_fd(&fd);
	return send_all(socket, &a, sizeof(a)) &&
	       send_all(socket, a.ret < 0 ? (void *)&e : packed, a.size);
}

/* Nothing else is held, for what is left alone may have to wait for long. */
static void keep_two(int a, int b)
{
	unsigned int low = (unsigned int)(a < b ? a : b), high = (unsigned int)(a < b ? b : a);

	if (low > 0)
		close_range(0, low - 1, 0);
	if (high > low + 1)
		close_range(low + 1, high - 1, 0);
	close_range(high + 1, ~0U, 0);
}

static void __attribute__((noreturn)) serve(int socket, int proc_fd, pid_t maker)
{
	struct pipe_question q;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != maker)
		_exit(1);
	keep_two(socket, proc_fd);
	while ((fd = receive_question(socket, &q)) >= 0)
		if (!answer(socket, proc_fd, fd, &q))
			break;
	_exit(0);
}

/* ---- who asks it ---- */

int pipe_asker_begin(struct pipe_asker **ret, int proc_fd, struct error *e)
{
	_cleanup_(free_ptr) struct pipe_asker *a = calloc(1, sizeof(*a));
	pid_t self = getpid();
	int pair[2];

	if (!a)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to look at pipes");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	a->pid = fork();
	if (a->pid == 0)
		serve(pair[1], proc_fd, self);
	close(pair[1]);
	a->socket = pair[0];
	if (a->pid < 0) {
		close(pair[0]);
		return error_errno(e, -errno, E_SYSTEM, "cannot make a process");
	}
	*ret = take_ptr(&a);
	return 0;
}

/* Whoever has not answered may be one that cannot end: it is not waited for. */
void pipe_asker_end(struct pipe_asker *a)
{
	if (!a)
		return;
	/* It ends by this alone, if it waits for questions. */
	close(a->socket);
	kill(a->pid, SIGKILL);
	while (waitpid(a->pid, NULL, a->unanswered ? WNOHANG : 0) < 0 && errno == EINTR)
		continue;
	free(a);
}

int pipe_asker_ask(struct pipe_asker *a, int fd, struct pipe_question q, struct error *e)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {};
	struct iovec iov = {&q, sizeof(q)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	ssize_t n;

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(fd));
	do
		n = sendmsg(a->socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n == sizeof(q)) {
		a->unanswered++;
		return 0;
	}
	/* ETOOMANYREFS: descriptors on their way, of which the limit of open files allows no more
	 */
	if (n < 0 && a->unanswered && (errno == EAGAIN || errno == ETOOMANYREFS))
		return -EAGAIN;
	return error_errno(e, n < 0 ? -errno : -EIO, E_SYSTEM,
			   "cannot ask the process that looks at pipes");
}

static int receive_all(struct pipe_asker *a, void *to, size_t size, uint64_t deadline,
		       struct error *e)
{
	for (size_t done = 0; done < size;) {
		struct pollfd p = {.fd = a->socket, .events = POLLIN};
		uint64_t now = clock_ns(CLOCK_MONOTONIC);
		ssize_t n = recv(a->socket, (char *)to + done, size - done, MSG_DONTWAIT);

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return error_errno(e, n ? -errno : -ESRCH, E_SYSTEM,
					   "the process that looks at pipes has ended");
		else if (now >= deadline)
			return -ETIMEDOUT;
		else if (errno == EAGAIN &&
			 poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1) < 0 && errno != EINTR)
			return error_errno(e, -errno, E_SYSTEM, "poll");
	}
	return 0;
}

/* The copy of a message that protobuf-c has made, in memory of `s`. */
static int take(Reprise__Pipe *msg, const Reprise__Pipe *from, struct scratch *s)
{
	msg->capacity = from->capacity;
	msg->buffers = scratch_alloc(s, (from->n_buffers + 1) * sizeof(*msg->buffers));
	if (!msg->buffers)
		return -ENOMEM;
	for (size_t i = 0; i < from->n_buffers; i++) {
		const Reprise__PipeBuffer *b = from->buffers[i];
		Reprise__PipeBuffer *copy =
			scratch_message(s, Reprise__PipeBuffer, reprise__pipe_buffer__init);

		if (copy)
			copy->data.data = scratch_copy(s, b->data.data, b->data.len);
		if (!copy || !copy->data.data)
			return -ENOMEM;
		copy->data.len = b->data.len;
		copy->packet = b->packet;
		msg->buffers[msg->n_buffers++] = copy;
	}
	return 0;
}

static int unpack(const uint8_t *packed, size_t size, Reprise__Pipe *msg, struct scratch *s,
		  struct error *e)
{
	Reprise__Pipe *found = reprise__pipe__unpack(NULL, size, packed);
	int r = found ? take(msg, found, s) : -ENOMEM;

	if (found)
		reprise__pipe__free_unpacked(found, NULL);
	return r < 0 ? error_set(e, r, E_NO_MEMORY, "no memory for the contents of a pipe") : 0;
}

int pipe_asker_answer(struct pipe_asker *a, int timeout_ms, bool *ret_fresh, Reprise__Pipe *msg,
		      struct scratch *s, struct error *e)
{
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * NS_PER_MS;
	_cleanup_(free_ptr) uint8_t *data = NULL;
	struct answer head;
	int r = receive_all(a, &head, sizeof(head), deadline, e);

	if (r >= 0) {
		data = malloc(head.size + 1);
		r = data ? receive_all(a, data, head.size, deadline, e)
			 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pipe");
	}
	if (r == -ETIMEDOUT)
		return error_set(e, -EBUSY, E_TASK_UNINTERRUPTIBLE,
				 "a process outside the tree is in a system call that holds the "
				 "lock of this pipe, and did not come out of it within %d ms",
				 timeout_ms);
	if (r < 0)
		return r;
	a->unanswered--;
	*ret_fresh = head.fresh;
	if (head.ret < 0) {
		memcpy(e, data, sizeof(*e));
		return head.ret;
	}
	return head.size ? unpack(data, head.size, msg, s, e) : 0;
}
