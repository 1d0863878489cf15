/* SPDX-License-Identifier: Apache-2.0 */
#include "net/unix_below.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"

/* One after the other; *len: 0 is the end. */
static const char *next_part(const char *at, size_t *len)
{
	at += strspn(at, "/");
	*len = strcspn(at, "/");
	return at;
}

static bool is_part(const char *at, size_t len, const char *text)
{
	return len == strlen(text) && !memcmp(at, text, len);
}

/* How far the name climbs above where it begins. The root is above itself. */
static size_t climbs(const char *name)
{
	size_t depth = 0, most = 0, len;

	for (const char *at = next_part(name, &len); len; at = next_part(at + len, &len)) {
		if (is_part(at, len, "..") && !depth)
			most++;
		else if (is_part(at, len, ".."))
			depth--;
		else if (!is_part(at, len, "."))
			depth++;
	}
	return name[0] == '/' ? 0 : most;
}

static int go_down(int ours, char *path, const char *part, size_t len)
{
	size_t at = strlen(path);

	if (at)
		path[at++] = '/';
	memcpy(path + at, part, len);
	path[at + len] = '\0';
	return mkdirat(ours, path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static void go_up(char *path)
{
	char *slash = strrchr(path, '/');

	*(slash ?: path) = '\0';
}

int unix_below_make(struct unix_below *b, int ours, const char *name)
{
	const size_t up = climbs(name);
	/* "d/" for each step up, and the parts of the name */
	_cleanup_(free_ptr) char *path = calloc(2 * up + strlen(name) + 3, 1);
	size_t len;
	int r = path ? 0 : -ENOMEM;

	for (size_t i = 0; i < up && r >= 0; i++)
		r = go_down(ours, path, "d", 1);
	if (r < 0)
		return r;
	b->begin = openat(ours, *path ? path : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (b->begin < 0)
		return -errno;
	for (const char *at = next_part(name, &len); len && r >= 0;) {
		size_t rest;
		const char *next = next_part(at + len, &rest);

		if (!rest && at[len] == '/')
			return -EINVAL;
		if (is_part(at, len, "..") || is_part(at, len, ".")) {
			/* no name of a file */
			if (!rest)
				return -EINVAL;
			if (len == 2)
				go_up(path);
		} else if (rest) {
			r = go_down(ours, path, at, len);
		} else if (asprintf(&b->inside, "%s%s%.*s", path, *path ? "/" : "", (int)len, at) <
			   0) {
			b->inside = NULL;
			r = -ENOMEM;
		}
		at = next;
		len = rest;
	}
	return r < 0 ? r : b->inside ? 0 : -EINVAL;
}

void unix_below_free(struct unix_below *b)
{
	close_fd(&b->begin);
	free(b->inside);
}

void unix_below_clear(int ours)
{
	int fd = openat(ours, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(close_directory) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	if (!dir && fd >= 0)
		close_fd(&fd);
	while (dir && (d = readdir(dir))) {
		_cleanup_(close_fd) int below = -EBADF;

		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		if (unlinkat(ours, d->d_name, 0) == 0)
			continue;
		below = openat(ours, d->d_name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below >= 0)
			unix_below_clear(below);
		ignore(unlinkat(ours, d->d_name, AT_REMOVEDIR), "what stays is ours to nobody");
	}
}
