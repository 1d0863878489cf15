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
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/kernel_bpf.h"
#include "core/procfs.h"
#include "fs/bpf_map.h"
#include "fs/bpf_resolve.h"
#include "fs/bpf_ring.h"
#include "fs/bpf_types.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"

#define VALUE_MAX (1u << 26)
#define CPUS_MAX  8192u

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

#define FREED_TRIES   50
#define FREED_STEP_NS 10000000L

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a BPF map");
}

/* ---- checkpoint ---- */

static bool map_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:bpf-map");
}

struct kind {
	uint32_t type;
	const char *what, *why;
};

static const char others[] = "it refers to what is not the tree's";
static const char numbers[] = "its keys are numbers of control groups, which are others elsewhere";
static const struct kind kinds[] = {
	{BPF_MAP_TYPE_PERF_EVENT_ARRAY, "of performance counters", others},
	{BPF_MAP_TYPE_STACK_TRACE, "of stack traces",
	 "only programs that are at such a place put some into it"},
	{BPF_MAP_TYPE_DEVMAP, "of network interfaces", others},
	{BPF_MAP_TYPE_DEVMAP_HASH, "of network interfaces", others},
	{BPF_MAP_TYPE_SOCKMAP, "of sockets", "what it does to them cannot be read"},
	{BPF_MAP_TYPE_SOCKHASH, "of sockets", "what it does to them cannot be read"},
	{BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, "of sockets", "what it does to them cannot be read"},
	{BPF_MAP_TYPE_XSKMAP, "of sockets", "what it does to them cannot be read"},
	{BPF_MAP_TYPE_CPUMAP, "of processors to which packets go", others},
	{BPF_MAP_TYPE_CGROUP_STORAGE, "of values of programs in control groups", numbers},
	{BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE, "of values of programs in control groups", numbers},
	{BPF_MAP_TYPE_STRUCT_OPS, "of functions of the kernel (struct_ops)", others},
	{BPF_MAP_TYPE_BLOOM_FILTER, "that is a Bloom filter",
	 "it keeps bits of hashes with a seed of its own, and nobody can set these"},
};

static struct kind kind_of(uint32_t type)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].type == type)
			return kinds[i];
	return (struct kind){type, "of this type", "it is not known"};
}

static int refuse_kind(const struct bpf_map_info *info, struct error *e)
{
	const struct kind kind = kind_of(info->type);
	const char *special = "";
	int r;

	if (bpf_map_shape(info->type) == SHAPE_NONE)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "a BPF map %s (type %u) cannot be saved: %s", kind.what,
				 info->type, kind.why);
	if (info->btf_vmlinux_value_type_id)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "this BPF map holds a structure of the kernel");
	if ((info->map_flags & ~(uint32_t)BPF_MAP_FLAGS) || info->ifindex ||
	    (info->map_extra && info->type != BPF_MAP_ARENA))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "this BPF map was made with flags (%#x) that cannot be set anew",
				 info->map_flags);
	r = info->btf_value_type_id ? bpf_types_special(info->btf_id, &special) : 0;
	if (r < 0)
		return error_errno(e, r, E_SYSTEM, "cannot read the types (BTF) of this BPF map");
	return r ? error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			     "the types (BTF) of this BPF map know '%s', of which only the kernel "
			     "has the state",
			     special)
		 : 0;
}

/* `excl_prog_hash` of BPF_MAP_CREATE, from 6.18 on. Trials would be programs that it is not for. */
static int refuse_exclusive(struct kernel_memory *k, int fd, struct error *e)
{
	uint64_t map, hash = 0;
	int r = bpf_map_address(k, fd, &map);

	if (r >= 0)
		r = kernel_member(k, map, "bpf_map", "excl_prog_sha", &hash, sizeof(hash));
	if (r < 0 && r != -ENOENT)
		return error_errno(e, r, E_SYSTEM, "cannot look at this BPF map");
	return hash ? error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				"this BPF map is for one program alone (excl_prog_hash)")
		    : 0;
}

/* What there is in place of values. The numbers of maps or programs, until the files are known. */
static int save_entries(const struct bpf_contents *all, Reprise__BpfMap *m, struct scratch *s,
			struct error *e)
{
	m->entries = scratch_alloc(s, (all->count + 1) * sizeof(*m->entries));
	if (!m->entries)
		return no_memory(e);
	for (uint64_t i = 0; i < all->count; i++) {
		uint32_t id;

		memcpy(&id, all->values + i * sizeof(id), sizeof(id));
		m->entries[m->n_entries++] = id;
	}
	return 0;
}

static int save_contents(struct checkpoint *c, const struct bpf_map_info *info, Reprise__BpfMap *m,
			 struct scratch *s, struct error *e)
{
	_cleanup_(close_fd) int fd = bpf_map_open(info->id, O_RDWR);
	_cleanup_(bpf_contents_free) struct bpf_contents all = {};
	int r;

	if (fd >= 0 && bpf_map_shape(info->type) == SHAPE_STORAGE)
		return bpf_storage_save(c, fd, m, s, e);
	if (fd >= 0 && bpf_map_shape(info->type) == SHAPE_ARENA)
		return bpf_arena_save(c, fd, m, s, e);
	if (fd >= 0 && bpf_map_shape(info->type) == SHAPE_RING)
		return bpf_ring_save(fd, m, c->checking, s, e);
	r = fd < 0 ? fd : bpf_contents_read(&all, c->files->kernel, fd, info, m->cpus);
	if (r == -EFBIG)
		return error_set(e, -EFBIG, E_FILE_STATE,
				 "this BPF map holds too much (%u entries)", info->max_entries);
	if (r < 0)
		return error_errno(e, r, E_SYSTEM, "cannot read this BPF map");
	m->count = all.count;
	m->keys.len = all.count * all.key_size;
	m->keys.data = scratch_copy(s, all.keys ? all.keys : (uint8_t *)"", m->keys.len);
	if (!m->keys.data)
		return no_memory(e);
	if (bpf_map_refers(m->type))
		return save_entries(&all, m, s, e);
	m->values.len = all.count * all.value_size;
	m->values.data = scratch_copy(s, all.values ? all.values : (uint8_t *)"", m->values.len);
	return m->values.data ? 0 : no_memory(e);
}

static bool can_be_inner(uint32_t type)
{
	enum bpf_shape shape = bpf_map_shape(type);

	return shape != SHAPE_NONE && shape != SHAPE_ARENA && !bpf_map_refers(type);
}

static int save_inner(struct checkpoint *c, int fd, Reprise__BpfMap *m, struct scratch *s,
		      struct error *e)
{
	Reprise__BpfFrame *x = scratch_message(s, Reprise__BpfFrame, reprise__bpf_frame__init);
	struct bpf_frame is = {};
	int r;

	m->inner = x;
	if (!x)
		return no_memory(e);
	r = bpf_map_inner(c->files->kernel, fd, &is);
	if (r < 0 || !can_be_inner(is.type) || (is.flags & ~(uint32_t)BPF_MAP_FLAGS))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "this BPF map holds maps with more than plain values (type %u)",
				 is.type);
	x->type = is.type;
	x->key_size = is.key_size;
	x->value_size = is.value_size;
	x->max_entries = is.max_entries;
	x->flags = is.flags;
	return 0;
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
	struct bpf_map_info info;
	struct kernel_memory *k;
	uint64_t frozen = 0;
	int r;

	msg->bpf_map = m;
	if (!m)
		return no_memory(e);
	r = bpf_map_info(f->local, &info);
	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_PERMISSION : E_SYSTEM,
				   "cannot look at this BPF map");
	f->entry->private = info.id;
	r = refuse_kind(&info, e);
	if (r >= 0)
		r = files_kernel_memory(c, &k, e);
	if (r >= 0)
		r = refuse_exclusive(k, f->local, e);
	if (r < 0)
		return r;
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
	m->extra = info.map_extra;
	m->types = info.btf_id; /* until the files are known */
	m->key_type = info.btf_key_type_id;
	m->value_type = info.btf_value_type_id;
	m->name = scratch_string(scratch, info.name);
	if (!m->name)
		return no_memory(e);
	r = count_cpus(&m->cpus, e);
	if (r >= 0 && bpf_map_of_maps(m->type))
		r = save_inner(c, f->local, m, scratch, e);
	return r < 0 || (c->checking && !bpf_map_refers(m->type) &&
			 bpf_map_shape(m->type) < SHAPE_RING)
		       ? r
		       : save_contents(c, &info, m, scratch, e);
}

/* struct bpf_map: one reference for each description, and for each program, pin and outer map. */
static int count_references(struct checkpoint *c, const struct file_entry *f, int64_t *ret,
			    struct error *e)
{
	struct kernel_memory *k = c->files->kernel;
	_cleanup_(close_fd) int pidfd = files_pidfd(f->tid);
	_cleanup_(close_fd) int fd = -EBADF;
	uint64_t map;
	int r;

	if (pidfd >= 0)
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, f->fd, 0);
	if (fd < 0)
		return c->checking ? 0 : error_errno(e, -errno, E_SYSTEM, "pidfd_getfd");
	r = bpf_map_address(k, fd, &map);
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
	ours += bpf_references(c, f);
	r = count_references(c, f, &references, e);
	/* A program that has ended, a restart's that has filled a ring for instance, has it until a
	 * grace period is over (__bpf_prog_put_noref()). */
	for (int i = 0; r > 0 && references > ours && c->checking && i < FREED_TRIES; i++) {
		nanosleep(&(struct timespec){.tv_nsec = FREED_STEP_NS}, NULL);
		r = count_references(c, f, &references, e);
	}
	if (r > 0 && references != ours)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			"this BPF map is used by a program or a map that nobody in the tree has "
			"open, pinned, or open outside of the tree");
	return r;
}

static int map_checkpoint_all(struct checkpoint *c, struct error *e)
{
	int r = file_for_each(c, &bpf_map_file_ops, check_others, e);

	if (r >= 0)
		r = bpf_storage_resolve(c, e);
	if (r >= 0)
		r = bpf_mapped_save(c, e);
	return r < 0 ? r : file_for_each(c, &bpf_map_file_ops, bpf_arena_check, e);
}

/* ---- restart ---- */

static bool frame_valid(const Reprise__BpfFrame *f)
{
	return f && can_be_inner(f->type) && !(f->flags & ~(uint32_t)BPF_MAP_FLAGS);
}

static bool entries_valid(const struct restart *r, const Reprise__BpfMap *m)
{
	bool maps = bpf_map_of_maps(m->type);

	if (!bpf_map_refers(m->type))
		return !m->n_entries;
	for (size_t i = 0; i < m->n_entries; i++) {
		const Reprise__File *msg = restart_find(r, RECORD_FILE, m->entries[i]);

		if (!msg || msg->kind != (maps ? FILE_BPF_MAP : FILE_BPF_PROGRAM))
			return false;
	}
	return m->n_entries == m->count && m->value_size == sizeof(uint32_t) &&
	       (!maps || frame_valid(m->inner));
}

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
	size = bpf_map_refers(m->type) ? 0 : bpf_map_value_bytes(m->type, m->value_size, m->cpus);
	if (bpf_map_shape(m->type) == SHAPE_NONE || (m->flags & ~(uint32_t)BPF_MAP_FLAGS) ||
	    m->key_size > BPF_KEY_MAX || m->value_size > VALUE_MAX || !m->cpus ||
	    m->cpus > CPUS_MAX || m->count > BPF_CONTENTS_MAX ||
	    m->keys.len != m->count * m->key_size || m->values.len != m->count * size ||
	    !bpf_types_valid(r, m->types) || !entries_valid(r, m) || !bpf_ring_valid(m) ||
	    !bpf_storage_valid(r, m) || !bpf_arena_valid(m))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible BPF map");
	return 0;
}

static int make(const Reprise__BpfMap *m, int types)
{
	const struct bpf_frame inner =
		m->inner ? (struct bpf_frame){.type = m->inner->type,
					      .key_size = m->inner->key_size,
					      .value_size = m->inner->value_size,
					      .max_entries = m->inner->max_entries,
					      .flags = m->inner->flags}
			 : (struct bpf_frame){};
	const struct bpf_map_make what = {.frame = {.type = m->type,
						    .key_size = m->key_size,
						    .value_size = m->value_size,
						    .max_entries = m->max_entries,
						    .flags = m->flags},
					  .inner = bpf_map_of_maps(m->type) ? &inner : NULL,
					  .name = m->name,
					  .extra = m->extra,
					  .types = types,
					  .key_type = m->key_type,
					  .value_type = m->value_type};

	return bpf_map_make(&what);
}

/* What is written for an entry of a map of maps or programs. */
static int open_entry(struct restart *r, uint64_t id, int *ret, struct error *e)
{
	struct file_open *f = file_open_find(r, id);
	int res = f->fd < 0 ? file_open_now(r, f, e) : 0;

	*ret = f->fd;
	return res;
}

static int fill_lru(int fd, const Reprise__BpfMap *m, uint64_t size)
{
	const struct bpf_contents all = {.key_size = m->key_size,
					 .value_size = size,
					 .count = m->count,
					 .keys = m->keys.data,
					 .values = m->values.data};

	return bpf_lru_fill(fd, &all, m->flags);
}

/* Through a description of its own: those of the application may be for reading alone. */
static int fill(struct restart *r, const Reprise__BpfMap *m, uint32_t id, struct error *e)
{
	_cleanup_(close_fd) int fd = bpf_map_open(id, O_RDWR);
	uint64_t size = bpf_map_value_bytes(m->type, m->value_size, m->cpus);
	int res = fd < 0 ? fd : 0, entry;
	bool keys = bpf_map_shape(m->type) != SHAPE_QUEUE, lru = bpf_map_gives_up(m->type);

	if (res >= 0 && bpf_map_shape(m->type) == SHAPE_RING)
		res = bpf_ring_fill(fd, m);
	if (res >= 0 && lru)
		res = fill_lru(fd, m, size);
	if (res == -ENOSPC)
		return error_set(e, res, E_RESTORE,
				 "a BPF map does not take all of the %llu entries that it had: it "
				 "gives up some (LRU), perhaps since fewer processors may be used "
				 "here",
				 (unsigned long long)m->count);
	for (uint64_t i = 0; i < m->count && res >= 0 && !lru; i++) {
		const void *value = m->values.data + i * size;

		if (m->n_entries) {
			res = open_entry(r, m->entries[i], &entry, e);
			if (res < 0)
				return res;
			value = &entry;
		}
		res = bpf_map_element(BPF_MAP_UPDATE_ELEM, fd,
				      keys ? m->keys.data + i * m->key_size : NULL, value);
	}
	if (res >= 0 && m->frozen)
		res = bpf_map_freeze(fd);
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot fill a BPF map") : 0;
}

static int restart_new(struct restart *r, const Reprise__BpfMap *m, int *ret, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	struct bpf_map_info info;
	int types, res = bpf_types_of(r, m->types, &types, e);
	uint32_t cpus;

	if (res < 0)
		return res;
	fd = make(m, types);
	if (fd < 0)
		return error_errno(e, fd, fd == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot make a BPF map");
	res = count_cpus(&cpus, e);
	if (res < 0)
		return res;
	if (bpf_map_is_per_cpu(m->type) && cpus != m->cpus)
		return error_set(e, -EOPNOTSUPP, E_RESTORE,
				 "a BPF map has values for each of %u processors, and here are %u",
				 m->cpus, cpus);
	res = bpf_map_info(fd, &info);
	if (res < 0)
		return error_errno(e, res, E_SYSTEM, "cannot look at a BPF map");
	/* Programs, which are entries of some, need their maps: see map_finish(). */
	if (!bpf_map_refers(m->type) && bpf_map_shape(m->type) != SHAPE_STORAGE)
		res = fill(r, m, info.id, e);
	if (res >= 0)
		*ret = take_fd(&fd);
	return res;
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
	res = bpf_map_info(fd, &info);
	if (res >= 0)
		res = bpf_map_open(info.id, access);
	if (res < 0)
		return error_errno(e, res, res == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot open a BPF map");
	*ret_fd = res;
	return 0;
}

static int map_finish(struct restart *r, uint64_t id, const Reprise__File *msg, int fd,
		      struct error *e)
{
	const Reprise__BpfMap *m = msg->bpf_map;
	struct bpf_map_info info;
	int res;

	if (m->same_as || !bpf_map_refers(m->type))
		return 0;
	res = bpf_map_info(fd, &info);
	return res < 0 ? error_errno(e, res, E_SYSTEM, "cannot look at a BPF map")
		       : fill(r, m, info.id, e);
}

static int map_restart_all(struct restart *r, struct error *e)
{
	int res = bpf_storage_restore(r, e);

	if (res >= 0)
		res = bpf_mapped_restore(r, e);
	return res < 0 ? res : bpf_arena_restore(r, e);
}

static void map_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__BpfMap *m = msg->bpf_map;

	if (m && m->same_as)
		snprintf(buf, size, "the map of open file %llu", (unsigned long long)m->same_as);
	else if (m)
		snprintf(buf, size, "type %u, %u entries, %llu saved", m->type, m->max_entries,
			 (unsigned long long)m->count + m->n_storage);
}

const struct file_ops bpf_map_file_ops = {
	.kind = FILE_BPF_MAP,
	.name = "BPF map",
	.support =
		"hashes, arrays, also for each processor, LRU, tries, queues and stacks, rings, storage of tasks, files, sockets and control groups, arrays of control groups, arenas, "
		"with their contents and types (BTF), maps of maps and of programs, mapped into memory; not those that are pinned, or "
		"that programs outside use; by root",
	.match = map_match,
	.checkpoint = map_checkpoint,
	.checkpoint_all = map_checkpoint_all,
	.validate = map_validate,
	.restart = map_restart,
	.finish = map_finish,
	.restart_all = map_restart_all,
	.describe = map_describe,
};
