/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "mm/layout.h"
#include "mm/vdso.h"
#include "mm/vdso_symbols.h"
#include "mm/vma.h"

/* The vDSO of 32-bit programs of another kernel, or of another processor: how it enters the kernel
 * depends on that. */

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
	struct vdso_symbols old, new = {};
	uint64_t from;

	if (vdso_symbols_read(&old, code, len, true) < 0)
		return error_set(e, -EINVAL, E_IMAGE_INVALID,
				 "the 32-bit vDSO in the image is malformed");
	if (own->vdso && vdso_symbols_read(&new, own->code, own->len, true) < 0)
		return error_set(e, -EINVAL, E_INTERNAL,
				 "the 32-bit vDSO of this kernel is not understood");
	memset(page, 0xcc, PAGE_BYTES);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		uint64_t to = vdso_symbols_find(&new, functions[i].name);
		uint64_t target = to ? here + to : trampolines + i * TRAMPOLINE_SIZE;
		int32_t distance;

		from = vdso_symbols_find(&old, functions[i].name);
		if (!from)
			continue;
		if (!to)
			put_call(page + i * TRAMPOLINE_SIZE, functions[i].nr);
		distance = (int32_t)(target - (at + from + 5));
		code[from] = 0xe9;
		memcpy(code + from + 1, &distance, sizeof(distance));
	}
	/* Who sleeps in it has the last instruction of that kind behind him, which stays. */
	from = vdso_symbols_find(&old, "__kernel_vsyscall");
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
