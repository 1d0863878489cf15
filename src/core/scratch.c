/* SPDX-License-Identifier: Apache-2.0 */
#include "core/scratch.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Most hold little, and zeroing is what costs: each block is twice as large as the one before. */
#define BLOCK_MIN 4096
#define BLOCK_MAX 65536
#define ALIGNMENT 16

struct scratch_block {
	struct scratch_block *next;
	size_t used;
	size_t size;
	_Alignas(ALIGNMENT) char data[];
};

static struct scratch_block *block_new(size_t size)
{
	struct scratch_block *b;

	if (size > SIZE_MAX - sizeof(*b))
		return NULL;
	b = calloc(1, sizeof(*b) + size);
	if (b)
		b->size = size;
	return b;
}

void *scratch_alloc(struct scratch *s, size_t size)
{
	struct scratch_block *b = s->head;
	void *p;

	if (size > SIZE_MAX - ALIGNMENT)
		return NULL;
	size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	if (!b || size > b->size - b->used) {
		size_t usual = BLOCK_MIN;
		int big;

		if (b && b->size > BLOCK_MIN / 2)
			usual = b->size < BLOCK_MAX / 2 ? b->size * 2 : BLOCK_MAX;
		big = size > usual / 4;

		b = block_new(big ? size : usual);
		if (!b)
			return NULL;
		if (big && s->head) {
			/* The current block keeps the rest of its room for small things. */
			b->next = s->head->next;
			s->head->next = b;
		} else {
			b->next = s->head;
			s->head = b;
		}
	}
	p = b->data + b->used;
	b->used += size;
	return p;
}

void *scratch_copy(struct scratch *s, const void *from, size_t size)
{
	void *p = scratch_alloc(s, size);

	if (p && size)
		memcpy(p, from, size);
	return p;
}

char *scratch_string(struct scratch *s, const char *from)
{
	return scratch_copy(s, from, strlen(from) + 1);
}

void scratch_free(struct scratch *s)
{
	while (s->head) {
		struct scratch_block *next = s->head->next;

		free(s->head);
		s->head = next;
	}
}
