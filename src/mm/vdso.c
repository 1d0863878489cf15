/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/vdso.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/vma.h"

void mm_vdso_free(struct mm_vdso *v)
{
	free(v->code);
	*v = (struct mm_vdso){};
}

static int find(int proc_fd, const char *name, struct mm_vdso *ret, struct error *e)
{
	_cleanup_(mm_vdso_free) struct mm_vdso own = {};
	_cleanup_(vma_list_free) struct vma_list list = {};
	_cleanup_(close_fd) int fd = -EBADF;
	int r = (int)procfs_read(proc_fd, &list.text, e, "%s/maps", name);

	if (r < 0)
		return r;
	r = vma_parse(list.text, &list);
	if (r < 0)
		return error_set(e, r, E_INTERNAL, "/proc/%s/maps is not understood", name);
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
		fd = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%s/mem", name);
		if (fd < 0)
			return fd;
		if (pread(fd, own.code, own.len, (off_t)own.vdso) != (ssize_t)own.len)
			return error_errno(e, -errno, E_SYSTEM, "cannot read the vDSO");
	}
	*ret = own;
	own.code = NULL;
	return 0;
}

int mm_vdso_own(int proc_fd, struct mm_vdso *ret, struct error *e)
{
	return find(proc_fd, "self", ret, e);
}

int mm_vdso_of(int proc_fd, pid_t pid, struct mm_vdso *ret, struct error *e)
{
	char name[16];
	int r;

	snprintf(name, sizeof(name), "%d", pid);
	r = find(proc_fd, name, ret, e);
	if (r >= 0 && ret->len >= VDSO_TAIL)
		memset(ret->code + ret->len - VDSO_TAIL, 0, VDSO_TAIL);
	return r;
}

/* The code finds its data relative to itself: apart from it, it is of no use, and cannot be made
 * again by the kernel. */
int mm_vdso_checkpoint(Reprise__Mm *mm, struct error *e)
{
	uint64_t next = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];

		if (v->kind != VMA_VVAR && v->kind != VMA_VDSO)
			continue;
		if (mm->vdso || (next && v->start != next))
			return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
					 "has moved or unmapped parts of its vDSO");
		if (v->kind == VMA_VVAR && !mm->vvar)
			mm->vvar = v->start;
		if (v->kind == VMA_VDSO)
			mm->vdso = v->start;
		next = v->end;
	}
	if (!mm->vvar != !mm->vdso)
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "has moved or unmapped parts of its vDSO");
	return 0;
}

/* ---- another kernel's vDSO ---- */

/* What the dynamic section tells of the symbols, all within the image. */
struct symbols {
	const uint8_t *image;
	size_t len;
	uint64_t base; /* address of the first byte, as linked */
	const Elf64_Sym *sym;
	size_t n;
	const char *names;
	size_t names_len;
};

static const void *part(const struct symbols *s, uint64_t offset, uint64_t size, size_t align)
{
	if (offset > s->len || size > s->len - offset || offset % align)
		return NULL;
	return s->image + offset;
}

/*
 * The number of symbols stands in the section headers, or is that of the chains of DT_HASH; newer
 * vDSOs have DT_GNU_HASH only. The string table follows the symbols in all of them, which bounds
 * the number.
 */
static int find_symbols(struct symbols *s, const Elf64_Dyn *dyn, size_t ndyn)
{
	uint64_t symtab = 0, strtab = 0, strsz = 0;

	for (size_t i = 0; i < ndyn && dyn[i].d_tag != DT_NULL; i++) {
		if (dyn[i].d_tag == DT_SYMTAB)
			symtab = dyn[i].d_un.d_ptr - s->base;
		else if (dyn[i].d_tag == DT_STRTAB)
			strtab = dyn[i].d_un.d_ptr - s->base;
		else if (dyn[i].d_tag == DT_STRSZ)
			strsz = dyn[i].d_un.d_val;
	}
	if (!symtab || strtab <= symtab)
		return -EINVAL;
	s->n = (strtab - symtab) / sizeof(*s->sym);
	s->sym = part(s, symtab, s->n * sizeof(*s->sym), _Alignof(Elf64_Sym));
	s->names = part(s, strtab, strsz, 1);
	s->names_len = strsz;
	return s->sym && s->names && strsz && s->names[strsz - 1] == '\0' ? 0 : -EINVAL;
}

static int read_elf(struct symbols *s, const uint8_t *image, size_t len)
{
	const Elf64_Ehdr *h;
	const Elf64_Phdr *ph;
	const Elf64_Dyn *dyn = NULL;
	size_t ndyn = 0;
	bool loaded = false;

	*s = (struct symbols){.image = image, .len = len};
	h = part(s, 0, sizeof(*h), _Alignof(Elf64_Ehdr));
	if (!h || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_phentsize != sizeof(*ph))
		return -EINVAL;
	ph = part(s, h->e_phoff, (uint64_t)h->e_phnum * sizeof(*ph), _Alignof(Elf64_Phdr));
	for (int i = 0; ph && i < h->e_phnum; i++) {
		if (ph[i].p_type == PT_LOAD && !loaded) {
			s->base = ph[i].p_vaddr - ph[i].p_offset;
			loaded = true;
		} else if (ph[i].p_type == PT_DYNAMIC) {
			dyn = part(s, ph[i].p_offset, ph[i].p_filesz, _Alignof(Elf64_Dyn));
			ndyn = ph[i].p_filesz / sizeof(*dyn);
		}
	}
	return loaded && dyn ? find_symbols(s, dyn, ndyn) : -EINVAL;
}

static bool is_entry(const struct symbols *s, const Elf64_Sym *sym)
{
	uint64_t offset = sym->st_value - s->base;

	return sym->st_shndx != SHN_UNDEF && ELF64_ST_TYPE(sym->st_info) == STT_FUNC &&
	       sym->st_name < s->names_len && offset < s->len && s->len - offset >= 16;
}

/* Offset of a function in its image, 0 if it has none of that name. */
static uint64_t entry_of(const struct symbols *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (is_entry(s, &s->sym[i]) && strcmp(s->names + s->sym[i].st_name, name) == 0)
			return s->sym[i].st_value - s->base;
	return 0;
}

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
	struct symbols old, new = {};

	if (read_elf(&old, code, len) < 0)
		return error_set(e, -EINVAL, E_IMAGE_INVALID, "the vDSO in the image is malformed");
	if (own->vdso && read_elf(&new, own->code, own->len) < 0)
		return error_set(e, -EINVAL, E_INTERNAL,
				 "the vDSO of this kernel is not understood");
	memset(page, 0xcc, PAGE_BYTES);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		uint64_t from = entry_of(&old, functions[i].name);
		uint64_t to = functions[i].call_only ? 0 : entry_of(&new, functions[i].name);
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
