/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "mm/layout.h"
#include "mm/vdso.h"
#include "mm/vma.h"

/* The vDSO of 32-bit programs of another kernel, or of another processor: how it enters the kernel
 * depends on that. */

struct symbols {
	const uint8_t *image;
	size_t len;
	uint64_t base;
	const Elf32_Sym *sym;
	size_t n;
	const char *names;
	size_t names_len;
};

static const void *part(const struct symbols *s, uint64_t offset, uint64_t size)
{
	if (offset > s->len || size > s->len - offset || offset % sizeof(uint32_t))
		return NULL;
	return s->image + offset;
}

/* See find_symbols() in vdso.c. */
static int find_symbols(struct symbols *s, const Elf32_Dyn *dyn, size_t ndyn)
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
	if (!symtab || strtab <= symtab || strtab > s->len || strsz > s->len - strtab || !strsz)
		return -EINVAL;
	s->n = (strtab - symtab) / sizeof(*s->sym);
	s->sym = part(s, symtab, s->n * sizeof(*s->sym));
	s->names = (const char *)s->image + strtab;
	s->names_len = strsz;
	return s->sym && s->names[strsz - 1] == '\0' ? 0 : -EINVAL;
}

static int read_elf(struct symbols *s, const uint8_t *image, size_t len)
{
	const Elf32_Ehdr *h;
	const Elf32_Phdr *ph;
	const Elf32_Dyn *dyn = NULL;
	size_t ndyn = 0;
	bool loaded = false;

	*s = (struct symbols){.image = image, .len = len};
	h = part(s, 0, sizeof(*h));
	if (!h || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS32 ||
	    h->e_phentsize != sizeof(*ph))
		return -EINVAL;
	ph = part(s, h->e_phoff, (uint64_t)h->e_phnum * sizeof(*ph));
	for (int i = 0; ph && i < h->e_phnum; i++) {
		if (ph[i].p_type == PT_LOAD && !loaded) {
			s->base = ph[i].p_vaddr - ph[i].p_offset;
			loaded = true;
		} else if (ph[i].p_type == PT_DYNAMIC) {
			dyn = part(s, ph[i].p_offset, ph[i].p_filesz);
			ndyn = ph[i].p_filesz / sizeof(*dyn);
		}
	}
	return loaded && dyn ? find_symbols(s, dyn, ndyn) : -EINVAL;
}

/* Offset of a function in its image, 0 if it has none of that name. */
static uint64_t entry_of(const struct symbols *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++) {
		const Elf32_Sym *sym = &s->sym[i];
		uint64_t offset = (uint64_t)sym->st_value - s->base;

		if (sym->st_shndx != SHN_UNDEF && ELF32_ST_TYPE(sym->st_info) == STT_FUNC &&
		    sym->st_name < s->names_len && offset < s->len && s->len - offset >= 16 &&
		    strcmp(s->names + sym->st_name, name) == 0)
			return offset;
	}
	return 0;
}

/* Numbers of i386. */
static const struct {
	const char *name;
	uint32_t nr;
} functions[] = {
	{"__vdso_clock_gettime", 265},	 {"__vdso_gettimeofday", 78},  {"__vdso_time", 13},
	{"__vdso_clock_gettime64", 403}, {"__vdso_clock_getres", 266}, {"__vdso_getcpu", 318},
};

#define TRAMPOLINE_SIZE 32

/* With the arguments, of which there are three at most, that a function finds on the stack. */
static void put_call(uint8_t *at, uint32_t nr)
{
	static const uint8_t code[] = {
		0x53,			   /* push %ebx */
		0x8b, 0x5c, 0x24, 0x08,	   /* mov 8(%esp), %ebx */
		0x8b, 0x4c, 0x24, 0x0c,	   /* mov 12(%esp), %ecx */
		0x8b, 0x54, 0x24, 0x10,	   /* mov 16(%esp), %edx */
		0xb8, 0,    0,	  0,	0, /* mov $nr, %eax */
		0xcd, 0x80,		   /* int $0x80 */
		0x5b,			   /* pop %ebx */
		0xc3,
	};

	memcpy(at, code, sizeof(code));
	memcpy(at + 14, &nr, sizeof(nr));
}

bool mm_vdso_is_call(const uint8_t insn[2], bool compat)
{
	return compat ? insn[0] == 0xcd && insn[1] == 0x80 : insn[0] == 0x0f && insn[1] == 0x05;
}

int mm_vdso_patch_compat(uint8_t *code, size_t len, uint64_t at, const struct mm_vdso *own,
			 uint64_t here, uint8_t *page, uint64_t trampolines, struct error *e)
{
	static const uint8_t enter[] = {0xcd, 0x80, 0xc3}; /* int $0x80; ret */
	struct symbols old, new = {};
	uint64_t from;

	if (read_elf(&old, code, len) < 0)
		return error_set(e, -EINVAL, E_IMAGE_INVALID,
				 "the 32-bit vDSO in the image is malformed");
	if (own->vdso && read_elf(&new, own->code, own->len) < 0)
		return error_set(e, -EINVAL, E_INTERNAL,
				 "the 32-bit vDSO of this kernel is not understood");
	memset(page, 0xcc, PAGE_BYTES);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		uint64_t to = entry_of(&new, functions[i].name);
		uint64_t target = to ? here + to : trampolines + i * TRAMPOLINE_SIZE;
		int32_t distance;

		from = entry_of(&old, functions[i].name);
		if (!from)
			continue;
		if (!to)
			put_call(page + i * TRAMPOLINE_SIZE, functions[i].nr);
		distance = (int32_t)(target - (at + from + 5));
		code[from] = 0xe9;
		memcpy(code + from + 1, &distance, sizeof(distance));
	}
	/* Who sleeps in it has the last instruction of that kind behind him, which stays. */
	from = entry_of(&old, "__kernel_vsyscall");
	if (from)
		memcpy(code + from, enter, sizeof(enter));
	return 0;
}

bool mm_vdso_in_image(const struct restart *r, bool compat, struct mm_vdso *ret)
{
	const Reprise__Tree *tree = restart_nth(r, RECORD_TREE, 0, NULL);
	const Reprise__CompatVdso *other = restart_nth(r, RECORD_COMPAT_VDSO, 0, NULL);

	*ret = (struct mm_vdso){};
	if (compat && other)
		*ret = (struct mm_vdso){.vdso = other->address_delta,
					.len = other->code.len,
					.code = other->code.data};
	else if (!compat && tree)
		*ret = (struct mm_vdso){.vdso = tree->vdso_address_delta,
					.len = tree->vdso.len,
					.code = tree->vdso.data};
	return compat ? other != NULL : tree != NULL;
}
