/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "mm/layout.h"
#include "mm/mm.h"
#include "mm/vma.h"

/*
 * 32-bit programs among others. A stub is forked from one of either width, and becomes one of the
 * other width as the application did: by executing a program.
 */

/* Where programs used to begin. The kernel puts nothing there by itself. */
#define BOOT_AT	      0x08048000ul
#define OTHER_BOOT_AT 0x10048000ul

static uint64_t boot_at(uint64_t agent)
{
	return agent < BOOT_AT + AGENT_SIZE && BOOT_AT < agent + AGENT_SIZE ? OTHER_BOOT_AT
									    : BOOT_AT;
}

static int unmap(struct agent *a, pid_t pid, uint64_t start, uint64_t end, struct error *e)
{
	long n =
		agent_syscall(a, pid, NULL, e, SYS_munmap, (const uint64_t[6]){start, end - start});

	return n < 0 ? error_errno(e, (int)n, E_RESTORE, "cannot empty the address space of a stub")
		     : 0;
}

bool mm_restart_is_compat(const struct restart *r, const struct agent *a)
{
	return r->agent_compat_at && agent_address(a) == r->agent_compat_at;
}

int mm_restart_program(struct restart *r, pid_t pid, struct agent *a, bool compat, struct error *e)
{
	uint64_t at = compat ? r->agent_compat_at : r->agent_at;
	uint64_t end = compat ? ARCH_COMPAT_END : USER_SPACE_END;
	int n;

	n = agent_change_program(a, pid, compat, boot_at(at), at, r->control_remote, e);
	if (n >= 0 && compat)
		n = mm_vdso_learn(r, pid, e);
	if (n >= 0)
		n = unmap(a, pid, 0, at, e);
	return n < 0 ? n : unmap(a, pid, at + AGENT_SIZE, end, e);
}
