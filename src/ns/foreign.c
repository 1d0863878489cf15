/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/foreign.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "core/cleanup.h"

/* Before anything is mounted over it; what is not found is told when it is to be mounted. */
static int open_sources(struct foreign *f, const struct mounts_place *place, struct error *e)
{
	f->sources = calloc(f->msg->n_mounts + 1, sizeof(*f->sources));
	if (!f->sources)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the mounts");
	for (f->n = 0; f->n < f->msg->n_mounts; f->n++) {
		const Reprise__Mount *m = f->msg->mounts[f->n];

		f->sources[f->n] = m->kind != MOUNT_EXTERNAL
					   ? -EBADF
					   : open_tree(AT_FDCWD, mounts_mapped(place, m->external),
						       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	}
	return 0;
}

/* The directories of a path one after the other, whose last one is made if it has to be. */
static int make_way(char *path, size_t from, struct error *e)
{
	for (char *s = path + from; s; s = strchr(s + 1, '/')) {
		char *end = strchr(s + 1, '/');
		int r;

		if (end)
			*end = '\0';
		r = mkdir(path, 0755);
		if (end)
			*end = '/';
		if (r < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot make %s", path);
	}
	return 0;
}

/*
 * Where the container's root is mounted, and nobody but us comes to: what is there is covered, for
 * this mount namespace alone, by something in which there is nothing but the way.
 */
static int open_way(const char *root, struct error *e)
{
	_cleanup_(free_ptr) char *path = strdup(root);
	struct stat st;

	if (!path)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	for (char *s = strchr(path + 1, '/');; s = strchr(s + 1, '/')) {
		int r;

		if (s)
			*s = '\0';
		if (stat(path, &st) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot look at %s", path);
		if (!(st.st_mode & S_IXOTH)) {
			if (mount("reprise", path, "tmpfs", 0, "mode=755") < 0)
				return error_errno(e, -errno, E_NAMESPACE, "cannot cover %s", path);
			r = s ? (int)strlen(path) : 0;
			if (s)
				*s = '/';
			return s ? make_way(path, (size_t)r, e) : 0;
		}
		if (!s)
			return 0;
		*s = '/';
	}
}

int foreign_begin(struct foreign *f, const Reprise__Container *msg,
		  const struct mounts_place *place, struct error *e)
{
	int r;

	if (!(msg->own & CLONE_NEWNS) || msg->derived_mounts)
		return 0;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a mount namespace");
	f->msg = msg;
	r = open_sources(f, place, e);
	return r < 0 || !place->root ? r : open_way(place->root, e);
}

int foreign_source(const void *foreign, const Reprise__Mount *m)
{
	const struct foreign *f = foreign;

	for (size_t i = 0; i < f->n; i++)
		if (f->msg->mounts[i] == m)
			return f->sources[i];
	return -1;
}

void foreign_end(struct foreign *f)
{
	for (size_t i = 0; i < f->n; i++)
		close_fd(&f->sources[i]);
	free(f->sources);
	*f = (struct foreign){};
}
