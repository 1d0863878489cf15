/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts of asynchronous I/O. The id of one is the address of its ring, which mremap() may
 * change (aio_ring_mremap()): so a new one gets the old id. Whether requests are in flight is told
 * by the memory of the kernel alone (struct kioctx). They come to their end while the task stands
 * still: a checkpoint waits for them.
 */
#include "mm/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "core/cleanup.h"
#include "core/kernel_percpu.h"
#include "core/procfs.h"
#include "mm/layout.h"
#include "mm/mm.h"
#include "mm/pages.h"

#define RING_MAGIC  0xa10a10a1u /* AIO_RING_MAGIC */
#define PATIENCE_MS 3000
#define AT_ONCE	    32 /* requests of one call */
#define TRIES	    10

/* struct aio_ring: as old as the interface, and read by libaio. */
struct ring {
	uint32_t id, nr, head, tail, magic, compat, incompat, header_length;
};

struct aio_checkpoint {
	struct kernel_memory *kernel;
	struct kernel_percpu percpu;
};

void aio_checkpoint_free(struct aio_checkpoint *x)
{
	if (!x)
		return;
	kernel_percpu_free(&x->percpu);
	free(x);
}

static struct aio_checkpoint *get_kernel(struct checkpoint *c, struct error *e)
{
	struct aio_checkpoint *x = c->mm->aio;
	int r;

	if (x)
		return x;
	x = calloc(1, sizeof(*x));
	if (!x) {
		error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for asynchronous I/O");
		return NULL;
	}
	r = checkpoint_kernel_memory(c, &x->kernel, e);
	if (r >= 0)
		r = kernel_percpu_find(x->kernel, &x->percpu);
	if (r < 0) {
		error_clear(e);
		error_errno(e, r, E_VMA_KIND,
			    "is the ring of an asynchronous I/O context (io_setup), and whether "
			    "requests are in flight is told by the memory of the kernel alone, "
			    "which cannot be read (BPF)");
		aio_checkpoint_free(x);
		return NULL;
	}
	return c->mm->aio = x;
}

/* One member of struct kioctx, of at most 8 bytes. */
static int member(struct kernel_memory *k, uint64_t at, const char *structure, const char *name,
		  void *buf, size_t size)
{
	int offset = kernel_offset(k, structure, name);

	return offset < 0 ? offset : kernel_read(k, at + (uint64_t)offset, buf, size);
}

static int find_table(struct kernel_memory *k, pid_t tid, uint64_t *ret, uint32_t *ret_nr)
{
	uint64_t task, mm = 0;
	int r = kernel_task(k, tid, &task);

	if (r >= 0)
		r = member(k, task, "task_struct", "mm", &mm, sizeof(mm));
	*ret = 0;
	if (r >= 0)
		r = member(k, mm, "mm_struct", "ioctx_table", ret, sizeof(*ret));
	if (r < 0 || !*ret)
		return r;
	return member(k, *ret, "kioctx_table", "nr", ret_nr, sizeof(*ret_nr));
}

/* 1 and the struct kioctx whose id is that address; 0: it is none, such as what a fork has left. */
static int find_context(struct kernel_memory *k, pid_t tid, uint64_t id, uint64_t *ret)
{
	int first = kernel_offset(k, "kioctx_table", "table");
	uint32_t nr = 0;
	uint64_t table;
	int r = find_table(k, tid, &table, &nr);

	if (r >= 0 && first < 0)
		r = first;
	for (uint32_t i = 0; i < nr && r >= 0; i++) {
		uint64_t context = kernel_pointer(k, table + (uint64_t)first + i * 8), is = 0;

		if (!context)
			continue;
		r = member(k, context, "kioctx", "user_id", &is, sizeof(is));
		if (r >= 0 && is == id) {
			*ret = context;
			return 1;
		}
	}
	return r < 0 ? r : 0;
}

/* One reference is that of the context itself (ioctx_alloc()). */
static int in_flight(const struct aio_checkpoint *x, uint64_t context, int64_t *ret)
{
	int offset = kernel_offset(x->kernel, "kioctx", "reqs");
	int r = offset < 0
			? offset
			: kernel_percpu_ref(x->kernel, &x->percpu, context + (uint64_t)offset, ret);

	*ret -= 1;
	return r;
}

/* Until there are none but those that wait for files. */
static int wait_requests(const struct aio_checkpoint *x, uint64_t context, struct aio_polls *ret,
			 struct error *e)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	int64_t n = 0;

	for (int ms = 0; ms < PATIENCE_MS; ms++) {
		int r = in_flight(x, context, &n);

		ret->n = 0;
		if (r >= 0)
			r = aio_polls_look(x->kernel, context, ret);
		if (r < 0 && r != -EAGAIN)
			return error_errno(e, r, E_VMA_KIND,
					   "requests in flight cannot be counted");
		if (r >= 0 && n == (int64_t)ret->n)
			return 0;
		nanosleep(&pause, NULL);
	}
	return error_set(e, -EBUSY, E_VMA_KIND,
			 "%lld requests of asynchronous I/O are in flight and do not come to their "
			 "end",
			 (long long)n);
}

static int drain(const struct aio_checkpoint *x, pid_t tid, struct error *e)
{
	int first = kernel_offset(x->kernel, "kioctx_table", "table");
	struct aio_polls polls = {};
	uint32_t nr = 0;
	uint64_t table;
	int r = find_table(x->kernel, tid, &table, &nr);

	if (r >= 0 && first < 0)
		r = first;
	if (r < 0)
		return error_errno(e, r, E_VMA_KIND, "contexts of asynchronous I/O are not found");
	for (uint32_t i = 0; i < nr && r >= 0; i++) {
		uint64_t context = kernel_pointer(x->kernel, table + (uint64_t)first + i * 8);

		if (context)
			r = wait_requests(x, context, &polls, e);
	}
	vec_free(&polls);
	return r;
}

int mm_checkpoint_drain(struct checkpoint *c, struct error *e)
{
	_cleanup_(free_ptr) char *used = NULL;
	int r = (int)procfs_read(c->proc_fd, &used, e, "sys/fs/aio-nr");

	/* On most machines nobody at all has a context. */
	if (r < 0 || !strcmp(used, "0\n")) {
		error_clear(e);
		return 0;
	}
	r = 0;
	vec_for_each (p, &c->processes) {
		_cleanup_(free_ptr) char *maps = NULL;

		if (!p->mm || p->frozen->zombie)
			continue;
		r = (int)procfs_read(c->proc_fd, &maps, e, "%d/maps", p->tid);
		if (r < 0)
			return r;
		if (!strstr(maps, " /[aio]"))
			continue;
		if (!get_kernel(c, e))
			return e->err;
		r = drain(c->mm->aio, p->tid, e);
		if (r < 0)
			return error_object(e, r, "task %d (%s)", p->frozen->pid, p->stat.comm);
	}
	return 0;
}

static int read_events(struct checkpoint *c, pid_t tid, uint64_t ring, Reprise__AioRing *m,
		       struct scratch *s, struct error *e)
{
	const size_t size = sizeof(struct io_event);
	uint32_t n = (m->tail + m->nr - m->head) % m->nr;
	uint32_t first = n < m->nr - m->head ? n : m->nr - m->head;
	int r = 0;

	m->events.len = n * size;
	m->events.data = scratch_alloc(s, n * size + 1);
	if (!m->events.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for asynchronous I/O");
	if (first)
		r = pages_read(c->proc_fd, tid, ring + sizeof(struct ring) + m->head * size,
			       m->events.data, first * size, e);
	if (r >= 0 && n > first)
		r = pages_read(c->proc_fd, tid, ring + sizeof(struct ring),
			       m->events.data + first * size, (n - first) * size, e);
	return r;
}

/* The application may write what it likes into the ring; the kernel has its own numbers. */
static int save_ring(struct checkpoint *c, pid_t tid, const struct vma *v, uint64_t context,
		     Reprise__AioRing *m, struct scratch *s, struct error *e)
{
	struct kernel_memory *k = c->mm->aio->kernel;
	struct ring ring;
	int r = pages_read(c->proc_fd, tid, v->start, &ring, sizeof(ring), e);

	if (r < 0)
		return r;
	r = member(k, context, "kioctx", "max_reqs", &m->max_requests, sizeof(m->max_requests));
	if (r >= 0)
		r = member(k, context, "kioctx", "nr_events", &m->nr, sizeof(m->nr));
	if (r >= 0)
		r = member(k, context, "kioctx", "tail", &m->tail, sizeof(m->tail));
	if (r < 0)
		return error_errno(e, r, E_VMA_KIND, "the context of a ring cannot be read");
	if (ring.magic != RING_MAGIC || ring.header_length != sizeof(ring) || !m->nr ||
	    m->tail >= m->nr || ring.nr != m->nr || !m->max_requests ||
	    (m->nr + 1) * sizeof(struct io_event) != v->end - v->start)
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "is a ring of asynchronous I/O (io_setup) that is not understood");
	m->head = ring.head % m->nr;
	return read_events(c, tid, v->start, m, s, e);
}

/* -EAGAIN: a request that waited for a file has ended meanwhile, which needs no task. */
static int save_context(struct checkpoint *c, pid_t tid, const struct vma *v, uint64_t context,
			Reprise__AioRing *m, struct scratch *s, struct error *e)
{
	const struct aio_checkpoint *x = c->mm->aio;
	struct aio_polls before = {}, after = {};
	int r = c->checking ? 0 : wait_requests(x, context, &before, e);

	if (r >= 0)
		r = save_ring(c, tid, v, context, m, s, e);
	if (r >= 0 && aio_polls_look(x->kernel, context, &after) < 0)
		r = -EAGAIN;
	if (r >= 0 && !c->checking && after.n != before.n)
		r = -EAGAIN;
	if (r >= 0 && aio_polls_save(&after, m, s) < 0)
		r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for asynchronous I/O");
	vec_free(&before);
	vec_free(&after);
	return r;
}

int aio_checkpoint(struct checkpoint *c, const struct checkpoint_process *p, const struct vma *v,
		   Reprise__Vma *msg, struct scratch *s, struct error *e)
{
	struct aio_checkpoint *x = get_kernel(c, e);
	uint64_t context;
	int r;

	if (!x)
		return e->err < 0 ? e->err : -EOPNOTSUPP;
	r = find_context(x->kernel, p->tid, v->start, &context);
	if (r < 0)
		return error_errno(e, r, E_VMA_KIND, "the context of a ring is not found");
	if (r == 0)
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "is a part or a copy of a ring of asynchronous I/O, which belongs "
				 "to no context (left by a fork?)");
	msg->aio = scratch_message(s, Reprise__AioRing, reprise__aio_ring__init);
	if (!msg->aio)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for asynchronous I/O");
	for (int i = 0; i < TRIES; i++) {
		r = save_context(c, p->tid, v, context, msg->aio, s, e);
		if (r != -EAGAIN)
			return r;
	}
	return error_set(e, -EBUSY, E_VMA_KIND,
			 "requests of asynchronous I/O end one after the other; try again");
}

bool mm_has_aio(const struct checkpoint *c)
{
	return c->mm->aio;
}

/* ---- restart ---- */

int aio_validate(const Reprise__Vma *v, struct error *e)
{
	const Reprise__AioRing *m = v->aio;
	uint64_t n;

	if (v->inode || !(v->flags & VMA_SHARED) || !m->nr || m->nr > 1u << 24 ||
	    m->head >= m->nr || m->tail >= m->nr || !m->max_requests || m->max_requests > m->nr ||
	    (m->nr + 1ul) * sizeof(struct io_event) != v->end - v->start)
		return error_set(e, -EINVAL, E_IMAGE_INVALID, "an impossible ring");
	n = (m->tail + m->nr - m->head) % m->nr;
	if (m->events.len != n * sizeof(struct io_event) || !aio_polls_fit(m))
		return error_set(e, -EINVAL, E_IMAGE_INVALID, "a ring with other events");
	return 0;
}

#define I386_IO_SETUP 245

struct maker {
	struct restart *r;
	struct restart_process *p;
	const Reprise__Vma *v;
	int mem_fd; /* /proc/PID/mem */
};

static int run(const struct maker *m, struct batch *b, struct error *e)
{
	return agent_run(m->p->agent, m->p->pid, NULL, b, e);
}

static int setup(const struct maker *m, uint64_t *ret, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const uint64_t zero = 0;
	uint32_t at = batch_data(&b, &zero, sizeof(zero));
	bool compat = m->p->mm->compat;
	int call = batch_call(&b, compat ? I386_IO_SETUP : __NR_io_setup,
			      VAL(m->v->aio->max_requests), DATA(at));
	int r;

	/* The kernel chooses the address, among those that the width of the call allows. */
	if (compat)
		batch_compat(&b, call);
	r = run(m, &b, e);
	if (r < 0)
		return r;
	if (batch_result(&b, call) < 0)
		return error_errno(
			e, (int)batch_result(&b, call), E_RESTORE, "io_setup for %u requests%s",
			m->v->aio->max_requests,
			batch_result(&b, call) == -EAGAIN ? " (see /proc/sys/fs/aio-max-nr)" : "");
	memcpy(ret, batch_at(&b, at), sizeof(*ret));
	return 0;
}

static int read_ring(const struct maker *m, uint64_t at, struct ring *ring, struct error *e)
{
	if (pread(m->mem_fd, ring, sizeof(*ring), (off_t)at) != sizeof(*ring))
		return error_errno(e, -errno, E_RESTORE, "cannot read a ring");
	return 0;
}

/* By way of a place that is free: the kernel may have chosen one that overlaps the old. */
static int move(const struct maker *m, uint64_t from, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const struct mm_width *width = mm_width_of(m->r, m->p->mm);
	uint64_t by = width->free_shm, size = m->v->end - m->v->start;
	const struct batch_arg flags = VAL(MREMAP_MAYMOVE | MREMAP_FIXED);
	int out, in, r;

	if (by + size > width->free_end)
		return error_set(e, -ENOMEM, E_RESTORE, "no room for a ring");
	out = batch_call(&b, __NR_mremap, VAL(from), VAL(size), VAL(size), flags, VAL(by));
	batch_must(&b, out);
	in = batch_call(&b, __NR_mremap, VAL(by), VAL(size), VAL(size), flags, VAL(m->v->start));
	r = run(m, &b, e);
	if (r >= 0 && batch_result(&b, in) != (long)m->v->start)
		r = error_errno(e, (int)batch_result(&b, in), E_RESTORE, "cannot move a ring");
	return r;
}

/* Reads of nothing from /dev/null, which end at once. Some events are taken at once as well. */
static int submit(const struct maker *m, long fd, uint32_t n, uint32_t take, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const struct iocb read = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd};
	uint32_t iocb = batch_data(&b, &read, sizeof(read));
	uint32_t list = batch_data(&b, NULL, n * 8);
	uint32_t events = batch_data(&b, NULL, AT_ONCE * sizeof(struct io_event));
	int give, get, r;

	for (uint32_t i = 0; i < n; i++)
		batch_pointer(&b, list + i * 8, iocb);
	give = batch_call(&b, __NR_io_submit, VAL(m->v->start), VAL(n), DATA(list));
	get = batch_call(&b, __NR_io_getevents, VAL(m->v->start), VAL(take), VAL(take),
			 DATA(events), VAL(0));
	r = run(m, &b, e);
	if (r >= 0 && (batch_result(&b, give) != n || batch_result(&b, get) != take))
		r = error_set(e, -EIO, E_RESTORE,
			      "cannot bring a ring to where it was (%ld and %ld of %u and %u)",
			      batch_result(&b, give), batch_result(&b, get), n, take);
	return r;
}

/* The kernel counts on from where it is: as many requests are made as had been. */
static int advance(const struct maker *m, struct error *e)
{
	const Reprise__AioRing *ring = m->v->aio;
	uint32_t taken = ring->head, made = ring->tail + (ring->head > ring->tail ? ring->nr : 0);
	_cleanup_(batch_free) struct batch b = {};
	long fd;
	int open_call, r;

	if (!made)
		return 0;
	open_call = batch_call(&b, __NR_openat, VAL(AT_FDCWD),
			       DATA(batch_data(&b, "/dev/null", sizeof("/dev/null"))),
			       VAL(O_RDONLY | O_CLOEXEC), VAL(0));
	r = run(m, &b, e);
	if (r < 0)
		return r;
	fd = batch_result(&b, open_call);
	if (fd < 0)
		return error_errno(e, (int)fd, E_RESTORE, "cannot open /dev/null");
	while (made && r >= 0) {
		uint32_t n = made < AT_ONCE ? made : AT_ONCE;
		uint32_t take = taken < n ? taken : n;

		r = submit(m, fd, n, take, e);
		made -= n;
		taken -= take;
	}
	batch_reset(&b);
	batch_call(&b, __NR_close, VAL(fd));
	return r < 0 ? r : run(m, &b, e);
}

static int put_events(const struct maker *m, struct error *e)
{
	const Reprise__AioRing *ring = m->v->aio;
	const size_t size = sizeof(struct io_event);
	uint64_t at = m->v->start + sizeof(struct ring);
	size_t n = ring->events.len / size, first = ring->nr - ring->head;
	int r = 0;

	if (first > n)
		first = n;
	if (first)
		r = pages_force(m->mem_fd, at + ring->head * size, ring->events.data, first * size,
				e);
	if (r >= 0 && n > first)
		r = pages_force(m->mem_fd, at, ring->events.data + first * size, (n - first) * size,
				e);
	return r;
}

static int protect(const struct maker *m, struct error *e)
{
	const uint64_t args[6] = {m->v->start, m->v->end - m->v->start, m->v->prot};
	long r = 0;

	if (m->v->prot != (PROT_READ | PROT_WRITE))
		r = agent_syscall(m->p->agent, m->p->pid, NULL, e, __NR_mprotect, args);
	return r < 0 ? error_errno(e, (int)r, E_RESTORE, "cannot protect a ring") : 0;
}

static int make(const struct maker *m, struct error *e)
{
	const Reprise__AioRing *want = m->v->aio;
	struct ring ring;
	uint64_t at = 0;
	int r = setup(m, &at, e);

	if (r >= 0)
		r = read_ring(m, at, &ring, e);
	if (r >= 0 && (ring.magic != RING_MAGIC || ring.nr != want->nr))
		return error_set(e, -EOPNOTSUPP, E_RESTORE,
				 "a ring has %u events here, not %u: has this machine more "
				 "processors?",
				 ring.nr, want->nr);
	if (r >= 0)
		r = move(m, at, e);
	if (r >= 0)
		r = advance(m, e);
	if (r >= 0)
		r = put_events(m, e);
	if (r >= 0)
		r = read_ring(m, m->v->start, &ring, e);
	if (r >= 0 && (ring.head != want->head || ring.tail != want->tail))
		return error_set(e, -EIO, E_RESTORE, "a ring is at %u and %u, not %u and %u",
				 ring.head, ring.tail, want->head, want->tail);
	return r < 0 ? r : protect(m, e);
}

int aio_restart(struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(close_fd) int mem_fd = -EBADF;

	for (size_t i = 0; i < p->mm->n_vmas; i++) {
		struct maker m = {r, p, p->mm->vmas[i], mem_fd};
		int n;

		if (m.v->kind != VMA_AIO)
			continue;
		if (mem_fd < 0)
			mem_fd = procfs_open(r->proc_fd, O_RDWR | O_CLOEXEC, e, "%d/mem", p->pid);
		if (mem_fd < 0)
			return mem_fd;
		m.mem_fd = mem_fd;
		n = make(&m, e);
		if (n < 0)
			return error_object(e, n, "ring of asynchronous I/O at %#lx",
					    (unsigned long)m.v->start);
	}
	return 0;
}
