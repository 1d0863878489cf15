/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which segment a mapping or a descriptor stands for. The kernel shows the number that the segment
 * has in its own IPC namespace, and not which that is; nor need it be that of the task. What tells
 * is the memory of the kernel, or that no other segment can be meant.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ipc/sysv.h"
#include "ns/spaces.h"

#define MAPPINGS_MOST 4096
#define DEPTH_MAX     64

bool ipc_spaces_nested(const struct checkpoint *c)
{
	vec_for_each (s, &c->spaces.list)
		if (s->flag == CLONE_NEWIPC)
			return true;
	return false;
}

int ipc_visit(struct checkpoint *c, uint64_t space,
	      int (*fn)(struct checkpoint *c, void *arg, struct error *e), void *arg,
	      struct error *e)
{
	struct error lost = {};
	int r, back;

	if (!space)
		return fn(c, arg, e);
	r = space_visit(c, space, e);
	if (r < 0)
		return r;
	r = fn(c, arg, e);
	back = space_return(c, CLONE_NEWIPC, &lost);
	if (back < 0)
		*e = lost;
	return back < 0 ? back : r;
}

uint64_t ipc_space_of_segment(const struct checkpoint *c, uint64_t number)
{
	const struct checkpoint_space *s =
		number >> 32 ? space_by_number(c, CLONE_NEWIPC, number >> 32) : NULL;

	return s ? s->id : 0;
}

/* ---- by the memory of the kernel ---- */

struct layout {
	int f_inode, i_mapping, i_mmap, private_data;
	int vma_node, vma_file, right, left;
	int shm_namespace, shm_file, number;
};

static bool read_layout(struct kernel_memory *k, struct layout *l)
{
	const struct kernel_place members[] = {
		{&l->f_inode, "file", "f_inode"},
		{&l->private_data, "file", "private_data"},
		{&l->i_mapping, "inode", "i_mapping"},
		{&l->i_mmap, "address_space", "i_mmap.rb_root.rb_node"},
		{&l->vma_node, "vm_area_struct", "shared.rb"},
		{&l->vma_file, "vm_area_struct", "vm_file"},
		{&l->right, "rb_node", "rb_right"},
		{&l->left, "rb_node", "rb_left"},
		{&l->shm_namespace, "shm_file_data", "ns"},
		{&l->shm_file, "shm_file_data", "file"},
		{&l->number, "ipc_namespace", "ns.inum"},
	};

	return kernel_places(k, members, sizeof(members) / sizeof(members[0])) >= 0;
}

struct search {
	struct kernel_memory *k;
	struct layout l;
	uint64_t inode;
	int left; /* so many mappings are looked at */
};

static uint64_t pointer(const struct search *s, uint64_t at, int offset)
{
	return at ? kernel_pointer(s->k, at + (uint64_t)offset) : 0;
}

/*
 * Through the mappings of the file: one that shmat() has made has a file of its own in front of it
 * that knows the namespace (struct shm_file_data). 0: none of them has.
 */
static uint32_t find_below(struct search *s, uint64_t node, int depth)
{
	uint64_t file, data;
	uint32_t number = 0;

	if (!node || depth > DEPTH_MAX || !s->left--)
		return 0;
	file = pointer(s, node - (uint64_t)s->l.vma_node, s->l.vma_file);
	data = pointer(s, file, s->l.private_data);
	if (data && pointer(s, pointer(s, data, s->l.shm_file), s->l.f_inode) == s->inode &&
	    kernel_read(s->k, pointer(s, data, s->l.shm_namespace) + (uint64_t)s->l.number, &number,
			sizeof(number)) < 0)
		number = 0;
	if (!number)
		number = find_below(s, pointer(s, node, s->l.left), depth + 1);
	return number ?: find_below(s, pointer(s, node, s->l.right), depth + 1);
}

static uint32_t namespace_of_file(struct kernel_memory *k, int fd)
{
	struct search s = {.k = k, .left = MAPPINGS_MOST};
	uint64_t file;

	if (!s.k || !read_layout(s.k, &s.l) || kernel_file(s.k, fd, &file) < 0)
		return 0;
	s.inode = pointer(&s, file, s.l.f_inode);
	return find_below(&s, pointer(&s, pointer(&s, s.inode, s.l.i_mapping), s.l.i_mmap), 0);
}

bool ipc_is_segment_of_tree(struct checkpoint *c, struct kernel_memory *k, int fd)
{
	uint32_t number = fd >= 0 ? namespace_of_file(k, fd) : 0;

	return number &&
	       (space_by_number(c, CLONE_NEWIPC, number) || space_is_own(c, CLONE_NEWIPC, number));
}

/* ---- by exclusion ---- */

/* Only one that is attached can be meant, and has this number and key. */
static int only_one(struct checkpoint *c, int id, const char *name, uint64_t *ret, struct error *e)
{
	const int key = (int)strtoul(name + strlen("/SYSV"), NULL, 16);
	const struct sysv_object *found = NULL;
	int r = sysv_list_objects(c, e);

	if (r < 0)
		return r;
	vec_for_each (o, &c->ipc->objects[SYSV_SHM]) {
		if (o->id != id || o->key != key || !o->nattch)
			continue;
		if (found)
			return error_set(e, -EOPNOTSUPP, E_PERMISSION,
					 "is a System V segment, and several IPC namespaces of "
					 "the tree have one of that number, and which it is only "
					 "root can tell");
		found = o;
	}
	if (!found)
		return error_set(e, -EOPNOTSUPP, E_IPC_STATE,
				 "is a System V segment of an IPC namespace that no process of the "
				 "tree is in");
	*ret = found->space;
	return 0;
}

static int space_of(struct checkpoint *c, int fd, int id, const char *name, uint64_t *ret,
		    struct error *e)
{
	uint32_t number = fd >= 0 ? namespace_of_file(ipc_kernel_memory(c), fd) : 0;
	const struct checkpoint_space *s = space_by_number(c, CLONE_NEWIPC, number);

	*ret = s ? s->id : 0;
	if (s || (number && space_is_own(c, CLONE_NEWIPC, number)))
		return 0;
	if (!number)
		return only_one(c, id, name, ret, e);
	return error_set(e, -EOPNOTSUPP, E_IPC_STATE,
			 "is a System V segment of an IPC namespace that no process of the tree is "
			 "in");
}

static uint64_t number_in(const struct checkpoint *c, uint64_t space, uint64_t id)
{
	const struct checkpoint_space *s = space_by_id(c, space);

	return s ? s->ino << 32 | id : id;
}

uint64_t sysv_number(const struct checkpoint *c, const struct sysv_object *o)
{
	return number_in(c, o->space, (uint64_t)o->id);
}

int ipc_number_mapped(struct checkpoint *c, const struct checkpoint_process *p, uint64_t start,
		      uint64_t end, const char *name, uint64_t *ret, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	uint64_t space;
	int r;

	if (!ipc_spaces_nested(c))
		return 0;
	fd = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%d/map_files/%lx-%lx", p->tid,
			 (unsigned long)start, (unsigned long)end);
	r = space_of(c, fd, ipc_id_of_segment(*ret), name, &space, e);
	/* It is attached again by the task itself. */
	if (r >= 0 && space != space_of_task(c, p->tid, CLONE_NEWIPC))
		r = error_set(e, -EOPNOTSUPP, E_IPC_STATE,
			      "is a System V segment of another IPC namespace than that of the "
			      "task");
	if (r >= 0)
		*ret = number_in(c, space, *ret);
	return r;
}

int ipc_number_opened(struct checkpoint *c, int fd, const char *name, uint64_t *ret,
		      struct error *e)
{
	uint64_t space;
	int r;

	if (!ipc_spaces_nested(c))
		return 0;
	r = space_of(c, fd, ipc_id_of_segment(*ret), name, &space, e);
	if (r >= 0)
		*ret = number_in(c, space, *ret);
	return r;
}
