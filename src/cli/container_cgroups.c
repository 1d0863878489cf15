/* SPDX-License-Identifier: Apache-2.0 */
/* The control groups that a container has left, or has. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "cli/container.h"

#define PAUSE_MS 10

/* Directories only: the files in them go with them. */
static int remove_group(int above, const char *name)
{
	int fd = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	if (!dir) {
		r = errno == ENOENT ? 0 : -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while ((d = readdir(dir)))
		if (d->d_type == DT_DIR && strcmp(d->d_name, ".") && strcmp(d->d_name, "..") &&
		    r == 0)
			r = remove_group(fd, d->d_name);
	closedir(dir);
	if (r == 0 && unlinkat(above, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}

/* Calls fn for each directory that was noted, until it returns something. A negative errno if they
 * cannot be read. */
static int for_each_group(const char *name, int (*fn)(const char *path, void *arg), void *arg)
{
	char path[CONTAINER_PATH], line[8192];
	FILE *f;
	int r = 0;

	container_path(name, "cgroups", path);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && fgets(line, sizeof(line), f)) {
		const char *last = strrchr(line, '/');

		line[strcspn(line, "\n")] = '\0';
		if (*line == '/' && last && !strncmp(last, "/reprise-", 9))
			r = fn(line, arg);
	}
	if (r == 0 && ferror(f))
		r = -EIO;
	fclose(f);
	return r;
}

static int remove_noted(const char *path, void *arg)
{
	int *left = arg, r = remove_group(AT_FDCWD, path);

	if (r < 0)
		*left = r;
	return 0;
}

int container_cgroups_remove(const char *name, int patience_ms)
{
	char path[CONTAINER_PATH];
	int left, r;

	/* Processes that have been killed are in it until they are gone. */
	for (;; patience_ms -= PAUSE_MS) {
		left = 0;
		r = for_each_group(name, remove_noted, &left);
		left = r < 0 ? r : left;
		if (left != -EBUSY || patience_ms <= 0)
			break;
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
	}
	if (left == 0) {
		container_path(name, "cgroups", path);
		unlink(path);
	}
	return left;
}

int container_lock(const char *name, bool wait)
{
	char path[CONTAINER_PATH];
	int fd;

	container_path(name, "", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0) {
		int r = -errno;

		if (fd >= 0)
			close(fd);
		return r;
	}
	return fd;
}

void container_unlock(int *fd)
{
	/* Whoever was forked meanwhile has it as well. */
	if (*fd >= 0) {
		flock(*fd, LOCK_UN);
		close(*fd);
	}
	*fd = -1;
}

static bool read_word(const char *dir, const char *file, char *text, size_t size)
{
	char path[8300];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "re");
	n = f ? fread(text, 1, size - 1, f) : 0;
	if (f)
		fclose(f);
	text[n] = '\0';
	return n > 0;
}

static int look(const char *path, void *arg)
{
	struct container_cgroups *c = arg;
	char text[256];

	if (read_word(path, "memory.current", text, sizeof(text)) ||
	    read_word(path, "memory.usage_in_bytes", text, sizeof(text)))
		c->memory = strtoull(text, NULL, 10);
	if (read_word(path, "freezer.state", text, sizeof(text)))
		c->frozen |= strncmp(text, "THAWED", 6) != 0;
	if (read_word(path, "cgroup.events", text, sizeof(text)))
		c->frozen |= strstr(text, "frozen 1") != NULL;
	return 0;
}

void container_cgroups_look(const char *name, struct container_cgroups *ret)
{
	*ret = (struct container_cgroups){};
	for_each_group(name, look, ret);
}
