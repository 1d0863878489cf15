/* SPDX-License-Identifier: Apache-2.0 */
/* A directory tree of an image: made again. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_room.h"
#include "ns/foreign.h"
#include "ns/layer.h"

#define PAGE_UP(x) (((x) + 4095ULL) & ~4095ULL)

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

/* "." or "./" and names, none of which is empty, "." or "..". */
static bool good_path(const char *path)
{
	if (!strcmp(path, "."))
		return true;
	if (strncmp(path, "./", 2) || strlen(path) >= 4096)
		return false;
	for (const char *s = path + 1; *s;) {
		size_t len = strcspn(++s, "/");

		if (!len || (len == 1 && s[0] == '.') || (len == 2 && !strncmp(s, "..", 2)))
			return false;
		s += len;
	}
	return true;
}

static int validate_entry(const Reprise__Layer *msg, size_t i, uint64_t *end, struct error *e)
{
	const Reprise__LayerEntry *m = msg->entries[i];

	if (!good_path(m->path) || (i == 0) != !strcmp(m->path, "."))
		return invalid(e, "a file has an impossible path");
	if (m->flags & ~LAYER_FLAGS || (m->flags && !S_ISREG(m->mode) && !S_ISDIR(m->mode)))
		return invalid(e, "a file has impossible flags");
	if (i == 0 && !S_ISDIR(m->mode))
		return invalid(e, "the root of a layer is no directory");
	if (m->link && (m->link > i || msg->entries[m->link - 1]->link ||
			S_ISDIR(msg->entries[m->link - 1]->mode)))
		return invalid(e, "a hard link to nothing");
	if (m->link || !S_ISREG(m->mode))
		return m->size || m->n_room ? invalid(e, "contents of what is no file") : 0;
	if (!file_room_valid(m->n_room, m->room))
		return invalid(e, "a file has impossible room");
	if (m->size > (uint64_t)1 << 60 || (m->size && m->offset < *end))
		return invalid(e, "contents of files overlap");
	if (m->size)
		*end = m->offset + PAGE_UP(m->size);
	return *end > msg->contents ? invalid(e, "contents of a file are not in the image") : 0;
}

int layer_validate(const Reprise__Layer *msg, struct error *e)
{
	uint64_t end = 0;

	if (!msg->n_entries)
		return invalid(e, "a layer has no root");
	for (size_t i = 0; i < msg->n_entries; i++) {
		int r = validate_entry(msg, i, &end, e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* The directory that holds a path, and the last name of it; no link is followed on the way. */
static int open_parent(int dir_fd, const char *path, const char **name, struct error *e)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	const char *slash = strrchr(path, '/');
	_cleanup_(free_ptr) char *parent =
		slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
	int fd;

	if (!parent)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	*name = slash ? slash + 1 : ".";
	fd = (int)syscall(SYS_openat2, dir_fd, parent, &how, sizeof(how));
	return fd < 0 ? error_errno(e, -errno, E_RESTORE, "cannot open the directory of %s", path)
		      : fd;
}

static bool is_there(int parent, const char *name, const Reprise__LayerEntry *m)
{
	struct stat st;

	if (S_ISREG(m->mode))
		return true;
	return fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (st.st_mode & S_IFMT) == (m->mode & S_IFMT) && st.st_rdev == m->rdev;
}

static int make(int parent, const char *name, int dir_fd, const Reprise__Layer *msg,
		const Reprise__LayerEntry *m)
{
	if (m->link)
		return linkat(dir_fd, msg->entries[m->link - 1]->path, parent, name, 0);
	if (S_ISLNK(m->mode))
		return symlinkat(m->target, parent, name);
	if (S_ISDIR(m->mode)) {
		int r = mkdirat(parent, name, 0700);

		return r < 0 && errno == EEXIST ? 0 : r;
	}
	/* What is mounted somewhere else, or on it, may have made it already. */
	if (mknodat(parent, name, (m->mode & S_IFMT) | 0600, (dev_t)m->rdev) < 0)
		return errno == EEXIST && is_there(parent, name, m) ? 0 : -1;
	return 0;
}

/* Last of all: of a file that may not be changed nothing can be set any more. */
static int set_flags(int parent, const char *name, const Reprise__LayerEntry *m, struct error *e)
{
	_cleanup_(close_fd) int fd =
		openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
	int now = 0;

	if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &now) == 0) {
		now = (int)(((uint32_t)now & ~LAYER_FLAGS) | m->flags);
		if (ioctl(fd, FS_IOC_SETFLAGS, &now) == 0)
			return 0;
	}
	return error_errno(e, -errno, E_RESTORE, "cannot set the flags (chattr) of %s", m->path);
}

static int set_xattr(const struct restart *r, int parent, const char *name, const Reprise__Xattr *x)
{
	if (lsetxattr(name, x->name, x->value.data, x->value.len, 0) == 0)
		return 0;
	if (errno != EPERM || !r->foreign || strncmp(x->name, "trusted.", 8))
		return -errno;
	return foreign_set_mark(r->foreign, parent, name, x->name, x->value.data, x->value.len);
}

static int set_attributes(const struct restart *r, int parent, const char *name,
			  const Reprise__LayerEntry *m, struct error *e)
{
	const struct timespec times[2] = {{m->atime_sec, m->has_atime ? m->atime_nsec : UTIME_OMIT},
					  {m->mtime_sec, m->mtime_nsec}};

	/* There is no call for the attributes of a name in a directory; the worker's own is free.
	 */
	if (fchdir(parent) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fchdir");
	if (fchownat(parent, name, m->uid, m->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the owner of %s", m->path);
	for (size_t i = 0; i < m->n_xattrs; i++) {
		int res = set_xattr(r, parent, name, m->xattrs[i]);

		if (res < 0)
			return error_errno(e, res, E_RESTORE, "cannot set attribute %s of %s",
					   m->xattrs[i]->name, m->path);
	}
	if (!S_ISLNK(m->mode) && fchmodat(parent, name, m->mode & 07777, 0) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the mode of %s", m->path);
	if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the time of %s", m->path);
	return m->flags ? set_flags(parent, name, m, e) : 0;
}

struct sink {
	const Reprise__Layer *msg;
	int dir_fd, fd;
	size_t at; /* entry that fd is open on */
	pthread_mutex_t lock;
};

/* Contents come in the order of the files, so that one open file at a time will do. */
static int open_entry(struct sink *s, uint64_t address, struct error *e)
{
	const Reprise__LayerEntry *m = NULL;
	const char *name;
	size_t low = 0;

	for (size_t i = 0; i < s->msg->n_entries; i++) {
		const Reprise__LayerEntry *x = s->msg->entries[i];

		if (x->size && !x->link && address >= x->offset &&
		    address < x->offset + PAGE_UP(x->size)) {
			m = x;
			low = i;
			break;
		}
	}
	if (!m)
		return invalid(e, "contents of no file");
	if (s->fd >= 0 && s->at == low)
		return 0;
	close_fd(&s->fd);
	{
		_cleanup_(close_fd) int parent = open_parent(s->dir_fd, m->path, &name, e);

		if (parent < 0)
			return parent;
		s->fd = openat(parent, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	}
	s->at = low;
	return s->fd < 0 ? error_errno(e, -errno, E_RESTORE, "cannot write %s", m->path) : 0;
}

static int write_part(struct sink *s, uint64_t address, const char *data, size_t len,
		      size_t *ret_part, struct error *e)
{
	const Reprise__LayerEntry *m;
	uint64_t at, left;
	size_t want, done = 0;
	int r = open_entry(s, address, e);

	if (r < 0)
		return r;
	m = s->msg->entries[s->at];
	at = address - m->offset;
	left = PAGE_UP(m->size) - at;
	*ret_part = len < left ? len : (size_t)left;
	want = at >= m->size ? 0 : *ret_part < m->size - at ? *ret_part : (size_t)(m->size - at);
	while (done < want) {
		ssize_t n = pwrite(s->fd, data + done, want - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_errno(e, n ? -errno : -EIO, E_RESTORE, "cannot write %s",
					   m->path);
		done += (size_t)n;
	}
	return 0;
}

static int write_contents(void *arg, uint64_t address, const void *data, size_t len,
			  struct error *e)
{
	struct sink *s = arg;
	const char *from = data;
	int r = 0;

	if (!data)
		return 0;
	pthread_mutex_lock(&s->lock);
	while (len && r >= 0) {
		size_t part = 0;

		r = write_part(s, address, from, len, &part, e);
		address += part;
		from += part;
		len -= part;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int fill(struct restart *r, uint64_t id, const Reprise__Layer *msg, int dir_fd,
		struct error *e)
{
	struct page_group group = {.object = id, .stage = 0};
	struct sink s = {.msg = msg, .dir_fd = dir_fd, .fd = -EBADF};
	int res;

	pthread_mutex_init(&s.lock, NULL);
	res = image_read_pages(r->image, &group, write_contents, &s, e);
	close_fd(&s.fd);
	pthread_mutex_destroy(&s.lock);
	return res;
}

/* A file system that knows of no such thing has none. */
static int set_size(int fd, const Reprise__LayerEntry *m)
{
	if (fd < 0 || ftruncate(fd, (off_t)m->size) < 0)
		return -errno;
	if (m->reserved && fallocate(fd, 0, 0, (off_t)m->size) < 0 && errno != EOPNOTSUPP &&
	    errno != ENOSYS)
		return -errno;
	return file_room_reserve(fd, m->reserved ? m->size : 0, m->n_room, m->room);
}

static int make_all(const Reprise__Layer *msg, int dir_fd, struct error *e)
{
	for (size_t i = 1; i < msg->n_entries; i++) {
		const Reprise__LayerEntry *m = msg->entries[i];
		const char *name;
		_cleanup_(close_fd) int parent = open_parent(dir_fd, m->path, &name, e);

		if (parent < 0)
			return parent;
		if (make(parent, name, dir_fd, msg, m) < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot make %s", m->path);
		if (S_ISREG(m->mode) && (m->size || m->n_room) && !m->link) {
			_cleanup_(close_fd) int fd =
				openat(parent, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
			int r = set_size(fd, m);

			if (r < 0)
				return error_errno(e, r, E_RESTORE, "cannot make %s", m->path);
		}
	}
	return 0;
}

/* Deepest first: a change in a directory changes its time. */
static int finish_all(const struct restart *rs, const Reprise__Layer *msg, int dir_fd,
		      struct error *e)
{
	for (size_t i = msg->n_entries; i-- > 0;) {
		const Reprise__LayerEntry *m = msg->entries[i];
		_cleanup_(close_fd) int parent = -EBADF;
		const char *name;
		int r;

		if (m->link)
			continue;
		parent = open_parent(dir_fd, m->path, &name, e);
		r = parent < 0 ? parent : set_attributes(rs, parent, name, m, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int layer_restart(struct restart *r, uint64_t id, int dir_fd, struct error *e)
{
	const Reprise__Layer *msg = restart_find(r, RECORD_LAYER, id);
	int res;

	if (!msg)
		return invalid(e, "a layer is not in the image");
	res = make_all(msg, dir_fd, e);
	if (res >= 0)
		res = fill(r, id, msg, dir_fd, e);
	return res < 0 ? res : finish_all(r, msg, dir_fd, e);
}
