/* SPDX-License-Identifier: Apache-2.0 */
/* A directory tree that goes into the image: taking stock of it, and its contents. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_room.h"
#include "ns/layer.h"
#include "ns/outsider.h"

#define PAGE	    4096ULL
#define PAGE_UP(x)  (((x) + PAGE - 1) & ~(PAGE - 1))
#define MAX_DEPTH   200
#define XATTRS_SIZE 65536

struct layer {
	uint64_t id;
	int dir_fd;
	struct outpost *outside;
	dev_t dev;
	struct scratch s;
	Reprise__Layer msg;
	VEC(Reprise__LayerEntry *) entries;
	VEC(struct known) linked; /* inodes with several names */
	VEC(struct page_run) runs;
	bool last;
};

struct known {
	ino_t ino;
	uint32_t entry;
};

void layer_free(struct layer *l)
{
	if (!l)
		return;
	vec_free(&l->entries);
	vec_free(&l->linked);
	vec_free(&l->runs);
	scratch_free(&l->s);
	close_fd(&l->dir_fd);
	free(l);
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of files");
}

/* Holes are left out: they are where a run is not. *ret: how much is in the runs. */
static int add_runs(struct layer *l, int fd, const Reprise__LayerEntry *m, uint64_t *ret,
		    struct error *e)
{
	off_t at = 0, size = (off_t)m->size;

	while (at < size) {
		off_t data = lseek(fd, at, SEEK_DATA), hole;
		struct page_run *run;

		if (data < 0 && errno == ENXIO)
			return 0;
		if (data < 0)
			data = at;
		data &= ~(off_t)(PAGE - 1);
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data)
			hole = size;
		run = vec_push(&l->runs);
		if (!run)
			return no_memory(e);
		run->address = m->offset + (uint64_t)data;
		run->length = PAGE_UP((uint64_t)(hole - data));
		*ret += run->length;
		at = hole;
	}
	return 0;
}

/* What chattr(1) has set. A file system that has no such flags says so. */
static void save_flags(int fd, Reprise__LayerEntry *m)
{
	int flags; /* the kernel takes it for one (ioctl_getflags()) */

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0)
		m->flags = (uint32_t)flags & LAYER_FLAGS;
}

/* Runs from the first on are its contents. */
static int find_room(struct layer *l, int fd, Reprise__LayerEntry *m, size_t first, uint64_t data,
		     struct error *e)
{
	const struct file_contents at = {
		.runs = l->runs.v + first, .n = l->runs.n - first, .base = m->offset};
	struct file_room room;
	struct stat st;
	int r = file_room_find(fd, &at, &l->s, &room);

	m->reserved =
		data < m->size &&
		(r > 0 ? room.all : fstat(fd, &st) == 0 && (uint64_t)st.st_blocks * 512 >= m->size);
	m->room = room.parts;
	m->n_room = room.n;
	return r < 0 ? no_memory(e) : 0;
}

static int save_contents(struct layer *l, int parent, const char *name, Reprise__LayerEntry *m,
			 struct error *e)
{
	_cleanup_(close_fd) int fd =
		openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME);
	size_t first = l->runs.n;
	uint64_t data = 0;
	int r;

	if (fd < 0 && errno == EPERM)
		fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_errno(e, -errno, E_FILE_OPEN, "cannot read %s", m->path);
	save_flags(fd, m);
	m->offset = l->msg.contents;
	l->msg.contents += PAGE_UP(m->size);
	r = add_runs(l, fd, m, &data, e);
	return r < 0 ? r : find_room(l, fd, m, first, data, e);
}

/* Not those that the file system of the restart makes up by itself. */
static bool wanted_xattr(const char *name)
{
	return strncmp(name, "system.", 7) || !strncmp(name, "system.posix_acl", 16);
}

static int add_value(struct layer *l, const char *name, const void *value, size_t n,
		     Reprise__LayerEntry *m)
{
	Reprise__Xattr *x = scratch_message(&l->s, Reprise__Xattr, reprise__xattr__init), **list;

	list = scratch_alloc(&l->s, (m->n_xattrs + 1) * sizeof(*list));
	if (!x || !list)
		return -ENOMEM;
	if (m->n_xattrs)
		memcpy(list, m->xattrs, m->n_xattrs * sizeof(*list));
	x->name = scratch_string(&l->s, name);
	x->value.data = scratch_copy(&l->s, value, n);
	x->value.len = n;
	list[m->n_xattrs++] = x;
	m->xattrs = list;
	return x->name && (x->value.data || !n) ? 0 : -ENOMEM;
}

static int add_xattr(struct layer *l, const char *file, const char *name, Reprise__LayerEntry *m)
{
	char value[4096];
	ssize_t n = lgetxattr(file, name, value, sizeof(value));

	return n < 0 ? -errno : add_value(l, name, value, (size_t)n, m);
}

/* Of what only root of the machine sees. */
static int save_marks(struct layer *l, int parent, const char *name, Reprise__LayerEntry *m,
		      struct error *e)
{
	_cleanup_(free_ptr) char *buf = malloc(OUTSIDER_MARKS);
	int n = buf ? outsider_marks(l->outside, parent, name, buf) : -ENOMEM, r = n;

	for (char *at = buf; r >= 0 && at < buf + n;) {
		char *value = at + strlen(at) + 1 + sizeof(uint32_t);
		uint32_t len;

		memcpy(&len, value - sizeof(len), sizeof(len));
		r = add_value(l, at, value, len, m);
		at = value + len;
	}
	return r < 0 ? error_errno(e, r, E_FILE_OPEN, "extended attributes of %s", m->path) : 0;
}

static int save_xattrs(struct layer *l, int parent, const char *name, Reprise__LayerEntry *m,
		       struct error *e)
{
	_cleanup_(free_ptr) char *list = malloc(XATTRS_SIZE);
	ssize_t n;

	if (!list)
		return no_memory(e);
	/* There is no call for the attributes of a name in a directory; the worker's own is free.
	 */
	if (fchdir(parent) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fchdir");
	n = llistxattr(name, list, XATTRS_SIZE);
	if (n < 0 && (errno == ENOTSUP || errno == ENOENT))
		return 0;
	if (n < 0)
		return error_errno(e, -errno, E_FILE_OPEN, "extended attributes of %s", m->path);
	for (char *x = list; x < list + n; x += strlen(x) + 1) {
		int r = wanted_xattr(x) ? add_xattr(l, name, x, m) : 0;

		if (r < 0)
			return error_errno(e, r, E_FILE_OPEN, "extended attribute %s of %s", x,
					   m->path);
	}
	return !l->outside ? 0 : save_marks(l, parent, name, m, e);
}

static int save_target(struct layer *l, int parent, const char *name, Reprise__LayerEntry *m,
		       struct error *e)
{
	char target[4097];
	ssize_t n = readlinkat(parent, name, target, sizeof(target) - 1);

	if (n < 0)
		return error_errno(e, -errno, E_FILE_OPEN, "cannot read the link %s", m->path);
	target[n] = '\0';
	m->target = scratch_string(&l->s, target);
	return m->target ? 0 : no_memory(e);
}

/* A further name of what is there already? */
static int find_link(struct layer *l, const struct stat *st, Reprise__LayerEntry *m)
{
	struct known *k;

	if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
		return 0;
	vec_for_each (other, &l->linked)
		if (other->ino == st->st_ino) {
			m->link = other->entry + 1;
			m->size = 0;
			return 0;
		}
	k = vec_push(&l->linked);
	if (!k)
		return -ENOMEM;
	*k = (struct known){st->st_ino, (uint32_t)l->entries.n - 1};
	return 0;
}

static Reprise__LayerEntry *add_entry(struct layer *l, const char *path, const struct stat *st)
{
	Reprise__LayerEntry *m =
		scratch_message(&l->s, Reprise__LayerEntry, reprise__layer_entry__init);
	Reprise__LayerEntry **slot = m ? vec_push(&l->entries) : NULL;

	if (!slot)
		return NULL;
	*slot = m;
	m->path = scratch_string(&l->s, path);
	m->mode = st->st_mode;
	m->uid = st->st_uid;
	m->gid = st->st_gid;
	m->mtime_sec = st->st_mtim.tv_sec;
	m->mtime_nsec = (uint32_t)st->st_mtim.tv_nsec;
	m->has_atime = true;
	m->atime_sec = st->st_atim.tv_sec;
	m->atime_nsec = (uint32_t)st->st_atim.tv_nsec;
	m->rdev = st->st_rdev;
	m->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
	return m->path ? m : NULL;
}

static int walk(struct layer *l, int dir_fd, const char *path, int depth, struct error *e);

static int visit(struct layer *l, int parent, const char *name, const char *path, int depth,
		 struct error *e)
{
	Reprise__LayerEntry *m;
	struct stat st;
	int r = 0;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return error_errno(e, -errno, E_FILE_OPEN, "cannot look at %s", path);
	m = add_entry(l, path, &st);
	if (!m || find_link(l, &st, m) < 0)
		return no_memory(e);
	if (m->link)
		return 0;
	r = save_xattrs(l, parent, name, m, e);
	if (r >= 0 && S_ISREG(st.st_mode))
		r = save_contents(l, parent, name, m, e);
	if (r >= 0 && S_ISLNK(st.st_mode))
		r = save_target(l, parent, name, m, e);
	/* What is mounted there is not part of this. */
	if (r >= 0 && S_ISDIR(st.st_mode) && st.st_dev == l->dev) {
		_cleanup_(close_fd) int fd =
			openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		if (fd < 0)
			return error_errno(e, -errno, E_FILE_OPEN, "cannot open %s", path);
		save_flags(fd, m);
		r = walk(l, fd, path, depth + 1, e);
	}
	return r;
}

struct names {
	VEC(char *);
};

static void free_names(struct names *names)
{
	vec_for_each (name, names)
		free(*name);
	vec_free(names);
}

static int read_names(int dir_fd, const char *path, struct names *ret, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	struct dirent *d;
	int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ended = 0;

	dir = copy >= 0 ? fdopendir(copy) : NULL;
	if (!dir)
		return error_errno(e, -errno, E_FILE_OPEN, "cannot read the directory %s", path);
	while ((d = next_entry(dir, &ended))) {
		char **slot;

		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		slot = vec_push(ret);
		if (!slot)
			return no_memory(e);
		*slot = strdup(d->d_name);
		if (!*slot)
			return no_memory(e);
	}
	return ended < 0 ? error_errno(e, ended, E_FILE_OPEN, "cannot read the directory %s", path)
			 : 0;
}

/* In memory what is newest is read first (offset_iterate_dir()): the oldest is made first. */
static int walk(struct layer *l, int dir_fd, const char *path, int depth, struct error *e)
{
	_cleanup_(free_names) struct names names = {};
	int r;

	if (depth > MAX_DEPTH)
		return error_set(e, -ELOOP, E_FILE_STATE, "%s is nested too deeply", path);
	r = read_names(dir_fd, path, &names, e);
	for (size_t i = names.n; i-- > 0 && r >= 0;) {
		_cleanup_(free_ptr) char *below = NULL;

		if (asprintf(&below, "%s/%s", path, names.v[i]) < 0)
			return no_memory(e);
		r = visit(l, dir_fd, names.v[i], below, depth, e);
	}
	return r;
}

static int take_stock(struct layer *l, struct error *e)
{
	Reprise__LayerEntry *root;
	struct stat st;
	int r;

	if (fstat(l->dir_fd, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat");
	l->dev = st.st_dev;
	root = add_entry(l, ".", &st);
	if (!root)
		return no_memory(e);
	save_flags(l->dir_fd, root);
	r = save_xattrs(l, l->dir_fd, ".", root, e);
	if (r >= 0)
		r = walk(l, l->dir_fd, ".", 0, e);
	l->msg.n_entries = l->entries.n;
	l->msg.entries = l->entries.v;
	return r;
}

int layer_checkpoint(struct checkpoint *c, int dir_fd, const char *what, struct outpost *outside,
		     struct layer **ret, uint64_t *ret_id, struct error *e)
{
	struct layer *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return no_memory(e);
	reprise__layer__init(&l->msg);
	l->id = *ret_id = objects_fresh(c->objects);
	l->dir_fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 3);
	l->outside = outside;
	r = take_stock(l, e);
	if (r >= 0)
		r = checkpoint_put(c, RECORD_LAYER, l->id, &l->msg.base, e);
	if (r < 0) {
		layer_free(l);
		return error_object(e, r, "files of %s", what);
	}
	*ret = l;
	return 0;
}

uint64_t layer_id(const struct layer *l)
{
	return l->id;
}

void layer_set_last(struct layer *l)
{
	l->last = true;
}

bool layer_is_last(const struct layer *l)
{
	return l->last;
}

uint64_t layer_page_bytes(const struct layer *l)
{
	uint64_t sum = 0;

	vec_for_each (run, &l->runs)
		sum += run->length;
	return sum;
}

/* The entry in whose contents an address lies: they stand in the order of their offsets. */
static Reprise__LayerEntry *entry_at(Reprise__LayerEntry *const *v, size_t n, uint64_t address)
{
	size_t low = bisect(n, i, v[i]->offset + PAGE_UP(v[i]->size) > address);

	return low < n && v[low]->offset <= address ? v[low] : NULL;
}

struct source {
	struct layer *l;
	VEC(Reprise__LayerEntry *) files; /* with contents, by offset */
};

static int read_file(int fd, const Reprise__LayerEntry *m, uint64_t at, char *buf, size_t len,
		     struct error *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, buf + done, len - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(e, -errno, E_FILE_OPEN, "cannot read %s", m->path);
		if (n == 0) {
			memset(buf + done, 0, len - done);
			return 0;
		}
		done += (size_t)n;
	}
	return 0;
}

/* A run may reach over the end of one file into the next. */
static int read_contents(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct source *s = arg;

	while (len) {
		const Reprise__LayerEntry *m = entry_at(s->files.v, s->files.n, address);
		_cleanup_(close_fd) int fd = -EBADF;
		uint64_t left;
		size_t part;
		int r;

		if (!m)
			return error_set(e, -EIO, E_INTERNAL, "contents of no file");
		left = m->offset + PAGE_UP(m->size) - address;
		part = len < left ? len : (size_t)left;
		fd = openat(s->l->dir_fd, m->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return error_errno(e, -errno, E_FILE_OPEN, "cannot read %s", m->path);
		r = read_file(fd, m, address - m->offset, buf, part, e);
		if (r < 0)
			return r;
		buf = (char *)buf + part;
		address += part;
		len -= part;
	}
	return 0;
}

int layer_save_pages(struct checkpoint *c, struct layer *l, struct error *e)
{
	struct page_group group = {.object = l->id, .stage = 0};
	struct source s = {.l = l};
	int r = 0;

	vec_for_each (m, &l->entries)
		if (S_ISREG((*m)->mode) && (*m)->size && !(*m)->link) {
			Reprise__LayerEntry **slot = vec_push(&s.files);

			if (!slot) {
				vec_free(&s.files);
				return no_memory(e);
			}
			*slot = *m;
		}
	if (l->runs.n)
		r = image_put_pages(c->image, &group, l->runs.v, l->runs.n, read_contents, &s, e);
	vec_free(&s.files);
	return r;
}
