/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/vdso_symbols.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

/* Of a structure that is there in both widths. */
#define SIZE(s, type) ((s)->narrow ? sizeof(Elf32_##type) : sizeof(Elf64_##type))
#define FIELD(s, type, at, member) \
	((s)->narrow ? ((const Elf32_##type *)(at))->member : ((const Elf64_##type *)(at))->member)

static const uint8_t *part(const struct vdso_symbols *s, uint64_t offset, uint64_t size,
			   size_t align)
{
	if (offset > s->len || size > s->len - offset || offset % align)
		return NULL;
	return s->image + offset;
}

/* Aligned as the members of a structure are. */
static const uint8_t *table(const struct vdso_symbols *s, uint64_t offset, uint64_t size)
{
	return part(s, offset, size, s->narrow ? sizeof(uint32_t) : sizeof(uint64_t));
}

/*
 * The number of symbols stands in the section headers, or is that of the chains of DT_HASH; newer
 * vDSOs have DT_GNU_HASH only. The string table follows the symbols in all of them, which bounds
 * the number.
 */
static int find_table(struct vdso_symbols *s, const uint8_t *dyn, size_t ndyn)
{
	uint64_t symtab = 0, strtab = 0, strsz = 0;

	for (size_t i = 0; i < ndyn; i++, dyn += SIZE(s, Dyn)) {
		const uint64_t value = FIELD(s, Dyn, dyn, d_un.d_val);
		const int64_t tag = FIELD(s, Dyn, dyn, d_tag);

		if (tag == DT_NULL)
			break;
		if (tag == DT_SYMTAB)
			symtab = value - s->base;
		else if (tag == DT_STRTAB)
			strtab = value - s->base;
		else if (tag == DT_STRSZ)
			strsz = value;
	}
	if (!symtab || strtab <= symtab)
		return -EINVAL;
	s->n = (strtab - symtab) / SIZE(s, Sym);
	s->table = table(s, symtab, s->n * SIZE(s, Sym));
	s->names = (const char *)part(s, strtab, strsz, 1);
	s->names_len = strsz;
	return s->table && s->names && strsz && s->names[strsz - 1] == '\0' ? 0 : -EINVAL;
}

int vdso_symbols_read(struct vdso_symbols *s, const uint8_t *image, size_t len, bool narrow)
{
	const uint8_t *h, *ph, *dyn = NULL;
	bool loaded = false;
	size_t ndyn = 0;
	int n;

	*s = (struct vdso_symbols){.image = image, .len = len, .narrow = narrow};
	h = table(s, 0, SIZE(s, Ehdr));
	if (!h || memcmp(h, ELFMAG, SELFMAG) != 0 ||
	    h[EI_CLASS] != (narrow ? ELFCLASS32 : ELFCLASS64) ||
	    FIELD(s, Ehdr, h, e_phentsize) != SIZE(s, Phdr))
		return -EINVAL;
	n = FIELD(s, Ehdr, h, e_phnum);
	ph = table(s, FIELD(s, Ehdr, h, e_phoff), (uint64_t)n * SIZE(s, Phdr));
	for (int i = 0; ph && i < n; i++, ph += SIZE(s, Phdr)) {
		const uint64_t offset = FIELD(s, Phdr, ph, p_offset);

		if (FIELD(s, Phdr, ph, p_type) == PT_LOAD && !loaded) {
			s->base = FIELD(s, Phdr, ph, p_vaddr) - offset;
			loaded = true;
		} else if (FIELD(s, Phdr, ph, p_type) == PT_DYNAMIC) {
			dyn = table(s, offset, FIELD(s, Phdr, ph, p_filesz));
			ndyn = FIELD(s, Phdr, ph, p_filesz) / SIZE(s, Dyn);
		}
	}
	return loaded && dyn ? find_table(s, dyn, ndyn) : -EINVAL;
}

uint64_t vdso_symbols_find(const struct vdso_symbols *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++) {
		const uint8_t *sym = s->table + i * SIZE(s, Sym);
		const uint64_t offset = FIELD(s, Sym, sym, st_value) - s->base;
		const uint32_t at = FIELD(s, Sym, sym, st_name);

		if (FIELD(s, Sym, sym, st_shndx) != SHN_UNDEF &&
		    ELF64_ST_TYPE(FIELD(s, Sym, sym, st_info)) == STT_FUNC && at < s->names_len &&
		    offset < s->len && s->len - offset >= 16 && strcmp(s->names + at, name) == 0)
			return offset;
	}
	return 0;
}
