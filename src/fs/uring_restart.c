/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring at the restart. A ring belongs to the task that makes it, and with
 * IORING_SETUP_SINGLE_ISSUER no other may use it, so that task makes it; we take a duplicate.
 *
 * The kernel counts requests and completions in counters of its own, from which it never looks up:
 * what the application remembers of them (liburing keeps both) fits only rings that have counted as
 * far. So requests that do nothing are submitted until they have. Then the memory
 * that both sides share is given its contents.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_private.h"
#include "fs/parts.h"
#include "fs/send_fds.h"
#include "fs/uring_provided.h"

/* ---- validation ---- */

/* Without those that will be submitted again. */
static uint32_t counted(const Reprise__IoUring *m)
{
	return m->sq_head - (uint32_t)m->n_requests;
}

static bool power_of_two(uint32_t n, uint32_t max)
{
	return n && n <= max && !(n & (n - 1));
}

static void layout_of(const Reprise__IoUring *m, struct uring_layout *ret)
{
	struct io_sqring_offsets sq;
	struct io_cqring_offsets cq;

	memcpy(&sq, m->layout.data, sizeof(sq));
	memcpy(&cq, m->layout.data + sizeof(sq), sizeof(cq));
	uring_layout(m->flags, m->sq_entries, m->cq_entries, &sq, &cq, ret);
}

/* Where things are is compared with what the kernel says, before it is used. */
static bool layout_fits(const Reprise__IoUring *m)
{
	struct uring_layout l;

	if (m->layout.len != URING_LAYOUT_BYTES)
		return false;
	layout_of(m, &l);
	return l.rings_size < 32u << 20 && uring_own_fits(m, &l) &&
	       parts_fit(m->n_rings, m->rings, l.rings_size) &&
	       parts_fit(m->n_sqes, m->sqes, l.sqes_size);
}

static bool files_fit(const struct restart *r, const Reprise__IoUring *m)
{
	uint32_t next = 0;

	for (size_t i = 0; i < m->n_files; next = m->files[i++]->slot + 1)
		if (m->files[i]->slot < next || m->files[i]->slot >= m->file_slots ||
		    !restart_find(r, RECORD_FILE, m->files[i]->file))
			return false;
	next = 0;
	for (size_t i = 0; i < m->n_buffers; next = m->buffers[i++]->slot + 1)
		if (m->buffers[i]->slot < next || m->buffers[i]->slot >= m->buffer_slots)
			return false;
	for (size_t i = 0; i < m->n_numbers; i++)
		if (m->numbers[i]->index >= URING_NUMBERS)
			return false;
	return m->file_slots <= URING_SLOTS_MAX && m->buffer_slots <= URING_SLOTS_MAX &&
	       (!m->eventfd || restart_find(r, RECORD_FILE, m->eventfd));
}

int uring_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__IoUring *m = msg->io_uring;

	if (!m || !power_of_two(m->sq_entries, URING_ENTRIES_MAX) ||
	    !power_of_two(m->cq_entries, URING_CQ_ENTRIES_MAX) || m->cq_entries < m->sq_entries)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an io_uring of an impossible size");
	if ((m->flags & ~URING_FLAGS) || !(m->flags & IORING_SETUP_CQSIZE) ||
	    (m->poller_of && !(m->flags & IORING_SETUP_SQPOLL)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an io_uring with flags %#x",
				 m->flags);
	if (m->n_requests > m->sq_head || !uring_can_count(m->sq_entries, counted(m), m->cq_tail) ||
	    ((m->flags & IORING_SETUP_R_DISABLED) && (m->sq_head || m->cq_tail)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an io_uring with impossible counters");
	if (!layout_fits(m) || m->overflow.len % sizeof(struct io_uring_cqe) ||
	    (m->overflow.len && (m->flags & URING_LARGE_CQES)) || m->cq_tail < uring_full(m))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an io_uring whose memory does not fit");
	if (!files_fit(r, m) || !uring_requests_fit(r, m) || !uring_provided_fits(m) ||
	    !uring_restrict_fits(m) || !uring_personality_fits(m))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an io_uring with impossible files, buffers or credentials");
	return 0;
}

/* ---- making ---- */

/* Restrictions come after all that is registered, and before it can be used. */
static bool is_enabled_late(const Reprise__IoUring *m)
{
	return m->restrictions && !(m->flags & IORING_SETUP_R_DISABLED);
}

static int close_there(const struct restart_task *t, int remote, struct error *e)
{
	const uint64_t args[6] = {(uint64_t)remote};

	if (agent_syscall(t->process->agent, t->tid, NULL, e, SYS_close, args) < 0)
		return error_set(e, -EIO, E_RESTORE, "cannot close a descriptor in a task");
	return 0;
}

/* wq_fd: number in the task of the ring whose thread submits for it, too; -1: it has its own. */
static int make_with(struct restart_task *t, const Reprise__IoUring *m, int wq_fd, int *ret,
		     struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct io_uring_params params = {.flags = m->flags |
						  (is_enabled_late(m) || uring_personality_first(m)
							   ? IORING_SETUP_R_DISABLED
							   : 0) |
						  (wq_fd >= 0 ? IORING_SETUP_ATTACH_WQ : 0),
					 .cq_entries = m->cq_entries,
					 .wq_fd = (uint32_t)(wq_fd >= 0 ? wq_fd : 0),
					 .sq_thread_cpu = m->poller_cpu,
					 .sq_thread_idle = m->poller_idle_ms};
	struct uring_layout layout;
	const struct io_uring_params *got;
	uint32_t at;
	int call, r;

	layout_of(m, &layout);
	if (m->flags & URING_SETUP_NO_MMAP) { /* where its memory is */
		params.sq_off = layout.sq;
		params.cq_off = layout.cq;
	}
	at = batch_data(&b, &params, sizeof(params));
	call = batch_call(&b, SYS_io_uring_setup, VAL(m->sq_entries), DATA(at));
	r = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (r < 0)
		return r;
	if (batch_result(&b, call) < 0)
		return error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				   "cannot make an io_uring");
	*ret = (int)batch_result(&b, call);
	got = batch_at(&b, at);
	if (got->sq_entries != m->sq_entries || got->cq_entries != m->cq_entries ||
	    memcmp(&got->sq_off, &layout.sq, sizeof(layout.sq)) ||
	    memcmp(&got->cq_off, &layout.cq, sizeof(layout.cq)))
		return error_set(e, -EOPNOTSUPP, E_RESTORE,
				 "the memory of an io_uring is laid out in another way by this "
				 "kernel, and the application knows the old one");
	if ((got->features & m->features) != m->features)
		return error_set(e, -EOPNOTSUPP, E_RESTORE,
				 "io_uring had features %#x when the application asked, and has "
				 "%#x here",
				 m->features, got->features);
	return 0;
}

static int make_any(struct restart *r, struct restart_task *t, const Reprise__IoUring *m, int *ret,
		    struct error *e)
{
	const struct file_open *f = m->poller_of ? file_open_find(r, m->poller_of) : NULL;
	int other, res;

	if (!m->poller_of)
		return make_with(t, m, -1, ret, e);
	if (!f || f->fd < 0 || f->ops->kind != FILE_IO_URING)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an io_uring with the thread of one that does not come before it");
	res = give_fd(r, t, f->fd, &other, e);
	if (res >= 0)
		res = make_with(t, m, other, ret, e);
	return res < 0 ? res : close_there(t, other, e);
}

/* The kernel begins to fill memory of the application, which is to stay as it was. */
static int make(struct restart *r, struct restart_task *t, const Reprise__IoUring *m, int *ret,
		struct error *e)
{
	struct uring_shared x = {.m = m, .there = t};
	int res;

	if (!(m->flags & URING_SETUP_NO_MMAP))
		return make_any(r, t, m, ret, e);
	layout_of(m, &x.layout);
	res = uring_own_open(&x, e);
	if (res >= 0)
		res = make_any(r, t, m, ret, e);
	if (res >= 0)
		res = uring_own_put_back(&x, e);
	uring_own_close(&x);
	return res;
}

int uring_take_over(const struct restart_task *t, int remote, int *ret, struct error *e)
{
	_cleanup_(close_fd) int pidfd = files_pidfd(t->tid);
	int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, remote, 0);

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot take over an io_uring");
	*ret = fd;
	return 0;
}

/* ---- counting ---- */

#define ROUNDS_AT_ONCE 200

static int open_here(struct uring_shared *x, const struct restart_task *t, int fd, struct error *e)
{
	const struct uring_layout *l = &x->layout;
	void *rings, *sqes;

	if (x->m->flags & URING_SETUP_NO_MMAP) {
		x->there = t;
		return uring_own_open(x, e);
	}
	rings = mmap(NULL, l->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		     IORING_OFF_SQ_RING);
	sqes = mmap(NULL, l->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
	x->rings = rings == MAP_FAILED ? NULL : rings;
	x->sqes = sqes == MAP_FAILED ? NULL : sqes;
	if (!x->rings || !x->sqes)
		return error_errno(e, -errno, E_RESTORE, "cannot map an io_uring");
	return 0;
}

static void close_here(struct uring_shared *x)
{
	if (x->there) {
		uring_own_close(x);
		return;
	}
	if (x->rings)
		munmap(x->rings, x->layout.rings_size);
	if (x->sqes)
		munmap(x->sqes, x->layout.sqes_size);
}

/*
 * One series of submissions, each of as many as there is room for. The tail of the requests may
 * stand as far ahead as it likes; the head of the completions is put up to their tail after each by
 * the task itself, by a system call that copies four bytes.
 */
static int run_rounds(struct uring_counting *c, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct iovec to = {(void *)(uintptr_t)(c->rings_there + c->x.layout.cq.head), 4};
	struct iovec from = {(void *)(uintptr_t)(c->rings_there + c->x.layout.cq.tail), 4};
	uint32_t at = batch_data(&b, &to, sizeof(to)),
		 from_at = batch_data(&b, &from, sizeof(from));
	int self = batch_call(&b, SYS_getpid), r;

	for (int i = 0; i < ROUNDS_AT_ONCE; i++) {
		batch_must(&b, batch_call(&b, SYS_io_uring_enter, VAL(c->remote),
					  VAL(c->x.m->sq_entries), VAL(0), VAL(0), VAL(0), VAL(0)));
		batch_must(&b, batch_call(&b, SYS_process_vm_readv, RESULT(self), DATA(at), VAL(1),
					  DATA(from_at), VAL(1), VAL(0)));
	}
	r = agent_run(c->task->process->agent, c->task->tid, NULL, &b, e);
	if (r < 0)
		return r;
	r = batch_failed(&b);
	return r < 0 ? 0
		     : error_errno(e, (int)batch_result(&b, r), E_RESTORE,
				   "cannot bring the counters of an io_uring to where they were");
}

int uring_count_further(struct uring_counting *c, uint32_t n, struct error *e)
{
	uint32_t before = *uring_word(&c->x, c->x.layout.sq.head), count = before + n;
	int r;

	if (c->x.m->flags & IORING_SETUP_SQPOLL)
		return uring_poll_count(c, n, e);
	*uring_word(&c->x, c->x.layout.sq.tail) = count;
	r = uring_push(&c->x, true, e);
	while (r >= 0 && *uring_word(&c->x, c->x.layout.sq.head) != count) {
		r = run_rounds(c, e);
		if (r >= 0)
			r = uring_pull(&c->x, e);
		if (r < 0)
			return r;
		if (*uring_word(&c->x, c->x.layout.sq.head) == before)
			return error_set(e, -EIO, E_RESTORE,
					 "the counters of an io_uring do not move");
		before = *uring_word(&c->x, c->x.layout.sq.head);
	}
	return r < 0 ? r : 0;
}

/* With requests that do nothing, until so many have been submitted. */
static int count_to(struct uring_counting *c, uint32_t count, uint8_t flags, struct error *e)
{
	size_t step = c->x.m->flags & IORING_SETUP_SQE128 ? 128 : 64;
	uint32_t is = *uring_word(&c->x, c->x.layout.sq.head);

	for (uint32_t i = 0; i < c->x.m->sq_entries; i++) {
		struct io_uring_sqe *sqe = (void *)(c->x.sqes + i * step);

		memset(sqe, 0, sizeof(*sqe));
		sqe->opcode = IORING_OP_NOP;
		sqe->flags = flags;
	}
	return count > is ? uring_count_further(c, count - is, e) : 0;
}

static int count(struct restart *rs, struct uring_counting *c, struct error *e)
{
	uint32_t given = (uint32_t)c->x.m->n_given;
	uint32_t requests = counted(c->x.m) - given, full = uring_full(c->x.m);
	uint32_t completions = c->x.m->cq_tail - full;
	uint32_t both = requests < completions ? requests : completions;
	int r = uring_provided_restart(rs, c, e);

	/* one request without a completion, and a completion without a request */
	if (c->x.m->drain_disabled && both && requests == both)
		both--;
	if (r >= 0 && both)
		r = count_to(c, both, 0, e);
	if (r >= 0 && requests > both)
		r = count_to(c, requests, IOSQE_CQE_SKIP_SUCCESS, e);
	if (r >= 0 && given)
		r = uring_given_restart(c, e);
	if (r >= 0 && completions > both)
		r = uring_post(&c->x, c->fd, c->task, c->remote, completions - both, true, e);
	/* It looks for room only when it has used up what there was when it looked last. */
	if (r >= 0 && full)
		r = uring_post(&c->x, c->fd, c->task, c->remote, full, false, e);
	if (r >= 0 && *uring_word(&c->x, c->x.layout.cq.tail) != c->x.m->cq_tail)
		r = error_set(e, -EIO, E_RESTORE, "the counters of an io_uring went astray");
	return r;
}

/* The task needs the rings mapped for that, for a while. */
static int count_mapped(struct restart *rs, struct uring_counting *c, struct error *e)
{
	struct agent *agent = c->task->process->agent;
	const uint64_t map[6] = {0,	     c->x.layout.rings_size, PROT_READ | PROT_WRITE,
				 MAP_SHARED, (uint64_t)c->remote,    IORING_OFF_SQ_RING};
	uint64_t unmap[6] = {0, c->x.layout.rings_size};
	long at;
	int r;

	c->rings_there = uring_own_rings(&c->x);
	if (c->rings_there)
		return count(rs, c, e);
	at = agent_syscall(agent, c->task->tid, NULL, e, SYS_mmap, map);
	unmap[0] = (uint64_t)at;
	if (at < 0)
		return error_errno(e, (int)at, E_RESTORE, "cannot map an io_uring in a task");
	c->rings_there = (uint64_t)at;
	r = count(rs, c, e);
	if (agent_syscall(agent, c->task->tid, NULL, r < 0 ? NULL : e, SYS_munmap, unmap) < 0 &&
	    r >= 0)
		r = error_set(e, -EIO, E_RESTORE, "cannot unmap an io_uring in a task");
	return r;
}

/* ---- contents ---- */

/* What was in the rings, and of the requests in their place. */
static void original(struct uring_shared *x, uint8_t *rings)
{
	const struct uring_layout *l = &x->layout;

	if (x->kept) {
		memcpy(rings, x->kept, l->rings_size);
		memcpy(x->sqes, x->kept + l->rings_size, l->sqes_size);
		return;
	}
	parts_fill(rings, l->rings_size, x->m->n_rings, x->m->rings);
	parts_fill(x->sqes, l->sqes_size, x->m->n_sqes, x->m->sqes);
}

/* At no moment may the tail stand elsewhere than the kernel believes: a thread of it may look. */
static int fill_all(struct uring_shared *x, struct error *e)
{
	const Reprise__IoUring *m = x->m;
	_cleanup_(free_ptr) uint8_t *rings = malloc(x->layout.rings_size);
	struct uring_shared to = {.m = m, .layout = x->layout, .rings = rings};

	if (!rings)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
	original(x, rings);
	/* what the kernel believes, whatever the image says */
	*uring_word(&to, to.layout.sq.head) = counted(m);
	*uring_word(&to, to.layout.cq.tail) = m->cq_tail;
	*uring_word(&to, to.layout.sq.ring_mask) = m->sq_entries - 1;
	*uring_word(&to, to.layout.cq.ring_mask) = m->cq_entries - 1;
	*uring_word(&to, to.layout.sq.ring_entries) = m->sq_entries;
	*uring_word(&to, to.layout.cq.ring_entries) = m->cq_entries;
	if (m->flags & IORING_SETUP_SQPOLL) {
		*uring_word(&to, to.layout.sq.tail) = counted(m);
		*uring_word(&to, to.layout.sq.flags) = IORING_SQ_NEED_WAKEUP;
	}
	memcpy(x->rings, rings, x->layout.rings_size);
	return uring_push(x, true, e);
}

/*
 * What submitting has changed. Completions are let be: there may be new ones.
 */
static int fill_submitted(struct uring_shared *x, struct error *e)
{
	_cleanup_(free_ptr) uint8_t *rings = malloc(x->layout.rings_size);
	uint32_t tail = x->layout.sq.tail, array = x->layout.sq.array;

	if (!rings)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
	original(x, rings);
	if (!(x->m->flags & IORING_SETUP_SQPOLL))
		memcpy(x->rings + tail, rings + tail, 4);
	if (!(x->m->flags & IORING_SETUP_NO_SQARRAY))
		memcpy(x->rings + array, rings + array, 4ul * x->m->sq_entries);
	return uring_push(x, false, e);
}

/* Brings it to where it was. */
static int bring(struct restart *r, struct uring_counting *c, struct error *e)
{
	const Reprise__IoUring *m = c->x.m;
	int res = open_here(&c->x, c->task, c->fd, e);

	if (res >= 0)
		res = uring_own_clear(&c->x, e);
	/* of what is counted, an eventfd that is registered by now is not to tell; until fill_all()
	 */
	if (res >= 0 && is_enabled_late(m))
		*uring_word(&c->x, c->x.layout.cq.flags) |= IORING_CQ_EVENTFD_DISABLED;
	if (res >= 0)
		res = uring_push_word(&c->x, c->x.layout.cq.flags, e);
	if (res >= 0 && (counted(m) || m->cq_tail || m->n_provided))
		res = count_mapped(r, c, e);
	if (res >= 0)
		res = fill_all(&c->x, e);
	if (res >= 0 && m->overflow.len)
		res = uring_overflow_restart(&c->x, c->fd, c->task, c->remote, e);
	close_here(&c->x);
	return res;
}

/* Credentials are registered by us, as long as it is not the ring of its task alone. */
static int personalities(struct restart *r, struct uring_counting *c, struct error *e)
{
	const Reprise__IoUring *m = c->x.m;
	const uint64_t args[6] = {(uint64_t)c->remote, IORING_REGISTER_ENABLE_RINGS};
	int res = uring_personality_restart(r, m, c->fd, e);
	long enabled = 0;

	if (res >= 0 && uring_personality_first(m) && !is_enabled_late(m))
		enabled = agent_syscall(c->task->process->agent, c->task->tid, NULL, e,
					SYS_io_uring_register, args);
	return enabled < 0 ? error_errno(e, (int)enabled, E_RESTORE, "cannot enable an io_uring")
			   : res;
}

int uring_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		  struct error *e)
{
	const Reprise__IoUring *m = msg->io_uring;
	struct restart_task *t = restart_task_by_vtid(r, m->owner);
	struct uring_counting c = {.task = t, .x.m = m, .fd = -EBADF};
	int res;

	if (!t || t->msg->is_zombie)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an io_uring of task %d, which is not there", m->owner);
	layout_of(m, &c.x.layout);
	res = m->flags & IORING_SETUP_SQPOLL
		      ? uring_poll_may(r, t,
				       "a thread of the kernel that submits (IORING_SETUP_SQPOLL)",
				       e)
		      : 0;
	if (res >= 0)
		res = make(r, t, m, &c.remote, e);
	if (res < 0)
		return res;
	res = uring_take_over(t, c.remote, &c.fd, e);
	if (res >= 0)
		res = personalities(r, &c, e);
	if (res >= 0 && !is_enabled_late(m))
		res = bring(r, &c, e);
	if (res >= 0)
		res = close_there(t, c.remote, e);
	if (res < 0)
		close_fd(&c.fd);
	else
		*ret_fd = c.fd;
	return res;
}

int uring_finish(struct restart *r, uint64_t id, const Reprise__File *msg, int fd, struct error *e)
{
	const Reprise__IoUring *m = msg->io_uring;
	struct restart_task *t = restart_task_by_vtid(r, m->owner);
	struct uring_counting c = {.task = t, .x.m = m, .fd = fd};
	int res = give_fd(r, t, fd, &c.remote, e);

	layout_of(m, &c.x.layout);
	if (res >= 0)
		res = uring_register_all(r, t, m, c.remote, e);
	if (res >= 0 && m->restrictions)
		res = uring_numbers_restart(r, m, fd, e);
	if (res >= 0 && m->restrictions)
		res = uring_restrict_restart(t, m, c.remote, e);
	if (res >= 0 && is_enabled_late(m))
		res = bring(r, &c, e);
	return res < 0 ? res : close_there(t, c.remote, e);
}

static int submit(struct restart *r, struct restart_task *t, const struct file_open *f,
		  struct error *e)
{
	struct uring_shared x = {.m = f->msg->io_uring};
	int res;

	layout_of(x.m, &x.layout);
	res = open_here(&x, restart_task_by_vtid(r, x.m->owner), f->fd, e);
	if (res >= 0)
		res = uring_submit_all(r, t, &x, f->fd, e);
	if (res >= 0)
		res = fill_submitted(&x, e);
	close_here(&x);
	return res;
}

int uring_restart_all(struct restart *r, struct error *e)
{
	int res = uring_map_all(r, e);

	vec_for_each (f, &r->files->files) {
		if (res < 0 || f->ops->kind != FILE_IO_URING)
			continue;
		res = uring_requests_check(r, f->msg->io_uring, e);
		if (res >= 0 && !f->msg->io_uring->restrictions)
			res = uring_numbers_restart(r, f->msg->io_uring, f->fd, e);
	}
	return res;
}

/* Not before its table is filled: the turn of those that are linked, or held back, and know files
 * by number may come at once. */
int uring_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			struct error *e)
{
	int res = 0;

	vec_for_each (f, &r->files->files) {
		if (res < 0 || f->ops->kind != FILE_IO_URING)
			continue;
		if (uring_requests_of(r, f->msg->io_uring, t->msg->files))
			res = submit(r, t, f, e);
	}
	return res;
}
