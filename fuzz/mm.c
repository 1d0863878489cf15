/* SPDX-License-Identifier: Apache-2.0 */
/* What tells of address spaces: the text of smaps, and the vDSO that an image brings. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mm/vdso.h"
#include "mm/vma.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_smaps(const uint8_t *data, size_t size)
{
	struct vma_list list = {.text = malloc(size + 1)};

	if (!list.text)
		return;
	memcpy(list.text, data, size);
	list.text[size] = '\0';
	if (vma_parse(list.text, &list) == 0)
		vec_for_each (v, &list.vmas)
			ignore(vma_classify(v, NULL), "either will do");
	vma_list_free(&list);
}

static void fuzz_vdso(const uint8_t *data, size_t size)
{
	const struct mm_vdso own = {};
	uint8_t page[PAGE_BYTES], *code = malloc(size + 1);

	if (!code)
		return;
	memcpy(code, data, size);
	ignore(mm_vdso_patch(code, size, 0x20000, &own, 0, page, 0x1f000, NULL), "either will do");
	free(code);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size && data[0] == 0x7f)
		fuzz_vdso(data, size);
	else
		fuzz_smaps(data, size);
	return 0;
}
