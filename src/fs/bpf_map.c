/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF maps, by content: those that hold data, and that nobody but the tree can reach. A map that is
 * pinned, or that a program outside uses, would be a copy that the program knows nothing of; the
 * kernel tells how many references it has, not whose, and only in its own memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "core/procfs.h"
#include "fs/bpf_program.h"
#include "fs/bpf_rewrite.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"

#define KEY_MAX	     4096u
#define VALUE_MAX    (1u << 26)
#define CPUS_MAX     8192u
#define CONTENTS_MAX (256ull << 20)

/* What does not change what a map holds. */
#define MAP_FLAGS                                                                                  \
	(BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU | BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_ZERO_SEED | \
	 BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG | BPF_F_MMAPABLE)

enum shape { SHAPE_NONE, SHAPE_HASH, SHAPE_ARRAY, SHAPE_QUEUE };

static enum shape shape_of(uint32_t type)
{
	switch (type) {
	case BPF_MAP_TYPE_HASH:
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_LRU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
	case BPF_MAP_TYPE_LPM_TRIE:
		return SHAPE_HASH;
	case BPF_MAP_TYPE_ARRAY:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return SHAPE_ARRAY;
	case BPF_MAP_TYPE_QUEUE:
	case BPF_MAP_TYPE_STACK:
		return SHAPE_QUEUE;
	default:
		return SHAPE_NONE;
	}
}

static bool is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH ||
	       type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

static int element(int command, int fd, const void *key, const void *value)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)fd;
	attr.key = kernel_bpf_pointer(key);
	attr.value = kernel_bpf_pointer(value); /* of BPF_MAP_GET_NEXT_KEY: the next key */
	return kernel_bpf(command, &attr);
}

static int get_info(int fd, struct bpf_map_info *ret)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	memset(ret, 0, sizeof(*ret));
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info = kernel_bpf_pointer(ret);
	attr.info.info_len = sizeof(*ret);
	return kernel_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
}

/* Another description of a map. access: O_RDWR, O_RDONLY or O_WRONLY. */
static int open_by_id(uint32_t id, unsigned int access)
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

/* How many copies of a value there are: one for each processor that there may be. */
static int count_cpus(uint32_t *ret, struct error *e)
{
	_cleanup_(close_fd) int fd = open("/sys/devices/system/cpu/possible", O_RDONLY | O_CLOEXEC);
	unsigned int first, last;
	char text[64] = "";
	int n = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0
			? sscanf(text, "%u-%u", &first, &last)
			: 0;

	if (n < 1 || first != 0 || (n == 2 && last >= CPUS_MAX))
		return error_set(e, -EOPNOTSUPP, E_SYSTEM,
				 "/sys/devices/system/cpu/possible is not understood");
	*ret = n == 2 ? last + 1 : 1;
	return 0;
}

static uint64_t value_bytes(uint32_t type, uint32_t value_size, uint32_t cpus)
{
	return is_per_cpu(type) ? (value_size + 7ull) / 8 * 8 * cpus : value_size;
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a BPF map");
}

int bpf_map_like(uint32_t id, struct bpf_like *ret)
{
	_cleanup_(close_fd) int fd = open_by_id(id, O_RDWR);
	struct bpf_map_info *info = &ret->info, made;
	union bpf_attr attr;
	int r = fd < 0 ? fd : get_info(fd, info);

	if (r >= 0 && (shape_of(info->type) == SHAPE_NONE ||
		       (info->map_flags & ~(uint32_t)MAP_FLAGS) || info->btf_id))
		r = -EOPNOTSUPP;
	if (r < 0)
		return r;
	memset(&attr, 0, sizeof(attr));
	attr.map_type = info->type;
	attr.key_size = info->key_size;
	attr.value_size = info->value_size;
	attr.max_entries = info->max_entries;
	attr.map_flags = info->map_flags;
	ret->id = id;
	ret->like = kernel_bpf(BPF_MAP_CREATE, &attr);
	if (ret->like < 0)
		return ret->like;
	r = get_info(ret->like, &made);
	ret->like_id = made.id;
	if (r < 0)
		close_fd(&ret->like);
	return r;
}

/* ---- checkpoint ---- */

static bool map_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:bpf-map");
}

static int refuse_kind(const struct bpf_map_info *info, struct error *e)
{
	if (shape_of(info->type) == SHAPE_NONE)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "a BPF map of type %u refers to other things, or cannot be read",
				 info->type);
	if (info->btf_id || info->btf_vmlinux_value_type_id)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "this BPF map has type information (BTF), which cannot be read "
				 "back as it was loaded");
	if ((info->map_flags & ~(uint32_t)MAP_FLAGS) || info->ifindex || info->map_extra)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "this BPF map was made with flags (%#x) that cannot be set anew",
				 info->map_flags);
	return 0;
}

/* Keys and values as they are found, one after the other. */
struct contents {
	uint32_t key_size;
	uint64_t value_size, count, room;
	uint8_t *keys, *values;
};

static void contents_free(struct contents *c)
{
	free(c->keys);
	free(c->values);
}

static int contents_grow(struct contents *c)
{
	uint64_t room = c->room ? c->room * 2 : 64;
	uint8_t *more;

	if (c->count < c->room)
		return 0;
	if (room * (c->key_size + c->value_size) > 2 * CONTENTS_MAX)
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

/* Arrays are all zero when they are new. */
static int read_elements(int fd, bool array, struct contents *c)
{
	const uint8_t *last = NULL;
	uint8_t key[KEY_MAX], previous[KEY_MAX];

	for (;;) {
		int r = element(BPF_MAP_GET_NEXT_KEY, fd, last, key);

		if (r < 0)
			return r == -ENOENT ? 0 : r;
		r = contents_grow(c);
		if (r < 0)
			return r;
		memcpy(c->keys + c->count * c->key_size, key, c->key_size);
		r = element(BPF_MAP_LOOKUP_ELEM, fd, key, c->values + c->count * c->value_size);
		if (r < 0)
			return r;
		if (!array || !is_zero(c->values + c->count * c->value_size, c->value_size))
			c->count++;
		memcpy(previous, key, c->key_size);
		last = previous;
	}
}

/* Queues and stacks give up what they hold only for good: struct bpf_queue_stack, oldest first. */
static int read_queue(struct kernel_memory *k, int fd, struct contents *c)
{
	int elements = kernel_offset(k, "bpf_queue_stack", "elements");
	uint32_t head, tail, size;
	uint64_t file, map;
	int r = kernel_file(k, fd, &file);

	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &map, sizeof(map));
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

static int save_contents(struct checkpoint *c, const struct file_seen *f,
			 const struct bpf_map_info *info, Reprise__BpfMap *m, struct scratch *s,
			 struct error *e)
{
	_cleanup_(close_fd) int fd = open_by_id(info->id, O_RDWR);
	_cleanup_(contents_free) struct contents all = {
		.key_size = info->key_size,
		.value_size = value_bytes(info->type, info->value_size, m->cpus)};
	int r = fd;

	if (r >= 0 && info->key_size > KEY_MAX)
		r = -EFBIG;
	if (r >= 0 && shape_of(info->type) == SHAPE_QUEUE)
		r = read_queue(c->files->kernel, fd, &all);
	else if (r >= 0)
		r = read_elements(fd, shape_of(info->type) == SHAPE_ARRAY, &all);
	if (r == -EFBIG || all.count * (all.key_size + all.value_size) > CONTENTS_MAX)
		return error_set(e, -EFBIG, E_FILE_STATE,
				 "this BPF map holds too much (%u entries)", info->max_entries);
	if (r < 0)
		return error_errno(e, r, E_SYSTEM, "cannot read this BPF map");
	m->count = all.count;
	m->keys.len = all.count * all.key_size;
	m->values.len = all.count * all.value_size;
	m->keys.data = scratch_copy(s, all.keys ? all.keys : (uint8_t *)"", m->keys.len);
	m->values.data = scratch_copy(s, all.values ? all.values : (uint8_t *)"", m->values.len);
	return m->keys.data && m->values.data ? 0 : no_memory(e);
}

/* An earlier description of the same map. */
static uint64_t find_same(const struct checkpoint *c, const struct file_seen *f, uint32_t id)
{
	vec_for_each (other, &c->files->files)
		if ((*other)->ops == &bpf_map_file_ops && (*other)->id != f->id &&
		    (*other)->private == id && !(*other)->msg->bpf_map->same_as)
			return (*other)->id;
	return 0;
}

static int map_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			  struct scratch *scratch, struct error *e)
{
	Reprise__BpfMap *m = scratch_message(scratch, Reprise__BpfMap, reprise__bpf_map__init);
	struct kernel_memory *unused;
	struct bpf_map_info info;
	uint64_t frozen = 0;
	int r;

	msg->bpf_map = m;
	if (!m)
		return no_memory(e);
	r = get_info(f->local, &info);
	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_PERMISSION : E_SYSTEM,
				   "cannot look at this BPF map");
	r = refuse_kind(&info, e);
	if (r >= 0)
		r = files_kernel_memory(c, &unused, e);
	if (r < 0)
		return r;
	f->entry->private = info.id;
	m->same_as = find_same(c, f, info.id);
	if (m->same_as)
		return 0;
	ignore(proc_field_u64(f->fdinfo, "frozen", 10, &frozen), "told since 5.2, when it began");
	m->frozen = frozen;
	m->type = info.type;
	m->key_size = info.key_size;
	m->value_size = info.value_size;
	m->max_entries = info.max_entries;
	m->flags = info.map_flags;
	m->name = scratch_string(scratch, info.name);
	if (!m->name)
		return no_memory(e);
	r = count_cpus(&m->cpus, e);
	return r < 0 || c->checking ? r : save_contents(c, f, &info, m, scratch, e);
}

/* struct bpf_map: one reference for each description, and for each program, pin and outer map. */
static int count_references(struct checkpoint *c, const struct file_entry *f, int64_t *ret,
			    struct error *e)
{
	struct kernel_memory *k = c->files->kernel;
	_cleanup_(close_fd) int pidfd = files_pidfd(f->tid);
	_cleanup_(close_fd) int fd = -EBADF;
	uint64_t file, map;
	int r;

	if (pidfd >= 0)
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, f->fd, 0);
	if (fd < 0)
		return c->checking ? 0 : error_errno(e, -errno, E_SYSTEM, "pidfd_getfd");
	r = kernel_file(k, fd, &file);
	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &map, sizeof(map));
	if (r >= 0)
		r = kernel_member(k, map, "bpf_map", "refcnt", ret, sizeof(*ret));
	return r < 0 ? error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell who else has this BPF map")
		     : 1;
}

static int check_others(struct checkpoint *c, const struct file_entry *f, struct error *e)
{
	int64_t references = 0, ours = 0;
	int r;

	if (f->msg->bpf_map->same_as)
		return 0;
	vec_for_each (other, &c->files->files)
		ours += (*other)->ops == &bpf_map_file_ops && (*other)->private == f->private;
	ours += bpf_program_uses(c, f->private, f);
	r = count_references(c, f, &references, e);
	if (r > 0 && references != ours)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			"this BPF map is used by a program that nobody in the tree has open, pinned, "
			"or open outside of the tree");
	return r;
}

static int map_checkpoint_all(struct checkpoint *c, struct error *e)
{
	return file_for_each(c, &bpf_map_file_ops, check_others, e);
}

/* ---- restart ---- */

static int map_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__BpfMap *m = msg->bpf_map;
	const Reprise__File *same =
		m && m->same_as ? restart_find(r, RECORD_FILE, m->same_as) : NULL;
	uint64_t size;

	if (!m || (m->same_as && (!same || same->kind != FILE_BPF_MAP || !same->bpf_map ||
				  same->bpf_map->same_as)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a BPF map that is nothing");
	if (m->same_as)
		return 0;
	size = value_bytes(m->type, m->value_size, m->cpus);
	if (shape_of(m->type) == SHAPE_NONE || (m->flags & ~(uint32_t)MAP_FLAGS) ||
	    m->key_size > KEY_MAX || m->value_size > VALUE_MAX || !m->cpus || m->cpus > CPUS_MAX ||
	    m->count > CONTENTS_MAX || m->keys.len != m->count * m->key_size ||
	    m->values.len != m->count * size)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible BPF map");
	return 0;
}

static int make(const Reprise__BpfMap *m)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = m->type;
	attr.key_size = m->key_size;
	attr.value_size = m->value_size;
	attr.max_entries = m->max_entries;
	attr.map_flags = m->flags;
	strncpy(attr.map_name, m->name ? m->name : "", sizeof(attr.map_name) - 1);
	return kernel_bpf(BPF_MAP_CREATE, &attr);
}

static int fill(const Reprise__BpfMap *m, int made, uint32_t id)
{
	/* one that was made for reading alone cannot be filled through that description */
	_cleanup_(close_fd) int other = m->flags & BPF_F_RDONLY ? open_by_id(id, O_RDWR) : -EBADF;
	uint64_t size = value_bytes(m->type, m->value_size, m->cpus);
	int fd = m->flags & BPF_F_RDONLY ? other : made;
	bool keys = shape_of(m->type) != SHAPE_QUEUE;
	union bpf_attr attr;

	if (fd < 0)
		return fd;
	for (uint64_t i = 0; i < m->count; i++) {
		int r = element(BPF_MAP_UPDATE_ELEM, fd,
				keys ? m->keys.data + i * m->key_size : NULL,
				m->values.data + i * size);

		if (r < 0)
			return r;
	}
	if (!m->frozen)
		return 0;
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)fd;
	return kernel_bpf(BPF_MAP_FREEZE, &attr);
}

static int restart_new(struct restart *r, const Reprise__BpfMap *m, int *ret, struct error *e)
{
	_cleanup_(close_fd) int fd = make(m);
	struct bpf_map_info info;
	uint32_t cpus;
	int res;

	if (fd < 0)
		return error_errno(e, fd, fd == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot make a BPF map");
	res = count_cpus(&cpus, e);
	if (res < 0)
		return res;
	if (is_per_cpu(m->type) && cpus != m->cpus)
		return error_set(e, -EOPNOTSUPP, E_RESTORE,
				 "a BPF map has values for each of %u processors, and here are %u",
				 m->cpus, cpus);
	res = get_info(fd, &info);
	if (res >= 0)
		res = fill(m, fd, info.id);
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot fill a BPF map");
	*ret = take_fd(&fd);
	return 0;
}

static int map_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		       struct error *e)
{
	unsigned int access = msg->flags & O_ACCMODE;
	_cleanup_(close_fd) int made = -EBADF;
	struct bpf_map_info info;
	int fd, res = 0, is;

	if (msg->bpf_map->same_as) {
		struct file_open *first = file_open_find(r, msg->bpf_map->same_as);

		if (first->fd < 0)
			res = file_open_now(r, first, e);
		fd = first->fd;
	} else {
		res = restart_new(r, msg->bpf_map, &made, e);
		fd = made;
	}
	if (res < 0)
		return res;
	is = fcntl(fd, F_GETFL);
	if (made >= 0 && is >= 0 && (unsigned int)(is & O_ACCMODE) == access) {
		*ret_fd = take_fd(&made);
		return 0;
	}
	res = get_info(fd, &info);
	if (res >= 0)
		res = open_by_id(info.id, access);
	if (res < 0)
		return error_errno(e, res, res == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot open a BPF map");
	*ret_fd = res;
	return 0;
}

static void map_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__BpfMap *m = msg->bpf_map;

	if (m && m->same_as)
		snprintf(buf, size, "the map of open file %llu", (unsigned long long)m->same_as);
	else if (m)
		snprintf(buf, size, "type %u, %u entries, %llu saved", m->type, m->max_entries,
			 (unsigned long long)m->count);
}

const struct file_ops bpf_map_file_ops = {
	.kind = FILE_BPF_MAP,
	.name = "BPF map",
	.support =
		"hashes, arrays, also for each processor, LRU, tries, queues and stacks, with their "
		"contents; not those that are pinned, or that programs use which nobody has open; by "
		"root",
	.match = map_match,
	.checkpoint = map_checkpoint,
	.checkpoint_all = map_checkpoint_all,
	.validate = map_validate,
	.restart = map_restart,
	.describe = map_describe,
};
