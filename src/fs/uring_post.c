/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completions without requests, as a request that goes on has posted them (IORING_CQE_F_MORE), and
 * those for which there was no room in the ring, which wait in a list of the kernel: they come as
 * messages from a ring of ours.
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

/* The next n messages are these completions. */
static void prepare_these(struct sender *s, int fd, const struct io_uring_cqe *cqes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct io_uring_sqe *sqe = &s->sqes[(s->tail + i) % AT_ONCE];

		*sqe = (struct io_uring_sqe){.opcode = IORING_OP_MSG_RING,
					     .flags = IOSQE_CQE_SKIP_SUCCESS,
					     .fd = fd,
					     .addr = IORING_MSG_DATA,
					     .off = cqes[i].user_data,
					     .len = (uint32_t)cqes[i].res,
					     .msg_ring_flags = URING_MSG_FLAGS_PASS,
					     .file_index = cqes[i].flags};
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

/* With IORING_SETUP_DEFER_TASKRUN the task has to come for them. */
static int receive(const struct restart_task *t, int remote, struct error *e)
{
	const uint64_t args[6] = {(uint64_t)remote, 0, 0, IORING_ENTER_GETEVENTS};

	if (agent_syscall(t->process->agent, t->tid, NULL, e, SYS_io_uring_enter, args) < 0)
		return error_set(e, -EIO, E_RESTORE, "cannot run an io_uring in a task");
	return 0;
}

int uring_post(struct uring_shared *x, int fd, const struct restart_task *t, int remote, uint32_t n,
	       bool take, struct error *e)
{
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
		if (r >= 0)
			r = receive(t, remote, e);
		if (r >= 0)
			r = uring_pull(x, e);
		target += part;
		n -= part;
		if (r >= 0 && *uring_word(x, x->layout.cq.tail) != target)
			r = error_set(e, -EIO, E_RESTORE,
				      "completions did not come to an io_uring");
		if (!take)
			continue;
		*uring_word(x, x->layout.cq.head) = target;
		if (r >= 0)
			r = uring_push_word(x, x->layout.cq.head, e);
	}
	return r;
}

/* ---- those for which there was no room ---- */

int uring_overflow_look(struct kernel_memory *k, uint64_t list, struct uring_seen *s)
{
	int where = kernel_offset(k, "io_overflow_cqe", "cqe");
	uint64_t at;
	int r = where < 0 ? where : kernel_read(k, list, &at, sizeof(at));

	while (r >= 0 && at != list) {
		struct io_uring_cqe *cqe =
			s->overflow.n < URING_OVERFLOW_MAX ? vec_push(&s->overflow) : NULL;

		r = cqe ? kernel_read(k, at + (uint64_t)where, cqe, sizeof(*cqe)) : -ENOMEM;
		if (r >= 0)
			r = kernel_read(k, at, &at, sizeof(at));
	}
	return r;
}

/* While they come the ring looks full to the kernel, so that they wait outside. */
int uring_overflow_restart(struct uring_shared *x, int fd, const struct restart_task *t, int remote,
			   struct error *e)
{
	uint32_t n = (uint32_t)(x->m->overflow.len / sizeof(struct io_uring_cqe));
	volatile uint32_t *head = uring_word(x, x->layout.cq.head);
	_cleanup_(sender_free) struct sender s = {.fd = -EBADF};
	uint32_t is = *head, part;
	int r = sender_open(&s, e);

	*head = x->m->cq_tail - x->m->cq_entries;
	if (r >= 0)
		r = uring_push_word(x, x->layout.cq.head, e);
	if (r >= 0)
		prepare(&s, fd);
	for (uint32_t i = 0; i < n && r >= 0; i += part) {
		part = n - i < AT_ONCE ? n - i : AT_ONCE;
		prepare_these(&s, fd, (const struct io_uring_cqe *)x->m->overflow.data + i, part);
		r = send_messages(&s, part, e);
		if (r >= 0)
			r = receive(t, remote, e);
	}
	if (r >= 0)
		r = uring_pull(x, e);
	if (r >= 0 && (*uring_word(x, x->layout.cq.tail) != x->m->cq_tail ||
		       !(*uring_word(x, x->layout.sq.flags) & IORING_SQ_CQ_OVERFLOW)))
		r = error_set(e, -EIO, E_RESTORE,
			      "completions for which there was no room did not come to an "
			      "io_uring");
	*head = is;
	return r < 0 ? r : uring_push_word(x, x->layout.cq.head, e);
}
