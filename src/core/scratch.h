/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_SCRATCH_H
#define REPRISE_CORE_SCRATCH_H

#include <stddef.h>

/*
 * Memory that is freed all at once: for protobuf messages that are built, packed
 * and thrown away. Zeroed. `_cleanup_(scratch_free) struct scratch s = {};`
 */
struct scratch {
	struct scratch_block *head;
};

void *scratch_alloc(struct scratch *s, size_t size); /* NULL when out of memory */
void *scratch_copy(struct scratch *s, const void *from, size_t size);
char *scratch_string(struct scratch *s, const char *from);
void scratch_free(struct scratch *s);

/* An initialised protobuf message: scratch_message(s, Reprise__Task, reprise__task__init). */
#define scratch_message(s, type, init)                       \
	({                                                   \
		type *_m = scratch_alloc((s), sizeof(type)); \
		if (_m)                                      \
			init(_m);                            \
		_m;                                          \
	})

#endif
