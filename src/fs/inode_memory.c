/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes that stand for memory: memfds, shared anonymous mappings, huge pages;
 * System V segments are in inode_sysv.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "fs/inode_private.h"

#define MEMFD_PREFIX   "/memfd:"
#define DELETED_SUFFIX " (deleted)"

/*
 * Where F_SEAL_FUTURE_WRITE is, the file has to be writable until its mappings
 * exist, and F_SEAL_SEAL has to come after it.
 */
static unsigned int late_seals(const Reprise__Inode *msg)
{
	return msg->seals & F_SEAL_FUTURE_WRITE ? F_SEAL_FUTURE_WRITE | F_SEAL_SEAL : 0;
}

static bool has_prefix(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

bool inode_memory_recognise(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			    struct inode_entry *entry)
{
	Reprise__Inode *msg = &entry->msg;
	const struct device_seen *fs;

	if (!S_ISREG(st->st_mode))
		return false;
	/* The link text alone proves nothing: a file system may hold a file of that name. */
	if (st->st_dev == c->files->memory_dev) {
		if (has_prefix(link, MEMFD_PREFIX))
			msg->kind = INODE_MEMFD;
		else if (has_prefix(link, "/SYSV"))
			msg->kind = INODE_SYSV_SHM;
		else
			msg->kind = INODE_SHARED_ANON;
		return true;
	}
	fs = inode_device(c, fd, st);
	if (!fs || fs->type != HUGETLBFS_MAGIC)
		return false;
	msg->hugetlb_size = fs->block_size;
	if (has_prefix(link, MEMFD_PREFIX) || has_prefix(link, "/anon_hugepage"))
		msg->kind = INODE_HUGETLB;
	else if (has_prefix(link, "/SYSV"))
		msg->kind = INODE_SYSV_SHM;
	return msg->kind != 0;
}

static char *without_suffix(struct scratch *s, const char *link)
{
	size_t len = strlen(link), suffix = strlen(DELETED_SUFFIX);
	char *copy = scratch_string(s, link);

	if (copy && len > suffix && !strcmp(link + len - suffix, DELETED_SUFFIX))
		copy[len - suffix] = '\0';
	return copy;
}

/* An O_PATH descriptor answers no fcntl about seals. */
static int read_seals(struct checkpoint *c, int fd, struct error *e)
{
	_cleanup_(close_fd) int own = -EBADF;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 && errno == EBADF) {
		own = reopen_fd(c->proc_fd, fd, O_RDONLY | O_CLOEXEC);
		seals = own < 0 ? -1 : fcntl(own, F_GET_SEALS);
	}
	if (seals < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot read the seals of a memfd");
	return seals;
}

int inode_memory_checkpoint(struct checkpoint *c, int fd, const char *link,
			    struct inode_entry *entry, struct error *e)
{
	Reprise__Inode *msg = &entry->msg;
	int seals;

	msg->path = without_suffix(&c->files->scratch, link);
	if (!msg->path)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a name");
	if (msg->kind == INODE_SYSV_SHM)
		return inode_sysv_checkpoint(c, entry, e);
	if (!has_prefix(link, MEMFD_PREFIX))
		return 0;
	seals = read_seals(c, fd, e);
	if (seals < 0)
		return seals;
	msg->seals = (uint32_t)seals;
	return 0;
}

/* ---- restart ---- */

static unsigned int log2_of(uint64_t x)
{
	return x ? 63u - (unsigned int)__builtin_clzll(x) : 0;
}

static int make_memfd(const Reprise__Inode *msg, const char *name)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd;

	if (msg->hugetlb_size)
		flags |= MFD_HUGETLB | (log2_of(msg->hugetlb_size) << MFD_HUGE_SHIFT);
	/* Executable until the mode says otherwise: the other choice would add a seal. */
	fd = memfd_create(name, flags | MFD_EXEC);
	if (fd < 0 && errno == EINVAL) /* before 6.3 */
		fd = memfd_create(name, flags);
	return fd < 0 ? -errno : fd;
}

/*
 * The file behind a shared anonymous mapping has no other door than
 * /proc/PID/map_files, for which the kernel wants CAP_CHECKPOINT_RESTORE in
 * the initial user namespace.
 */
static int make_shared_anon(struct restart *r, const Reprise__Inode *msg)
{
	char path[64];
	void *map;
	int fd;

	if (!msg->size)
		return -EINVAL;
	map = mmap(NULL, msg->size, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return -errno;
	fd = inode_open_mapping(r->proc_fd, map, msg->size, path, sizeof(path));
	munmap(map, msg->size);
	return fd;
}

static int apply_seals(const struct inode_open *inode, unsigned int which, struct error *e)
{
	unsigned int seals = inode->msg->seals & which;

	/* It is the default on everything that knows no seals. */
	if (!seals || inode->msg->kind == INODE_SHARED_ANON)
		return 0;
	if (fcntl(inode->fd, F_ADD_SEALS, seals) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot seal %s", inode->msg->path);
	return 0;
}

int inode_memory_restart(struct restart *r, struct inode_open *inode, struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	const char *name = msg->path;
	int fd = -EPERM, res;

	if (msg->kind == INODE_SYSV_SHM)
		return inode_sysv_restart(r, inode, e);
	if (msg->hugetlb_size & (msg->hugetlb_size - 1))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a page size of %" PRIu64 " bytes",
				 msg->hugetlb_size);
	if (has_prefix(name, MEMFD_PREFIX))
		name += strlen(MEMFD_PREFIX);
	else if (name[0] == '/')
		name++;
	if (msg->kind == INODE_SHARED_ANON)
		fd = make_shared_anon(r, msg);
	if (fd < 0)
		fd = make_memfd(msg, name);
	if (fd < 0)
		return error_errno(e, fd, E_RESTORE, "cannot make the shared memory %s", msg->path);
	inode->fd = fd;
	res = inode_contents_restart(r, inode, e);
	return res < 0 ? res : apply_seals(inode, ~late_seals(msg), e);
}

int inodes_restart_seal(struct restart *r, struct error *e)
{
	vec_for_each (inode, &r->files->inodes) {
		int res = 0;

		if (inode->msg->kind == INODE_MEMFD || inode->msg->kind == INODE_HUGETLB)
			res = apply_seals(inode, late_seals(inode->msg), e);
		else if (inode->msg->kind == INODE_SYSV_SHM)
			res = inode_sysv_finish(r, inode, e);
		if (res >= 0)
			res = inode_flags_restart(r, inode, e);
		if (res < 0)
			return res;
	}
	return 0;
}
