/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring at the checkpoint. What a ring needs that is made anew: the memory that the kernel
 * shares with the application, the kernel's own two counters, and what is registered.
 *
 * Of requests in flight, those that wait are submitted again (uring_flight.c). Those that end by
 * themselves are waited for, since the tasks stand still and make no new ones.
 *
 * The restart side is in uring_restart.c.
 */
#include "fs/uring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"
#include "fs/parts.h"
#include "fs/uring_provided.h"

#define DRAIN_MS   500
#define WAITING_MS 20	    /* for what is about to be taken from the lists of those that wait */
#define DRAIN_STEP 1000000L /* ns */

static bool uring_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:[io_uring]");
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
}

void uring_layout(uint32_t flags, uint32_t sq_entries, uint32_t cq_entries,
		  const struct io_sqring_offsets *sq, const struct io_cqring_offsets *cq,
		  struct uring_layout *ret)
{
	uint64_t cqes = (uint64_t)cq_entries * sizeof(struct io_uring_cqe);
	uint64_t array = 4ull * sq_entries;

	ret->sq = *sq;
	ret->cq = *cq;
	if (flags & IORING_SETUP_CQE32)
		cqes *= 2;
	ret->rings_size = cq->cqes + cqes;
	if (!(flags & IORING_SETUP_NO_SQARRAY) && sq->array + array > ret->rings_size)
		ret->rings_size = sq->array + array;
	ret->sqes_size = (uint64_t)sq_entries * sizeof(struct io_uring_sqe);
	if (flags & IORING_SETUP_SQE128)
		ret->sqes_size *= 2;
}

/* ---- requests in flight ---- */

/* Completions are posted by the task itself, on its way out of a system call. */
static int let_tasks_complete(const struct file_seen *f, const struct uring_seen *s,
			      struct error *e)
{
	const struct checkpoint_process *p = f->process;
	int r = 0;

	if (!p || !p->agent)
		return 0;
	vec_for_each (t, &p->frozen->threads) {
		_cleanup_(batch_free) struct batch b = {};

		if (t->zombie || r < 0)
			continue;
		if (t->in_vfork)
			return error_set(
				e, -EBUSY, E_TASK_VFORK,
				"thread %d, which waits in vfork(), may have to complete its "
				"requests",
				t->tid);
		/* With IORING_SETUP_DEFER_TASKRUN only when it asks for them. If the number means
		 * something else to it, the call does nothing. */
		if (t->tid == s->submitter || (s->flags & IORING_SETUP_IOPOLL))
			batch_call(&b, SYS_io_uring_enter, VAL(f->fd), VAL(0), VAL(0),
				   VAL(IORING_ENTER_GETEVENTS), VAL(0), VAL(0));
		else
			batch_call(&b, SYS_getpid);
		r = agent_run(p->agent, t->tid, t->cpu, &b, e);
	}
	return r;
}

static int refuse_flight(const struct uring_seen *s, struct error *e)
{
	if (s->strange && s->why)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a request is in flight %s: it cannot be asked for again", s->why);
	if (s->strange || s->waiting)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "requests are in flight (%u), some of which cannot be asked for "
				 "again",
				 s->in_flight);
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "requests are in flight (%u) that did not end within %d ms", s->in_flight,
			 DRAIN_MS);
}

/* Nothing is in flight, or only what can be submitted again. */
static bool is_calm(const struct uring_seen *s)
{
	vec_for_each (f, &s->flight)
		if (!f->task)
			return false;
	if ((s->flags & IORING_SETUP_SQPOLL) && s->sq_tail != s->sq_head && !s->obstacle)
		return false;
	return !s->strange && !s->waiting && s->in_flight == s->flight.n + s->n_notices;
}

/* Looks until it is calm. While checking, what may end by itself is let be. */
static int look(struct checkpoint *c, const struct file_seen *f, struct kernel_memory *k,
		struct uring_seen *s, struct error *e)
{
	const struct timespec pause = {.tv_nsec = DRAIN_STEP};
	uint32_t last = 0;

	for (int i = 0; i < DRAIN_MS; i++) {
		int r = uring_look(k, f->local, s, e);

		if (r >= 0)
			last = s->in_flight - (uint32_t)s->flight.n - s->n_notices;

		if (r == -EAGAIN && c->checking) {
			error_clear(e);
			return -EAGAIN;
		}
		if (r < 0 && r != -EAGAIN)
			return r;
		if (r >= 0 && is_calm(s))
			return 0;
		if (r >= 0 && c->checking)
			return s->strange || s->waiting ? refuse_flight(s, e) : 0;
		if (r >= 0 && (s->strange || s->waiting) && i > WAITING_MS)
			return refuse_flight(s, e);
		if (r >= 0 && s->sq_tail != s->sq_head)
			uring_poll_wake(f->local);
		if (r >= 0)
			r = let_tasks_complete(f, s, e);
		if (r < 0 && r != -EAGAIN)
			return r;
		uring_seen_free(s);
		nanosleep(&pause, NULL);
	}
	*s = (struct uring_seen){.in_flight = last};
	return refuse_flight(s, e);
}

/* ---- the memory that is shared ---- */

static int save_area(int fd, uint64_t offset, uint64_t size, size_t *ret_n,
		     Reprise__MemoryPart ***ret, struct scratch *s, struct error *e)
{
	void *at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	int r;

	if (at == MAP_FAILED)
		return error_errno(e, -errno, E_SYSTEM, "cannot map its rings");
	r = parts_save(at, size, ret_n, ret, s);
	munmap(at, size);
	return r < 0 ? no_memory(e) : 0;
}

/* The kernel tells where the parts are when rings are made: some of the same sizes are. */
static int find_layout(const struct uring_seen *seen, Reprise__IoUring *m, struct uring_layout *ret,
		       struct scratch *s, struct error *e)
{
	uint32_t flags = seen->flags & ~(IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF |
					 IORING_SETUP_ATTACH_WQ | URING_SETUP_NO_MMAP);
	struct io_uring_params params = {.flags = flags | IORING_SETUP_CQSIZE,
					 .cq_entries = seen->cq_entries};
	_cleanup_(close_fd) int fd = (int)syscall(SYS_io_uring_setup, seen->sq_entries, &params);

	if (fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot make rings like it");
	if (params.sq_entries != seen->sq_entries || params.cq_entries != seen->cq_entries)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE, "its rings are of an unusual size");
	m->features = params.features;
	uring_layout(seen->flags, seen->sq_entries, seen->cq_entries, &params.sq_off,
		     &params.cq_off, ret);
	if (seen->flags & URING_SETUP_NO_MMAP)
		uring_own_save(seen, ret);
	m->layout.len = URING_LAYOUT_BYTES;
	m->layout.data = scratch_alloc(s, URING_LAYOUT_BYTES);
	if (!m->layout.data)
		return no_memory(e);
	memcpy(m->layout.data, &ret->sq, sizeof(ret->sq));
	memcpy(m->layout.data + sizeof(ret->sq), &ret->cq, sizeof(ret->cq));
	return 0;
}

static int save_contents(const struct file_seen *f, const struct uring_seen *seen,
			 Reprise__IoUring *m, struct scratch *s, struct error *e)
{
	struct uring_layout layout;
	int r = find_layout(seen, m, &layout, s, e);

	/* else its contents are those of the memory of the application */
	if (r < 0 || seen->flags & URING_SETUP_NO_MMAP)
		return r;
	if (r >= 0)
		r = save_area(f->local, IORING_OFF_SQ_RING, layout.rings_size, &m->n_rings,
			      &m->rings, s, e);
	return r < 0 ? r
		     : save_area(f->local, IORING_OFF_SQES, layout.sqes_size, &m->n_sqes, &m->sqes,
				 s, e);
}

/* ---- one ring ---- */

/* Who has to make it anew: the only one that may use it, or one of those that share the memory. */
static int find_owner(const struct checkpoint *c, const struct file_seen *f,
		      const struct uring_seen *s, int32_t *ret, struct error *e)
{
	*ret = s->submitter;
	vec_for_each (tid, &s->users)
		if (!uring_in_tree(c, *tid))
			return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
					 "task %d, which is not in the tree, has used it", *tid);
	if (s->submitter && !uring_in_tree(c, s->submitter))
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "only task %d may use it, which is not in the tree", s->submitter);
	if (!*ret && s->n_makers)
		*ret = s->users.v[0];
	else if (!*ret)
		*ret = f->tid;
	if (s->poller && !s->submitter)
		*ret = s->poller_leader;
	if (!uring_in_tree(c, *ret))
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "the process that has made it is not in the tree");
	return checkpoint_refer(c, *ret, e);
}

/*
 * A ring is made anew so that requests can be told to wait for all before them; not where
 * counting takes requests without a completion (see count() in uring_restart.c), which forbid it.
 */
static bool can_hold(const struct uring_seen *s)
{
	uint32_t ended = s->sq_head - (uint32_t)s->flight.n;

	return !s->drain_disabled && !s->given.n && !s->overflow.n && ended <= s->cq_tail;
}

static int refuse_state(const struct uring_seen *s, struct error *e)
{
	const char *obstacle = s->obstacle ? s->obstacle : uring_restrict_obstacle(s);

	if (obstacle)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE, "%s", obstacle);
	if (s->holds && !can_hold(s))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "requests are in flight (%u) that wait for all before them "
				 "(IOSQE_IO_DRAIN), which rings that have been given buffers by "
				 "requests, or have been full, cannot be asked for again",
				 s->in_flight);
	if (s->flight.n > s->sq_head ||
	    !uring_can_count(s->sq_entries, s->sq_head - (uint32_t)s->flight.n, s->cq_tail))
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"it has had so many requests (%u) or completions (%u) that to count there "
			"again would take too long",
			s->sq_head, s->cq_tail);
	return 0;
}

static int fill(struct checkpoint *c, struct kernel_memory *k, const struct file_seen *f,
		struct uring_seen *s, Reprise__IoUring *m, struct scratch *scratch, struct error *e)
{
	const bool own = s->flags & URING_SETUP_NO_MMAP;
	int r = refuse_state(s, e);

	if (r >= 0)
		r = find_owner(c, f, s, &m->owner, e);
	if (r >= 0 && (s->n_buffers || s->n_provided || own))
		r = uring_page_base(c, k, &s->pages, e);
	if (r >= 0 && own)
		r = uring_own_find(c, k, s, m->owner, e);
	if (r < 0)
		return r;
	/* the other ring has gone, or is of no consequence */
	m->flags = (s->flags & ~IORING_SETUP_ATTACH_WQ) | IORING_SETUP_CQSIZE;
	m->sq_entries = s->sq_entries;
	m->cq_entries = s->cq_entries;
	m->sq_head = s->sq_head;
	m->cq_tail = s->cq_tail;
	m->file_slots = s->n_files;
	m->buffer_slots = s->n_buffers;
	m->eventfd_async = s->eventfd_async;
	m->drain_disabled = s->drain_disabled;
	m->alloc_start = s->alloc_start;
	m->alloc_end = s->alloc_end;
	m->clock = s->clock;
	m->napi = s->napi;
	m->napi_us = s->napi_us;
	m->napi_prefer = s->napi_prefer;
	m->bounded_workers = s->workers[0];
	m->unbounded_workers = s->workers[1];
	m->overflow.len = s->overflow.n * sizeof(*s->overflow.v);
	m->overflow.data =
		scratch_copy(scratch, s->overflow.n ? s->overflow.v : (void *)"", m->overflow.len);
	if (!m->overflow.data)
		return no_memory(e);
	r = uring_poll_save(k, s, m, e);
	if (r >= 0)
		r = uring_restrict_save(s, m, scratch, e);
	if (r >= 0)
		r = uring_personality_save(k, s, m, scratch, e);
	if (r >= 0)
		r = uring_requests_save(c, s, m, scratch, e);
	return r < 0 || c->checking ? r : save_contents(f, s, m, scratch, e);
}

/* Until the other rings are known. */
static int keep_numbers(struct uring_seen *s, struct scratch *scratch, struct error *e)
{
	s->n_kept = s->numbers.n;
	s->kept = scratch_copy(scratch, s->numbers.n ? s->numbers.v : (void *)"",
			       s->numbers.n * sizeof(*s->numbers.v));
	return s->kept ? 0 : no_memory(e);
}

static int uring_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			    struct scratch *scratch, struct error *e)
{
	struct uring_seen *s = scratch_alloc(scratch, sizeof(*s));
	struct kernel_memory *k;
	int r;

	/* The kernel notes by which interface a ring was made (io_ring_ctx.compat). */
	if (f->process && freezer_program(c->proc_fd, f->process->tid) == ARCH_PROGRAM_32)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "an io_uring of a 32-bit program cannot be made again");
	msg->io_uring = scratch_message(scratch, Reprise__IoUring, reprise__io_uring__init);
	if (!s || !msg->io_uring)
		return no_memory(e);
	r = files_kernel_memory(c, &k, e);
	if (r < 0)
		return r;
	r = look(c, f, k, s, e);
	if (r == -EAGAIN) /* in motion */
		return 0;
	if (r >= 0)
		r = fill(c, k, f, s, msg->io_uring, scratch, e);
	if (r >= 0)
		r = uring_provided_save(c, k, f->local, s, msg->io_uring, scratch, e);
	if (r >= 0)
		r = keep_numbers(s, scratch, e);
	uring_seen_free(s);
	f->entry->private = (uint64_t)(uintptr_t)s;
	return r;
}

static void uring_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__IoUring *m = msg->io_uring;

	if (m)
		snprintf(buf, size,
			 "%u and %u entries, %u requests, %zu in flight, %zu files, %zu buffers",
			 m->sq_entries, m->cq_entries, m->sq_head, m->n_requests, m->n_files,
			 m->n_buffers);
}

const struct file_ops uring_file_ops = {
	.kind = FILE_IO_URING,
	.name = "io_uring",
	.support =
		"rings, also in memory of the application or with a thread that submits, registered files (regular ones also where they "
		"have been closed) and buffers, buffers to choose from, "
		"registered credentials, requests that wait for a file, "
		"a connection, a futex, a child, time or each other; "
		"by root (or with CAP_BPF and CAP_PERFMON), Linux 6.16 or newer",
	.match = uring_match,
	.checkpoint = uring_checkpoint,
	.checkpoint_queues = uring_checkpoint_queues,
	.checkpoint_all = uring_checkpoint_all,
	.validate = uring_validate,
	.restart = uring_restart,
	.by_pidfd = true,
	.after_tasks = true,
	.finish = uring_finish,
	.restart_all = uring_restart_all,
	.restart_table = uring_restart_table,
	.describe = uring_describe,
};
