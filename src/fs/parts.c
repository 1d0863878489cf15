/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/parts.h"

#include <errno.h>
#include <string.h>

#define PART_BYTES 256

static bool is_zero(const uint8_t *at, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (at[i])
			return false;
	return true;
}

int parts_save(const uint8_t *at, uint64_t size, size_t *ret_n, Reprise__MemoryPart ***ret,
	       struct scratch *s)
{
	size_t n = 0;

	*ret = scratch_alloc(s, (size / PART_BYTES + 1) * sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	for (uint64_t from = 0, to; from < size; from = to) {
		Reprise__MemoryPart *m;

		to = from + PART_BYTES < size ? from + PART_BYTES : size;
		if (is_zero(at + from, to - from))
			continue;
		m = n ? (*ret)[n - 1] : NULL;
		if (m && m->offset + m->data.len == from) {
			m->data.len = to - m->offset;
			continue;
		}
		m = scratch_message(s, Reprise__MemoryPart, reprise__memory_part__init);
		if (!m)
			return -ENOMEM;
		m->offset = from;
		m->data.len = to - from;
		(*ret)[n++] = m;
	}
	for (size_t i = 0; i < n; i++) {
		(*ret)[i]->data.data = scratch_copy(s, at + (*ret)[i]->offset, (*ret)[i]->data.len);
		if (!(*ret)[i]->data.data)
			return -ENOMEM;
	}
	*ret_n = n;
	return 0;
}

bool parts_fit(size_t n, Reprise__MemoryPart *const *parts, uint64_t size)
{
	uint64_t below = 0;

	for (size_t i = 0; i < n; i++) {
		if (parts[i]->offset < below || parts[i]->offset > size ||
		    parts[i]->data.len > size - parts[i]->offset)
			return false;
		below = parts[i]->offset + parts[i]->data.len;
	}
	return true;
}

void parts_fill(uint8_t *at, uint64_t size, size_t n, Reprise__MemoryPart *const *parts)
{
	uint64_t done = 0;

	for (size_t i = 0; i < n; i++) {
		memset(at + done, 0, parts[i]->offset - done);
		if (parts[i]->data.len) /* else there is no address */
			memcpy(at + parts[i]->offset, parts[i]->data.data, parts[i]->data.len);
		done = parts[i]->offset + parts[i]->data.len;
	}
	memset(at + done, 0, size - done);
}
