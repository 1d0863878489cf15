/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_TYPES_H
#define REPRISE_CORE_KERNEL_TYPES_H

#include "core/btf.h"
#include "core/error.h"
#include "core/vec.h"

/*
 * The types of the running kernel, and of its modules that are asked for: what may be in one is
 * called "MODULE:STRUCTURE", wherever it is. What was asked for is kept, since to search all types
 * takes a while. Names are literals, or live as long.
 */
struct known_member {
	const char *structure, *member;
	int offset, size;
};

struct known_enumerator {
	char *name;
	int value;
};

struct known_module {
	char name[64]; /* MODULE_NAME_LEN is 56 */
	struct btf *btf;
};

struct kernel_types {
	struct btf *btf; /* the kernel's own */
	VEC(struct known_module) modules;
	VEC(struct known_member) members;
	VEC(struct known_enumerator) enumerators;
};

int kernel_types_open(struct kernel_types *t) must_check;
void kernel_types_free(struct kernel_types *t);

/* These are described in kernel_memory.h. */
int kernel_types_member(struct kernel_types *t, const char *structure, const char *member,
			int *ret_size);
int kernel_types_size(struct kernel_types *t, const char *structure);
int kernel_types_enumerator(struct kernel_types *t, const char *name);

#endif
