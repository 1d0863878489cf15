/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents of files that have no name: saved sparsely as a page group
 * <inode id, stage 0>, all groups in the order of their ids.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_room.h"
#include "fs/inode_private.h"
#include "mm/shared.h"

#define PAGE	     4096ULL
#define PAGE_DOWN(x) ((x) & ~(PAGE - 1))
#define PAGE_UP(x)   PAGE_DOWN((x) + PAGE - 1)

static int add_run(struct inode_entry *entry, uint64_t start, uint64_t end)
{
	struct page_run *last = entry->runs.n ? &entry->runs.v[entry->runs.n - 1] : NULL;
	struct page_run *run;

	start = PAGE_DOWN(start);
	end = PAGE_UP(end);
	if (last && last->address + last->length >= start) {
		if (end > last->address + last->length) {
			entry->msg.contents += end - (last->address + last->length);
			last->length = end - last->address;
		}
		return 0;
	}
	run = vec_push(&entry->runs);
	if (!run)
		return -ENOMEM;
	*run = (struct page_run){.address = start, .length = end - start};
	entry->msg.contents += run->length;
	return 0;
}

static bool is_memory(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

static bool is_full(const struct stat *st)
{
	return (uint64_t)st->st_blocks * 512 >= (uint64_t)st->st_size;
}

static bool is_full_memory(int fd, const struct stat *st)
{
	return is_full(st) && is_memory(fd) && file_room_is_full(fd, st) != 0;
}

/* SEEK_HOLE goes through all pages of a tmpfs, 130 ms per GiB. */
static int find_data(struct inode_entry *entry, const struct stat *st)
{
	off_t at = 0;

	if (is_full_memory(entry->fd, st))
		return add_run(entry, 0, (uint64_t)st->st_size);
	while (at < st->st_size) {
		off_t data = lseek(entry->fd, at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			return 0;
		if (data < 0) /* a file system that cannot tell: all is data */
			data = at;
		hole = lseek(entry->fd, data, SEEK_HOLE);
		if (hole <= data)
			hole = st->st_size;
		if (add_run(entry, (uint64_t)data, (uint64_t)hole) < 0)
			return -ENOMEM;
		at = hole;
	}
	return 0;
}

/* Whoever reserves room often does so for all of it, which is all that some file systems tell. */
static int find_room(struct checkpoint *c, const struct stat *st, struct inode_entry *entry)
{
	const struct file_contents data = {.runs = entry->runs.v, .n = entry->runs.n};
	struct file_room room;
	int r;

	if (entry->msg.kind != INODE_MEMFD && entry->msg.kind != INODE_DELETED)
		return 0;
	r = file_room_find(entry->fd, &data, &c->files->scratch, &room);
	entry->msg.reserved = st->st_size && (r > 0 ? room.all : is_full(st));
	entry->msg.room = room.parts;
	entry->msg.n_room = room.n;
	return r < 0 ? r : 0;
}

int inode_contents_collect(struct checkpoint *c, int fd, const struct stat *st,
			   struct inode_entry *entry, struct error *e)
{
	int r;

	if (st->st_size == 0 && st->st_blocks == 0)
		return 0;
	/* The application's descriptor may be for writing only, or O_PATH; and its position is its
	 * own. */
	r = inode_open_to_read(c, fd, entry->msg.path, &entry->fd, e);
	if (r < 0)
		return r;
	r = shared_contents(c, &entry->msg, &entry->runs, &entry->copies);
	if (r == 0)
		r = find_data(entry, st);
	if (r > 0)
		vec_for_each (run, &entry->runs)
			entry->msg.contents += run->length;
	if (r >= 0)
		r = find_room(c, st, entry);
	return r < 0 ? error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a map of holes") : 0;
}

int inode_read(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct inode_entry *entry = arg;
	size_t done = 0;

	while (done < len) {
		ssize_t n =
			pread(entry->fd, (char *)buf + done, len - done, (off_t)(address + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(e, -errno, E_VMA_READ, "cannot read %s",
					   entry->msg.path);
		if (n == 0) { /* the rest of the last page */
			memset((char *)buf + done, 0, len - done);
			return 0;
		}
		done += (size_t)n;
	}
	return 0;
}

const Reprise__Inode *inodes_at(const struct checkpoint *c, size_t i, uint64_t *ret_id)
{
	if (!c->files || i >= c->files->inodes.n)
		return NULL;
	*ret_id = c->files->inodes.v[i].id;
	return &c->files->inodes.v[i].msg;
}

uint64_t inodes_page_bytes(struct checkpoint *c)
{
	uint64_t sum = 0;

	if (c->files)
		vec_for_each (entry, &c->files->inodes)
			sum += entry->msg.contents;
	return sum;
}

/* ---- restart ---- */

struct fill {
	const struct inode_open *inode;
	char *map; /* where the file system has no write (hugetlbfs) */
};

static int write_contents(void *arg, uint64_t address, const void *data, size_t len,
			  struct error *e)
{
	const struct fill *fill = arg;
	uint64_t size = fill->inode->msg->size;
	size_t done = 0;

	if (!data || address >= size) /* a new file is all holes */
		return 0;
	if (len > size - address)
		len = size - address;
	if (fill->map) {
		memcpy(fill->map + address, data, len);
		return 0;
	}
	while (done < len) {
		ssize_t n = pwrite(fill->inode->fd, (const char *)data + done, len - done,
				   (off_t)(address + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_errno(e, n ? -errno : -EIO, E_RESTORE,
					   "cannot fill the contents of %s",
					   fill->inode->msg->path);
		done += (size_t)n;
	}
	return 0;
}

int inode_contents_fill(struct restart *r, struct inode_open *inode, struct error *e)
{
	struct page_group group = {.object = inode->id, .stage = 0};
	struct fill fill = {.inode = inode, .map = inode->map};
	int res;

	if (!inode->msg->contents)
		return 0;
	if (!fill.map && inode->msg->hugetlb_size) {
		fill.map = mmap(NULL, inode->msg->size, PROT_READ | PROT_WRITE, MAP_SHARED,
				inode->fd, 0);
		if (fill.map == MAP_FAILED)
			return error_errno(e, -errno, E_RESTORE, "cannot map %s", inode->msg->path);
	}
	res = image_read_pages(r->image, &group, write_contents, &fill, e);
	if (fill.map && !inode->map)
		munmap(fill.map, inode->msg->size);
	return res;
}

/* What has no room when it is written to is lost by SIGBUS, or fails. */
static int reserve(const struct inode_open *inode, struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	int r = 0;

	if (msg->reserved && S_ISREG(msg->mode) && msg->size)
		r = fallocate(inode->fd, 0, 0, (off_t)msg->size) < 0 ? -errno : 0;
	if (r == 0 && S_ISREG(msg->mode))
		r = file_room_reserve(inode->fd, msg->reserved ? msg->size : 0, msg->n_room,
				      msg->room);
	/* A file system that knows of no such thing. */
	return r == 0 || r == -EOPNOTSUPP || r == -ENOSYS
		       ? 0
		       : error_errno(e, r, E_RESTORE, "cannot reserve room for %s", msg->path);
}

/* O_PATH descriptors know no fchmod and fchown, but their links do. */
static int set_attributes(struct restart *r, const struct inode_open *inode, struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	const struct timespec times[2] = {
		{msg->atime_sec, msg->has_atime ? msg->atime_nsec : UTIME_OMIT},
		{msg->mtime_sec, msg->mtime_nsec}};
	char path[32];
	struct stat st;

	snprintf(path, sizeof(path), "self/fd/%d", inode->fd);
	if (fstat(inode->fd, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat of %s", msg->path);
	if ((st.st_uid != msg->uid || st.st_gid != msg->gid) &&
	    fchownat(r->proc_fd, path, msg->uid, msg->gid, 0) < 0)
		return error_errno(e, -errno, E_CREDENTIALS, "cannot give %s to user %u, group %u",
				   msg->path, msg->uid, msg->gid);
	if ((st.st_mode & 07777) != (msg->mode & 07777) &&
	    fchmodat(r->proc_fd, path, msg->mode & 07777, 0) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the mode of %s", msg->path);
	if (utimensat(r->proc_fd, path, times, 0) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the time of %s", msg->path);
	return 0;
}

int inode_contents_restart(struct restart *r, struct inode_open *inode, struct error *e)
{
	int res;

	if (S_ISREG(inode->msg->mode) && inode->msg->size &&
	    ftruncate(inode->fd, (off_t)inode->msg->size) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the size of %s",
				   inode->msg->path);
	res = inode_contents_fill(r, inode, e);
	if (res >= 0)
		res = reserve(inode, e);
	/* What is the owner's needs his permission to write, */
	if (res >= 0)
		res = inode_xattr_restart(r, inode, true, e);
	if (res >= 0)
		res = set_attributes(r, inode, e);
	/* and capabilities go when the owner changes. */
	return res < 0 ? res : inode_xattr_restart(r, inode, false, e);
}
