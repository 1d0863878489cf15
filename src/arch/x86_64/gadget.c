/* SPDX-License-Identifier: Apache-2.0 */
#include "arch/arch.h"

#include <string.h>

#define SYSCALL_1 0x0f
#define SYSCALL_2 0x05
#define RET	  0xc3

/* mov $15, %rax or mov $15, %eax, and syscall. */
static const uint8_t sigreturn_long[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
static const uint8_t sigreturn_short[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05};
static const uint8_t both[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x05, 0xc3};

static bool ends_with(const uint8_t *text, const uint8_t *end, const uint8_t *pattern, size_t size)
{
	return (size_t)(end - text) >= size && !memcmp(end - size, pattern, size);
}

/* All that we look for contains a `syscall`: its rarer byte is found first. */
void arch_gadgets_find(struct arch_gadgets *g, const uint8_t *text, size_t len, uint64_t base)
{
	const uint8_t *at = text, *end = text + len;

	while ((!g->syscall_ret || !g->sigreturn) &&
	       (at = memchr(at, SYSCALL_2, (size_t)(end - at)))) {
		at++;
		if (at - text < 2 || at[-2] != SYSCALL_1)
			continue;
		if (!g->syscall_ret && at < end && *at == RET)
			g->syscall_ret = base + (uint64_t)(at - 2 - text);
		if (g->sigreturn)
			continue;
		if (ends_with(text, at, sigreturn_long, sizeof(sigreturn_long)))
			g->sigreturn = base + (uint64_t)(at - text) - sizeof(sigreturn_long);
		else if (ends_with(text, at, sigreturn_short, sizeof(sigreturn_short)))
			g->sigreturn = base + (uint64_t)(at - text) - sizeof(sigreturn_short);
	}
}

size_t arch_gadgets_code(const uint8_t **ret)
{
	*ret = both;
	return sizeof(both);
}
