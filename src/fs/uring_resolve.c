/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a ring refers to, when all descriptions have been seen: the kernel knows files by the
 * addresses of its own structures, and so do we for as long as it takes to compare them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/addresses.h"
#include "fs/uring.h"
#include "mm/state.h"
#include "net/tcp.h"

/* Also one that was refused. */
static bool uring_is(const struct file_entry *f)
{
	return !strcmp(f->link, "anon_inode:[io_uring]");
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
}

static uint64_t id_of(const void *arg, uint64_t file)
{
	return file_addresses_id(arg, file);
}

static int find_files(struct checkpoint *c, struct kernel_memory *k,
		      const struct file_addresses *all, const struct uring_seen *seen,
		      Reprise__IoUring *m, struct error *e)
{
	struct scratch *s = &c->files->scratch;

	m->files = scratch_alloc(s, ((size_t)seen->n_files + 1) * sizeof(*m->files));
	if (!m->files)
		return no_memory(e);
	for (uint32_t i = 0; i < seen->n_files; i++) {
		struct uring_node node;
		int r = uring_node(k, seen->files, i, true, &node, e);
		Reprise__IoUringFile *file;

		if (r < 0)
			return r;
		if (r == 0)
			continue;
		file = scratch_message(s, Reprise__IoUringFile, reprise__io_uring_file__init);
		if (!file)
			return no_memory(e);
		file->slot = i;
		file->tag = node.tag;
		file->file = id_of(all, node.file);
		if (!file->file)
			file->file = uring_alone_id(seen, i, node.file);
		if (!file->file)
			return error_set(
				e, -EOPNOTSUPP, E_FILE_STATE,
				"a file is registered in slot %u that nobody has open as a "
				"descriptor, and that is not a regular file with a name in this "
				"slot alone",
				i);
		m->files[m->n_files++] = file;
	}
	return 0;
}

static int find_requested(struct checkpoint *c, const struct file_addresses *all,
			  Reprise__IoUring *m, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < m->n_requests && r >= 0; i++) {
		const uint8_t *sqe = m->requests[i]->sqe.data;
		uint64_t file = m->requests[i]->file;

		m->requests[i]->file = file ? id_of(all, file) : 0;
		if (file && !m->requests[i]->file)
			return error_set(
				e, -EOPNOTSUPP, E_FILE_STATE,
				"a request is in flight for a file that nobody has open as "
				"a descriptor");
		if (file && sqe[offsetof(struct io_uring_sqe, opcode)] == IORING_OP_CONNECT)
			r = inet_connecting_claim(c, m->requests[i]->file, e);
	}
	return r;
}

static int find_buffers(struct checkpoint *c, struct kernel_memory *k,
			const struct uring_seen *seen, Reprise__IoUring *m, struct error *e)
{
	struct scratch *s = &c->files->scratch;
	_cleanup_(close_fd) int pagemap = -EBADF;

	if (seen->n_buffers)
		pagemap = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", m->owner);
	if (seen->n_buffers && pagemap < 0)
		return pagemap;
	m->buffers = scratch_alloc(s, ((size_t)seen->n_buffers + 1) * sizeof(*m->buffers));
	if (!m->buffers)
		return no_memory(e);
	for (uint32_t i = 0; i < seen->n_buffers; i++) {
		struct uring_node node;
		int r = uring_node(k, seen->buffers, i, false, &node, e);
		Reprise__IoUringBuffer *buffer;

		if (r < 0)
			return r;
		if (r == 0)
			continue;
		if (uring_buffer_check(k, &seen->pages, pagemap, &node) < 0)
			return error_set(
				e, -EOPNOTSUPP, E_FILE_STATE,
				"buffer %u that is registered is no longer what task %d has "
				"at its address",
				i, m->owner);
		buffer = scratch_message(s, Reprise__IoUringBuffer, reprise__io_uring_buffer__init);
		if (!buffer)
			return no_memory(e);
		buffer->slot = i;
		buffer->tag = node.tag;
		buffer->address = node.address;
		buffer->length = node.length;
		m->buffers[m->n_buffers++] = buffer;
	}
	return 0;
}

static int find_eventfd(struct kernel_memory *k, const struct file_addresses *all,
			const struct uring_seen *seen, Reprise__IoUring *m, struct error *e)
{
	if (!seen->eventfd)
		return 0;
	m->eventfd = file_addresses_eventfd(all, k, seen->eventfd);
	if (m->eventfd)
		return 0;
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "an eventfd is registered that nobody has open as a descriptor");
}

static int resolve(struct checkpoint *c, const struct file_addresses *all,
		   const struct file_entry *f, struct error *e)
{
	const struct uring_seen *seen = (const struct uring_seen *)(uintptr_t)f->private;
	int r = find_files(c, c->files->kernel, all, seen, f->msg->io_uring, e);

	if (r >= 0)
		r = find_requested(c, all, f->msg->io_uring, e);
	if (r >= 0)
		r = find_buffers(c, c->files->kernel, seen, f->msg->io_uring, e);
	if (r >= 0)
		r = uring_poll_share(c, f, e);
	if (r >= 0)
		r = uring_numbers_resolve(c, seen->kept, seen->n_kept, id_of, all, e);
	return r < 0 ? r : find_eventfd(c->files->kernel, all, seen, f->msg->io_uring, e);
}

/* Mappings know the inode, of which each ring has its own. */
static int find_mapped(struct checkpoint *c, Reprise__Vma *v, struct error *e)
{
	uint64_t ino = v->ring;

	if (!uring_offset_known(v->offset))
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "shows rings of io_uring, but not from their beginning");
	v->ring = 0;
	vec_for_each (f, &c->files->files) {
		if (!uring_is(*f) || (*f)->ino != ino)
			continue;
		if (v->ring)
			return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
					 "this kernel does not tell the rings of io_uring apart");
		v->ring = (*f)->id;
	}
	if (!v->ring)
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "is of an io_uring that nobody in the tree has as a descriptor");
	return 0;
}

static bool refers_to_files(const struct file_entry *f)
{
	const struct uring_seen *seen = (const struct uring_seen *)(uintptr_t)f->private;

	return seen->n_files || seen->eventfd || seen->n_kept || f->msg->io_uring->n_requests;
}

int uring_checkpoint_all(struct checkpoint *c, struct error *e)
{
	struct file_addresses all = {};
	int r = mm_for_each_vma(c, VMA_IO_URING, "io_uring", find_mapped, e);
	bool listed = false;

	vec_for_each (f, &c->files->files) {
		if (r < 0 || !uring_is(*f) || !(*f)->ops || !(*f)->private)
			continue;
		if (!listed && refers_to_files(*f))
			r = file_addresses_list(c, c->files->kernel, &all, e);
		listed |= refers_to_files(*f);
		if (r >= 0)
			r = resolve(c, &all, *f, e);
		if (r >= 0 && !c->checking)
			r = uring_poll_check(c->files->kernel,
					     (const struct uring_seen *)(uintptr_t)(*f)->private,
					     e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, *f), e);
	}
	file_addresses_free(&all);
	return r < 0 ? r : uring_numbers_check(c, e);
}
