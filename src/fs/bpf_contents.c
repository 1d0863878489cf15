/* SPDX-License-Identifier: Apache-2.0 */
/* What a BPF map is and holds, as bpf(2) tells. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/kernel_bpf.h"
#include "fs/bpf_map.h"

enum bpf_shape bpf_map_shape(uint32_t type)
{
	switch (type) {
	case BPF_MAP_TYPE_HASH:
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_LRU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
	case BPF_MAP_TYPE_LPM_TRIE:
	case BPF_MAP_TYPE_HASH_OF_MAPS:
		return SHAPE_HASH;
	case BPF_MAP_TYPE_ARRAY:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
	case BPF_MAP_TYPE_PROG_ARRAY:
		return SHAPE_ARRAY;
	case BPF_MAP_TYPE_QUEUE:
	case BPF_MAP_TYPE_STACK:
		return SHAPE_QUEUE;
	case BPF_MAP_TYPE_RINGBUF:
	case BPF_MAP_TYPE_USER_RINGBUF:
		return SHAPE_RING;
	case BPF_MAP_TYPE_TASK_STORAGE:
	case BPF_MAP_TYPE_INODE_STORAGE:
	case BPF_MAP_TYPE_SK_STORAGE:
	case BPF_MAP_OF_CGROUPS:
	case BPF_MAP_TYPE_CGROUP_ARRAY:
		return SHAPE_STORAGE;
	case BPF_MAP_ARENA:
		return SHAPE_ARENA;
	default:
		return SHAPE_NONE;
	}
}

bool bpf_map_is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH ||
	       type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

bool bpf_map_of_maps(uint32_t type)
{
	return type == BPF_MAP_TYPE_ARRAY_OF_MAPS || type == BPF_MAP_TYPE_HASH_OF_MAPS;
}

bool bpf_map_refers(uint32_t type)
{
	return bpf_map_of_maps(type) || type == BPF_MAP_TYPE_PROG_ARRAY;
}

uint64_t bpf_map_value_bytes(uint32_t type, uint32_t value_size, uint32_t cpus)
{
	return bpf_map_is_per_cpu(type) ? (value_size + 7ull) / 8 * 8 * cpus : value_size;
}

int bpf_map_element(int command, int fd, const void *key, const void *value)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)fd;
	attr.key = kernel_bpf_pointer(key);
	attr.value = kernel_bpf_pointer(value); /* of BPF_MAP_GET_NEXT_KEY: the next key */
	return kernel_bpf(command, &attr);
}

int bpf_map_info(int fd, struct bpf_map_info *ret)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	memset(ret, 0, sizeof(*ret));
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info = kernel_bpf_pointer(ret);
	attr.info.info_len = sizeof(*ret);
	return kernel_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
}

int bpf_map_open(uint32_t id, unsigned int access)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_id = id;
	if (access == O_RDONLY)
		attr.open_flags = BPF_F_RDONLY;
	else if (access == O_WRONLY)
		attr.open_flags = BPF_F_WRONLY;
	return kernel_bpf(BPF_MAP_GET_FD_BY_ID, &attr);
}

int bpf_map_freeze(int fd)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)fd;
	return kernel_bpf(BPF_MAP_FREEZE, &attr);
}

int bpf_map_address(struct kernel_memory *k, int fd, uint64_t *ret)
{
	uint64_t file;
	int r = kernel_file(k, fd, &file);

	return r < 0 ? r : kernel_member(k, file, "file", "private_data", ret, sizeof(*ret));
}

/* ---- making one ---- */

struct bpf_frame bpf_map_frame(const struct bpf_map_info *info)
{
	return (struct bpf_frame){.type = info->type,
				  .key_size = info->key_size,
				  .value_size = info->value_size,
				  .max_entries = info->max_entries,
				  .flags = info->map_flags};
}

int bpf_map_make(const struct bpf_map_make *what)
{
	const struct bpf_map_make empty = {
		.frame = what->inner ? *what->inner : (struct bpf_frame){}, .types = -1};
	_cleanup_(close_fd) int inner = what->inner ? bpf_map_make(&empty) : -EBADF;
	union bpf_attr attr;

	if (what->inner && inner < 0)
		return inner;
	memset(&attr, 0, sizeof(attr));
	attr.map_type = what->frame.type;
	attr.key_size = what->frame.key_size;
	attr.value_size = what->frame.value_size;
	attr.max_entries = what->frame.max_entries;
	attr.map_flags = what->frame.flags;
	attr.map_extra = what->extra;
	if (what->inner)
		attr.inner_map_fd = (uint32_t)inner;
	if (what->types >= 0) {
		attr.btf_fd = (uint32_t)what->types;
		attr.btf_key_type_id = what->key_type;
		attr.btf_value_type_id = what->value_type;
	}
	strncpy(attr.map_name, what->name ? what->name : "", sizeof(attr.map_name) - 1);
	return kernel_bpf(BPF_MAP_CREATE, &attr);
}

/* A struct bpf_map without contents (bpf_map_meta_alloc()). With locks and the like in its values
 * it has more: `record` (6.2), or its type information. */
int bpf_map_inner(struct kernel_memory *k, int fd, struct bpf_frame *ret)
{
	uint64_t map, inner = 0, more = 0;
	int r = bpf_map_address(k, fd, &map);

	if (r >= 0)
		r = kernel_member(k, map, "bpf_map", "inner_map_meta", &inner, sizeof(inner));
	if (r >= 0)
		r = kernel_member(k, inner, "bpf_map",
				  kernel_offset(k, "bpf_map", "record") >= 0 ? "record" : "btf",
				  &more, sizeof(more));
	if (r >= 0)
		r = kernel_member(k, inner, "bpf_map", "map_type", &ret->type, sizeof(ret->type));
	if (r >= 0)
		r = kernel_member(k, inner, "bpf_map", "key_size", &ret->key_size,
				  sizeof(ret->key_size));
	if (r >= 0)
		r = kernel_member(k, inner, "bpf_map", "value_size", &ret->value_size,
				  sizeof(ret->value_size));
	if (r >= 0)
		r = kernel_member(k, inner, "bpf_map", "max_entries", &ret->max_entries,
				  sizeof(ret->max_entries));
	if (r >= 0)
		r = kernel_member(k, inner, "bpf_map", "map_flags", &ret->flags,
				  sizeof(ret->flags));
	return r >= 0 && more ? -EOPNOTSUPP : r;
}

/* ---- contents ---- */

void bpf_contents_free(struct bpf_contents *c)
{
	free(c->keys);
	free(c->values);
}

static int contents_grow(struct bpf_contents *c)
{
	uint64_t room = c->room ? c->room * 2 : 64;
	uint8_t *more;

	if (c->count < c->room)
		return 0;
	if (room * (c->key_size + c->value_size) > 2 * BPF_CONTENTS_MAX)
		return -EFBIG;
	more = realloc(c->keys, room * c->key_size + 1);
	if (!more)
		return -ENOMEM;
	c->keys = more;
	more = realloc(c->values, room * c->value_size + 1);
	if (!more)
		return -ENOMEM;
	c->values = more;
	c->room = room;
	return 0;
}

static bool is_zero(const uint8_t *at, uint64_t size)
{
	return !size || (!*at && !memcmp(at, at + 1, size - 1));
}

/* Arrays are all zero when they are new; those of maps and programs have places without any. */
static int read_elements(int fd, bool array, bool gaps, struct bpf_contents *c)
{
	const uint8_t *last = NULL;
	uint8_t key[BPF_KEY_MAX], previous[BPF_KEY_MAX];

	for (;;) {
		int r = bpf_map_element(BPF_MAP_GET_NEXT_KEY, fd, last, key);
		uint8_t *value;

		if (r < 0)
			return r == -ENOENT ? 0 : r;
		r = contents_grow(c);
		if (r < 0)
			return r;
		value = c->values + c->count * c->value_size;
		memcpy(c->keys + c->count * c->key_size, key, c->key_size);
		r = bpf_map_element(BPF_MAP_LOOKUP_ELEM, fd, key, value);
		if (r < 0 && (r != -ENOENT || !gaps))
			return r;
		if (r >= 0 && (!array || !is_zero(value, c->value_size)))
			c->count++;
		memcpy(previous, key, c->key_size);
		last = previous;
	}
}

/* Queues and stacks give up what they hold only for good: struct bpf_queue_stack, oldest first. */
static int read_queue(struct kernel_memory *k, int fd, struct bpf_contents *c)
{
	int elements = kernel_offset(k, "bpf_queue_stack", "elements");
	uint32_t head, tail, size;
	uint64_t map;
	int r = bpf_map_address(k, fd, &map);

	if (r >= 0)
		r = kernel_member(k, map, "bpf_queue_stack", "head", &head, sizeof(head));
	if (r >= 0)
		r = kernel_member(k, map, "bpf_queue_stack", "tail", &tail, sizeof(tail));
	if (r >= 0)
		r = kernel_member(k, map, "bpf_queue_stack", "size", &size, sizeof(size));
	if (r >= 0 && (elements < 0 || head >= size || tail >= size))
		r = -EOPNOTSUPP;
	for (; r >= 0 && tail != head; tail = tail + 1 < size ? tail + 1 : 0) {
		r = contents_grow(c);
		if (r >= 0)
			r = kernel_read(k, map + (uint64_t)elements + tail * c->value_size,
					c->values + c->count * c->value_size, c->value_size);
		c->count += r >= 0;
	}
	return r;
}

int bpf_contents_read(struct bpf_contents *c, struct kernel_memory *k, int fd,
		      const struct bpf_map_info *info, uint32_t cpus)
{
	enum bpf_shape shape = bpf_map_shape(info->type);
	int r;

	*c = (struct bpf_contents){.key_size = info->key_size,
				   .value_size =
					   bpf_map_value_bytes(info->type, info->value_size, cpus)};
	if (info->key_size > BPF_KEY_MAX)
		return -EFBIG;
	if (shape == SHAPE_QUEUE)
		r = read_queue(k, fd, c);
	else
		r = read_elements(fd, shape == SHAPE_ARRAY, bpf_map_refers(info->type), c);
	return r >= 0 && c->count * (c->key_size + c->value_size) > BPF_CONTENTS_MAX ? -EFBIG : r;
}
