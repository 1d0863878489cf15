/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that were in flight (uring_flight.c finds them), submitted again by the threads that had
 * submitted them: the kernel gives completions to those. It happens when everything that they may
 * wait for is there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_private.h"
#include "fs/send_fds.h"
#include "fs/uring.h"

/* ---- checkpoint ---- */

bool uring_in_tree(const struct checkpoint *c, pid_t tid)
{
	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads)
			if (t->tid == tid && !t->zombie)
				return true;
	return false;
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
}

static bool is_mapped(pid_t tid, const struct uring_patch *p)
{
	uint8_t buf[64];
	struct iovec own = {buf, p->size}, its = {(void *)(uintptr_t)p->address, p->size};

	return p->size <= sizeof(buf) &&
	       process_vm_readv(tid, &own, 1, &its, 1, 0) == (ssize_t)p->size;
}

static int save_memory(const struct uring_request *f, Reprise__IoUringRequest *q, struct scratch *s,
		       struct error *e)
{
	q->memory.len = f->memory_size;
	q->memory.data = scratch_copy(s, f->memory_size ? f->memory : (void *)"", f->memory_size);
	q->n_pointers = f->n_pointers;
	q->pointers = scratch_copy(s, f->pointers, sizeof(f->pointers));
	q->sqe_pointers = f->sqe_pointers;
	q->patches = scratch_alloc(s, (f->patches.n + 1) * sizeof(*q->patches));
	if (!q->memory.data || !q->pointers || !q->patches)
		return no_memory(e);
	vec_for_each (p, &f->patches) {
		Reprise__IoUringPatch *to =
			scratch_message(s, Reprise__IoUringPatch, reprise__io_uring_patch__init);

		if (!to)
			return no_memory(e);
		if (!is_mapped(f->task, p))
			return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
					 "a request is in flight that was asked for with memory at "
					 "%#lx, which task %d no longer has",
					 p->address, f->task);
		to->address = p->address;
		to->at = p->at;
		to->size = p->size;
		q->patches[q->n_patches++] = to;
	}
	return 0;
}

static int save_request(const struct uring_request *f, Reprise__IoUring *m, struct scratch *s,
			struct error *e)
{
	Reprise__IoUringRequest *q =
		scratch_message(s, Reprise__IoUringRequest, reprise__io_uring_request__init);

	if (!q)
		return no_memory(e);
	q->sqe.len = sizeof(f->sqe);
	q->sqe.data = scratch_copy(s, &f->sqe, sizeof(f->sqe));
	if (!q->sqe.data)
		return no_memory(e);
	q->file = f->file; /* until all descriptions are known */
	q->task = f->task;
	q->timeout_ns = f->timeout_ns;
	q->nofile = f->nofile;
	q->linked = f->linked;
	m->requests[m->n_requests++] = q;
	return save_memory(f, q, s, e);
}

static pid_t process_of(const struct checkpoint *c, pid_t tid)
{
	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads)
			if (t->tid == tid)
				return p->frozen->pid;
	return 0;
}

/*
 * A stop that its parent has been told of is told of again when the child is stopped at the
 * restart: by then the request waits.
 */
static bool has_stopped_child(const struct checkpoint *c, pid_t tid)
{
	pid_t parent = process_of(c, tid);

	vec_for_each (p, &c->processes)
		if (p->frozen->ppid == parent && p->frozen->job_stopped)
			return true;
	return false;
}

/* What waits for all before it is submitted last: those of a process are submitted together. */
static bool can_follow(const struct checkpoint *c, const struct uring_seen *s)
{
	if (s->holds)
		vec_for_each (f, &s->flight)
			if (process_of(c, f->task) != process_of(c, s->flight.v[0].task))
				return false;
	return true;
}

static bool waits_for_stop(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == URING_OP_WAITID && (sqe->file_index & WSTOPPED);
}

int uring_requests_save(const struct checkpoint *c, const struct uring_seen *seen,
			Reprise__IoUring *m, struct scratch *s, struct error *e)
{
	int r = 0;

	m->requests = scratch_alloc(s, (seen->flight.n + 1) * sizeof(*m->requests));
	if (!m->requests)
		return no_memory(e);
	if (!can_follow(c, seen))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "requests of several processes are in flight, some of which wait "
				 "for all before them (IOSQE_IO_DRAIN)");
	vec_for_each (f, &seen->flight) {
		if (!uring_in_tree(c, f->task))
			return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
					 "a request of task %d is in flight, which is not in the "
					 "tree",
					 f->task);
		if (waits_for_stop(&f->sqe) && has_stopped_child(c, f->task))
			return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
					 "a request is in flight that waits for a child of task %d "
					 "to stop, while one is stopped",
					 f->task);
		r = save_request(f, m, s, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- restart ---- */

static bool memory_fits(const Reprise__IoUringRequest *q)
{
	if (q->memory.len > URING_MEMORY_MAX || q->n_pointers > URING_POINTERS_MAX ||
	    (q->sqe_pointers & ~(URING_POINTER_ADDR | URING_POINTER_ADDR2)))
		return false;
	for (size_t i = 0; i < q->n_pointers; i++)
		if (q->memory.len < 8 || q->pointers[i] > q->memory.len - 8)
			return false;
	for (size_t i = 0; i < q->n_patches; i++)
		if (q->patches[i]->at > q->memory.len ||
		    q->patches[i]->size > q->memory.len - q->patches[i]->at)
			return false;
	return q->n_patches <= URING_FUTEXES_MAX;
}

static bool is_timeout(uint8_t opcode)
{
	return opcode == IORING_OP_TIMEOUT || opcode == IORING_OP_LINK_TIMEOUT;
}

static bool request_fits(const struct restart *r, const Reprise__IoUringRequest *q)
{
	struct io_uring_sqe sqe;

	if (q->sqe.len != sizeof(sqe))
		return false;
	memcpy(&sqe, q->sqe.data, sizeof(sqe));
	if (!uring_kind_fits(sqe.opcode, sqe.flags) || !memory_fits(q) ||
	    (q->file && (q->linked || !restart_find(r, RECORD_FILE, q->file))) ||
	    (is_timeout(sqe.opcode) && (q->timeout_ns > INT64_MAX || q->memory.len)))
		return false;
	return q->linked ? !(sqe.flags & IOSQE_IO_DRAIN) : sqe.opcode != IORING_OP_LINK_TIMEOUT;
}

bool uring_requests_fit(const struct restart *r, const Reprise__IoUring *m)
{
	size_t chain = 0;

	for (size_t i = 0; i < m->n_requests; i++) {
		chain = m->requests[i]->linked ? chain + 1 : 1;
		if (!request_fits(r, m->requests[i]) || chain > m->sq_entries ||
		    (!i && m->requests[i]->linked) ||
		    m->requests[i]->task != m->requests[i - (chain - 1)]->task)
			return false;
	}
	return true;
}

/* A request and those that are linked to it, which are submitted together. */
struct chain {
	struct restart *r;
	struct restart_task *t;
	struct uring_shared *x;
	Reprise__IoUringRequest *const *requests;
	uint32_t n, number; /* of the first, of all that the ring has had */
	int ring, file;	    /* descriptors in the task */
	int fd;		    /* of the ring, here */
	uint64_t page, size;
};

static uint64_t place_of(const Reprise__IoUringRequest *q)
{
	return (q->memory.len + sizeof(struct __kernel_timespec) + 15) & ~15ul;
}

static int write_there(const struct restart_task *t, uint64_t address, const void *data,
		       size_t size, struct error *e)
{
	struct iovec from = {(void *)(uintptr_t)data, size};
	struct iovec to = {(void *)(uintptr_t)address, size};

	if (size && process_vm_writev(t->process->pid, &from, 1, &to, 1, 0) != (ssize_t)size)
		return error_errno(e, errno ? -errno : -EFAULT, E_RESTORE,
				   "cannot write to task %d", t->vtid);
	return 0;
}

/* What it points to, at `place` in the task. *memory: as it is there. */
static int place_memory(const struct restart_task *t, uint64_t place,
			const Reprise__IoUringRequest *q, struct io_uring_sqe *sqe, uint8_t *memory,
			struct error *e)
{
	struct __kernel_timespec ts = {.tv_sec = (int64_t)(q->timeout_ns / 1000000000),
				       .tv_nsec = (long long)(q->timeout_ns % 1000000000)};

	if (is_timeout(sqe->opcode)) {
		sqe->addr = place;
		return write_there(t, place, &ts, sizeof(ts), e);
	}
	if (q->memory.len)
		memcpy(memory, q->memory.data, q->memory.len);
	for (size_t i = 0; i < q->n_pointers; i++) {
		uint64_t word;

		memcpy(&word, memory + q->pointers[i], sizeof(word));
		word += place;
		memcpy(memory + q->pointers[i], &word, sizeof(word));
	}
	if (q->sqe_pointers & URING_POINTER_ADDR)
		sqe->addr += place;
	if (q->sqe_pointers & URING_POINTER_ADDR2)
		sqe->addr2 += place;
	return write_there(t, place, memory, q->memory.len, e);
}

/* Patches are taken back word by word, where nothing else has been written meanwhile: a request may
 * end at once, and report. */
static void take_back(uint8_t *is, const uint8_t *put, const uint8_t *old, uint32_t size)
{
	for (uint32_t at = 0; at < size; at += 8) {
		uint32_t n = size - at < 8 ? size - at : 8;

		if (!memcmp(is + at, put + at, n))
			memcpy(is + at, old + at, n);
	}
}

/* old: what the task has there otherwise. What is equal is not touched. */
static int patch(const struct restart_task *t, const Reprise__IoUringPatch *p, const uint8_t *put,
		 uint8_t *old, bool undo, struct error *e)
{
	_cleanup_(free_ptr) uint8_t *is = malloc(p->size + 1), *to = malloc(p->size + 1);
	struct iovec own = {is, p->size}, its = {(void *)(uintptr_t)p->address, p->size};

	if (!is || !to)
		return no_memory(e);
	if (process_vm_readv(t->process->pid, &own, 1, &its, 1, 0) != (ssize_t)p->size)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot read what a request in flight was asked for with, at "
				   "%#lx of task %d",
				   p->address, t->vtid);
	if (undo) {
		memcpy(to, is, p->size);
		take_back(to, put, old, p->size);
	} else {
		memcpy(old, is, p->size);
		memcpy(to, put, p->size);
	}
	return memcmp(is, to, p->size) ? write_there(t, p->address, to, p->size, e) : 0;
}

static int enter(const struct chain *c, struct error *e)
{
	const uint64_t args[6] = {(uint64_t)c->ring, c->n};
	long done;
	int r;

	if (c->x->m->flags & IORING_SETUP_SQPOLL)
		return uring_poll_submit(c->x, c->fd, c->number + c->n, e);
	*uring_word(c->x, c->x->layout.sq.tail) = c->number + c->n;
	r = uring_push(c->x, false, e);
	if (r < 0)
		return r;
	done = agent_syscall(c->t->process->agent, c->t->tid, NULL, e, SYS_io_uring_enter, args);
	if (done == (long)c->n)
		return uring_pull(c->x, e);
	return error_errno(e, done < 0 ? (int)done : -EIO, E_RESTORE,
			   "cannot submit a request again that was in flight");
}

/* accept() remembers the limit under which it was asked. */
static int limited(const struct chain *c, uint64_t nofile, struct error *e)
{
	pid_t pid = c->t->process->pid;
	struct rlimit is, wanted;
	int r;

	if (!nofile || prlimit(pid, RLIMIT_NOFILE, NULL, &is) < 0)
		return enter(c, e);
	wanted = is;
	wanted.rlim_cur = nofile < is.rlim_max ? nofile : is.rlim_max;
	if (prlimit(pid, RLIMIT_NOFILE, &wanted, NULL) < 0)
		return error_errno(e, -errno, E_SYSTEM, "prlimit");
	r = enter(c, e);
	if (prlimit(pid, RLIMIT_NOFILE, &is, NULL) < 0 && r >= 0)
		r = error_errno(e, -errno, E_SYSTEM, "prlimit");
	return r;
}

static int close_there(const struct restart_task *t, int fd, struct error *e)
{
	const uint64_t args[6] = {(uint64_t)fd};
	long r = agent_syscall(t->process->agent, t->tid, NULL, e, SYS_close, args);

	return r < 0 ? error_errno(e, (int)r, E_RESTORE, "close") : 0;
}

static int bring_file(struct chain *c, uint64_t id, struct error *e)
{
	const struct file_open *f = file_open_find(c->r, id);

	if (!f)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a request of io_uring for a file that is not there");
	return f->ops->by_pidfd ? give_fd(c->r, c->t, f->fd, &c->file, e)
				: restart_send_fds(c->r, c->t, &f->fd, 1, &c->file, e);
}

static int prepare_one(struct chain *c, uint32_t i, uint64_t place, uint8_t *memory,
		       struct error *e)
{
	size_t step = c->x->m->flags & IORING_SETUP_SQE128 ? 128 : 64;
	uint32_t slot = (c->number + i) & (c->x->m->sq_entries - 1);
	const Reprise__IoUringRequest *q = c->requests[i];
	struct io_uring_sqe sqe;
	int r = 0;

	memcpy(&sqe, q->sqe.data, sizeof(sqe));
	if (q->file) {
		r = bring_file(c, q->file, e);
		sqe.fd = c->file;
	}
	if (r >= 0)
		r = place_memory(c->t, place, q, &sqe, memory, e);
	memcpy(c->x->sqes + slot * step, &sqe, sizeof(sqe));
	if (!(c->x->m->flags & IORING_SETUP_NO_SQARRAY))
		*uring_word(c->x, c->x->layout.sq.array + 4 * slot) = slot;
	return r;
}

/* All patches of a chain, one after the other; to undo them, backwards. */
static int patch_all(const struct chain *c, uint8_t *memory, uint8_t *old, bool undo,
		     struct error *e)
{
	uint64_t at = undo ? c->size : 0;
	int r = 0;

	for (uint32_t k = 0; k < c->n && r >= 0; k++) {
		const Reprise__IoUringRequest *q = c->requests[undo ? c->n - 1 - k : k];

		at -= undo ? place_of(q) : 0;
		for (size_t i = 0; i < q->n_patches && r >= 0; i++) {
			const Reprise__IoUringPatch *p =
				q->patches[undo ? q->n_patches - 1 - i : i];

			r = patch(c->t, p, memory + at + p->at, old + at + p->at, undo, e);
		}
		at += undo ? 0 : place_of(q);
	}
	return r;
}

static bool waits_for_futex(const struct chain *c)
{
	for (uint32_t i = 0; i < c->n; i++) {
		uint8_t opcode = c->requests[i]->sqe.data[offsetof(struct io_uring_sqe, opcode)];

		if (opcode == URING_OP_FUTEX_WAIT || opcode == URING_OP_FUTEX_WAITV)
			return true;
	}
	return false;
}

static int submit_chain(struct chain *c, struct error *e)
{
	_cleanup_(free_ptr) uint8_t *memory = calloc(2, c->size);
	uint64_t at = 0, nofile = 0;
	int r = memory ? 0 : no_memory(e);

	for (uint32_t i = 0; i < c->n && r >= 0; at += place_of(c->requests[i++])) {
		r = prepare_one(c, i, c->page + at, memory + at, e);
		nofile = nofile ? nofile : c->requests[i]->nofile;
	}
	if (r >= 0 && waits_for_futex(c))
		r = uring_make_worker(c->t, e);
	if (r >= 0)
		r = patch_all(c, memory, memory + c->size, false, e);
	if (r < 0)
		return r;
	r = limited(c, nofile, e);
	if (r >= 0)
		r = patch_all(c, memory, memory + c->size, true, e);
	return r >= 0 && c->file >= 0 ? close_there(c->t, c->file, e) : r;
}

static int submit_in(struct chain *c, struct error *e)
{
	uint64_t map[6] = {0, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1};
	long page;
	int r;

	for (uint32_t i = 0; i < c->n; i++)
		c->size += place_of(c->requests[i]);
	map[1] = c->size;
	page = agent_syscall(c->t->process->agent, c->t->tid, NULL, e, SYS_mmap, map);
	if (page < 0)
		return error_errno(e, (int)page, E_RESTORE, "no memory in task %d", c->t->vtid);
	map[0] = c->page = (uint64_t)page;
	r = give_fd(c->r, c->t, c->fd, &c->ring, e);
	if (r >= 0)
		r = submit_chain(c, e);
	if (r >= 0)
		r = close_there(c->t, c->ring, e);
	if (r >= 0)
		r = (int)agent_syscall(c->t->process->agent, c->t->tid, NULL, e, SYS_munmap, map);
	return r;
}

static uint64_t table_of(struct restart *r, int32_t task)
{
	const struct restart_task *t = restart_task_by_vtid(r, task);

	return t && !t->msg->is_zombie ? t->msg->files : 0;
}

static bool waits_for_all(const Reprise__IoUringRequest *q)
{
	return q->sqe.data[offsetof(struct io_uring_sqe, flags)] & IOSQE_IO_DRAIN;
}

/* Their tasks must be there; what waits for all others is submitted with these. */
int uring_requests_check(struct restart *r, const Reprise__IoUring *m, struct error *e)
{
	bool apart = false, held = false;

	for (size_t i = 0; i < m->n_requests; i++) {
		uint64_t table = table_of(r, m->requests[i]->task);

		if (!table)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a request of task %d, which is not there",
					 m->requests[i]->task);
		apart |= table != table_of(r, m->requests[0]->task);
		held |= waits_for_all(m->requests[i]);
	}
	/* which workers of the kernel carry out, as whoever submits them (io_prep_async_work()) */
	if (held && !apart)
		return uring_poll_may(r, restart_task_by_vtid(r, m->requests[0]->task),
				      "requests that wait for all before them (IOSQE_IO_DRAIN)", e);
	if (apart && held)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "requests of several tables, some of which wait for the others");
	return 0;
}

bool uring_requests_of(struct restart *r, const Reprise__IoUring *m, uint64_t table)
{
	for (size_t i = 0; i < m->n_requests; i++)
		if (table_of(r, m->requests[i]->task) == table)
			return true;
	return false;
}

int uring_submit_all(struct restart *r, struct restart_task *t, struct uring_shared *x, int fd,
		     struct error *e)
{
	int res = 0;

	for (size_t i = 0, n; i < x->m->n_requests && res >= 0; i += n) {
		struct chain c = {.r = r,
				  .x = x,
				  .requests = x->m->requests + i,
				  .number = *uring_word(x, x->layout.sq.head),
				  .file = -1,
				  .fd = fd};

		for (n = 1; i + n < x->m->n_requests && x->m->requests[i + n]->linked; n++)
			;
		if (table_of(r, x->m->requests[i]->task) != t->msg->files)
			continue;
		c.t = restart_task_by_vtid(r, x->m->requests[i]->task);
		c.t->control = t->control;
		c.n = (uint32_t)n;
		res = submit_in(&c, e);
	}
	return res;
}
