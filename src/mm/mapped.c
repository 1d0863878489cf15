/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/inode.h"
#include "fs/inode_search.h"
#include "ipc/ipc.h"
#include "mm/state.h"
#include "model/glance.h"

/*
 * Descriptors of mapped files. Root follows /proc/PID/map_files; others have to find
 * the same inode by another way and prove it by device and inode number.
 */

static bool is_shared_anon(const struct vma *v)
{
	return v->shared && (strcmp(v->name, "/dev/zero (deleted)") == 0 ||
			     strncmp(v->name, "[anon_shmem:", 12) == 0);
}

/* The kernel's name of the file, whatever the program has called the mapping. */
static const char *link_of(const struct vma *v)
{
	return is_shared_anon(v) ? "/dev/zero (deleted)" : v->name;
}

/* Many processes map the same few files: each is opened once. */
struct mapped_cache {
	struct mapped_entry *slots[4096];
	uint64_t exe,
		exe_id; /* address of the last program's file (0: none), and the inode of that */
};

struct mapped_entry {
	struct mapped_entry *next;
	uint64_t ino, id;
	uint32_t dev_major, dev_minor;
	struct span_vec covered; /* of a copy: the offsets that are in it; else empty */
	bool any_name;		 /* the numbers are enough */
	char name[];
};

int mapped_cache_new(struct mapped_cache **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void mapped_cache_free(struct mapped_cache *cache)
{
	if (!cache)
		return;
	for (size_t i = 0; i < sizeof(cache->slots) / sizeof(cache->slots[0]); i++) {
		while (cache->slots[i]) {
			struct mapped_entry *next = cache->slots[i]->next;

			vec_free(&cache->slots[i]->covered);
			free(cache->slots[i]);
			cache->slots[i] = next;
		}
	}
	free(cache);
}

static struct mapped_entry **slot_of(struct mapped_cache *cache, const struct vma *v)
{
	uint64_t h = (v->ino ^ (uint64_t)v->dev_major << 40 ^ (uint64_t)v->dev_minor << 52) *
		     0x9e3779b97f4a7c15ull;

	return &cache->slots[h >> 52];
}

/*
 * Device and inode number alone do not name a file here: subvolumes of btrfs share the
 * device that /proc/PID/maps shows.
 */
static const struct mapped_entry *lookup(struct mapped_cache *cache, const struct vma *v)
{
	const struct mapped_entry *m;

	for (m = *slot_of(cache, v); m; m = m->next)
		if (m->ino == v->ino && m->dev_major == v->dev_major &&
		    m->dev_minor == v->dev_minor &&
		    (m->any_name || strcmp(m->name, link_of(v)) == 0))
			return m;
	return NULL;
}

static struct mapped_entry *remember(struct mapped_cache *cache, const struct vma *v, uint64_t id)
{
	struct mapped_entry **slot = slot_of(cache, v), *m;
	size_t len = strlen(link_of(v)) + 1;

	m = calloc(1, sizeof(*m) + len);
	if (!m)
		return NULL;
	m->next = *slot;
	m->ino = v->ino;
	m->id = id;
	m->dev_major = v->dev_major;
	m->dev_minor = v->dev_minor;
	memcpy(m->name, link_of(v), len);
	*slot = m;
	return m;
}

static bool is_deleted(const char *name)
{
	static const char mark[] = " (deleted)";
	size_t n = strlen(name), m = sizeof(mark) - 1;

	return n >= m && strcmp(name + n - m, mark) == 0;
}

/* Nameless files carry their contents with them, and so must be readable; of the others the name is
 * enough. */
static int open_flags(const char *name)
{
	return O_CLOEXEC | (is_deleted(name) ? O_RDONLY : O_PATH);
}

static bool is_that_file(int fd, const struct vma *v)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_ino == v->ino && major(st.st_dev) == v->dev_major &&
	       minor(st.st_dev) == v->dev_minor;
}

static int open_checked(int at, const char *path, const struct vma *v)
{
	_cleanup_(close_fd) int fd = openat(at, path, open_flags(link_of(v)) | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	return is_that_file(fd, v) ? take_fd(&fd) : -ENOENT;
}

/* A descriptor that the task itself has of that file. */
static int open_of_task(struct checkpoint *c, const struct checkpoint_process *p,
			const struct vma *v)
{
	_cleanup_(close_fd) int dir =
		procfs_open(c->proc_fd, O_RDONLY | O_DIRECTORY | O_CLOEXEC, NULL, "%d/fd", p->tid);
	_cleanup_(close_directory) DIR *d = NULL;
	struct dirent *entry;

	if (dir < 0)
		return dir;
	d = fdopendir(dir);
	if (!d)
		return -errno;
	dir = -EBADF; /* belongs to d now */
	while ((entry = readdir(d))) {
		struct stat st;

		if (entry->d_name[0] == '.' || fstatat(dirfd(d), entry->d_name, &st, 0) < 0)
			continue;
		if (st.st_ino == v->ino && major(st.st_dev) == v->dev_major &&
		    minor(st.st_dev) == v->dev_minor) {
			int fd = open_checked(dirfd(d), entry->d_name, v);

			if (fd >= 0)
				return fd;
		}
	}
	return -ENOENT;
}

static dev_t device_of(const struct vma *v)
{
	return makedev(v->dev_major, v->dev_minor);
}

/* Is it memory, of which a file in a tmpfs was the name? Else the directory is another one by now.
 */
static bool was_in_tmpfs(const struct vma *v, char *dir, size_t size)
{
	const char *slash = strrchr(v->name, '/');
	_cleanup_(close_fd) int fd = -EBADF;
	struct statfs fs;
	struct stat st;

	if (!v->shared || v->name[0] != '/' || (size_t)(slash - v->name) >= size)
		return false;
	snprintf(dir, size, "%.*s", slash > v->name ? (int)(slash - v->name) : 1, v->name);
	fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC &&
	       fstat(fd, &st) == 0 && st.st_dev == device_of(v);
}

/* Another name of a file whose first one has gone: sem_open() gives a new semaphore its name so. */
static int open_other_name(struct checkpoint *c, const struct vma *v)
{
	_cleanup_(close_fd) int fd = -EBADF;
	char dir[4096];

	if (!was_in_tmpfs(v, dir, sizeof(dir)))
		return -ENOENT;
	fd = inode_search_directory(c, dir, device_of(v), v->ino);
	if (fd < 0)
		fd = inode_search(c, 0, device_of(v), v->ino);
	return fd < 0 ? -ENOENT : reopen_fd(c->proc_fd, fd, open_flags(link_of(v)));
}

/* Without CAP_CHECKPOINT_RESTORE map_files cannot be opened: other ways to the same inode. */
static int open_unprivileged(struct checkpoint *c, const struct checkpoint_process *p,
			     const struct vma *v)
{
	_cleanup_(close_fd) int root = -EBADF;
	int fd;

	if (!is_deleted(link_of(v))) {
		fd = open_checked(AT_FDCWD, v->name, v);
		if (fd >= 0)
			return fd;
		root = procfs_open(c->proc_fd, O_PATH | O_CLOEXEC, NULL, "%d/root", p->tid);
		fd = root >= 0 ? open_checked(root, v->name + strspn(v->name, "/"), v) : root;
		if (fd >= 0)
			return fd;
	}
	root = procfs_open(c->proc_fd, O_PATH | O_DIRECTORY | O_CLOEXEC, NULL, "%d", p->tid);
	fd = root >= 0 ? open_checked(root, "exe", v) : root;
	if (fd >= 0)
		return fd;
	fd = open_of_task(c, p, v);
	/* shared memory is often held by the one and mapped by the others */
	for (size_t i = 0; fd < 0 && i < c->processes.n; i++)
		if (&c->processes.v[i] != p && !c->processes.v[i].frozen->zombie)
			fd = open_of_task(c, &c->processes.v[i], v);
	return fd < 0 && is_deleted(link_of(v)) ? open_other_name(c, v) : fd;
}

/* -EPERM, without an error text: there is no way to it. */
static int open_mapped(struct checkpoint *c, const struct checkpoint_process *p,
		       const struct vma *v, struct error *e)
{
	int r = procfs_open(c->proc_fd, open_flags(link_of(v)), NULL, "%d/map_files/%lx-%lx",
			    p->tid, (unsigned long)v->start, (unsigned long)v->end);

	if (r >= 0)
		return r;
	if (r != -EPERM && r != -EACCES && r != -ENOENT)
		return error_errno(e, r, E_VMA_KIND, "cannot be opened through /proc/%d/map_files",
				   p->tid);
	r = open_unprivileged(c, p, v);
	return r < 0 ? -EPERM : r;
}

static int check_type(int fd, const struct vma *v, struct error *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot stat the file behind it");
	if (S_ISREG(st.st_mode))
		return 0;
	/* private: anonymous memory under another name */
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 5) && !v->shared)
		return 0;
	return error_set(e, -EOPNOTSUPP, E_VMA_KIND, "is a mapping of a device");
}

/* Memory that nobody can reach but by mappings: nobody can tell its copy from it. */
static bool can_be_copied(const struct vma *v)
{
	char dir[4096];

	return is_shared_anon(v) || (v->shared && strncmp(v->name, "/memfd:", 7) == 0) ||
	       (is_deleted(v->name) && was_in_tmpfs(v, dir, sizeof(dir)));
}

/* Whoever may may attach it. */
static bool is_segment(const struct vma *v)
{
	return v->shared && strncmp(v->name, "/SYSV", 5) == 0;
}

static int not_permitted(struct error *e)
{
	return error_set(
		e, -EPERM, E_PERMISSION,
		"the file behind it was removed or is hidden, and nobody in the tree has it "
		"open: only a user with CAP_CHECKPOINT_RESTORE may open it");
}

/* A copy is made of what the first task to map it sees; another may see more. */
static int check_covered(const struct mapped_entry *known, const struct vma *v, struct error *e)
{
	uint64_t at = v->offset, end = v->offset + (v->end - v->start);
	bool moved = true;

	if (known->covered.n == 0)
		return 0;
	while (at < end && moved) {
		moved = false;
		vec_for_each (s, &known->covered) {
			if (s->start <= at && at < s->end) {
				at = s->end;
				moved = true;
			}
		}
	}
	return at < end ? not_permitted(e) : 0;
}

static int first_sight(struct checkpoint *c, const struct checkpoint_process *p,
		       const struct vma_list *list, const struct vma *v, uint64_t *ret_id,
		       struct error *e)
{
	_cleanup_(close_fd) int fd = open_mapped(c, p, v, e);
	struct span_vec covered = {};
	struct mapped_entry *m;
	dev_t dev = 0;
	int r = fd;

	if (fd == -EPERM && is_segment(v)) {
		*ret_id = 0;
		r = ipc_copy_segment(c, v->ino, &fd, e);
		if (r < 0 || c->checking)
			return r;
	} else if (fd == -EPERM && can_be_copied(v)) {
		*ret_id = 0;
		dev = device_of(v);
		r = mm_shadow_check(list, v, e);
		if (r < 0)
			return r;
		if (c->checking) /* nothing is copied, nothing is saved */
			return 0;
		r = mm_shadow(c, p, list, v, &covered, &fd, e);
	} else if (fd == -EPERM) {
		return not_permitted(e);
	}
	if (r >= 0)
		r = check_type(fd, v, e);
	if (r >= 0)
		r = inode_checkpoint_copy(c, p, fd, link_of(v), dev, v->ino, ret_id, e);
	m = r >= 0 ? remember(c->mm->mapped, v, *ret_id) : NULL;
	if (m) {
		m->covered = covered;
		m->any_name = dev != 0;
	} else
		vec_free(&covered);
	if (r >= 0 && !m)
		r = error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for mapped files");
	return r;
}

int mapped_inode(struct checkpoint *c, const struct checkpoint_process *p,
		 const struct vma_list *list, const struct vma *shown, uint64_t *ret_id,
		 struct error *e)
{
	const struct mapped_entry *known;
	struct vma own = *shown;
	const struct vma *v = &own;

	if (own.kind == VMA_SYSV &&
	    ipc_number_mapped(c, p, own.start, own.end, own.name, &own.ino, e) < 0)
		return e->err;
	known = lookup(c->mm->mapped, v);
	if (!known)
		return first_sight(c, p, list, v, ret_id, e);
	*ret_id = known->id;
	return check_covered(known, v, e);
}

static int ask_exe(struct checkpoint *c, const struct checkpoint_process *p, uint64_t *ret_id,
		   struct error *e)
{
	_cleanup_(free_ptr) char *link = NULL;
	_cleanup_(close_fd) int fd = -EBADF;
	int r = procfs_readlink(c->proc_fd, &link, e, "%d/exe", p->tid);

	if (r < 0)
		return r;
	fd = procfs_open(c->proc_fd, open_flags(link), e, "%d/exe", p->tid);
	if (fd < 0)
		return fd;
	return inode_checkpoint(c, p, fd, link, ret_id, e);
}

/* That of a process and of those that it forked is one file. */
int mapped_exe(struct checkpoint *c, const struct checkpoint_process *p, uint64_t *ret_id,
	       struct error *e)
{
	uint64_t file = glance_of(c, p->tid, GLANCE_EXE);
	struct mapped_cache *cache = c->mm->mapped;
	int r;

	if (file && file == cache->exe) {
		*ret_id = cache->exe_id;
		return 0;
	}
	r = ask_exe(c, p, ret_id, e);
	if (r >= 0) {
		cache->exe = file;
		cache->exe_id = *ret_id;
	}
	return r;
}
