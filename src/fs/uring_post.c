/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completions without requests, as a request that goes on has posted them (IORING_CQE_F_MORE): they
 * come as messages from a ring of ours.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/uring.h"

#define AT_ONCE 256u

/* Our own ring. */
struct sender {
	int fd;
	struct io_uring_params params;
	uint8_t *rings;
	struct io_uring_sqe *sqes;
	size_t rings_size;
	uint32_t tail;
};

static void sender_free(struct sender *s)
{
	if (s->rings)
		munmap(s->rings, s->rings_size);
	if (s->sqes)
		munmap(s->sqes, AT_ONCE * sizeof(*s->sqes));
	close_fd(&s->fd);
}

static int sender_open(struct sender *s, struct error *e)
{
	void *rings, *sqes;

	s->fd = (int)syscall(SYS_io_uring_setup, AT_ONCE, &s->params);
	if (s->fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make an io_uring");
	s->rings_size = s->params.sq_off.array + AT_ONCE * sizeof(uint32_t);
	rings = mmap(NULL, s->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd,
		     IORING_OFF_SQ_RING);
	sqes = mmap(NULL, AT_ONCE * sizeof(*s->sqes), PROT_READ | PROT_WRITE, MAP_SHARED, s->fd,
		    IORING_OFF_SQES);
	s->rings = rings == MAP_FAILED ? NULL : rings;
	s->sqes = sqes == MAP_FAILED ? NULL : sqes;
	if (!s->rings || !s->sqes)
		return error_errno(e, -errno, E_RESTORE, "cannot map an io_uring");
	return 0;
}

static void prepare(struct sender *s, int fd)
{
	for (uint32_t i = 0; i < AT_ONCE; i++) {
		s->sqes[i] = (struct io_uring_sqe){.opcode = IORING_OP_MSG_RING,
						   .flags = IOSQE_CQE_SKIP_SUCCESS,
						   .fd = fd,
						   .addr = IORING_MSG_DATA};
		((uint32_t *)(void *)(s->rings + s->params.sq_off.array))[i] = i;
	}
}

static int send_messages(struct sender *s, uint32_t n, struct error *e)
{
	long sent;

	s->tail += n;
	*(volatile uint32_t *)(void *)(s->rings + s->params.sq_off.tail) = s->tail;
	sent = syscall(SYS_io_uring_enter, s->fd, n, 0, 0, NULL, 0);
	if (sent == (long)n)
		return 0;
	return error_errno(e, sent < 0 ? -errno : -EIO, E_RESTORE,
			   "cannot post completions to an io_uring");
}

int uring_post(struct uring_shared *x, int fd, const struct restart_task *t, int remote, uint32_t n,
	       struct error *e)
{
	const uint64_t receive[6] = {(uint64_t)remote, 0, 0, IORING_ENTER_GETEVENTS};
	_cleanup_(sender_free) struct sender s = {.fd = -EBADF};
	uint32_t target = *uring_word(x, x->layout.cq.tail);
	int r = sender_open(&s, e);

	if (r >= 0)
		prepare(&s, fd);
	while (n && r >= 0) {
		uint32_t part = n < AT_ONCE ? n : AT_ONCE;

		if (part > x->m->cq_entries)
			part = x->m->cq_entries;
		r = send_messages(&s, part, e);
		/* with IORING_SETUP_DEFER_TASKRUN the task has to come for them */
		if (r >= 0 && agent_syscall(t->process->agent, t->tid, NULL, e, SYS_io_uring_enter,
					    receive) < 0)
			r = error_set(e, -EIO, E_RESTORE, "cannot run an io_uring in a task");
		target += part;
		n -= part;
		if (r >= 0 && *uring_word(x, x->layout.cq.tail) != target)
			r = error_set(e, -EIO, E_RESTORE,
				      "completions did not come to an io_uring");
		*uring_word(x, x->layout.cq.head) = target;
	}
	return r;
}
