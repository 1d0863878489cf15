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
