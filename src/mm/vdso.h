/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_VDSO_H
#define REPRISE_MM_VDSO_H

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

/* Reads that of the calling process. */
int mm_vdso_own(int proc_fd, struct mm_vdso *ret, struct error *e) must_check;
void mm_vdso_free(struct mm_vdso *v);

/* Fills in the addresses from the list of mappings; a vDSO that was taken apart is refused. */
int mm_vdso_checkpoint(Reprise__Mm *mm, struct error *e) must_check;

/*
 * Makes the code of a vDSO of another kernel harmless: each of its entry points jumps to a
 * trampoline, which jumps to the same function of the present one (at `here`), or makes the system
 * call. `code` (len bytes, changed in place) stands at `at`, the trampolines (one page, filled in)
 * at `trampolines`. Pure: fuzzed.
 */
int mm_vdso_patch(uint8_t *code, size_t len, uint64_t at, const struct mm_vdso *own, uint64_t here,
		  uint8_t *page, uint64_t trampolines, struct error *e) must_check;

#endif
