/* SPDX-License-Identifier: Apache-2.0 */
#include "operation/parents.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/envelope.h"
#include "image/frame.h"
#include "operation/operation.h"

struct search {
	const char *const *where;
	const struct image_reader *image; /* whose parents these are; NULL: a new one */
	struct page_chain *chain;
	const struct image_parent *wanted; /* of the last of the chain */
	struct page_map *map;		   /* what was found */
	char *name;			   /* and its name */
	struct error why;		   /* the first that looked like it and was not */
	bool quiet;			   /* nobody asks which others are good */
};

static void chain_free(struct page_chain **c)
{
	page_chain_free(*c);
}

static void note(struct search *s, const struct error *e)
{
	if (s->why.code == ERROR_NONE)
		s->why = *e;
}

/* Nothing but a file, and without waiting for anybody. */
static int open_file(int dir, const char *name, int flags)
{
	struct stat st;
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

static bool has_uuid(int fd, const uint8_t *uuid)
{
	struct image_header h;

	return pread(fd, &h, sizeof(h), 0) == sizeof(h) &&
	       !memcmp(h.magic, IMAGE_MAGIC, sizeof(h.magic)) &&
	       !memcmp(h.uuid, uuid, sizeof(h.uuid));
}

/* Is it the wanted image? 1: it was, and is open. The descriptor is used up. */
static int try_image(struct search *s, int fd, const char *name, struct error *e)
{
	struct page_map *map = NULL;
	struct error why = {};
	int r;

	if (!has_uuid(fd, s->wanted->uuid)) {
		close(fd);
		return 0;
	}
	r = page_map_open(&map, fd, &why);
	if (r >= 0 && !page_map_is(map, s->wanted->digest))
		r = error_set(&why, -EINVAL, E_PARENT_WRONG,
			      "has the identity of the parent, but another digest");
	if (r < 0) {
		page_map_free(map);
		error_object(&why, r, "%s", name);
		note(s, &why);
		return 0;
	}
	s->map = map;
	s->name = strdup(name);
	return s->name ? 1 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
}

/* By the recorded name, or else by what it is: it may have been renamed. */
static int search_directory(struct search *s, const char *path, bool by_name, struct error *e)
{
	char name[ERROR_TEXT_MAX / 2];
	const struct dirent *d;
	DIR *dir = opendir(path);
	int fd, r = 0;

	if (!dir)
		return 0;
	if (by_name) {
		snprintf(name, sizeof(name), "%s/%s", path, s->wanted->name);
		fd = *s->wanted->name ? open_file(dirfd(dir), s->wanted->name, O_NOFOLLOW) : -1;
		r = fd < 0 ? 0 : try_image(s, fd, name, e);
	}
	while (!by_name && r == 0 && (d = readdir(dir))) {
		if (d->d_type != DT_REG && d->d_type != DT_UNKNOWN)
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, d->d_name);
		fd = open_file(dirfd(dir), d->d_name, O_NOFOLLOW);
		r = fd < 0 ? 0 : try_image(s, fd, name, e);
	}
	closedir(dir);
	return r;
}

static int search_place(struct search *s, const char *path, bool by_name, struct error *e)
{
	_cleanup_(free_ptr) char *copy = strdup(path);
	struct stat st;
	int fd, r = 0;

	if (!copy)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return search_directory(s, path, by_name, e);
	if (by_name) {
		fd = open_file(AT_FDCWD, path, 0);
		r = fd < 0 ? 0 : try_image(s, fd, path, e);
	}
	return r ? r : search_directory(s, dirname(copy), by_name, e);
}

/* An image that is its own ancestor would be looked for without an end. */
static int check_new(const struct search *s, struct error *e)
{
	bool again = s->image && !memcmp(image_reader_info(s->image)->uuid, s->wanted->uuid, 16);
	const struct page_map *map;

	for (size_t i = 0; (map = page_chain_at(s->chain, i)); i++)
		again = again ||
			!memcmp(image_reader_info(page_map_reader(map))->uuid, s->wanted->uuid, 16);
	if (again)
		return error_set(e, -ELOOP, E_PARENT_WRONG,
				 "the parent %s is said to be based on what is based on it",
				 s->wanted->name);
	if (page_chain_length(s->chain) >= PAGE_CHAIN_MAX)
		return error_set(e, -EOVERFLOW, E_PARENT, "the chain has more than %d images",
				 PAGE_CHAIN_MAX);
	return 0;
}

/*
 * The wanted image is there, but damaged: what it is based on may be good. Its own state part has
 * to be readable for that, of which only a part need be.
 */
static void tell_good(const struct search *s, struct error *e);

static int not_found(struct search *s, struct error *e)
{
	if (s->why.code != ERROR_NONE) {
		*e = s->why;
		if (!s->quiet)
			tell_good(s, e);
		return e->err;
	}
	return error_set(e, -ENOENT, E_PARENT_MISSING, "the parent %s is missing",
			 *s->wanted->name ? s->wanted->name : "of the image");
}

static int find_one(struct search *s, struct error *e)
{
	int r = check_new(s, e);

	if (r < 0)
		return r;
	s->why.code = ERROR_NONE;
	for (int pass = 0; pass < 2; pass++)
		for (const char *const *w = s->where; r == 0 && w && *w; w++)
			r = search_place(s, *w, pass == 0, e);
	if (r == 0)
		return not_found(s, e);
	if (r > 0)
		r = page_chain_add(s->chain, s->map, s->name, e);
	if (r < 0)
		page_map_free(s->map);
	free(take_ptr(&s->name));
	s->map = NULL;
	return r;
}

/* From the last of the chain on. */
static int find_all(struct search *s, struct error *e)
{
	int r = 0;

	while (r >= 0 && s->wanted) {
		const struct page_map *last;

		r = find_one(s, e);
		if (r < 0)
			break;
		last = page_chain_at(s->chain, page_chain_length(s->chain) - 1);
		s->wanted = image_reader_parent(page_map_reader(last));
	}
	return r;
}

static int find_parents(const struct image_reader *image, const char *const *where, bool quiet,
			struct page_chain **ret, struct error *e)
{
	_cleanup_(chain_free) struct page_chain *chain = NULL;
	struct search s = {.where = where,
			   .image = image,
			   .wanted = image_reader_parent(image),
			   .quiet = quiet};
	int r;

	if (!s.wanted)
		return 0;
	r = page_chain_new(&chain, e);
	s.chain = chain;
	if (r >= 0)
		r = find_all(&s, e);
	if (r < 0)
		return r;
	*ret = take_ptr(&chain);
	return 0;
}

int parents_find(const struct image_reader *image, const char *const *where,
		 struct page_chain **ret, struct error *e)
{
	return find_parents(image, where, false, ret, e);
}

static void tell_good(const struct search *s, struct error *e)
{
	struct page_chain *older = NULL;
	struct image_reader *damaged = NULL;
	struct error unused = {};
	size_t n = strlen(e->text);
	int fd = open_file(AT_FDCWD, e->object, 0);

	if (fd < 0)
		return;
	if (image_reader_new(&damaged, fd, 1, &unused) >= 0 &&
	    find_parents(damaged, s->where, true, &older, &unused) >= 0 && older)
		snprintf(e->text + n, sizeof(e->text) - n, "; %s is still good",
			 page_chain_name(older, 0));
	page_chain_free(older);
	image_reader_free(damaged);
	close(fd);
}

/* ---- for a new image ---- */

static int open_first(const char *path, struct page_chain *chain, struct error *e)
{
	char magic[ENVELOPE_MAGIC_SIZE] = "";
	struct page_map *map = NULL;
	int fd = open_file(AT_FDCWD, path, 0), r;

	if (fd == -EINVAL)
		return error_set(e, fd, E_PARENT, "is no regular file");
	if (fd < 0)
		return error_errno(e, fd, E_IMAGE_OPEN, "cannot be opened");
	if (pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
	    !memcmp(magic, ENVELOPE_MAGIC, sizeof(magic))) {
		close(fd);
		return error_set(e, -EINVAL, E_PARENT, "is signed or encrypted");
	}
	r = page_map_open(&map, fd, e);
	if (r >= 0)
		r = page_chain_add(chain, map, path, e);
	if (r < 0)
		page_map_free(map);
	return r;
}

int parents_open(const char *const *where, struct page_chain **ret, const char **ret_name,
		 struct error *e)
{
	_cleanup_(chain_free) struct page_chain *chain = NULL;
	struct search s = {.where = where};
	const char *slash = strrchr(where[0], '/');
	int r = page_chain_new(&chain, e);

	if (r >= 0)
		r = open_first(where[0], chain, e);
	if (r < 0)
		return error_object(e, r, "%s", where[0]);
	s.chain = chain;
	s.wanted = image_reader_parent(page_map_reader(page_chain_at(chain, 0)));
	r = find_all(&s, e);
	if (r >= 0 && page_chain_length(chain) >= PAGE_CHAIN_MAX)
		r = error_set(e, -EOVERFLOW, E_PARENT, "the chain of %s has %d images already",
			      where[0], PAGE_CHAIN_MAX);
	if (r < 0)
		return r;
	*ret_name = slash ? slash + 1 : where[0];
	*ret = take_ptr(&chain);
	return 0;
}

int parents_keep(const struct page_chain *chain, const char *path, struct error *e)
{
	struct stat replaced, st;
	const char *name;

	if (lstat(path, &replaced) < 0)
		return 0;
	for (size_t i = 0; (name = page_chain_name(chain, i)); i++)
		if (stat(name, &st) == 0 && st.st_dev == replaced.st_dev &&
		    st.st_ino == replaced.st_ino)
			return error_object(
				e,
				error_set(e, -EINVAL, E_PARENT,
					  "would be replaced, and the new image needs it"),
				"%s", name);
	return 0;
}
