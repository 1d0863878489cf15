/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_STATE_BPF_VALUE_H
#define TEST_STATE_BPF_VALUE_H

/* Values that belong to tasks, files, sockets or control groups, of a type that is described. */

#include "bpf_calls.h"

struct value {
	uint64_t number;
	char text[24];
};

/* -1 with EINVAL: the kernel has no such kind. */
static inline long storage_make(int types, uint32_t type, uint32_t flags)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = 4;
	attr.value_size = sizeof(struct value);
	attr.map_flags = BPF_F_NO_PREALLOC | flags;
	attr.btf_fd = (uint32_t)types;
	attr.btf_key_type_id = 1;
	attr.btf_value_type_id = 5;
	return bpf(BPF_MAP_CREATE, &attr);
}

/* struct value, as a compiler writes of it. */
static inline int value_describe(void)
{
	static const char names[] = "\0int\0long\0char\0value\0number\0text";
	const uint32_t types[] = {
		/* clang-format off */
		1, BTF_KIND_INT << 24, 4, BTF_INT_SIGNED << 24 | 32,
		5, BTF_KIND_INT << 24, 8, 64,
		10, BTF_KIND_INT << 24, 1, 8,
		0, BTF_KIND_ARRAY << 24, 0, 3, 1, 24,
		15, BTF_KIND_STRUCT << 24 | 2, 32, 21, 2, 0, 28, 4, 64,
		/* clang-format on */
	};

	return btf_load(types, N(types), names, sizeof(names));
}

#endif
