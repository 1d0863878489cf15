/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <xxhash.h>

#include "core/cleanup.h"
#include "fs/file_room.h"
#include "fs/inode_private.h"
#include "ipc/ipc.h"
#include "ns/cgroup_visit.h"
#include "ns/mounts_covered.h"
#include "ns/mounts_detached.h"

const struct device_seen *inode_device(struct checkpoint *c, int fd, const struct stat *st)
{
	struct device_seen *d;
	struct statfs fs;

	vec_for_each (known, &c->files->devices)
		if (known->dev == st->st_dev)
			return known;
	if (fstatfs(fd, &fs) < 0)
		return NULL;
	d = vec_push(&c->files->devices);
	if (d)
		*d = (struct device_seen){st->st_dev, (unsigned int)fs.f_type,
					  (uint64_t)fs.f_bsize};
	return d;
}

static void fill_common(Reprise__Inode *msg, const struct stat *st)
{
	msg->dev = st->st_dev;
	msg->ino = st->st_ino;
	msg->mode = st->st_mode;
	msg->uid = st->st_uid;
	msg->gid = st->st_gid;
	msg->size = (uint64_t)st->st_size;
	msg->mtime_sec = st->st_mtim.tv_sec;
	msg->mtime_nsec = (uint32_t)st->st_mtim.tv_nsec;
	msg->has_atime = true;
	msg->atime_sec = st->st_atim.tv_sec;
	msg->atime_nsec = (uint32_t)st->st_atim.tv_nsec;
	msg->rdev = st->st_rdev;
	msg->nlink = st->st_nlink;
}

/* The layers of an overlay have devices of their own, and it may show theirs. */
static bool is_brought(const struct checkpoint *c, int fd, const struct stat *st)
{
	struct statfs fs;

	if (space_brings(c, st->st_dev))
		return true;
	if (!c->mounts || !c->mounts->brought.n)
		return false;
	vec_for_each (dev, &c->mounts->brought)
		if (*dev == st->st_dev)
			return true;
	return fstatfs(fd, &fs) == 0 && fs.f_type == OVERLAYFS_SUPER_MAGIC;
}

static bool is_output(const struct checkpoint *c, const struct stat *st)
{
	return c->output.st_ino && S_ISREG(st->st_mode) && c->output.st_dev == st->st_dev &&
	       c->output.st_ino == st->st_ino;
}

/* The same path may lead elsewhere in another mount namespace, and when something was mounted. */
static uint64_t name_hash(const char *path, const struct stat *st, uint64_t mounts, int mount)
{
	return XXH3_64bits_withSeed(path, strlen(path),
				    st->st_dev ^ (mounts << 32) ^ ((uint64_t)mount << 16));
}

static int get_id(struct checkpoint *c, uint64_t a, const struct stat *st, uint64_t *ret_id,
		  bool *ret_new, struct error *e)
{
	if (objects_get(c->objects, RECORD_INODE, a, st->st_ino, ret_id, ret_new) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the table of inodes");
	return 0;
}

static int identify(struct checkpoint *c, const struct inode_entry *entry, const struct stat *st,
		    int mount, dev_t dev, uint64_t *ret_id, bool *ret_new, struct error *e)
{
	uint64_t a = st->st_dev;

	/* A file with two names that are both in use comes back under both. */
	if (entry->msg.kind == INODE_NAMED)
		a = name_hash(entry->msg.path, st, entry->msg.mounts, mount);
	else if (dev != st->st_dev) /* a copy of a file that was removed, as which it is known */
		a = dev;
	else if (entry->msg.kind != INODE_DELETED)
		a += (uint64_t)entry->msg.kind << 40; /* ids of segments are not unique there */
	return get_id(c, a, st, ret_id, ret_new, e);
}

static bool has_contents(const struct inode_entry *entry)
{
	return entry->msg.kind != INODE_NAMED && S_ISREG(entry->msg.mode) && !entry->msg.output;
}

static int save(struct checkpoint *c, int fd, const struct stat *st, const char *link,
		struct inode_entry *entry, struct error *e)
{
	int r = 0;

	fill_common(&entry->msg, st);
	entry->msg.brought |= is_brought(c, fd, st);
	entry->msg.output = is_output(c, st);
	inode_flags_save(c, fd, &entry->msg);
	if (entry->msg.kind != INODE_NAMED && entry->msg.kind != INODE_DELETED &&
	    entry->msg.kind != INODE_ENDED)
		r = inode_memory_checkpoint(c, fd, link, entry, e);
	if (r >= 0 && has_contents(entry) && !c->checking)
		r = inode_contents_collect(c, fd, st, entry, e);
	if (r >= 0 && has_contents(entry) && c->checking && c->surveyed)
		inode_look_at_memory(c, fd, st, entry);
	if (r >= 0 && (entry->msg.kind == INODE_DELETED || entry->msg.kind == INODE_MEMFD) &&
	    !c->checking)
		r = inode_xattr_checkpoint(c, fd, st, entry, e);
	if (r >= 0)
		r = checkpoint_put(c, RECORD_INODE, entry->id, &entry->msg.base, e);
	return r;
}

/* Where something is mounted over it. */
static int find_below(struct checkpoint *c, int mount, const char *link, struct inode_entry *entry,
		      struct error *e)
{
	struct mount_covered covered;
	int r = mounts_look_covered(c, mount, entry->msg.mounts, link, &covered, e);

	if (r < 0 || !covered.by)
		return r;
	entry->msg.under = covered.by;
	entry->root = covered.root;
	entry->skip = covered.skip;
	return 0;
}

/* On a mount that is attached nowhere. */
static int find_detached(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			 int *mount, struct inode_entry *entry, struct error *e)
{
	struct space_detached d;
	int r = mounts_look_detached(c, fd, st, link, &d, e);

	if (r < 0 || !d.id)
		return r;
	*mount = d.mount;
	entry->msg.detached = d.id;
	entry->msg.brought = d.brought;
	entry->root = d.root;
	return 0;
}

static int checkpoint_seen(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			   dev_t dev, uint64_t *ret_id, struct error *e)
{
	struct inode_entry fresh = {.fd = -1}, *entry;
	uint64_t mounts, name;
	bool is_new, memory;
	int r, mount;

	reprise__inode__init(&fresh.msg);
	memory = inode_memory_recognise(c, fd, st, link, &fresh);
	fresh.root = space_of_file(c, fd, &mounts);
	fresh.msg.mounts = mounts;
	mount = mount_of_file(c, fd, mounts);
	r = mount || memory ? 0 : find_detached(c, fd, st, link, &mount, &fresh, e);
	if (r < 0)
		return r;
	name = name_hash(link, st, mounts, mount);

	/* Known by this name, which has been seen to lead to it. */
	if (objects_find(c->objects, RECORD_INODE, name, st->st_ino))
		return get_id(c, name, st, ret_id, &is_new, e);
	if (!memory) {
		r = fresh.msg.detached ? 0 : find_below(c, mount, link, &fresh, e);
		if (r >= 0)
			r = inode_path_recognise(c, fd, st, link, &fresh, e);
		if (r < 0)
			return r;
	}
	r = identify(c, &fresh, st, mount, dev, ret_id, &is_new, e);
	if (r < 0 || !is_new)
		return r;
	entry = vec_push(&c->files->inodes);
	if (!entry)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the table of inodes");
	*entry = fresh;
	entry->id = *ret_id;
	return save(c, fd, st, link, entry, e);
}

/* A file system may hold a file of that name. */
static bool is_segment(const struct stat *st, const char *link)
{
	return S_ISREG(st->st_mode) && !major(st->st_dev) && !strncmp(link, "/SYSV", 5) &&
	       strstr(link, " (deleted)");
}

int inode_checkpoint(struct checkpoint *c, const struct checkpoint_process *p, int fd,
		     const char *link, uint64_t *ret_id, struct error *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat of %s", link);
	if (is_segment(&st, link)) {
		uint64_t number = st.st_ino;

		if (ipc_number_opened(c, fd, link, &number, e) < 0)
			return e->err;
		st.st_ino = number;
	}
	return checkpoint_seen(c, fd, &st, link, st.st_dev, ret_id, e);
}

int inode_checkpoint_copy(struct checkpoint *c, const struct checkpoint_process *p, int fd,
			  const char *link, dev_t dev, uint64_t ino, uint64_t *ret_id,
			  struct error *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat of %s", link);
	st.st_ino = ino;
	return checkpoint_seen(c, fd, &st, link, dev ? dev : st.st_dev, ret_id, e);
}

/* ---- restart ---- */

int inode_open_mapping(int proc_fd, const void *map, uint64_t size, char *path, size_t path_size)
{
	uint64_t start = (uint64_t)(uintptr_t)map, end = (start + size + 4095) & ~4095ULL;
	int fd;

	snprintf(path, path_size, "self/map_files/%llx-%llx", (unsigned long long)start,
		 (unsigned long long)end);
	fd = openat(proc_fd, path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

struct inode_open *inode_find(const struct restart *r, uint64_t id)
{
	return vec_find_id(&r->files->inodes, id);
}

int inode_validate(const struct restart *r, uint64_t id, struct error *e)
{
	const Reprise__Inode *msg = restart_find(r, RECORD_INODE, id);

	if (!msg)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "there is no inode %llu",
				 (unsigned long long)id);
	if (msg->kind < INODE_NAMED || msg->kind > INODE_ENDED)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "inode %llu is of unknown kind %u",
				 (unsigned long long)id, msg->kind);
	if ((msg->kind == INODE_NAMED || msg->kind == INODE_DELETED) && msg->path[0] != '/')
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "inode %llu has no absolute path",
				 (unsigned long long)id);
	if (restart_space_missing(r, msg->ipc_namespace, CLONE_NEWIPC))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "inode %llu is in no IPC namespace",
				 (unsigned long long)id);
	if (restart_space_missing(r, msg->mounts, CLONE_NEWNS))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "inode %llu is in no mount namespace", (unsigned long long)id);
	if (mounts_validate_under(r, msg->mounts, msg->under, msg->path, e) < 0)
		return e->err;
	if (msg->detached &&
	    (msg->under || msg->mounts || !restart_find(r, RECORD_MOUNT, msg->detached)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "inode %llu is on no mount",
				 (unsigned long long)id);
	if (msg->alone && (!msg->detached || msg->kind != INODE_DELETED ||
			   (!S_ISREG(msg->mode) && !S_ISFIFO(msg->mode))))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "inode %llu has no name of its own",
				 (unsigned long long)id);
	if ((msg->under || msg->detached) && msg->kind != INODE_NAMED && msg->kind != INODE_DELETED)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "inode %llu is on a mount, and has no path",
				 (unsigned long long)id);
	if (inode_flags_validate(msg, e) < 0)
		return e->err;
	if (!file_room_valid(msg->n_room, msg->room))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "inode %llu has impossible room",
				 (unsigned long long)id);
	if (msg->size > INT64_MAX || msg->mtime_nsec >= 1000000000 || msg->atime_nsec >= 1000000000)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "inode %llu has an impossible size or time",
				 (unsigned long long)id);
	return msg->kind == INODE_ENDED ? inode_ended_validate(msg, e) : 0;
}

static int make_one(struct restart *r, struct inode_open *inode, struct error *e)
{
	switch (inode->msg->kind) {
	case INODE_NAMED:
		return inode_named_check(r, inode, e);
	case INODE_DELETED:
		return inode_deleted_restart(r, inode, e);
	case INODE_ENDED: /* below a process, which is made when the tree is there */
		return 0;
	default:
		return inode_memory_restart(r, inode, e);
	}
}

/*
 * A file that is open for writing can be nobody's executable (prctl(PR_SET_MM_MAP) says EACCES),
 * and what is nameless may be one. Nothing is written any more but late seals.
 */
static int restart_one(struct restart *r, struct inode_open *inode, struct error *e)
{
	bool late = inode->msg->seals & F_SEAL_FUTURE_WRITE;
	int fd, res = make_one(r, inode, e);

	if (res < 0 || inode->fd < 0 || late || inode->msg->kind == INODE_NAMED)
		return res;
	fd = reopen_fd(r->proc_fd, inode->fd, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return error_errno(e, fd, E_RESTORE, "cannot open %s anew", inode->msg->path);
	close_fd(&inode->fd);
	inode->fd = fd;
	return 0;
}

static int compare_id(const void *a, const void *b)
{
	const struct inode_open *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int collect(struct restart *r, struct error *e)
{
	const Reprise__Inode *msg;
	uint64_t id;

	for (size_t i = 0; (msg = restart_nth(r, RECORD_INODE, i, &id)); i++) {
		struct inode_open *x = vec_push(&r->files->inodes);

		if (!x)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the inodes");
		*x = (struct inode_open){.id = id, .msg = msg, .fd = -1};
	}
	if (r->files->inodes.n)
		qsort(r->files->inodes.v, r->files->inodes.n, sizeof(*r->files->inodes.v),
		      compare_id);
	return 0;
}

int inodes_restart(struct restart *r, struct error *e)
{
	int res = collect(r, e), back;
	struct error lost = {};

	if (res >= 0)
		res = cgroup_visit_for_memory(r, e);
	if (res < 0)
		return res;
	for (size_t i = 0; i < r->files->inodes.n && res >= 0; i++)
		res = restart_one(r, &r->files->inodes.v[i], e);
	back = cgroup_return_from_memory(r, res < 0 ? &lost : e);
	res = res < 0 ? res : back;
	return res < 0 ? res : inode_deleted_finish(r, e);
}

void inodes_restart_end(struct restart *r)
{
	inode_deleted_release(r);
	inodes_ended_finish(r);
	vec_for_each (inode, &r->files->inodes) {
		inode_sysv_release(inode);
		close_fd(&inode->fd);
	}
}

int inode_open(struct restart *r, uint64_t id, int flags, int *ret_fd, struct error *e)
{
	struct inode_open *inode = inode_find(r, id);
	int fd;

	if (!inode)
		return error_set(e, -EINVAL, E_INTERNAL, "inode %llu was not made",
				 (unsigned long long)id);
	/* Of no effect on a file that exists, or not to be repeated. */
	flags &= ~(O_CREAT | O_EXCL | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY));
	if (!S_ISDIR(inode->msg->mode))
		flags &= ~O_DIRECTORY;
	flags |= O_CLOEXEC | O_NOCTTY;
	if (inode->msg->kind == INODE_NAMED)
		return inode_named_open(r, inode, flags, ret_fd, e);
	if (inode->msg->kind == INODE_ENDED)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a directory of a task that has ended is not open");
	if (inode->fd < 0)
		return error_set(e, -EPERM, E_CREDENTIALS,
				 "the segment %s can be attached, but not opened",
				 inode->msg->path);
	fd = reopen_fd(r->proc_fd, inode->fd, flags & ~O_NOFOLLOW);
	if (fd < 0)
		return error_errno(e, fd, E_FILE_OPEN, "cannot open %s anew", inode->msg->path);
	*ret_fd = fd;
	return 0;
}
