/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the path of an inode of which only the number is known: among the files that the tree
 * has open, the directories above them, and what is in those that it has open. The whole file
 * system is not searched. Each directory is read once.
 */
#include "fs/inode_search.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"

enum { NAME = 1, LOOKED_AT = 2, LISTED = 3 };

/* dir NULL: the name is a path. */
struct name_seen {
	const char *dir, *name;
};

struct inode_names {
	struct objects *known;	     /* NAME: device, inode; else hash and length of a path */
	VEC(struct name_seen) names; /* by id - 1 */
	size_t next;		     /* of the inodes: those below have their names here, */
	size_t next_listed;	     /* and those their entries */
};

bool inode_is(int fd, dev_t dev, uint64_t ino)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_ino == ino && st.st_dev == dev;
}

static struct inode_names *names_of(struct checkpoint *c)
{
	struct inode_names *n = c->files->names;

	if (n)
		return n;
	n = calloc(1, sizeof(*n));
	if (n && objects_new(&n->known) < 0) {
		free(n);
		n = NULL;
	}
	c->files->names = n;
	return n;
}

void inode_search_end(struct checkpoint *c)
{
	struct inode_names *n = c->files->names;

	if (!n)
		return;
	objects_free(n->known);
	vec_free(&n->names);
	free(n);
}

/* What cannot be remembered is not found, and so refused. */
static void add_name(struct inode_names *n, dev_t dev, uint64_t ino, const char *dir,
		     const char *name)
{
	uint64_t id;
	bool is_new;

	if (!name || objects_get(n->known, NAME, dev, ino, &id, &is_new) < 0 || !is_new)
		return;
	while (n->names.n < id) {
		struct name_seen *s = vec_push(&n->names);

		if (!s)
			return;
		*s = (struct name_seen){};
	}
	n->names.v[id - 1] = (struct name_seen){dir, name};
}

static bool first_time(struct inode_names *n, uint32_t what, const char *path)
{
	size_t len = strlen(path);
	uint64_t id;
	bool is_new;

	return objects_get(n->known, what, XXH3_64bits(path, len), len, &id, &is_new) == 0 &&
	       is_new;
}

static int open_found(const struct inode_names *n, dev_t dev, uint64_t ino)
{
	uint64_t id = objects_find(n->known, NAME, dev, ino);
	const struct name_seen *s = id && id <= n->names.n ? &n->names.v[id - 1] : NULL;
	char path[4096 + 256];
	int fd;

	if (!s || !s->name)
		return -1;
	snprintf(path, sizeof(path), "%s%s%s", s->dir ? s->dir : "", s->dir ? "/" : "", s->name);
	fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && !inode_is(fd, dev, ino))
		close_fd(&fd);
	return fd;
}

static void list_directory(struct checkpoint *c, struct inode_names *n, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(close_directory) DIR *d = NULL;
	struct dirent *entry;
	const char *copy;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !first_time(n, LISTED, path)) {
		close_fd(&fd);
		return;
	}
	d = fdopendir(fd);
	if (!d)
		close_fd(&fd);
	copy = scratch_string(&c->files->scratch, path);
	while (d && copy && (entry = readdir(d)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			add_name(n, st.st_dev, entry->d_ino, copy,
				 scratch_string(&c->files->scratch, entry->d_name));
}

static void look_at(struct checkpoint *c, struct inode_names *n, const char *path)
{
	struct stat st;

	if (first_time(n, LOOKED_AT, path) && lstat(path, &st) == 0)
		add_name(n, st.st_dev, st.st_ino, NULL, scratch_string(&c->files->scratch, path));
}

static void add_above(struct checkpoint *c, struct inode_names *n, const char *path)
{
	_cleanup_(free_ptr) char *prefix = strdup(path);
	char *slash;

	look_at(c, n, "/");
	while (prefix && (slash = strrchr(prefix, '/')) && slash != prefix) {
		*slash = '\0';
		look_at(c, n, prefix);
	}
}

/* Files that the tree has open, and the directories above them. */
static void add_known(struct checkpoint *c, struct inode_names *n)
{
	for (; n->next < c->files->inodes.n; n->next++) {
		const Reprise__Inode *msg = &c->files->inodes.v[n->next].msg;

		if (msg->kind != INODE_NAMED)
			continue;
		add_name(n, msg->dev, msg->ino, NULL, msg->path);
		add_above(c, n, msg->path);
	}
}

static void list_known(struct checkpoint *c, struct inode_names *n)
{
	for (; n->next_listed < c->files->inodes.n; n->next_listed++) {
		const Reprise__Inode *msg = &c->files->inodes.v[n->next_listed].msg;

		if (msg->kind == INODE_NAMED && S_ISDIR(msg->mode))
			list_directory(c, n, msg->path);
	}
}

int inode_search_directory(struct checkpoint *c, const char *path, dev_t dev, uint64_t ino)
{
	struct inode_names *n = names_of(c);

	if (!n)
		return -1;
	list_directory(c, n, path);
	return open_found(n, dev, ino);
}

int inode_search(struct checkpoint *c, pid_t tid, dev_t dev, uint64_t ino)
{
	_cleanup_(free_ptr) char *cwd = NULL;
	struct inode_names *n = names_of(c);
	int fd;

	if (!n)
		return -1;
	add_known(c, n);
	fd = open_found(n, dev, ino);
	if (fd >= 0)
		return fd;
	if (tid && procfs_readlink(c->proc_fd, &cwd, NULL, "%d/cwd", tid) >= 0) {
		look_at(c, n, cwd);
		add_above(c, n, cwd);
		list_directory(c, n, cwd);
	}
	list_known(c, n);
	return open_found(n, dev, ino);
}
