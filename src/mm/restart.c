/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/inode.h"
#include "mm/build.h"
#include "mm/keys.h"
#include "mm/layout.h"
#include "mm/lazy.h"
#include "mm/mm.h"
#include "mm/pagemap.h"
#include "mm/pages.h"
#include "mm/vma.h"

/*
 * What a restart keeps for all address spaces: opened files, and how the vDSO of
 * the image compares with that of this kernel.
 */

static bool same_vdso(const struct mm_vdso *old, const struct mm_vdso *own)
{
	return old->len == own->len &&
	       (own->len == 0 || memcmp(old->code, own->code, own->len) == 0) &&
	       old->vdso - old->vvar == own->vdso - own->vvar;
}

/* The fault point lets a test take the way of another kernel's image on the same kernel. */
static void compare_vdso(struct restart *r, bool compat)
{
	struct mm_width *w = &r->mm->widths[compat ? WIDTH_32 : WIDTH_64];
	const char *fault = getenv("REPRISE_FAULT");
	struct mm_vdso old;

	w->own_known = true;
	w->foreign_vdso = (mm_vdso_in_image(r, compat, &old) && !same_vdso(&old, &w->own)) ||
			  (fault && strcmp(fault, "foreign-vdso") == 0);
}

int mm_vdso_learn(struct restart *r, pid_t pid, struct error *e)
{
	struct mm_width *w = &r->mm->widths[WIDTH_32];
	int n = w->own_known ? 0 : mm_vdso_of(r->proc_fd, pid, &w->own, e);

	if (n >= 0 && !w->own_known)
		compare_vdso(r, true);
	return n;
}

int mm_restart_begin(struct restart *r, struct error *e)
{
	int n;

	r->mm = calloc(1, sizeof(*r->mm));
	if (!r->mm)
		return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for a restart");
	r->mm->lazy_go = r->mm->lazy_name = -EBADF;
	r->mm->lazy_device = r->mm->lazy_helper = -EBADF;
	r->mm->keys = keys_in_image(r);
	n = mm_vdso_own(r->proc_fd, &r->mm->widths[WIDTH_64].own, e);
	if (n >= 0)
		compare_vdso(r, false);
	return n;
}

static void close_files(struct mm_restart *mm)
{
	vec_for_each (f, &mm->files)
		close_fd(&f->fd);
	mm->files.n = 0;
}

void mm_restart_end(struct restart *r)
{
	if (!r->mm)
		return;
	lazy_end(r);
	close_files(r->mm);
	vec_free(&r->mm->files);
	for (size_t i = 0; i < WIDTHS; i++)
		mm_vdso_free(&r->mm->widths[i].own);
	free(r->mm);
	r->mm = NULL;
}

bool mm_restart_inherits(const struct restart *r, const struct restart_process *p,
			 uint32_t *ret_stage)
{
	if (!p->mm || !p->mm_owner || !p->mm->parent)
		return false;
	*ret_stage = p->mm->parent_stage;
	return true;
}

uint32_t mm_restart_last_stage(const struct restart *r, const struct restart_process *p)
{
	return p->mm && p->mm_owner ? p->mm->last_stage : 0;
}

/* ---- files to map ---- */

int mm_mapped_file(struct restart *r, uint64_t inode, bool write, int *ret_fd, struct error *e)
{
	struct mapped_file *f;
	int fd, n;

	vec_for_each (known, &r->mm->files) {
		if (known->inode == inode && known->write == write) {
			*ret_fd = known->fd;
			return 0;
		}
	}
	n = inode_open(r, inode, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC, &fd, e);
	if (n < 0)
		return n;
	f = vec_push(&r->mm->files);
	if (!f) {
		close(fd);
		return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for mapped files");
	}
	*f = (struct mapped_file){inode, write, fd};
	*ret_fd = fd;
	return 0;
}

/* So few that the limit on open files is not in sight, so many that the libraries of all processes
 * fit. */
void mm_mapped_files_bound(struct restart *r)
{
	if (r->mm->files.n > FILES_AT_ONCE)
		close_files(r->mm);
}

/* ---- the vDSO of another kernel ---- */

/*
 * Threads that were stopped in the midst of its code would go on reading data pages that are not
 * there any more. After a system call that the code makes there is nothing left to read.
 */
static int check_inside(struct restart *r, const struct restart_process *p,
			const struct mm_vdso *old, struct error *e)
{
	vec_for_each (other, &r->processes) {
		if (other->mm_id != p->mm_id)
			continue;
		vec_for_each (t, &other->tasks) {
			struct user_regs_struct regs;
			uint64_t at;

			if (t->msg->regs.len < sizeof(regs))
				continue; /* a zombie */
			memcpy(&regs, t->msg->regs.data, sizeof(regs));
			at = regs.rip - p->mm->vdso;
			if (at >= old->len)
				continue;
			if (at >= 2 && mm_vdso_is_call(old->code + at - 2, p->mm->compat))
				continue;
			return error_set(e, -EOPNOTSUPP, E_RESTORE,
					 "task %d was stopped inside the vDSO, and the image was "
					 "made under another kernel: take another checkpoint",
					 t->vtid);
		}
	}
	return 0;
}

static int map_plain(struct restart *r, struct restart_process *p, uint64_t at, size_t len,
		     struct error *e)
{
	const uint64_t args[6] = {at,
				  len,
				  PROT_READ | PROT_EXEC,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
				  (uint64_t)-1,
				  0};
	long got = agent_syscall(p->agent, p->pid, NULL, e, __NR_mmap, args);

	if (got < 0)
		return error_errno(e, (int)got, E_RESTORE, "cannot map the old vDSO");
	return (uint64_t)got == at ? 0
				   : error_set(e, -EEXIST, E_RESTORE, "no room for the old vDSO");
}

int mm_vdso_restart(struct restart *r, struct restart_process *p, struct error *e)
{
	const struct mm_width *w = mm_width_of(r, p->mm);
	uint64_t page_at = p->mm->vdso - PAGE_BYTES, here;
	_cleanup_(free_ptr) uint8_t *code = NULL;
	_cleanup_(close_fd) int mem_fd = -EBADF;
	uint8_t page[PAGE_BYTES];
	struct mm_vdso old;
	size_t len;
	int n;

	if (!p->mm->vdso || !w->foreign_vdso || !mm_vdso_in_image(r, p->mm->compat, &old))
		return 0;
	len = old.len;
	here = w->free_vdso + (w->own.vdso - w->own.vvar);
	n = check_inside(r, p, &old, e);
	if (n < 0)
		return n;
	code = malloc(len);
	if (!code)
		return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the vDSO");
	memcpy(code, old.code, len);
	n = p->mm->compat
		    ? mm_vdso_patch_compat(code, len, p->mm->vdso, &w->own, here, page, page_at, e)
		    : mm_vdso_patch(code, len, p->mm->vdso, &w->own, here, page, page_at, e);
	/* the trampolines take the place of the last data page */
	if (n >= 0)
		n = map_plain(r, p, page_at, PAGE_BYTES + len, e);
	if (n < 0)
		return n;
	mem_fd = procfs_open(r->proc_fd, O_RDWR | O_CLOEXEC, e, "%d/mem", p->pid);
	if (mem_fd < 0)
		return mem_fd;
	n = pages_force(mem_fd, page_at, page, sizeof(page), e);
	return n < 0 ? n : pages_force(mem_fd, p->mm->vdso, code, len, e);
}
