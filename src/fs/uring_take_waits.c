/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that wait for something else than a file: for a futex, for time, for a child. As in
 * uring_take.c.
 */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "fs/uring_flight.h"

/* futex_flags of the kernel (kernel/futex/futex.h), and those of futex2 they come from */
#define FLAGS_SIZE     0x3u
#define FLAGS_SHARED   0x10u
#define FUTEX2_PRIVATE 128
#define FUTEX_U32      2u /* FUTEX2_SIZE_U32, the only size that there is */

bool uring_take_epoll(struct flying *f, struct io_uring_sqe *sqe)
{
	sqe->addr = uring_of_kind(f, "io_epoll_wait", "events", 8);
	sqe->len = (uint32_t)uring_of_kind(f, "io_epoll_wait", "maxevents", 4);
	return true;
}

/* ---- futexes ---- */

/* The kernel compares the word with what was asked for once, when the wait begins. */
static void put_word(struct flying *f, uint64_t address, uint64_t value)
{
	uint32_t word = (uint32_t)value;

	if (f->issued)
		uring_put_patch(f, address, uring_put(f, &word, sizeof(word)), sizeof(word));
}

static bool futex_known(uint32_t flags)
{
	return !(flags & ~(FLAGS_SIZE | FLAGS_SHARED)) && (flags & FLAGS_SIZE) == FUTEX_U32;
}

/* What futex2_to_flags() has made of it, back again. */
static uint32_t futex2_flags(uint32_t flags)
{
	return (flags & FLAGS_SIZE) | (flags & FLAGS_SHARED ? 0 : FUTEX2_PRIVATE);
}

bool uring_take_futex(struct flying *f, struct io_uring_sqe *sqe)
{
	uint32_t flags = (uint32_t)uring_of_kind(f, "io_futex", "futex_flags", 4);

	sqe->addr = uring_of_kind(f, "io_futex", "uaddr", 8);
	sqe->addr2 = uring_of_kind(f, "io_futex", "futex_val", 8);
	sqe->addr3 = uring_of_kind(f, "io_futex", "futex_mask", 8);
	sqe->fd = (int)futex2_flags(flags);
	put_word(f, sqe->addr, sqe->addr2);
	return futex_known(flags);
}

struct waiter { /* struct futex_waitv */
	uint64_t value, address;
	uint32_t flags, unused;
};

bool uring_take_futexes(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = uring_of_request(f, "async_data", 8);
	uint32_t n = (uint32_t)uring_of_kind(f, "io_futex", "futex_nr", 4);
	int size = kernel_size(f->k, "futex_vector");
	struct waiter all[URING_FUTEXES_MAX];

	if (!data || !n || n > URING_FUTEXES_MAX || size < (int)sizeof(all[0]) ||
	    kernel_size(f->k, "futex_waitv") != sizeof(all[0]))
		return false;
	for (uint32_t i = 0; i < n && !f->failed; i++) {
		int r = kernel_read(f->k, data + (uint64_t)i * (uint32_t)size, &all[i],
				    sizeof(all[i]));

		if (r < 0)
			f->failed = r;
		else if (!futex_known(all[i].flags))
			return false;
		all[i].flags = futex2_flags(all[i].flags);
		put_word(f, all[i].address, all[i].value);
	}
	sqe->fd = 0;
	sqe->addr = uring_put(f, all, n * sizeof(all[0]));
	sqe->len = n;
	f->to->sqe_pointers = URING_POINTER_ADDR;
	return true;
}

/* ---- children ---- */

/* The number of a struct pid, as a task has it. */
static int number_of(struct flying *f, uint64_t pid, uint64_t task)
{
	uint64_t own = uring_get(f, task, "task_struct", "thread_pid", 8);
	uint32_t level = (uint32_t)uring_get(f, own, "pid", "level", 4);
	int numbers = kernel_offset(f->k, "pid", "numbers"), size = kernel_size(f->k, "upid");
	int32_t n = 0;
	int r = numbers < 0 ? numbers : size;

	if (r >= 0)
		r = kernel_read(f->k, pid + (uint32_t)numbers + (uint64_t)level * (uint32_t)size,
				&n, sizeof(n));
	f->failed = f->failed ? f->failed : r < 0 ? r : 0;
	return n;
}

/*
 * Whom it waits for is settled when its turn comes: the group that was the task's own then, the
 * process of a pidfd. The end of a child would have ended it.
 */
bool uring_take_waitid(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = uring_of_request(f, "async_data", 8);
	uint64_t tctx = uring_of_request(f, "tctx", 8), pid = 0;

	sqe->len = (uint32_t)uring_of_kind(f, "io_waitid", "which", 4);
	sqe->fd = (int32_t)uring_of_kind(f, "io_waitid", "upid", 4);
	sqe->addr2 = uring_of_kind(f, "io_waitid", "infop", 8);
	sqe->file_index = (uint32_t)uring_of_kind(f, "io_waitid", "options", 4);
	if (!f->issued || sqe->len == P_ALL)
		return true;
	if (data)
		pid = uring_get(f, data, "io_waitid_async", "wo.wo_pid", 8);
	if (!pid)
		return false;
	if (sqe->len == P_PIDFD)
		sqe->len = P_PID;
	sqe->fd = number_of(f, pid, uring_get(f, tctx, "io_uring_task", "task", 8));
	return sqe->fd > 0;
}

/* ---- time ---- */

#define TIMEOUT_MULTISHOT (1u << 6) /* IORING_TIMEOUT_MULTISHOT, 6.4 */

/* As it was asked for: its turn has not come. */
static bool take_later_timeout(struct flying *f, struct io_uring_sqe *sqe, uint64_t data)
{
	uint64_t seconds = uring_get(f, data, "io_timeout_data", "ts.tv_sec", 8);
	uint64_t ns = uring_get(f, data, "io_timeout_data", "ts.tv_nsec", 8);

	f->to->timeout_ns =
		seconds > INT64_MAX / 1000000000 - 1 ? INT64_MAX : seconds * 1000000000 + ns;
	sqe->off = sqe->opcode == IORING_OP_TIMEOUT ? uring_of_kind(f, "io_timeout", "off", 4) : 0;
	return !(sqe->timeout_flags & IORING_TIMEOUT_ABS) ||
	       (sqe->timeout_flags & IORING_TIMEOUT_REALTIME);
}

/* One that goes on and on: a whole interval from now on, and so many times as are left. */
static bool take_interval(struct flying *f, struct io_uring_sqe *sqe, uint64_t data)
{
	if (!take_later_timeout(f, sqe, data))
		return false;
	if (sqe->off && f->issued)
		sqe->off = uring_of_kind(f, "io_timeout", "repeats", 4);
	return sqe->opcode == IORING_OP_TIMEOUT;
}

/* How many completions are to come (io_timeout()). */
static bool take_count(struct flying *f, struct io_uring_sqe *sqe)
{
	uint32_t ended = f->seen->cq_tail - f->seen->cq_timeouts;
	uint32_t left = (uint32_t)uring_of_kind(f, "io_timeout", "target_seq", 4) - ended;

	if (sqe->opcode != IORING_OP_TIMEOUT || !uring_of_kind(f, "io_timeout", "off", 4))
		return true;
	sqe->off = left;
	return left && left <= INT32_MAX;
}

/* What is left of it; or the time of day, if that was asked for. */
bool uring_take_timeout(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = uring_of_request(f, "async_data", 8);
	uint32_t flags = (uint32_t)uring_get(f, data, "io_timeout_data", "flags", 4);
	uint64_t expires = uring_get(f, data, "io_timeout_data", "timer._softexpires", 8), now;

	sqe->len = 1;
	sqe->timeout_flags = flags;
	if (flags & ~(IORING_TIMEOUT_ABS | IORING_TIMEOUT_CLOCK_MASK |
		      IORING_TIMEOUT_ETIME_SUCCESS | TIMEOUT_MULTISHOT))
		return false;
	if (flags & TIMEOUT_MULTISHOT)
		return take_interval(f, sqe, data);
	if (!f->issued)
		return take_later_timeout(f, sqe, data);
	if ((flags & (IORING_TIMEOUT_ABS | IORING_TIMEOUT_REALTIME)) ==
	    (IORING_TIMEOUT_ABS | IORING_TIMEOUT_REALTIME)) {
		f->to->timeout_ns = expires;
	} else {
		now = kernel_clock_ns(f->k, flags & IORING_TIMEOUT_BOOTTIME   ? CLOCK_BOOTTIME
					    : flags & IORING_TIMEOUT_REALTIME ? CLOCK_REALTIME
									      : CLOCK_MONOTONIC);
		f->to->timeout_ns = expires > now ? expires - now : 1;
		sqe->timeout_flags &= ~IORING_TIMEOUT_ABS;
	}
	return take_count(f, sqe);
}
