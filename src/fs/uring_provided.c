/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of buffers from which requests choose (IORING_REGISTER_PBUF_RING). Such a ring is memory of
 * the application, whose pages the kernel holds: it comes back with that memory, and is registered
 * at the address where the pages are found. Or it is memory of the kernel that the application may
 * map (IOU_PBUF_RING_MMAP), and its contents are saved. The kernel's own place in it, of which it
 * tells the application only if asked, is moved by nothing but requests: so as many buffers are
 * taken as had been.
 */
#include "fs/uring_provided.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/send_fds.h"

#define LIST_RING     1u  /* IOBL_BUF_RING */
#define LIST_INC      2u  /* IOBL_INC */
#define REGION_USER   2u  /* IO_REGION_F_USER_PROVIDED */
#define PAGES_MAX     128 /* 32768 entries of 16 bytes */
#define REGISTER_MMAP 1u  /* IOU_PBUF_RING_MMAP, 6.4 */
#define REGISTER_INC  2u  /* IOU_PBUF_RING_INC, 6.12 */

/* ---- checkpoint ---- */

static int take_list(struct kernel_memory *k, uint64_t group, uint64_t at, struct uring_seen *s)
{
	static const char type[] = "io_buffer_list";
	struct uring_provided p = {};
	uint32_t region = 0;
	uint16_t flags = 0, entries = 0;
	int r = kernel_member(k, at, type, "flags", &flags, sizeof(flags));

	if (r >= 0 && !(flags & LIST_RING))
		return uring_given_look(k, at, s);
	if (r >= 0)
		r = kernel_member(k, at, type, "nr_entries", &entries, sizeof(entries));
	if (r >= 0)
		r = kernel_member(k, at, type, "head", &p.head, sizeof(p.head));
	if (r >= 0)
		r = kernel_member(k, at, type, "bgid", &p.group, sizeof(p.group));
	if (r >= 0)
		r = kernel_member(k, at, type, "region.pages", &p.pages, sizeof(p.pages));
	if (r >= 0)
		r = kernel_member(k, at, type, "region.nr_pages", &p.n_pages, sizeof(p.n_pages));
	if (r >= 0)
		r = kernel_member(k, at, type, "region.flags", &region, sizeof(region));
	if (r < 0)
		return r;
	if (kernel_offset(k, type, "min_left_sub_one") >= 0)
		r = kernel_member(k, at, type, "min_left_sub_one", &p.min_left, sizeof(p.min_left));
	if (r < 0)
		return r;
	p.min_left = p.min_left ? p.min_left + 1 : 0;
	p.entries = entries;
	p.incremental = flags & LIST_INC;
	p.in_kernel = !(region & REGION_USER);
	if (flags & ~(LIST_RING | LIST_INC))
		s->obstacle = "buffers are provided in a way that is not known";
	else if (p.in_kernel && p.group >= URING_OFF_PBUF_GROUPS)
		s->obstacle = "a ring of buffers is in memory of the kernel (IOU_PBUF_RING_MMAP), "
			      "and its group has a number by which it cannot be mapped";
	else if (s->n_provided == URING_GROUPS_MAX || p.n_pages > PAGES_MAX)
		s->obstacle = "more rings of buffers are registered than can be made anew";
	else
		s->provided[s->n_provided++] = p;
	return 0;
}

int uring_provided_look(struct kernel_memory *k, uint64_t ctx, struct uring_seen *s)
{
	uint64_t head = 0;
	int r = kernel_member(k, ctx, "io_ring_ctx", "io_bl_xa.xa_head", &head, sizeof(head));

	return r < 0 ? r : uring_array(k, head, take_list, s);
}

/* Memory of the kernel, as whoever has the ring may map it. */
static void *map_kernels(int fd, uint32_t group, size_t size, struct error *e)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			(off_t)(URING_OFF_PBUF_RING + ((uint64_t)group << URING_OFF_PBUF_SHIFT)));

	if (at == MAP_FAILED)
		error_errno(e, -errno, E_SYSTEM, "cannot map the ring of buffers of group %u",
			    group);
	return at == MAP_FAILED ? NULL : at;
}

static int save_contents(int fd, const struct uring_provided *p, Reprise__IoUringProvided *to,
			 struct scratch *s, struct error *e)
{
	size_t size = p->entries * sizeof(struct io_uring_buf);
	void *at = map_kernels(fd, p->group, size, e);

	if (!at)
		return -EIO;
	to->in_kernel = true;
	to->contents.len = size;
	to->contents.data = scratch_copy(s, at, size);
	munmap(at, size);
	return to->contents.data
		       ? 0
		       : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a ring of buffers");
}

static int check_taken(const Reprise__IoUring *m, uint32_t taken, struct error *e)
{
	uint32_t ended = m->sq_head - (uint32_t)m->n_requests;

	if (m->n_given > ended || taken > ended - m->n_given || taken > m->cq_tail - uring_full(m))
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"it has taken more buffers (%u) and been given more (in %zu parts) than "
			"requests that have ended (%u) can take and give again, one each",
			taken, m->n_given, ended);
	return 0;
}

int uring_provided_save(struct checkpoint *c, struct kernel_memory *k, int fd,
			const struct uring_seen *seen, Reprise__IoUring *m, struct scratch *s,
			struct error *e)
{
	_cleanup_(close_fd) int pagemap = -EBADF;
	_cleanup_(free_ptr) char *maps = NULL;
	uint32_t taken = 0;

	if (uring_given_save(seen, m, s, e) < 0)
		return -ENOMEM;
	if (!seen->n_provided)
		return check_taken(m, 0, e);
	pagemap = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", m->owner);
	if (pagemap < 0 || procfs_read(c->proc_fd, &maps, e, "%d/maps", m->owner) < 0)
		return -EIO;
	m->provided = scratch_alloc(s, seen->n_provided * sizeof(*m->provided));
	for (uint32_t i = 0; i < seen->n_provided; i++) {
		const struct uring_provided *p = &seen->provided[i];
		Reprise__IoUringProvided *to = scratch_message(s, Reprise__IoUringProvided,
							       reprise__io_uring_provided__init);

		if (!m->provided || !to)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
		if (p->in_kernel && save_contents(fd, p, to, s, e) < 0)
			return -EIO;
		if (!p->in_kernel && (uring_find_pages(k, &seen->pages, p->pages, p->n_pages, maps,
						       pagemap, &to->address) < 0 ||
				      !to->address))
			return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
					 "the ring of buffers of group %u is no longer in the "
					 "memory of task %d",
					 p->group, m->owner);
		to->group = p->group;
		to->entries = p->entries;
		to->head = p->head;
		to->incremental = p->incremental;
		to->min_left = p->min_left;
		taken += p->head;
		m->provided[m->n_provided++] = to;
	}
	return check_taken(m, taken, e);
}

/* ---- restart ---- */

static bool place_fits(const Reprise__IoUringProvided *p)
{
	return p->in_kernel ? !p->address && p->group < URING_OFF_PBUF_GROUPS &&
				      p->contents.len == p->entries * sizeof(struct io_uring_buf)
			    : !p->contents.len;
}

bool uring_provided_fits(const Reprise__IoUring *m)
{
	uint64_t taken = 0;

	for (size_t i = 0; i < m->n_provided; i++) {
		const Reprise__IoUringProvided *p = m->provided[i];

		if (p->group > UINT16_MAX || p->head > UINT16_MAX || !p->entries ||
		    p->entries > 32768 || (p->entries & (p->entries - 1)) || p->address % 4096 ||
		    (p->min_left && !p->incremental) || !place_fits(p))
			return false;
		taken += p->head;
	}
	return m->n_provided <= URING_GROUPS_MAX && uring_given_fits(m) &&
	       taken + m->n_given <= m->sq_head - m->n_requests &&
	       taken <= m->cq_tail - uring_full(m);
}

struct buf { /* struct io_uring_buf; the tail of the ring stands in the last member of the first */
	uint64_t address;
	uint32_t length;
	uint16_t id, tail;
};

/* at: of ours, where it is memory of the kernel; else NULL. */
static int copy(const struct restart_task *t, uint64_t there, void *at, void *here, size_t size,
		bool write, struct error *e)
{
	struct iovec own = {here, size}, its = {(void *)(uintptr_t)there, size};
	ssize_t n;

	if (at) {
		memcpy(write ? at : here, write ? here : at, size);
		return 0;
	}
	n = write ? process_vm_writev(t->process->pid, &own, 1, &its, 1, 0)
		  : process_vm_readv(t->process->pid, &own, 1, &its, 1, 0);
	return n == (ssize_t)size
		       ? 0
		       : error_errno(e, n < 0 ? -errno : -EFAULT, E_RESTORE,
				     "cannot reach a ring of buffers of task %d", t->vtid);
}

static int call(const struct uring_counting *c, unsigned int op, void *arg, uint32_t size,
		struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at = batch_data(&b, arg, size);
	int n = batch_call(&b, SYS_io_uring_register, VAL(c->remote), VAL(op), DATA(at), VAL(1));
	int r = agent_run(c->task->process->agent, c->task->tid, NULL, &b, e);

	if (r >= 0 && batch_result(&b, n) < 0)
		r = error_errno(e, (int)batch_result(&b, n), E_RESTORE,
				"cannot register a ring of buffers in task %d", c->task->vtid);
	if (r >= 0)
		memcpy(arg, batch_at(&b, at), size);
	return r;
}

static void prepare(struct uring_counting *c, const Reprise__IoUringProvided *p, int zero)
{
	size_t step = c->x.m->flags & IORING_SETUP_SQE128 ? 128 : 64;

	for (uint32_t i = 0; i < c->x.m->sq_entries; i++) {
		struct io_uring_sqe *sqe = (void *)(c->x.sqes + i * step);

		memset(sqe, 0, sizeof(*sqe));
		sqe->opcode = IORING_OP_READ;
		sqe->flags = IOSQE_BUFFER_SELECT;
		sqe->fd = zero;
		sqe->len = 1;
		sqe->buf_group = (uint16_t)p->group;
	}
}

/* Buffers of one byte, all of them at `page`; one taken after the other. */
static int take_buffers(struct uring_counting *c, const Reprise__IoUringProvided *p, uint64_t page,
			void *at, struct buf *bufs, struct error *e)
{
	uint32_t done = 0;
	int r = 0;

	while (done < p->head && r >= 0) {
		uint32_t n = p->head - done < p->entries ? p->head - done : p->entries;

		for (uint32_t i = 0; i < p->entries; i++)
			bufs[i] = (struct buf){.address = page, .length = 1};
		bufs[0].tail = (uint16_t)(done + n);
		r = copy(c->task, p->address, at, bufs, p->entries * sizeof(*bufs), true, e);
		if (r >= 0)
			r = uring_count_further(c, n, e);
		done += n;
	}
	return r;
}

static int check_head(const struct uring_counting *c, const Reprise__IoUringProvided *p,
		      struct error *e)
{
	struct {
		uint32_t group, head, unused[8];
	} status = {.group = p->group}; /* struct io_uring_buf_status, 6.8 */
	int r = call(c, URING_REGISTER_PBUF_STATUS, &status, sizeof(status), e);

	if (r >= 0 && status.head != p->head)
		r = error_set(e, -EIO, E_RESTORE, "a ring of buffers stands at %u instead of %u",
			      status.head, p->head);
	return r;
}

/* With what the application has in it kept aside. */
static int move_head(struct uring_counting *c, const Reprise__IoUringProvided *p, uint64_t page,
		     void *at, int zero, struct error *e)
{
	size_t size = p->entries * sizeof(struct buf);
	_cleanup_(free_ptr) struct buf *kept = malloc(size);
	_cleanup_(free_ptr) struct buf *bufs = malloc(size);
	int r;

	if (!kept || !bufs)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a ring of buffers");
	prepare(c, p, zero);
	r = copy(c->task, p->address, at, kept, size, false, e);
	if (r >= 0)
		r = take_buffers(c, p, page, at, bufs, e);
	if (r >= 0)
		r = copy(c->task, p->address, at, kept, size, true, e);
	return r < 0 ? r : check_head(c, p, e);
}

static int register_one(const struct uring_counting *c, const Reprise__IoUringProvided *p,
			struct error *e)
{
	struct io_uring_buf_reg reg = {.ring_addr = p->address,
				       .ring_entries = p->entries,
				       .bgid = (uint16_t)p->group,
				       /* flags since 6.4 */
				       .pad = (p->incremental ? REGISTER_INC : 0) |
					      (p->in_kernel ? REGISTER_MMAP : 0),
				       .resv[0] = p->min_left};

	return call(c, IORING_REGISTER_PBUF_RING, &reg, sizeof(reg), e);
}

static int restart_one(struct uring_counting *c, const Reprise__IoUringProvided *p, uint64_t page,
		       int zero, struct error *e)
{
	size_t size = p->entries * sizeof(struct buf);
	void *at = NULL;
	int r = register_one(c, p, e);

	if (r >= 0 && p->in_kernel) {
		at = map_kernels(c->fd, p->group, size, e);
		r = at ? 0 : -EIO;
	}
	if (r >= 0 && p->head)
		r = move_head(c, p, page, at, zero, e);
	if (r >= 0 && at)
		memcpy(at, p->contents.data, size);
	if (at)
		munmap(at, size);
	return r;
}

int uring_provided_restart(struct restart *r, struct uring_counting *c, struct error *e)
{
	_cleanup_(close_fd) int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	const uint64_t map[6] = {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 (uint64_t)-1};
	struct agent *agent = c->task->process->agent;
	uint64_t unmap[6] = {0, 4096}, close_it[6] = {};
	const Reprise__IoUring *m = c->x.m;
	int there, res = 0;
	long page;

	if (!m->n_provided)
		return 0;
	if (zero < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot open /dev/zero");
	page = agent_syscall(agent, c->task->tid, NULL, e, SYS_mmap, map);
	if (page < 0)
		return error_errno(e, (int)page, E_RESTORE, "no memory in task %d", c->task->vtid);
	res = restart_send_fds(r, c->task, &zero, 1, &there, e);
	for (size_t i = 0; i < m->n_provided && res >= 0; i++)
		res = restart_one(c, m->provided[i], (uint64_t)page, there, e);
	unmap[0] = (uint64_t)page;
	close_it[0] = (uint64_t)there;
	if (res >= 0 && (agent_syscall(agent, c->task->tid, NULL, e, SYS_close, close_it) < 0 ||
			 agent_syscall(agent, c->task->tid, NULL, e, SYS_munmap, unmap) < 0))
		res = error_set(e, -EIO, E_RESTORE, "cannot tidy up in task %d", c->task->vtid);
	return res;
}
