/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/vdso.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/vdso_symbols.h"
#include "mm/vma.h"

void mm_vdso_free(struct mm_vdso *v)
{
	free(v->code);
	*v = (struct mm_vdso){};
}

static int read_code(int proc_fd, pid_t pid, const struct mm_vdso *v, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;

	/* Who has gone where he has another name may not open it himself. */
	if (!pid) {
		memcpy(v->code, (const void *)(uintptr_t)v->vdso, v->len);
		return 0;
	}
	fd = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/mem", pid);
	if (fd < 0)
		return fd;
	return pread(fd, v->code, v->len, (off_t)v->vdso) == (ssize_t)v->len
		       ? 0
		       : error_errno(e, -errno, E_SYSTEM, "cannot read the vDSO");
}

/* pid: 0 is this process. */
static int find(int proc_fd, pid_t pid, struct mm_vdso *ret, struct error *e)
{
	_cleanup_(mm_vdso_free) struct mm_vdso own = {};
	_cleanup_(vma_list_free) struct vma_list list = {};
	int r = (int)procfs_read(proc_fd, &list.text, e, pid ? "%d/maps" : "self/maps", pid);

	if (r < 0)
		return r;
	r = vma_parse(list.text, &list);
	if (r < 0)
		return error_set(e, r, E_INTERNAL, "the map of task %d is not understood", pid);
	vec_for_each (v, &list.vmas) {
		if (strncmp(v->name, "[vvar", 5) == 0 && !own.vvar)
			own.vvar = v->start;
		if (strcmp(v->name, "[vdso]") != 0)
			continue;
		own.vdso = v->start;
		own.len = v->end - v->start;
	}
	if (own.vdso) {
		own.code = malloc(own.len);
		if (!own.code)
			return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the vDSO");
		r = read_code(proc_fd, pid, &own, e);
		if (r < 0)
			return r;
	}
	*ret = own;
	own.code = NULL;
	return 0;
}

int mm_vdso_own(int proc_fd, struct mm_vdso *ret, struct error *e)
{
	return find(proc_fd, 0, ret, e);
}

int mm_vdso_of(int proc_fd, pid_t pid, struct mm_vdso *ret, struct error *e)
{
	int r = find(proc_fd, pid, ret, e);

	if (r >= 0 && ret->len >= VDSO_TAIL)
		memset(ret->code + ret->len - VDSO_TAIL, 0, VDSO_TAIL);
	return r;
}

static int in_pieces(struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_VMA_KIND, "has moved or unmapped parts of its vDSO");
}

/* Who has unmapped the code (valgrind does, to see all system calls) leaves the data behind: that
 * it is all of it, and not a part, is told by how long it is. */
static int check_data(int proc_fd, const Reprise__Mm *mm, uint64_t end, struct error *e)
{
	_cleanup_(mm_vdso_free) struct mm_vdso own = {};
	int r = mm_vdso_own(proc_fd, &own, e);

	if (r < 0)
		return r;
	return mm->compat || end - mm->vvar != own.vdso - own.vvar ? in_pieces(e) : 0;
}

/* The code finds its data relative to itself: apart from it, it is of no use, and cannot be made
 * again by the kernel. */
int mm_vdso_checkpoint(int proc_fd, Reprise__Mm *mm, struct error *e)
{
	uint64_t next = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];

		if (v->kind != VMA_VVAR && v->kind != VMA_VDSO)
			continue;
		if (mm->vdso || (next && v->start != next))
			return in_pieces(e);
		if (v->kind == VMA_VVAR && !mm->vvar)
			mm->vvar = v->start;
		if (v->kind == VMA_VDSO)
			mm->vdso = v->start;
		next = v->end;
	}
	if (mm->vdso && !mm->vvar)
		return in_pieces(e);
	return mm->vvar && !mm->vdso ? check_data(proc_fd, mm, next, e) : 0;
}

/* ---- another kernel's vDSO ---- */

/*
 * Functions and the system calls that do the same. Each has a weak alias without the prefix, which
 * stands at the same address. getrandom always becomes the system call: the layout of the state
 * that the program keeps for it belongs to the kernel that told it.
 */
static const struct {
	const char *name;
	uint32_t nr;
	bool call_only;
} functions[] = {
	{"__vdso_clock_gettime", __NR_clock_gettime, false},
	{"__vdso_gettimeofday", __NR_gettimeofday, false},
	{"__vdso_time", __NR_time, false},
	{"__vdso_clock_getres", __NR_clock_getres, false},
	{"__vdso_getcpu", __NR_getcpu, false},
	{"__vdso_getrandom", __NR_getrandom, true},
};

enum { TRAMPOLINE_SIZE = 16 };

/* jmp *0(%rip); the address follows */
static void put_jump(uint8_t *at, uint64_t to)
{
	static const uint8_t jmp[] = {0xff, 0x25, 0, 0, 0, 0};

	memcpy(at, jmp, sizeof(jmp));
	memcpy(at + sizeof(jmp), &to, sizeof(to));
}

/* mov $nr, %eax; syscall; ret */
static void put_call(uint8_t *at, uint32_t nr)
{
	static const uint8_t end[] = {0x0f, 0x05, 0xc3};

	at[0] = 0xb8;
	memcpy(at + 1, &nr, sizeof(nr));
	memcpy(at + 5, end, sizeof(end));
}

int mm_vdso_patch(uint8_t *code, size_t len, uint64_t at, const struct mm_vdso *own, uint64_t here,
		  uint8_t *page, uint64_t trampolines, struct error *e)
{
	struct vdso_symbols old, new = {};

	if (vdso_symbols_read(&old, code, len, false) < 0)
		return error_set(e, -EINVAL, E_IMAGE_INVALID, "the vDSO in the image is malformed");
	if (own->vdso && vdso_symbols_read(&new, own->code, own->len, false) < 0)
		return error_set(e, -EINVAL, E_INTERNAL,
				 "the vDSO of this kernel is not understood");
	memset(page, 0xcc, PAGE_BYTES);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		uint64_t from = vdso_symbols_find(&old, functions[i].name);
		uint64_t to =
			functions[i].call_only ? 0 : vdso_symbols_find(&new, functions[i].name);
		uint64_t step = trampolines + i * TRAMPOLINE_SIZE;
		int32_t distance = (int32_t)(step - (at + from + 5));

		if (!from)
			continue;
		if (to)
			put_jump(page + i * TRAMPOLINE_SIZE, here + to);
		else
			put_call(page + i * TRAMPOLINE_SIZE, functions[i].nr);
		code[from] = 0xe9;
		memcpy(code + from + 1, &distance, sizeof(distance));
	}
	return 0;
}
