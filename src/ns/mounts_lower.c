/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an overlay is made of is told by names only, as they were when it was mounted; mounts that
 * were moved or taken away since may have left others there. The kernel's memory tells which
 * directories it has.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/kernel_memory.h"
#include "fs/dentry.h"
#include "ns/mounts.h"
#include "ns/mounts_detached.h"
#include "ns/mounts_overlay.h"

#define LAYERS_MAX 500 /* OVL_MAX_STACK */

/* As the kernel has one: the file system, the path in it, the number of its inode. */
struct layer_seen {
	dev_t dev;
	uint64_t ino;
	char room[PATH_MAX];
	const char *path;
};

struct lower_check {
	struct checkpoint *c;
	const struct mounts_survey *sv;
	struct kernel_memory *k;
	pid_t pid;     /* who is there */
	size_t before; /* what is mounted before it at the restart */
	uint64_t overlay, layers;
	uint32_t n;
};

static int find_layers(struct lower_check *x, int fd)
{
	const int at[] = {kernel_offset(x->k, "file", "f_path.mnt"),
			  kernel_offset(x->k, "vfsmount", "mnt_sb"),
			  kernel_offset(x->k, "super_block", "s_fs_info")};
	int r = kernel_of_file(x->k, fd, at, 3, &x->overlay, sizeof(x->overlay));

	if (r >= 0)
		r = kernel_member(x->k, x->overlay, "overlay:ovl_fs", "numlayer", &x->n,
				  sizeof(x->n));
	if (r >= 0)
		r = kernel_member(x->k, x->overlay, "overlay:ovl_fs", "layers", &x->layers,
				  sizeof(x->layers));
	return r >= 0 && x->n > LAYERS_MAX + 1 ? -EINVAL : r;
}

static int read_layer(const struct lower_check *x, uint32_t i, struct layer_seen *ret)
{
	const int size = kernel_size(x->k, "overlay:ovl_layer");
	const int mnt = kernel_offset(x->k, "overlay:ovl_layer", "mnt");
	uint64_t mount, root, super, inode, number;
	uint32_t dev;
	int r = size < 0 || mnt < 0 ? -ENOENT : 0;

	if (r < 0)
		return r;
	mount = kernel_pointer(x->k, x->layers + (uint64_t)size * i + (uint64_t)mnt);
	r = kernel_member(x->k, mount, "vfsmount", "mnt_root", &root, sizeof(root));
	if (r >= 0)
		r = kernel_member(x->k, mount, "vfsmount", "mnt_sb", &super, sizeof(super));
	if (r >= 0)
		r = kernel_member(x->k, super, "super_block", "s_dev", &dev, sizeof(dev));
	if (r >= 0)
		r = kernel_member(x->k, root, "dentry", "d_inode", &inode, sizeof(inode));
	if (r >= 0)
		r = kernel_member(x->k, inode, "inode", "i_ino", &number, sizeof(number));
	if (r >= 0)
		r = dentry_path(x->k, root, ret->room, sizeof(ret->room), &ret->path);
	if (r < 0)
		return r;
	ret->dev = makedev(dev >> 20, dev & 0xfffff); /* MAJOR(), MINOR() of the kernel */
	ret->ino = number;
	return 0;
}

/* Is it there when the overlay is mounted again? */
static bool is_before(const struct lower_check *x, const struct mount_line *m)
{
	for (size_t i = 0; i < x->sv->mounts.n; i++)
		if (x->sv->mounts.v[i]->id == m->id)
			return i < x->before;
	return true;
}

/* The mount that a path leads to then: each that is met on the way goes on in the next. */
static const struct mount_line *arrive(const struct lower_check *x, const char *path)
{
	const struct mount_table *t = &x->sv->theirs;
	const struct mount_line *at = NULL, *next = NULL;

	vec_for_each (m, t)
		if (!strcmp(m->point, "/") && !next)
			next = m;
	for (size_t n = 0; next && n <= t->n; n++) {
		at = next;
		next = NULL;
		vec_for_each (m, t)
			if (m->parent == at->id && m != at && is_before(x, m) &&
			    mount_is_below(path, m->point) &&
			    (!next || strlen(m->point) < strlen(next->point)))
				next = m;
	}
	return at;
}

static bool is_at(const struct lower_check *x, const char *dir, const struct layer_seen *seen)
{
	const struct mount_line *m = arrive(x, dir);
	char path[2 * PATH_MAX];
	struct stat st;

	if (!m)
		return false;
	snprintf(path, sizeof(path), "%s%s", strcmp(m->root, "/") ? m->root : "",
		 dir + (strcmp(m->point, "/") ? strlen(m->point) : 0));
	if (m->dev == seen->dev && !strcmp(*path ? path : "/", seen->path))
		return true;
	/* it may be a symbolic link */
	snprintf(path, sizeof(path), "%d/root%s", x->pid, dir);
	return fstatat(x->c->proc_fd, path, &st, 0) == 0 && st.st_dev == seen->dev &&
	       st.st_ino == seen->ino;
}

static int check_one(const struct lower_check *x, uint32_t i, const char *dir, struct error *e)
{
	struct layer_seen seen;

	if (i >= x->n || read_layer(x, i, &seen) < 0 || is_at(x, dir, &seen))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
			 "what its directory %s was when it was mounted is not there any more",
			 dir);
}

/* The writable one comes first, or has an empty place (ovl_get_layers()). */
static int check_overlay(struct lower_check *x, const Reprise__Mount *m, int fd, struct error *e)
{
	_cleanup_(free_ptr) char *copy = strdup(m->lower);
	char *rest = copy, *dir;
	uint32_t i = 1;
	int r = 0;

	if (!copy || find_layers(x, fd) < 0)
		return 0;
	if (*m->external)
		r = check_one(x, 0, m->external, e);
	while (r >= 0 && (dir = strsep(&rest, ":")))
		if (*dir)
			r = check_one(x, i++, dir, e);
	return r;
}

int mounts_check_lower(struct checkpoint *c, const struct mounts_survey *sv, pid_t pid,
		       struct error *e)
{
	struct lower_check x = {.c = c, .sv = sv, .pid = pid};
	int r = 0;

	for (size_t i = 0; i < sv->mounts.n && r >= 0; i++) {
		const Reprise__Mount *m = sv->mounts.v[i];
		_cleanup_(close_fd) int fd = -EBADF;
		struct error unused = {};

		if (m->kind != MOUNT_OVERLAY || !m->inside)
			continue;
		/* An ordinary user is not told. */
		if (!x.k && checkpoint_kernel_memory(c, &x.k, &unused) < 0)
			return 0;
		vec_for_each (line, &sv->theirs)
			if (line->id == m->id)
				fd = mounts_open(sv, c->proc_fd, pid, line, &unused);
		x.before = i;
		r = fd < 0 ? 0 : check_overlay(&x, m, fd, e);
		if (r < 0)
			error_object(e, r, "mount %s (%s)", m->point, m->type);
		r = checkpoint_refuse(c, r, e);
	}
	return r;
}
