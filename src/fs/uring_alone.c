/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registered files that have been closed, so that nothing but a ring has them. No interface gives
 * them to us: a request of that ring would, but move its counters. Of a regular file with a name
 * the kernel's memory tells all that there is to tell, and it can be opened again at the restart.
 * Where something else refers to the description (a mapping, another slot), or it has locks or an
 * owner for signals, that is refused.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "fs/dentry.h"
#include "fs/file_kinds.h"
#include "fs/uring.h"

/* file_ref_t (6.13) counts from 0. */
static int is_alone(struct kernel_memory *k, uint64_t file, bool *ret)
{
	uint64_t more = 0;
	int r = kernel_member(k, file, "file", "f_ref.refcnt", &more, sizeof(more));

	*ret = r >= 0 && !more;
	return r;
}

/* struct file_lock_context of the inode: of whatever description. */
static int has_locks(struct kernel_memory *k, uint64_t inode, bool *ret)
{
	static const char *const lists[] = {"flc_flock", "flc_posix", "flc_lease"};
	uint64_t at;
	int r = kernel_member(k, inode, "inode", "i_flctx", &at, sizeof(at));

	*ret = false;
	for (int i = 0; i < 3 && r >= 0 && at && !*ret; i++) {
		int offset = kernel_offset(k, "file_lock_context", lists[i]);
		uint64_t next;

		r = offset < 0 ? offset
			       : kernel_read(k, at + (uint64_t)offset, &next, sizeof(next));
		*ret = r >= 0 && next != at + (uint64_t)offset;
	}
	return r;
}

/* All that a description has for itself; what advice was given is looked at by its kind. */
static int look(struct checkpoint *c, uint64_t file, struct file_told *told, int *ret_fd)
{
	struct kernel_memory *k = c->files->kernel;
	uint64_t owner, inode, mount, dentry;
	bool locked = false;
	struct stat st;
	int r = kernel_member(k, file, "file", "f_owner", &owner, sizeof(owner)), fd;

	told->address = file;
	if (r >= 0)
		r = kernel_member(k, file, "file", "f_flags", &told->flags, sizeof(told->flags));
	if (r >= 0)
		r = kernel_member(k, file, "file", "f_pos", &told->pos, sizeof(told->pos));
	if (r >= 0)
		r = kernel_member(k, file, "file", "f_inode", &inode, sizeof(inode));
	if (r >= 0)
		r = kernel_member(k, file, "file", "f_path.mnt", &mount, sizeof(mount));
	if (r >= 0)
		r = kernel_member(k, file, "file", "f_path.dentry", &dentry, sizeof(dentry));
	if (r >= 0)
		r = has_locks(k, inode, &locked);
	if (r < 0 || owner || locked)
		return r < 0 ? r : -EOPNOTSUPP;
	fd = dentry_open(c, mount, dentry);
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)))
		close_fd(&fd);
	*ret_fd = fd;
	return fd < 0 ? -EOPNOTSUPP : 0;
}

/* What is not understood is left to be refused with its slot. */
static int save(struct checkpoint *c, const struct file_entry *ring, uint64_t file,
		struct uring_alone *to, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	const struct file_entry *entry;
	struct file_told told;
	bool alone;
	int r = is_alone(c->files->kernel, file, &alone);

	if (r < 0 || !alone || look(c, file, &told, &fd) < 0)
		return 0;
	r = file_of_kernel(c, ring, take_fd(&fd), &told, &to->id, e);
	entry = r >= 0 && to->id ? file_entry_by_id(c, to->id) : NULL;
	/* Of one that asks who has opened it (as those of proc do) our own knows nothing. */
	if (entry && entry->ops && (entry->ops->kind != FILE_REGULAR || entry->msg->opener))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "%s is registered, and nobody has it open as a descriptor",
				 entry->link);
	to->file = file;
	return r;
}

static int save_all(struct checkpoint *c, const struct file_entry *ring, struct error *e)
{
	struct uring_seen *seen = (struct uring_seen *)(uintptr_t)ring->private;
	struct uring_alone *alone =
		scratch_alloc(&c->files->scratch, ((size_t)seen->n_files + 1) * sizeof(*alone));
	int r = 0;

	if (!alone)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
	for (uint32_t i = 0; i < seen->n_files && r >= 0; i++) {
		struct uring_node node;

		r = uring_node(c->files->kernel, seen->files, i, true, &node, e);
		if (r > 0)
			r = save(c, ring, node.file, &alone[i], e);
	}
	seen->alone = alone;
	return r;
}

/* Saving one adds to the list of all. */
int uring_checkpoint_queues(struct checkpoint *c, struct error *e)
{
	const size_t n = c->files->files.n;
	int r = 0;

	for (size_t i = 0; i < n && r >= 0; i++) {
		const struct file_entry *f = c->files->files.v[i];

		if (f->ops != &uring_file_ops || !f->private)
			continue;
		r = save_all(c, f, e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, f), e);
	}
	return r;
}

uint64_t uring_alone_id(const struct uring_seen *s, uint32_t slot, uint64_t file)
{
	return s->alone && s->alone[slot].file == file ? s->alone[slot].id : 0;
}
