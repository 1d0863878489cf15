/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that were in flight, submitted again by the threads that had submitted them: the kernel
 * gives completions to those. It happens when everything that they may wait for is there.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/send_fds.h"
#include "fs/uring.h"

static bool known_kind(uint8_t opcode)
{
	return opcode == IORING_OP_POLL_ADD || opcode == IORING_OP_READ ||
	       opcode == IORING_OP_RECV || opcode == IORING_OP_ACCEPT ||
	       opcode == IORING_OP_TIMEOUT;
}

bool uring_requests_fit(const struct restart *r, const Reprise__IoUring *m)
{
	for (size_t i = 0; i < m->n_requests; i++) {
		const Reprise__IoUringRequest *q = m->requests[i];
		struct io_uring_sqe sqe;

		if (q->sqe.len != sizeof(sqe))
			return false;
		memcpy(&sqe, q->sqe.data, sizeof(sqe));
		if (!known_kind(sqe.opcode) || (sqe.flags & ~uring_flags_of(sqe.opcode)) ||
		    (q->file && !restart_find(r, RECORD_FILE, q->file)) ||
		    (sqe.opcode == IORING_OP_TIMEOUT && q->timeout_ns > INT64_MAX))
			return false;
	}
	return true;
}

/* A time-out is read from memory of the task: from a page that it is given for that. */
static int place_timeout(const struct restart_task *t, uint64_t page,
			 const Reprise__IoUringRequest *q, struct io_uring_sqe *sqe,
			 struct error *e)
{
	struct __kernel_timespec ts = {.tv_sec = (int64_t)(q->timeout_ns / 1000000000),
				       .tv_nsec = (long long)(q->timeout_ns % 1000000000)};
	struct iovec from = {&ts, sizeof(ts)}, to = {(void *)(uintptr_t)page, sizeof(ts)};

	sqe->addr = page;
	if (process_vm_writev(t->process->pid, &from, 1, &to, 1, 0) != sizeof(ts))
		return error_errno(e, -errno, E_RESTORE, "cannot write to task %d", t->vtid);
	return 0;
}

static int enter(const struct restart_task *t, int ring, struct error *e)
{
	const uint64_t args[6] = {(uint64_t)ring, 1};
	long n = agent_syscall(t->process->agent, t->tid, NULL, e, SYS_io_uring_enter, args);

	if (n == 1)
		return 0;
	return error_errno(e, n < 0 ? (int)n : -EIO, E_RESTORE,
			   "cannot submit a request again that was in flight");
}

/* accept() remembers the limit under which it was asked. */
static int limited(const struct restart_task *t, uint64_t nofile, int ring, struct error *e)
{
	struct rlimit is, wanted;
	int r;

	if (!nofile || prlimit(t->process->pid, RLIMIT_NOFILE, NULL, &is) < 0)
		return enter(t, ring, e);
	wanted = is;
	wanted.rlim_cur = nofile < is.rlim_max ? nofile : is.rlim_max;
	if (prlimit(t->process->pid, RLIMIT_NOFILE, &wanted, NULL) < 0)
		return error_errno(e, -errno, E_SYSTEM, "prlimit");
	r = enter(t, ring, e);
	if (prlimit(t->process->pid, RLIMIT_NOFILE, &is, NULL) < 0 && r >= 0)
		r = error_errno(e, -errno, E_SYSTEM, "prlimit");
	return r;
}

static int close_there(const struct restart_task *t, int fd, struct error *e)
{
	const uint64_t args[6] = {(uint64_t)fd};
	long r = agent_syscall(t->process->agent, t->tid, NULL, e, SYS_close, args);

	return r < 0 ? error_errno(e, (int)r, E_RESTORE, "close") : 0;
}

static int submit_one(struct restart *r, struct restart_task *t, struct uring_shared *x, int ring,
		      uint64_t page, const Reprise__IoUringRequest *q, uint32_t number,
		      struct error *e)
{
	size_t step = x->m->flags & IORING_SETUP_SQE128 ? 128 : 64;
	uint32_t slot = number & (x->m->sq_entries - 1);
	struct io_uring_sqe sqe;
	int fd = -1, res = 0;

	memcpy(&sqe, q->sqe.data, sizeof(sqe));
	if (q->file) {
		int local = files_restart_fd(r, q->file);

		res = restart_send_fds(r, t, &local, 1, &fd, e);
		sqe.fd = fd;
	}
	if (res >= 0 && sqe.opcode == IORING_OP_TIMEOUT)
		res = place_timeout(t, page, q, &sqe, e);
	if (res < 0)
		return res;
	memcpy(x->sqes + slot * step, &sqe, sizeof(sqe));
	if (!(x->m->flags & IORING_SETUP_NO_SQARRAY))
		*uring_word(x, x->layout.sq.array + 4 * slot) = slot;
	*uring_word(x, x->layout.sq.tail) = number + 1;
	res = limited(t, q->nofile, ring, e);
	return res >= 0 && fd >= 0 ? close_there(t, fd, e) : res;
}

static int submit_in(struct restart *r, struct restart_task *t, struct uring_shared *x, int fd,
		     const Reprise__IoUringRequest *q, uint32_t number, struct error *e)
{
	uint64_t map[6] = {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   (uint64_t)-1};
	long page = agent_syscall(t->process->agent, t->tid, NULL, e, SYS_mmap, map);
	int ring, res;

	if (page < 0)
		return error_errno(e, (int)page, E_RESTORE, "no memory in task %d", t->vtid);
	res = give_fd(r, t, fd, &ring, e);
	if (res >= 0)
		res = submit_one(r, t, x, ring, (uint64_t)page, q, number, e);
	if (res >= 0)
		res = close_there(t, ring, e);
	map[0] = (uint64_t)page;
	if (res >= 0)
		res = (int)agent_syscall(t->process->agent, t->tid, NULL, e, SYS_munmap, map);
	return res;
}

int uring_submit_all(struct restart *r, struct uring_shared *x, int fd, struct error *e)
{
	uint32_t number = x->m->sq_head - (uint32_t)x->m->n_requests;
	int res = 0;

	for (size_t i = 0; i < x->m->n_requests && res >= 0; i++, number++) {
		const Reprise__IoUringRequest *q = x->m->requests[i];
		struct restart_task *t = restart_task_by_vtid(r, q->task);

		if (!t || t->msg->is_zombie)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a request of task %d, which is not there", q->task);
		res = submit_in(r, t, x, fd, q, number, e);
	}
	return res;
}
