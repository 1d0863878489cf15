/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/mounts_detached.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_memory.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/dentry.h"
#include "ns/mounts.h"
#include "ns/mounts_covered.h"
#include "ns/mounts_early.h"

#define ANONYMOUS    0xeffffff7u /* MNT_NS_ANON_INO, since 6.18; 0 before */
#define USER_INITIAL 0xeffffffdu /* PROC_USER_INIT_INO */
#define NEED_UNMOUNT 0x10000000u /* FMODE_NEED_UNMOUNT */
#define DEPTH_MAX    4096

#ifndef RAMFS_MAGIC
#define RAMFS_MAGIC 0x858458f6
#endif

/* ---- checkpoint ---- */

static int refuse(struct error *e, const char *why)
{
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "it is on a mount that is attached nowhere (made by fsmount() or "
			 "open_tree(), or unmounted lazily), %s; attach it",
			 why);
}

static struct kernel_memory *memory_of(struct checkpoint *c)
{
	struct kernel_memory *k = NULL;
	struct error unused = {};

	return c->files->kernel_hidden || files_kernel_memory(c, &k, &unused) < 0 ? NULL : k;
}

/* Its struct mount. */
static int mount_address(struct kernel_memory *k, int fd, uint64_t *ret)
{
	const int in = kernel_offset(k, "mount", "mnt");
	uint64_t unused;
	int r = in < 0 ? in : dentry_of(k, fd, ret, &unused);

	if (r >= 0)
		*ret -= (uint64_t)in;
	return r;
}

/*
 * Nobody has the mount of a file but who has opened something on it: it is in no namespace
 * (umount_tree()), or in one without a number (open_tree(), alloc_mnt_ns()); not in that of others.
 */
bool mount_is_nowhere(struct checkpoint *c, int fd)
{
	struct kernel_memory *k = memory_of(c);
	uint64_t mount, space = 0;
	uint32_t number;
	int r = k ? mount_address(k, fd, &mount) : -EPERM;

	if (r >= 0)
		r = kernel_member(k, mount, "mount", "mnt_ns", &space, sizeof(space));
	if (r >= 0 && space)
		r = kernel_member(k, space, "mnt_namespace", "ns.inum", &number, sizeof(number));
	return r >= 0 && (!space || !number || number == ANONYMOUS);
}

bool mount_is_held_by(struct checkpoint *c, int fd)
{
	struct kernel_memory *k = memory_of(c);
	const int mode = k ? kernel_offset(k, "file", "f_mode") : -EPERM;
	uint32_t is = 0;

	return mode >= 0 && kernel_of_file(k, fd, &mode, 1, &is, sizeof(is)) >= 0 &&
	       is & NEED_UNMOUNT;
}

static bool table_has(int proc_fd, const char *who, int mount)
{
	_cleanup_(free_ptr) char *text = NULL;
	char *line, *rest;

	if (procfs_read(proc_fd, &text, NULL, "%s/mountinfo", who) < 0)
		return false;
	for (rest = text; (line = strsep(&rest, "\n"));)
		if (atoi(line) == mount)
			return true;
	return false;
}

/* Does anybody have it? There may be thousands, most of them in one mount namespace. */
static bool anybody_has(int proc_fd, int mount)
{
	int fd = openat(proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ended = 0;
	_cleanup_(close_directory) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	if (!dir && fd >= 0)
		close(fd);
	while (dir && (d = next_entry(dir, &ended)))
		if (atoi(d->d_name) > 0 && table_has(proc_fd, d->d_name, mount))
			return true;
	return !dir || ended < 0;
}

/* Where the kernel's memory is not told, the mounts of all processes are asked. */
static int is_nowhere(struct checkpoint *c, int fd, int mount, const struct stat *st,
		      struct error *e)
{
	if (memory_of(c))
		return mount_is_nowhere(c, fd);
	/* Devices of somebody else are common, and as good as ours. */
	if ((!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode)) || anybody_has(c->proc_fd, mount) ||
	    anybody_has(c->spaces.looked->ct->host_proc, mount))
		return 0;
	return refuse(e, "of which only root is told what it shows");
}

struct detached {
	struct kernel_memory *k;
	int fd; /* a file on it */
	dev_t dev;
	int mount;
	uint64_t address, root, super; /* struct mount, dentry, super_block */
};

/*
 * Those of a mount are mapped by what it does not share with a mount of proc (nop_mnt_idmap).
 * Before 6.2 that is a user namespace, and may be that of its file system (no_idmapping()).
 */
static int is_idmapped(struct checkpoint *c, const struct detached *d)
{
	static const char now[] = "mnt.mnt_idmap", before[] = "mnt.mnt_userns";
	const bool older = kernel_offset(d->k, "mount", now) < 0;
	uint64_t of_proc, is = 0, usual = 0, own = 0;
	int r = mount_address(d->k, c->proc_fd, &of_proc);

	if (r >= 0)
		r = kernel_member(d->k, d->address, "mount", older ? before : now, &is, sizeof(is));
	if (r >= 0)
		r = kernel_member(d->k, of_proc, "mount", older ? before : now, &usual,
				  sizeof(usual));
	if (r >= 0 && older)
		r = kernel_member(d->k, d->super, "super_block", "s_user_ns", &own, sizeof(own));
	return r < 0 ? r : is != usual && is != own;
}

static int look_into(struct checkpoint *c, struct detached *d, struct error *e)
{
	const int children = kernel_offset(d->k, "mount", "mnt_mounts");
	uint64_t parent = 0;
	int r = mount_address(d->k, d->fd, &d->address);

	if (r >= 0)
		r = kernel_member(d->k, d->address, "mount", "mnt_parent", &parent, sizeof(parent));
	if (r >= 0)
		r = kernel_member(d->k, d->address, "mount", "mnt.mnt_root", &d->root,
				  sizeof(d->root));
	if (r >= 0)
		r = kernel_member(d->k, d->address, "mount", "mnt.mnt_sb", &d->super,
				  sizeof(d->super));
	if (r >= 0)
		r = is_idmapped(c, d);
	if (r < 0 || children < 0)
		return refuse(e, "and what it shows is not found in the kernel's memory");
	if (r)
		return refuse(e, "and shows other owners than its files have (idmapped)");
	if (parent != d->address || kernel_pointer(d->k, d->address + (uint64_t)children) !=
					    d->address + (uint64_t)children)
		return refuse(e, "and others are mounted on it, or it on another one");
	return 0;
}

static uint64_t inode_of(const struct detached *d, uint64_t dentry)
{
	uint64_t inode = 0, number = 0;

	if (kernel_member(d->k, dentry, "dentry", "d_inode", &inode, sizeof(inode)) < 0 ||
	    kernel_member(d->k, inode, "inode", "i_ino", &number, sizeof(number)) < 0)
		return 0;
	return number;
}

/* A path by which the root task sees the root of it, on another mount. */
static int find_seen(struct checkpoint *c, const struct detached *d, const struct mount_table *t,
		     char path[PATH_MAX], struct error *e)
{
	char room[PATH_MAX];
	const char *root;
	struct stat st;

	if (dentry_path(d->k, d->root, room, sizeof(room), &root) < 0)
		return refuse(e, "and where it begins is not told");
	vec_for_each (m, t) {
		const char *rest;

		if (m->dev != d->dev || m->unbindable || !mount_is_below(root, m->root))
			continue;
		rest = root + (strcmp(m->root, "/") ? strlen(m->root) : 0);
		snprintf(path, PATH_MAX, "%s%s", strcmp(m->point, "/") ? m->point : "",
			 strcmp(rest, "/") ? rest : "");
		if (!*path)
			strcpy(path, "/");
		if (stat(path, &st) == 0 && st.st_dev == d->dev &&
		    st.st_ino == inode_of(d, d->root) && mount_id_at(AT_FDCWD, path, 0) == m->id)
			return 1;
	}
	return 0;
}

static bool has_device(const struct mount_table *t, dev_t dev)
{
	vec_for_each (m, t)
		if (m->dev == dev)
			return true;
	return false;
}

/* By anybody whose mounts we know. */
static bool is_seen(struct checkpoint *c, const struct mount_table *own, dev_t dev)
{
	const struct spaces *sp = c->spaces.looked;

	if (has_device(own, dev) || has_device(&sp->ct->mounts.ours, dev))
		return true;
	vec_for_each (x, &sp->list)
		if (has_device(&(*x)->mounts.theirs, dev))
			return true;
	return false;
}

/* ".." leads no further than to the root of a mount. */
static int climb(int from, int mount)
{
	_cleanup_(close_fd) int at = openat(from, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat here, above;

	for (int i = 0; i < DEPTH_MAX && at >= 0; i++) {
		_cleanup_(close_fd) int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (up < 0 || fstat(at, &here) < 0 || fstat(up, &above) < 0 ||
		    mount_id_at(up, "", AT_EMPTY_PATH) != mount)
			break;
		if (here.st_ino == above.st_ino && here.st_dev == above.st_dev)
			return openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		close_fd(&at);
		at = take_fd(&up);
	}
	return -1;
}

static int climb_from(struct checkpoint *c, int mount, pid_t tid, const char *what)
{
	char path[300];
	_cleanup_(close_fd) int fd = -EBADF;
	struct stat st;

	snprintf(path, sizeof(path), "%d/%s", tid, what);
	fd = openat(c->proc_fd, path, O_PATH | O_CLOEXEC);
	return fd >= 0 && mount_id_at(fd, "", AT_EMPTY_PATH) == mount && fstat(fd, &st) == 0 &&
			       S_ISDIR(st.st_mode)
		       ? climb(fd, mount)
		       : -1;
}

/* A directory of it that anybody has. */
static int search(struct checkpoint *c, int mount, pid_t tid)
{
	char name[300];
	int ended = 0, at = climb_from(c, mount, tid, "cwd"), fd;
	_cleanup_(close_directory) DIR *dir = NULL;
	struct dirent *d;

	if (at < 0)
		at = climb_from(c, mount, tid, "root");
	snprintf(name, sizeof(name), "%d/fd", tid);
	fd = openat(c->proc_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (at < 0 && dir && (d = next_entry(dir, &ended))) {
		snprintf(name, sizeof(name), "fd/%s", d->d_name);
		at = climb_from(c, mount, tid, name);
	}
	return at;
}

static int open_root(struct checkpoint *c, const struct detached *d)
{
	int at = climb(d->fd, d->mount);

	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads)
			if (at < 0 && !p->frozen->zombie && !t->zombie)
				at = search(c, d->mount, t->tid);
	return at;
}

static uint64_t user_of(const struct detached *d)
{
	uint64_t user = 0;
	uint32_t number = 0;

	if (kernel_member(d->k, d->super, "super_block", "s_user_ns", &user, sizeof(user)) < 0 ||
	    kernel_member(d->k, user, "user_namespace", "ns.inum", &number, sizeof(number)) < 0)
		return 0;
	return number;
}

static int look_options(struct checkpoint *c, const struct detached *d, const struct statfs *fs,
			char *data, size_t size, struct error *e)
{
	const bool initial = c->spaces.looked->own_user == USER_INITIAL;
	int r = fs->f_type == TMPFS_MAGIC
			? mounts_tmpfs_options(d->k, d->super, initial, fs, data, size)
			: mounts_ramfs_options(d->k, d->super, data, size);

	return r < 0 ? refuse(e, "and has options that are not told (mpol, quota, casefold)") : 0;
}

static int look_memory(struct checkpoint *c, const struct detached *d, const struct statfs *fs,
		       struct space_detached *ret, Reprise__Mount *msg, struct error *e)
{
	struct container *ct = c->spaces.looked->ct;
	struct scratch *s = &c->spaces.looked->s;
	struct layer **slot;
	uint64_t flags = 0;
	char data[256] = "";

	if (user_of(d) != space_number(c->proc_fd, e, "%d/ns/user", c->freezer.root))
		return refuse(e, "and belongs to another user namespace than the root task's");
	ret->root = open_root(c, d);
	ret->dev = d->dev;
	msg->kind = MOUNT_TMPFS;
	msg->type = (char *)(fs->f_type == TMPFS_MAGIC ? "tmpfs" : "ramfs");
	msg->source = (char *)"none";
	if (look_options(c, d, fs, data, sizeof(data), e) < 0)
		return e->err;
	msg->data = scratch_string(s, data);
	if (kernel_member(d->k, d->super, "super_block", "s_flags", &flags, sizeof(flags)) >= 0)
		msg->super_readonly = flags & MS_RDONLY;
	ret->brought = true;
	if (!msg->data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a mount");
	/* Nobody comes to other files than those that are open. */
	if (c->checking || ret->root < 0)
		return 0;
	slot = vec_push(&ct->layers);
	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a mount");
	*slot = NULL;
	if (layer_checkpoint(c, ret->root, "a mount that is attached nowhere", NULL, slot,
			     &msg->layer, e) < 0)
		return e->err;
	layer_set_last(*slot);
	return 0;
}

/* ST_* of statvfs() are not all those of mount(). */
static uint64_t flags_of(const struct statfs *fs)
{
	static const struct {
		uint64_t is, flag;
	} names[] = {{1, MS_RDONLY},	    {2, MS_NOSUID},	     {4, MS_NODEV},
		     {8, MS_NOEXEC},	    {0x400, MS_NOATIME},     {0x800, MS_NODIRATIME},
		     {0x1000, MS_RELATIME}, {0x2000, MS_NOSYMFOLLOW}};
	uint64_t flags = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if ((uint64_t)fs->f_flags & names[i].is)
			flags |= names[i].flag;
	return flags & (MS_NOATIME | MS_RELATIME) ? flags : flags | MS_STRICTATIME;
}

static int look_source(struct checkpoint *c, const struct detached *d, struct space_detached *ret,
		       Reprise__Mount *msg, struct error *e)
{
	_cleanup_(mount_table_free) struct mount_table own = {};
	char path[PATH_MAX];
	struct statfs fs;
	int r = mount_table_read(c->proc_fd, c->self, &own, e);

	if (r < 0)
		return r;
	if (fstatfs(d->fd, &fs) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstatfs");
	msg->flags = flags_of(&fs);
	r = find_seen(c, d, &own, path, e);
	if (r == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC) &&
	    !is_seen(c, &own, d->dev))
		return look_memory(c, d, &fs, ret, msg, e);
	if (r <= 0)
		return r < 0 ? r
			     : refuse(e, "and shows files to which no path of the root task leads");
	msg->kind = MOUNT_EXTERNAL;
	msg->external = scratch_string(&c->spaces.looked->s, path);
	if (!msg->external)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	ret->root = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (ret->root < 0)
		ret->root = open(path, O_PATH | O_CLOEXEC);
	return ret->root < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot open %s", path)
			     : 0;
}

static int look(struct checkpoint *c, int fd, const struct stat *st, struct space_detached *ret,
		struct error *e)
{
	struct detached d = {.k = memory_of(c), .fd = fd, .dev = st->st_dev, .mount = ret->mount};
	Reprise__Mount msg = REPRISE__MOUNT__INIT;
	int r = look_into(c, &d, e);

	if (r >= 0)
		r = look_source(c, &d, ret, &msg, e);
	if (r < 0)
		return r;
	ret->id = objects_fresh(c->objects);
	msg.point = (char *)"/";
	return checkpoint_put(c, RECORD_MOUNT, ret->id, &msg.base, e);
}

static bool is_known(struct checkpoint *c, int mount)
{
	const struct spaces *sp = c->spaces.looked;

	if (space_of_mount(c, mount))
		return true;
	vec_for_each (m, &sp->ct->mounts.theirs)
		if (m->id == mount)
			return true;
	return false;
}

int mounts_look_detached(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			 struct space_detached *ret, struct error *e)
{
	const int mount = mount_id_at(fd, "", AT_EMPTY_PATH);
	struct space_detached *slot;
	int r;

	*ret = (struct space_detached){.mount = mount, .root = -EBADF};
	if (!mount || *link != '/')
		return 0;
	vec_for_each (d, &c->spaces.looked->detached)
		if (d->mount == mount) {
			*ret = *d;
			return 0;
		}
	r = is_known(c, mount) || mount == mount_id_at(AT_FDCWD, link, AT_SYMLINK_NOFOLLOW) ||
			    table_has(c->proc_fd, "self", mount)
		    ? 0
		    : is_nowhere(c, fd, mount, st, e);
	if (r > 0)
		r = look(c, fd, st, ret, e);
	slot = r < 0 ? NULL : vec_push(&c->spaces.looked->detached);
	if (slot)
		*slot = *ret;
	else
		close_fd(&ret->root);
	return slot || r < 0 ? r : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a mount");
}

/* ---- restart ---- */

int mounts_validate_detached(const struct restart *r, struct error *e)
{
	const Reprise__Mount *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_MOUNT, i, NULL)); i++)
		if ((m->kind == MOUNT_EXTERNAL && (!mounts_absolute(m->external) || m->layer)) ||
		    (m->kind == MOUNT_TMPFS &&
		     (!mounts_is_memory(m->type) ||
		      (m->layer && !restart_find(r, RECORD_LAYER, m->layer)))) ||
		    (m->kind != MOUNT_EXTERNAL && m->kind != MOUNT_TMPFS))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an impossible mount that is attached nowhere");
	return 0;
}

static int make(struct restart *r, const Reprise__Mount *m, int *ret, struct error *e)
{
	int res = 0;

	if (m->kind == MOUNT_TMPFS)
		*ret = mounts_new(m);
	else
		*ret = open_tree(AT_FDCWD, m->external, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (*ret < 0)
		return error_errno(e, m->kind == MOUNT_TMPFS ? *ret : -errno, E_CONTAINER_MOUNT,
				   "cannot make a mount of %s",
				   m->kind == MOUNT_TMPFS ? m->type : m->external);
	if (m->layer)
		res = layer_restart(r, m->layer, *ret, e);
	/* It was filled from within. */
	if (m->layer && chdir("/") < 0 && res >= 0)
		res = error_errno(e, -errno, E_SYSTEM, "chdir");
	return res < 0 ? res : mounts_set_flags(*ret, m->flags, false, e);
}

int mounts_settle_detached(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (d, &r->spaces.detached) {
		const Reprise__Mount *m = restart_find(r, RECORD_MOUNT, d->id);

		if (res >= 0 && m->flags & MS_RDONLY)
			res = mounts_set_flags(d->fd, m->flags, true, e);
		if (res >= 0 && m->super_readonly)
			res = mounts_make_readonly(d->fd, "", e);
	}
	return res < 0 ? error_object(e, res, "a mount that is attached nowhere") : 0;
}

int mounts_restart_detached(struct restart *r, struct error *e)
{
	const Reprise__Mount *m;
	uint64_t id;

	for (size_t i = 0; (m = restart_nth(r, RECORD_MOUNT, i, &id)); i++) {
		struct restart_detached *d = vec_push(&r->spaces.detached);
		int res;

		if (!d)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a mount");
		*d = (struct restart_detached){id, -EBADF};
		res = make(r, m, &d->fd, e);
		if (res < 0)
			return error_object(e, res, "a mount that is attached nowhere");
	}
	return 0;
}
