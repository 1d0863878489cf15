/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings in memory of the application (IORING_SETUP_NO_MMAP), whose pages the kernel holds. It comes
 * back like other memory, and the rings are made of it again where the pages are found. What we do
 * with the rings of others in a mapping of them is done with a copy here: nobody but the
 * task can map these. It is written back before the kernel looks at it, and read again afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/uring.h"
#include "mm/vma.h"

#define AT_ONCE	     (1u << 20)
#define ADDRESS_SIZE sizeof(uint64_t)

/* The last member of both (user_addr, 6.5). */
static uint8_t *place_of_address(struct uring_layout *l, bool sqes)
{
	return sqes ? (uint8_t *)(&l->sq + 1) - ADDRESS_SIZE
		    : (uint8_t *)(&l->cq + 1) - ADDRESS_SIZE;
}

static uint64_t address_of(const struct uring_layout *l, bool sqes)
{
	struct uring_layout copy = *l;
	uint64_t ret;

	memcpy(&ret, place_of_address(&copy, sqes), ADDRESS_SIZE);
	return ret;
}

/* ---- checkpoint ---- */

static int find(struct kernel_memory *k, const struct uring_pages *base,
		const struct uring_region *region, const char *maps, int pagemap, uint64_t *ret)
{
	if (!region->n_pages || region->n_pages > URING_OWN_PAGES_MAX)
		return -EOPNOTSUPP;
	return uring_find_pages(k, base, region->pages, region->n_pages, maps, pagemap, ret);
}

int uring_own_find(struct checkpoint *c, struct kernel_memory *k, struct uring_seen *s, pid_t owner,
		   struct error *e)
{
	_cleanup_(close_fd) int pagemap = -EBADF;
	_cleanup_(free_ptr) char *maps = NULL;
	int r = (int)procfs_read(c->proc_fd, &maps, e, "%d/maps", owner);

	if (r < 0)
		return r;
	pagemap = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", owner);
	if (pagemap < 0)
		return pagemap;
	for (int i = 0; i < 2; i++)
		if (find(k, &s->pages, &s->own[i], maps, pagemap, &s->own[i].address) < 0 ||
		    !s->own[i].address)
			return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
					 "its %s, in memory of the application "
					 "(IORING_SETUP_NO_MMAP), are no longer in that of task %d",
					 i ? "requests" : "rings", owner);
	return 0;
}

void uring_own_save(const struct uring_seen *s, struct uring_layout *l)
{
	for (int i = 0; i < 2; i++)
		memcpy(place_of_address(l, i), &s->own[i].address, ADDRESS_SIZE);
}

/* ---- restart ---- */

bool uring_own_fits(const Reprise__IoUring *m, const struct uring_layout *l)
{
	if (!(m->flags & URING_SETUP_NO_MMAP))
		return !address_of(l, false) && !address_of(l, true);
	if (m->n_rings || m->n_sqes || (m->flags & IORING_SETUP_SQPOLL))
		return false;
	for (int i = 0; i < 2; i++)
		if (!address_of(l, i) || address_of(l, i) % PAGE_BYTES ||
		    address_of(l, i) >= USER_SPACE_END)
			return false;
	return true;
}

static int copy(const struct uring_shared *x, bool write, uint64_t there, void *here, uint64_t size,
		struct error *e)
{
	pid_t pid = x->there->process->pid;
	uint64_t done = 0;

	while (done < size) {
		size_t n = size - done < AT_ONCE ? size - done : AT_ONCE;
		struct iovec own = {(char *)here + done, n};
		struct iovec its = {(void *)(uintptr_t)(there + done), n};
		ssize_t got = write ? process_vm_writev(pid, &own, 1, &its, 1, 0)
				    : process_vm_readv(pid, &own, 1, &its, 1, 0);

		if (got <= 0)
			return error_errno(e, got < 0 ? -errno : -EFAULT, E_RESTORE,
					   "cannot reach the rings of an io_uring in the memory of "
					   "task %d",
					   x->there->vtid);
		done += (uint64_t)got;
	}
	return 0;
}

uint64_t uring_own_rings(const struct uring_shared *x)
{
	return x->there ? address_of(&x->layout, false) : 0;
}

int uring_own_open(struct uring_shared *x, struct error *e)
{
	const struct uring_layout *l = &x->layout;
	int r;

	x->rings = malloc(l->rings_size);
	x->sqes = malloc(l->sqes_size);
	x->kept = malloc(l->rings_size + l->sqes_size);
	if (!x->rings || !x->sqes || !x->kept)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
	r = uring_pull(x, e);
	if (r >= 0)
		r = copy(x, false, address_of(l, true), x->sqes, l->sqes_size, e);
	if (r < 0)
		return r;
	memcpy(x->kept, x->rings, l->rings_size);
	memcpy(x->kept + l->rings_size, x->sqes, l->sqes_size);
	return 0;
}

void uring_own_close(struct uring_shared *x)
{
	free(x->rings);
	free(x->sqes);
	free(x->kept);
}

int uring_own_clear(struct uring_shared *x, struct error *e)
{
	if (!x->there)
		return 0;
	memset(x->rings, 0, x->layout.rings_size);
	return uring_push(x, true, e);
}

int uring_own_put_back(struct uring_shared *x, struct error *e)
{
	memcpy(x->rings, x->kept, x->layout.rings_size);
	memcpy(x->sqes, x->kept + x->layout.rings_size, x->layout.sqes_size);
	return uring_push(x, true, e);
}

int uring_pull(struct uring_shared *x, struct error *e)
{
	return x->there ? copy(x, false, address_of(&x->layout, false), x->rings,
			       x->layout.rings_size, e)
			: 0;
}

int uring_push_word(struct uring_shared *x, uint32_t offset, struct error *e)
{
	return x->there ? copy(x, true, address_of(&x->layout, false) + offset, x->rings + offset,
			       sizeof(uint32_t), e)
			: 0;
}

int uring_push(struct uring_shared *x, bool completions, struct error *e)
{
	const struct uring_layout *l = &x->layout;
	int r;

	if (!x->there)
		return 0;
	r = copy(x, true, address_of(l, true), x->sqes, l->sqes_size, e);
	if (r < 0)
		return r;
	if (completions)
		return copy(x, true, address_of(l, false), x->rings, l->rings_size, e);
	if (!(x->m->flags & IORING_SETUP_NO_SQARRAY))
		r = copy(x, true, address_of(l, false) + l->sq.array, x->rings + l->sq.array,
			 4ul * x->m->sq_entries, e);
	return r < 0 ? r : uring_push_word(x, l->sq.tail, e);
}
