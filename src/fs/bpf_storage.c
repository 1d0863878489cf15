/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF maps whose values belong to tasks, files, sockets or control groups (bpf_local_storage).
 * bpf(2) gives a value to who has a descriptor of its object, and tells nobody of which objects
 * there are any: only the list in the kernel's memory does. All have to be of the tree, but for
 * groups, which have a path. At the restart, when all of them are there, each gets its value by a
 * descriptor again. So does an array of control groups get these.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "fs/addresses.h"
#include "fs/bpf_map.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"
#include "fs/watch.h"

#define BUCKETS_MAX (1u << 16)
#define ENTRIES_MAX (1u << 20)

/* ---- checkpoint ---- */

struct reading {
	struct kernel_memory *k;
	Reprise__BpfMap *m;
	struct scratch *s;
	size_t room;
	int node, data; /* in struct bpf_local_storage_elem */
};

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a BPF map");
}

static Reprise__BpfStorage *add(struct reading *x)
{
	Reprise__BpfMap *m = x->m;
	Reprise__BpfStorage *to =
		scratch_message(x->s, Reprise__BpfStorage, reprise__bpf_storage__init);

	if (to && m->n_storage == x->room) {
		size_t room = x->room ? x->room * 2 : 16;
		Reprise__BpfStorage **more = scratch_alloc(x->s, room * sizeof(*more));

		if (!more)
			return NULL;
		memcpy(more, m->n_storage ? m->storage : more, m->n_storage * sizeof(*more));
		m->storage = more;
		x->room = room;
	}
	if (to)
		m->storage[m->n_storage++] = to;
	return to;
}

/* The owner stands in the place of its file until all are known. */
static int read_one(struct reading *x, uint64_t at)
{
	uint64_t storage = 0;
	Reprise__BpfStorage *to = x->m->n_storage < ENTRIES_MAX ? add(x) : NULL;
	int r = to ? kernel_member(x->k, at, "bpf_local_storage_elem", "local_storage", &storage,
				   sizeof(storage))
		   : -ENOMEM;

	if (r >= 0)
		r = kernel_member(x->k, storage, "bpf_local_storage", "owner", &to->file,
				  sizeof(to->file));
	if (r < 0)
		return r;
	to->value.len = x->m->value_size;
	to->value.data = scratch_alloc(x->s, x->m->value_size + 1ul);
	return to->value.data
		       ? kernel_read(x->k, at + (uint32_t)x->data, to->value.data, to->value.len)
		       : -ENOMEM;
}

static int read_list(struct reading *x, uint64_t head)
{
	uint64_t at;
	int r = kernel_read(x->k, head, &at, sizeof(at));

	while (r >= 0 && at) {
		r = read_one(x, at - (uint32_t)x->node);
		if (r >= 0)
			r = kernel_read(x->k, at, &at, sizeof(at));
	}
	return r;
}

static int read_all(struct reading *x, uint64_t map)
{
	int size = kernel_size(x->k, "bpf_local_storage_map_bucket"), wide = 0;
	int list = kernel_offset(x->k, "bpf_local_storage_map_bucket", "list");
	int log_at = kernel_offset_size(x->k, "bpf_local_storage_map", "bucket_log", &wide);
	int sdata = kernel_offset(x->k, "bpf_local_storage_elem", "sdata");
	int data = kernel_offset(x->k, "bpf_local_storage_data", "data");
	uint32_t bits = 0;
	uint64_t buckets = 0;
	int r;

	x->node = kernel_offset(x->k, "bpf_local_storage_elem", "map_node");
	if (size <= 0 || list < 0 || log_at < 0 || sdata < 0 || data < 0 || x->node < 0 ||
	    wide > (int)sizeof(bits) || kernel_offset(x->k, "bpf_local_storage_map", "map"))
		return -EOPNOTSUPP;
	x->data = sdata + data;
	r = kernel_read(x->k, map + (uint32_t)log_at, &bits, (size_t)wide);
	if (r >= 0)
		r = kernel_member(x->k, map, "bpf_local_storage_map", "buckets", &buckets,
				  sizeof(buckets));
	if (r >= 0 && (bits > 31 || 1u << bits > BUCKETS_MAX))
		r = -EOPNOTSUPP;
	for (uint32_t i = 0; r >= 0 && i < 1u << bits; i++)
		r = read_list(x, buckets + (uint64_t)i * (uint32_t)size + (uint32_t)list);
	return r;
}

/* An array of control groups, which shows nobody what is in it: struct cgroup, or nothing. */
static int read_groups(struct reading *x, uint64_t map)
{
	int at = kernel_offset(x->k, "bpf_array", "ptrs");
	int r = at < 0 ? at : 0;

	for (uint32_t i = 0; r >= 0 && i < x->m->max_entries; i++) {
		Reprise__BpfStorage *to;
		uint64_t group = 0;

		r = kernel_read(x->k, map + (uint32_t)at + i * sizeof(group), &group,
				sizeof(group));
		if (r < 0 || !group)
			continue;
		to = x->m->n_storage < ENTRIES_MAX ? add(x) : NULL;
		if (!to)
			return -ENOMEM;
		to->file = group;
		to->value.len = sizeof(i);
		to->value.data = scratch_copy(x->s, &i, sizeof(i));
		r = to->value.data ? 0 : -ENOMEM;
	}
	return r;
}

int bpf_storage_save(struct checkpoint *c, int fd, Reprise__BpfMap *m, struct scratch *s,
		     struct error *e)
{
	struct reading x = {.k = c->files->kernel, .m = m, .s = s};
	uint64_t map = 0;
	int r = bpf_map_address(x.k, fd, &map);

	if (r >= 0)
		r = m->type == BPF_MAP_TYPE_CGROUP_ARRAY ? read_groups(&x, map) : read_all(&x, map);
	if (r == -ENOMEM)
		return no_memory(e);
	if (r < 0 && c->checking) { /* in motion */
		m->n_storage = 0;
		return 0;
	}
	return r < 0 ? error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell what has a value in this BPF map")
		     : 0;
}

static int find_task(struct checkpoint *c, uint64_t owner, int32_t *ret, struct error *e)
{
	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads) {
			uint64_t at = 0;

			if (t->zombie || kernel_task(c->files->kernel, t->tid, &at) < 0 ||
			    at != owner)
				continue;
			*ret = t->tid;
			return checkpoint_refer(c, t->tid, e);
		}
	return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			 "this BPF map has a value for a task that is not in the tree, or has "
			 "ended");
}

/* Its inode, or its struct sock; 0: neither. */
static uint64_t object_of(struct checkpoint *c, const struct file_address *a, bool socket)
{
	struct kernel_memory *k = c->files->kernel;
	const struct file_entry *f = file_entry_by_id(c, a->id);
	uint64_t at = 0;

	if (!socket)
		return kernel_member(k, a->file, "file", "f_inode", &at, sizeof(at)) < 0 ? 0 : at;
	if (!f || strncmp(f->link, "socket:[", 8) != 0 ||
	    kernel_member(k, a->file, "file", "private_data", &at, sizeof(at)) < 0 ||
	    kernel_member(k, at, "socket", "sk", &at, sizeof(at)) < 0)
		return 0;
	return at;
}

static int find_file(struct checkpoint *c, const struct file_addresses *all, uint64_t owner,
		     bool socket, uint64_t *ret, struct error *e)
{
	vec_for_each (a, &all->of)
		if (object_of(c, a, socket) == owner) {
			*ret = a->id;
			return 0;
		}
	return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			 "this BPF map has a value for a %s that nobody in the tree has open as a "
			 "descriptor",
			 socket ? "socket" : "file");
}

/* A control group is a directory of kernfs, of version 1 or 2: there is one file system for each
 * hierarchy, however often that is mounted (cgroup_do_get_tree()). */
static int look_at_group(struct kernel_memory *k, uint64_t group, struct watch_inode *w)
{
	int node = kernel_offset(k, "kernfs_super_info", "node");
	uint64_t at = 0, root = 0;
	uint32_t dev = 0;
	int r = kernel_member(k, group, "cgroup", "kn", &at, sizeof(at));

	if (r >= 0)
		r = kernel_member(k, at, "kernfs_node", "id", &w->ino, sizeof(w->ino));
	if (r >= 0)
		r = kernel_member(k, group, "cgroup", "root", &root, sizeof(root));
	if (r >= 0)
		r = kernel_member(k, root, "cgroup_root", "kf_root", &root, sizeof(root));
	if (r >= 0)
		r = kernel_member(k, root, "kernfs_root", "supers.next", &at, sizeof(at));
	if (r >= 0)
		r = node < 0 ? node
			     : kernel_member(k, at - (uint32_t)node, "kernfs_super_info", "sb", &at,
					     sizeof(at));
	if (r >= 0)
		r = kernel_member(k, at, "super_block", "s_dev", &dev, sizeof(dev));
	w->dev = watch_dev(dev);
	return r;
}

static int find_group(struct checkpoint *c, const struct file_entry *f, uint64_t owner,
		      uint64_t *ret, struct error *e)
{
	struct watch_inode w = {};
	struct error unused = {};

	if (look_at_group(c->files->kernel, owner, &w) < 0)
		return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell for which control group this BPF map "
				 "has a value");
	w.handle = (struct file_handle *)w.room;
	w.handle->handle_bytes = sizeof(w.ino);
	w.handle->handle_type = FILEID_KERNFS;
	memcpy(w.handle->f_handle, &w.ino, sizeof(w.ino));
	if (watch_save(c, f, &w, "a value of a BPF map", ret, &unused) < 0)
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "this BPF map has a value for a control group, or holds one, that "
				 "the tree does not see, or that has gone");
	return 0;
}

static int find_owner(struct checkpoint *c, const struct file_addresses *all,
		      const struct file_entry *f, uint64_t owner, Reprise__BpfStorage *x,
		      struct error *e)
{
	uint32_t type = f->msg->bpf_map->type;

	if (type == BPF_MAP_TYPE_TASK_STORAGE)
		return find_task(c, owner, &x->task, e);
	if (type == BPF_MAP_OF_CGROUPS || type == BPF_MAP_TYPE_CGROUP_ARRAY)
		return find_group(c, f, owner, &x->group, e);
	return find_file(c, all, owner, type == BPF_MAP_TYPE_SK_STORAGE, &x->file, e);
}

static int find_owners(struct checkpoint *c, const struct file_addresses *all,
		       const struct file_entry *f, struct error *e)
{
	const Reprise__BpfMap *m = f->msg->bpf_map;
	int r = 0;

	for (size_t i = 0; i < m->n_storage && r >= 0; i++) {
		Reprise__BpfStorage *x = m->storage[i];
		uint64_t owner = x->file;

		x->file = 0;
		r = find_owner(c, all, f, owner, x, e);
	}
	return r;
}

static bool has_files(uint32_t type)
{
	return type == BPF_MAP_TYPE_INODE_STORAGE || type == BPF_MAP_TYPE_SK_STORAGE;
}

int bpf_storage_resolve(struct checkpoint *c, struct error *e)
{
	struct file_addresses all = {};
	bool listed = false;
	int r = 0;

	vec_for_each (f, &c->files->files) {
		Reprise__BpfMap *m = (*f)->ops == &bpf_map_file_ops ? (*f)->msg->bpf_map : NULL;

		if (r < 0 || !m || !m->n_storage)
			continue;
		if (!listed && has_files(m->type)) {
			r = file_addresses_list(c, c->files->kernel, &all, e);
			listed = true;
		}
		if (r >= 0)
			r = find_owners(c, &all, *f, e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, *f), e);
	}
	file_addresses_free(&all);
	return r;
}

/* ---- restart ---- */

static bool owner_valid(const struct restart *r, uint32_t type, const Reprise__BpfStorage *x)
{
	const Reprise__Inode *group = x->group ? restart_find(r, RECORD_INODE, x->group) : NULL;
	struct error unused = {};

	if (has_files(type))
		return !x->task && !x->group && restart_find(r, RECORD_FILE, x->file);
	if (type == BPF_MAP_TYPE_TASK_STORAGE)
		return x->task > 0 && !x->file && !x->group;
	return !x->task && !x->file && group && group->kind == INODE_NAMED &&
	       S_ISDIR(group->mode) && inode_validate(r, x->group, &unused) >= 0;
}

static uint32_t index_of(const Reprise__BpfStorage *x)
{
	uint32_t i;

	memcpy(&i, x->value.data, sizeof(i));
	return i;
}

bool bpf_storage_valid(const struct restart *r, const Reprise__BpfMap *m)
{
	const bool array = m->type == BPF_MAP_TYPE_CGROUP_ARRAY;

	if (bpf_map_shape(m->type) != SHAPE_STORAGE)
		return !m->n_storage;
	if (m->count || (m->max_entries && !array) || m->key_size != sizeof(int))
		return false;
	for (size_t i = 0; i < m->n_storage; i++) {
		const Reprise__BpfStorage *x = m->storage[i];

		if (x->value.len != m->value_size || !owner_valid(r, m->type, x) ||
		    (array && (x->value.len != sizeof(int) || index_of(x) >= m->max_entries)))
			return false;
	}
	return true;
}

static int open_task(struct restart *r, int32_t vtid, struct error *e)
{
	const struct restart_task *t = restart_task_by_vtid(r, vtid);
	int fd;

	if (!t || t->msg->is_zombie)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a BPF map with a value of task %d, which is not there", vtid);
	fd = (int)syscall(SYS_pidfd_open, t->tid, t->tid == t->process->pid ? 0 : PIDFD_THREAD);
	return fd < 0 ? error_errno(e, -errno, E_SYSTEM, "pidfd_open of task %d", vtid) : fd;
}

static int fill(struct restart *r, const Reprise__BpfMap *m, int fd, struct error *e)
{
	const bool array = m->type == BPF_MAP_TYPE_CGROUP_ARRAY;

	for (size_t i = 0; i < m->n_storage; i++) {
		const Reprise__BpfStorage *x = m->storage[i];
		_cleanup_(close_fd) int opened = -EBADF;
		int key, res = 0;

		if (x->task)
			res = opened = open_task(r, x->task, e);
		else if (x->group)
			res = inode_open(r, x->group, O_RDONLY | O_DIRECTORY, &opened, e);
		if (res < 0)
			return res;
		key = x->file ? files_restart_fd(r, x->file) : opened;
		/* EAGAIN: somebody else, whose group it is too, has just given it its first value
		 * (bpf_local_storage_alloc()). */
		do
			res = array ? bpf_map_element(BPF_MAP_UPDATE_ELEM, fd, x->value.data, &key)
				    : bpf_map_element(BPF_MAP_UPDATE_ELEM, fd, &key, x->value.data);
		while (res == -EAGAIN);
		if (res < 0)
			return error_errno(e, res, E_RESTORE, "cannot fill a BPF map");
	}
	return 0;
}

/* Through a description of its own, as of other maps. */
static int restore(struct restart *r, const struct file_open *f, struct error *e)
{
	const Reprise__BpfMap *m = f->msg->bpf_map;
	_cleanup_(close_fd) int fd = -EBADF;
	struct bpf_map_info info;
	int res = bpf_map_info(f->fd, &info);

	if (res >= 0)
		res = fd = bpf_map_open(info.id, O_RDWR);
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot open a BPF map");
	res = fill(r, m, fd, e);
	if (res >= 0 && m->frozen && bpf_map_freeze(fd) < 0)
		res = error_set(e, -EIO, E_RESTORE, "cannot freeze a BPF map");
	return res;
}

int bpf_storage_restore(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (f, &r->files->files)
		if (res >= 0 && f->ops == &bpf_map_file_ops && !f->msg->bpf_map->same_as &&
		    bpf_map_shape(f->msg->bpf_map->type) == SHAPE_STORAGE)
			res = restore(r, f, e);
	return res;
}
