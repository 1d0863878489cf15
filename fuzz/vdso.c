/* SPDX-License-Identifier: Apache-2.0 */
/* The vDSO that an image brings: code and symbols of another kernel. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mm/vma.h"
#include "mm/vdso.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_vdso(const uint8_t *data, size_t size)
{
	const struct mm_vdso own = {};
	uint8_t page[PAGE_BYTES], *code = malloc(size + 1), *other = malloc(size + 1);

	if (!code || !other)
		abort();
	memcpy(code, data, size);
	memcpy(other, data, size);
	ignore(mm_vdso_patch(code, size, 0x20000, &own, 0, page, 0x1f000, NULL), "either will do");
	ignore(mm_vdso_patch_compat(other, size, 0x20000, &own, 0, page, 0x1f000, NULL),
	       "either will do");
	free(code);
	free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_vdso(data, size);
	return 0;
}
