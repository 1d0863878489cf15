/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_VDSO_H
#define REPRISE_MM_VDSO_H

#include <sys/types.h>

#include "core/error.h"
#include "mm.pb-c.h"

/*
 * The vDSO of this kernel, as every 64-bit process has it: data pages ([vvar]), directly
 * followed by code ([vdso]). vdso == 0: the kernel was told to do without.
 */
struct mm_vdso {
	uint64_t vvar, vdso;
	size_t len;
	uint8_t *code;
};

/* Reads that of the calling process; that of a process that nobody else runs. */
int mm_vdso_own(int proc_fd, struct mm_vdso *ret, struct error *e) must_check;
int mm_vdso_of(int proc_fd, pid_t pid, struct mm_vdso *ret, struct error *e) must_check;
/* For a moment code of ours may stand at the end, where nothing else does (src/remote/text.c): it
 * does not count. */
#define VDSO_TAIL 64
void mm_vdso_free(struct mm_vdso *v);

/* Fills in the addresses from the list of mappings; a vDSO that was taken apart is refused. All of
 * its data may be there without the code. */
int mm_vdso_checkpoint(int proc_fd, Reprise__Mm *mm, struct error *e) must_check;

/*
 * Makes the code of a vDSO of another kernel harmless: each of its entry points jumps to a
 * trampoline, which jumps to the same function of the present one (at `here`), or makes the system
 * call. `code` (len bytes, changed in place) stands at `at`, the trampolines (one page, filled in)
 * at `trampolines`. Pure: fuzzed.
 */
int mm_vdso_patch(uint8_t *code, size_t len, uint64_t at, const struct mm_vdso *own, uint64_t here,
		  uint8_t *page, uint64_t trampolines, struct error *e) must_check;
/* The same for that of 32-bit programs, whose system calls go through it as well. */
int mm_vdso_patch_compat(uint8_t *code, size_t len, uint64_t at, const struct mm_vdso *own,
			 uint64_t here, uint8_t *page, uint64_t trampolines,
			 struct error *e) must_check;
/* Is this an instruction that makes a system call, so that nothing but registers is of use to what
 * follows? */
bool mm_vdso_is_call(const uint8_t insn[2], bool compat);

#endif
