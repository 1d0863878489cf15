/* SPDX-License-Identifier: Apache-2.0 */
#include "arch/arch.h"

#include <cpuid.h>
#include <string.h>

#define XSTATE_CPUID	   0xd
#define XSTATE_HEADER_END  576 /* legacy area and XSAVE header */
#define XSTATE_XCR0_OFFSET 464 /* where the kernel leaves XCR0 in the register set */
#define XSTATE_BV_OFFSET   512
#define XFEATURES_DYNAMIC  (1ULL << 18) /* AMX tiles: allocated when first used */
#define XFEATURE_FIRST	   2		/* those before are in the legacy area */
#define XFEATURE_PKRU	   9
#define XFEATURE_X87	   (1ULL << 0)
#define XFEATURE_SSE	   (1ULL << 1)
#define XFEATURE_YMM	   (1ULL << 2)
#define XSTATE_COMP_OFFSET 520
#define XCOMP_COMPACTED	   (1ULL << 63)
#define XSTATE_MXCSR_AT	   24
#define XSTATE_ST_AT	   32
#define XSTATE_XMM_AT	   160
#define XSTATE_XMM_END	   416
#define FCW_INIT	   0x37f
#define MXCSR_INIT	   0x1f80
#define XFEATURE_LIMIT	   63

/* Size of the standard (not compacted) layout that holds these features. */
static uint32_t layout_size(uint64_t features)
{
	uint32_t end = XSTATE_HEADER_END;

	for (unsigned int i = XFEATURE_FIRST; i < XFEATURE_LIMIT; i++) {
		unsigned int size, offset, flags, unused;

		if (!(features & (1ULL << i)) ||
		    !__get_cpuid_count(XSTATE_CPUID, i, &size, &offset, &flags, &unused))
			continue;
		if (offset + size > end)
			end = offset + size;
	}
	return end;
}

uint32_t arch_xstate_size(void)
{
	unsigned int a, b, c, d;

	/* EBX: size for the features that the kernel has enabled. */
	if (!__get_cpuid_count(XSTATE_CPUID, 0, &a, &b, &c, &d) || b < XSTATE_HEADER_END)
		return XSTATE_HEADER_END;
	return b;
}

uint32_t arch_xstate_frame_size(const void *xstate, uint32_t len, uint64_t *features)
{
	uint64_t xcr0, in_use;
	uint32_t size;

	memcpy(&xcr0, (const char *)xstate + XSTATE_XCR0_OFFSET, sizeof(xcr0));
	memcpy(&in_use, (const char *)xstate + XSTATE_BV_OFFSET, sizeof(in_use));
	/*
	 * A frame that is larger than the task's own buffer is taken for one without
	 * extended state, and a task has room for dynamic features only once it uses
	 * them: leave those out that are not in use.
	 */
	*features = xcr0 & ~(XFEATURES_DYNAMIC & ~in_use);
	if (*features == xcr0)
		return len; /* cpuid is slow in a virtual machine */
	size = layout_size(*features);
	return size < len ? size : len;
}

static void expand_legacy(const uint8_t *from, uint64_t in_use, uint8_t *to)
{
	const uint16_t fcw = FCW_INIT;
	const uint32_t mxcsr = MXCSR_INIT;

	/* What is in its initial state is not there. */
	memset(to, 0, XSTATE_MXCSR_AT);
	memset(to + XSTATE_ST_AT, 0, XSTATE_XMM_END - XSTATE_ST_AT);
	memcpy(to, &fcw, sizeof(fcw));
	memcpy(to + XSTATE_MXCSR_AT, &mxcsr, sizeof(mxcsr));
	if (in_use & XFEATURE_X87) {
		memcpy(to, from, XSTATE_MXCSR_AT);
		memcpy(to + XSTATE_ST_AT, from + XSTATE_ST_AT, XSTATE_XMM_AT - XSTATE_ST_AT);
	}
	if (in_use & (XFEATURE_SSE | XFEATURE_YMM))
		memcpy(to + XSTATE_MXCSR_AT, from + XSTATE_MXCSR_AT, sizeof(mxcsr));
	if (in_use & XFEATURE_SSE)
		memcpy(to + XSTATE_XMM_AT, from + XSTATE_XMM_AT, XSTATE_XMM_END - XSTATE_XMM_AT);
}

/* In the compacted form the features that there are stand one after the other. */
static bool expand_feature(const uint8_t *from, uint32_t from_len, unsigned int i, uint64_t layout,
			   uint64_t in_use, uint8_t *to, uint32_t to_len, uint32_t *at)
{
	unsigned int size, offset, flags, unused;

	if (!__get_cpuid_count(XSTATE_CPUID, i, &size, &offset, &flags, &unused))
		return false;
	if (!(layout & XCOMP_COMPACTED))
		*at = offset;
	else if (flags & 2)
		*at = (*at + 63) & ~63U;
	if (in_use & (1ULL << i)) {
		if (*at + size > from_len || offset + size > to_len)
			return false;
		memcpy(to + offset, from + *at, size);
	}
	*at += size;
	return true;
}

bool arch_xstate_expand(const void *kernel, uint32_t kernel_len, uint64_t features, uint32_t pkru,
			void *ret, uint32_t ret_len)
{
	const uint8_t *from = kernel;
	uint32_t at = XSTATE_HEADER_END;
	uint64_t in_use, layout;
	uint8_t *to = ret;

	if (kernel_len < XSTATE_HEADER_END || ret_len < XSTATE_HEADER_END)
		return false;
	memcpy(&in_use, from + XSTATE_BV_OFFSET, sizeof(in_use));
	memcpy(&layout, from + XSTATE_COMP_OFFSET, sizeof(layout));
	in_use &= features;
	expand_legacy(from, in_use, to);
	memset(to + XSTATE_HEADER_END, 0, ret_len - XSTATE_HEADER_END);
	for (unsigned int i = XFEATURE_FIRST; i < XFEATURE_LIMIT; i++) {
		bool there = layout & XCOMP_COMPACTED ? layout & (1ULL << i) : in_use & (1ULL << i);

		if (there && !expand_feature(from, kernel_len, i, layout,
					     i == XFEATURE_PKRU ? 0 : in_use, to, ret_len, &at))
			return false;
	}
	/* Its register is kept apart from the rest, see struct thread_struct. */
	in_use &= ~(1ULL << XFEATURE_PKRU);
	if (pkru) {
		unsigned int size, offset, flags, unused;

		if (!__get_cpuid_count(XSTATE_CPUID, XFEATURE_PKRU, &size, &offset, &flags,
				       &unused) ||
		    offset + sizeof(pkru) > ret_len)
			return false;
		memcpy(to + offset, &pkru, sizeof(pkru));
		in_use |= 1ULL << XFEATURE_PKRU;
	}
	memcpy(to + XSTATE_BV_OFFSET, &in_use, sizeof(in_use));
	return true;
}
