/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd: a descriptor that tells of page faults in one address space, and through
 * which somebody else resolves them. A fault that nobody has resolved is forgotten: the task that
 * waits is stopped before its instruction, and faults again.
 */
#include "fs/userfaultfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"
#include "mm/mm.h"
#include "mm/pagemap.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define FEATURE_WP_UNPOPULATED (1u << 13)
#define FEATURE_WP_ASYNC       (1u << 15)
#define FEATURE_BEGUN	       (1u << 31) /* of the kernel itself: UFFD_FEATURE_INITIALIZED */
#define PAGEMAP_PROTECTED      (1ull << 57)
#define MODES		       (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)
#define ENTRIES		       512

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static bool userfaultfd_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:[userfaultfd]");
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a userfaultfd");
}

/* ---- checkpoint ---- */

static int check_waiting(struct checkpoint *c, const struct file_seen *f,
			 const struct userfaultfd_seen *seen, struct error *e)
{
	uint64_t total = 0;

	if (c->checking)
		return 0;
	if (proc_field_u64(f->fdinfo, "total", 10, &total) < 0 || total || seen->changing)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "%lu faults or changes of memory wait for it in the kernel; try "
				 "again",
				 (unsigned long)total);
	return 0;
}

static pid_t find_owner(struct checkpoint *c, struct kernel_memory *k, uint64_t mm)
{
	vec_for_each (p, &c->processes) {
		uint64_t own;

		if (!p->frozen->zombie && userfaultfd_mm(k, p->tid, &own) >= 0 && own == mm)
			return p->frozen->pid;
	}
	return 0;
}

static int userfaultfd_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
				  struct scratch *s, struct error *e)
{
	Reprise__UserFaultFd *m =
		scratch_message(s, Reprise__UserFaultFd, reprise__user_fault_fd__init);
	struct userfaultfd_seen seen;
	struct kernel_memory *k;
	int r;

	if (!m)
		return no_memory(e);
	msg->userfaultfd = m;
	r = files_kernel_memory(c, &k, e);
	if (r >= 0)
		r = userfaultfd_look(k, f->local, &seen);
	if (r < 0) {
		error_clear(e);
		return error_errno(e, r, E_FILE_STATE,
				   "which memory it watches is told by the memory of the kernel "
				   "alone, which cannot be read (BPF)");
	}
	r = check_waiting(c, f, &seen, e);
	if (r < 0)
		return r;
	f->entry->private = seen.context;
	m->flags = seen.flags & UFFD_USER_MODE_ONLY;
	m->begun = seen.features & FEATURE_BEGUN;
	m->features = seen.features & ~FEATURE_BEGUN;
	if (m->features & (FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC))
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"it protects pages that are not there (UFFD_FEATURE_WP_UNPOPULATED "
			"or _ASYNC), which cannot be told from pages in swap");
	m->owner = find_owner(c, k, seen.mm);
	if (!m->owner)
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "the process whose memory it watches is not in the tree");
	return 0;
}

/* Pages by a bit of their entries, as runs. */
struct runs {
	VEC(Reprise__PageRun *) list;
	uint64_t bits;
};

static int add_page(struct runs *runs, uint64_t at, uint64_t entry, struct scratch *s)
{
	Reprise__PageRun *last = runs->list.n ? runs->list.v[runs->list.n - 1] : NULL, **slot;

	if (!(entry & runs->bits) || entry & PAGEMAP_GUARD)
		return 0;
	if (last && last->start + last->length == at) {
		last->length += PAGE_BYTES;
		return 0;
	}
	slot = vec_push(&runs->list);
	last = scratch_message(s, Reprise__PageRun, reprise__page_run__init);
	if (!slot || !last)
		return -ENOMEM;
	*slot = last;
	last->start = at;
	last->length = PAGE_BYTES;
	return 0;
}

static int read_pages(struct checkpoint *c, const struct mm_registered *reg, struct runs runs[2],
		      struct scratch *s, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", reg->tid);
	uint64_t entries[ENTRIES];
	int r = fd < 0 ? fd : 0;

	for (uint64_t at = reg->start; at < reg->end && r >= 0;) {
		size_t n = (reg->end - at) / PAGE_BYTES;

		if (n > ENTRIES)
			n = ENTRIES;
		r = pagemap_entries(fd, at, entries, n, e);
		for (size_t i = 0; i < n && r >= 0; i++, at += PAGE_BYTES)
			for (int k = 0; k < 2 && r >= 0; k++) {
				r = add_page(&runs[k], at, entries[i], s);
				if (r < 0)
					no_memory(e);
			}
	}
	return r;
}

static int put_runs(struct runs *runs, size_t *ret_n, Reprise__PageRun ***ret, struct scratch *s)
{
	if (!runs->list.n)
		return 0;
	*ret = scratch_copy(s, runs->list.v, runs->list.n * sizeof(**ret));
	*ret_n = *ret ? runs->list.n : 0;
	return *ret ? 0 : -ENOMEM;
}

static int save_range(struct checkpoint *c, const struct mm_registered *reg,
		      Reprise__UserFaultRange *m, struct error *e)
{
	struct runs runs[2] = {{.bits = PAGEMAP_PRESENT | PAGEMAP_SWAPPED},
			       {.bits = PAGEMAP_PROTECTED}};
	struct scratch *s = &c->files->scratch;
	int r = read_pages(c, reg, runs, s, e);

	m->start = reg->start;
	m->length = reg->end - reg->start;
	m->mode = (reg->missing ? UFFDIO_REGISTER_MODE_MISSING : 0) |
		  (reg->protect ? UFFDIO_REGISTER_MODE_WP : 0);
	if (r >= 0 && (put_runs(&runs[0], &m->n_populated, &m->populated, s) < 0 ||
		       put_runs(&runs[1], &m->n_protected_, &m->protected_, s) < 0))
		r = no_memory(e);
	vec_free(&runs[0].list);
	vec_free(&runs[1].list);
	return r;
}

static int add_range(struct checkpoint *c, Reprise__UserFaultFd *m, const struct mm_registered *reg,
		     struct error *e)
{
	struct scratch *s = &c->files->scratch;
	Reprise__UserFaultRange **list = scratch_alloc(s, (m->n_ranges + 1) * sizeof(*list));
	Reprise__UserFaultRange *range =
		scratch_message(s, Reprise__UserFaultRange, reprise__user_fault_range__init);

	if (!list || !range)
		return no_memory(e);
	if (m->n_ranges)
		memcpy(list, m->ranges, m->n_ranges * sizeof(*list));
	list[m->n_ranges++] = range;
	m->ranges = list;
	return save_range(c, reg, range, e);
}

static int assign(struct checkpoint *c, struct kernel_memory *k, const struct mm_registered *reg,
		  struct error *e)
{
	uint64_t mm, context;
	int r = userfaultfd_mm(k, reg->tid, &mm);

	if (r >= 0)
		r = userfaultfd_of(k, mm, reg->start, &context);
	if (r < 0)
		return error_errno(e, r, E_VMA_KIND,
				   "with which userfaultfd it is registered cannot be told");
	vec_for_each (f, &c->files->files)
		/* one that has been refused says so itself */
		if ((!(*f)->ops || (*f)->ops == &userfaultfd_file_ops) && (*f)->private == context)
			return c->checking ? 0 : add_range(c, (*f)->msg->userfaultfd, reg, e);
	return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			 "is registered with a userfaultfd that nobody in the tree holds");
}

static int userfaultfd_checkpoint_all(struct checkpoint *c, struct error *e)
{
	const struct mm_registered *reg;
	struct kernel_memory *k;
	int r = 0;

	for (size_t i = 0; r >= 0 && (reg = mm_registered(c, i)); i++) {
		r = files_kernel_memory(c, &k, e);
		if (r >= 0)
			r = assign(c, k, reg, e);
		if (r < 0)
			r = checkpoint_refuse(c,
					      error_object(e, r, "task %d, mapping %lx-%lx",
							   reg->tid, (unsigned long)reg->start,
							   (unsigned long)reg->end),
					      e);
	}
	return r;
}

/* ---- restart ---- */

static int validate_runs(const Reprise__UserFaultRange *range, Reprise__PageRun *const *runs,
			 size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (runs[i]->start % PAGE_BYTES || runs[i]->length % PAGE_BYTES ||
		    !runs[i]->length || runs[i]->start < range->start ||
		    runs[i]->start - range->start > range->length ||
		    runs[i]->length > range->length - (runs[i]->start - range->start))
			return -EINVAL;
	return 0;
}

static int userfaultfd_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__UserFaultFd *m = msg->userfaultfd;

	if (!m || m->flags & ~(uint32_t)UFFD_USER_MODE_ONLY || m->features > UINT32_MAX ||
	    m->features & (FEATURE_BEGUN | FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED) ||
	    (!m->begun && m->n_ranges))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible userfaultfd");
	for (size_t i = 0; i < m->n_ranges; i++) {
		const Reprise__UserFaultRange *range = m->ranges[i];

		if (range->start % PAGE_BYTES || range->length % PAGE_BYTES || !range->length ||
		    range->start > USER_SPACE_END ||
		    range->length > USER_SPACE_END - range->start || !range->mode ||
		    range->mode & ~(uint32_t)MODES ||
		    validate_runs(range, range->populated, range->n_populated) < 0 ||
		    validate_runs(range, range->protected_, range->n_protected_) < 0)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a userfaultfd with an impossible range");
	}
	return 0;
}

static struct restart_process *owner_of(struct restart *r, const Reprise__UserFaultFd *m,
					struct error *e)
{
	struct restart_task *t = restart_task_by_vtid(r, m->owner);

	if (t && t->process->mm && t->process->agent)
		return t->process;
	error_set(e, -EBADMSG, E_IMAGE_INVALID, "the process %d of a userfaultfd is missing",
		  m->owner);
	return NULL;
}

/* By the device whoever has that open gets one, also in a user namespace (userfaultfd_dev_ioctl()).
 */
static long make_there(struct restart *r, struct restart_process *p, int device, uint32_t flags,
		       struct error *e)
{
	const uint64_t args[6] = {flags | O_CLOEXEC};
	long remote;
	int there, res;

	if (device < 0)
		return agent_syscall(p->agent, p->pid, NULL, e, SYS_userfaultfd, args);
	res = restart_send_fds(r, &p->tasks.v[0], &device, 1, &there, e);
	if (res < 0)
		return res;
	remote = agent_syscall(
		p->agent, p->pid, NULL, e, SYS_ioctl,
		(const uint64_t[6]){(uint64_t)there, USERFAULTFD_IOC_NEW, flags | O_CLOEXEC});
	res = (int)agent_syscall(p->agent, p->pid, NULL, e, SYS_close,
				 (const uint64_t[6]){(uint64_t)there});
	return res < 0 ? res : remote;
}

int userfaultfd_make(struct restart *r, struct restart_process *p, int device, uint32_t flags,
		     int *ret_fd, struct error *e)
{
	_cleanup_(close_fd) int pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	_cleanup_(close_fd) int fd = -EBADF;
	long remote = make_there(r, p, device, flags, e);

	if (remote < 0)
		return error_errno(e, (int)remote, E_RESTORE, "userfaultfd");
	if (pidfd >= 0)
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, remote, 0);
	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot take over a userfaultfd");
	*ret_fd = take_fd(&fd);
	return (int)agent_syscall(p->agent, p->pid, NULL, e, SYS_close,
				  (const uint64_t[6]){(uint64_t)remote});
}

static int userfaultfd_restart(struct restart *r, uint64_t id, const Reprise__File *msg,
			       int *ret_fd, struct error *e)
{
	const Reprise__UserFaultFd *m = msg->userfaultfd;
	struct uffdio_api api = {.api = UFFD_API, .features = m->features};
	struct restart_process *p = owner_of(r, m, e);
	int res = p ? userfaultfd_make(r, p, -1, m->flags, ret_fd, e) : -EBADMSG;

	if (res >= 0 && m->begun && ioctl(*ret_fd, UFFDIO_API, &api) < 0)
		return error_errno(e, -errno, E_RESTORE, "UFFDIO_API");
	return res;
}

/* Pages that are there, but hold zeroes, are not in the image: now they would be missing. */
static int populate(struct restart_process *p, const Reprise__UserFaultRange *range,
		    struct error *e)
{
	for (size_t i = 0; i < range->n_populated; i++) {
		const Reprise__PageRun *run = range->populated[i];
		const uint64_t args[6] = {run->start, run->length, MADV_POPULATE_READ};
		long r = agent_syscall(p->agent, p->pid, NULL, e, SYS_madvise, args);

		if (r < 0)
			return error_errno(e, (int)r, E_RESTORE, "MADV_POPULATE_READ");
	}
	return 0;
}

static int userfaultfd_restart_all(struct restart *r, struct error *e)
{
	vec_for_each (f, &r->files->files) {
		const Reprise__UserFaultFd *m = f->msg->userfaultfd;
		struct restart_process *p;

		if (f->ops != &userfaultfd_file_ops)
			continue;
		p = owner_of(r, m, e);
		for (size_t i = 0; p && i < m->n_ranges; i++) {
			int res = populate(p, m->ranges[i], e);

			if (res < 0)
				return res;
		}
	}
	return 0;
}

static int register_range(int fd, const Reprise__UserFaultRange *range, struct error *e)
{
	struct uffdio_register reg = {.range = {range->start, range->length}, .mode = range->mode};

	if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot register memory at %#lx with a userfaultfd",
				   (unsigned long)range->start);
	for (size_t i = 0; i < range->n_protected_; i++) {
		const Reprise__PageRun *run = range->protected_[i];
		struct uffdio_writeprotect protect = {.range = {run->start, run->length},
						      .mode = UFFDIO_WRITEPROTECT_MODE_WP};

		if (ioctl(fd, UFFDIO_WRITEPROTECT, &protect) < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot protect memory at %#lx",
					   (unsigned long)run->start);
	}
	return 0;
}

int userfaultfd_restart_register(struct restart *r, struct error *e)
{
	vec_for_each (f, &r->files->files) {
		const Reprise__UserFaultFd *m = f->msg->userfaultfd;

		if (f->ops != &userfaultfd_file_ops)
			continue;
		for (size_t i = 0; i < m->n_ranges; i++) {
			int res = register_range(f->fd, m->ranges[i], e);

			if (res < 0)
				return res;
		}
	}
	return 0;
}

static void userfaultfd_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__UserFaultFd *m = msg->userfaultfd;

	snprintf(buf, size, "memory of task %d, %zu ranges", m ? m->owner : 0, m ? m->n_ranges : 0);
}

const struct file_ops userfaultfd_file_ops = {
	.kind = FILE_USERFAULTFD,
	.name = "userfaultfd",
	.support =
		"missing pages and write protection, of private memory (missing pages of memfds, "
		"too), with all that has been resolved; not minor faults; by root",
	.match = userfaultfd_match,
	.checkpoint = userfaultfd_checkpoint,
	.checkpoint_all = userfaultfd_checkpoint_all,
	.validate = userfaultfd_validate,
	.restart = userfaultfd_restart,
	.after_tasks = true,
	.restart_all = userfaultfd_restart_all,
	.describe = userfaultfd_describe,
};
