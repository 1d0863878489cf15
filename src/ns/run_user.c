/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/run_user.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"

#define PATH_SIZE 8192

static int overlay(const struct run *run, const char *lower, const char *to, int id,
		   struct error *e)
{
	Reprise__Mount m = {.id = id};
	_cleanup_(close_fd) int upper = mounts_upper(&run->place, &m, e);
	char data[PATH_SIZE];

	if (upper < 0)
		return upper;
	snprintf(data, sizeof(data),
		 "lowerdir=%s,upperdir=%s/%d/upper,workdir=%s/%d/work,userxattr", lower,
		 run->place.layers, id, run->place.layers, id);
	if (mount("overlay", to, "overlay", 0, data) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot mount the overlay (%s)", data);
	return 0;
}

static bool is_own(const char *name)
{
	static const char *const names[] = {"proc", "sys", "dev", "tmp", "run", ".", ".."};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

/* What another file system is mounted in is not seen: as it is for root. */
static int show(const struct run *run, int dir, const char *name, int *id, struct error *e)
{
	char from[PATH_SIZE], to[PATH_SIZE], link[PATH_SIZE];
	struct error why = {};
	struct stat st;
	ssize_t n;
	int r;

	if (is_own(name) || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	snprintf(from, sizeof(from), "/%.4000s", name);
	snprintf(to, sizeof(to), "%.4000s/%.4000s", run->place.root, name);
	if (S_ISLNK(st.st_mode)) {
		n = readlinkat(dir, name, link, sizeof(link) - 1);
		if (n < 0)
			return 0;
		link[n] = '\0';
		return symlink(link, to) < 0
			       ? error_errno(e, -errno, E_NAMESPACE, "cannot make /%s", name)
			       : 0;
	}
	if (!S_ISDIR(st.st_mode))
		return 0;
	if (mkdir(to, 0755) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make /%s", name);
	r = overlay(run, from, to, (*id)++, &why);
	if (r < 0 && r != -EINVAL && r != -EACCES) {
		*e = why;
		return r;
	}
	return 0;
}

int run_user_root(const struct run *run, struct error *e)
{
	static const char *const own[] = {"proc", "sys", "dev", "tmp", "run"};
	_cleanup_(close_directory) DIR *d = NULL;
	char path[PATH_SIZE];
	struct dirent *entry;
	int id = 2, r = 0, ended = 0;

	if (strcmp(run->rootfs, "/"))
		return overlay(run, run->rootfs, run->place.root, 1, e);
	if (mount("tmpfs", run->place.root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot mount the root");
	d = opendir("/");
	if (!d)
		return error_errno(e, -errno, E_NAMESPACE, "cannot read /");
	while (r >= 0 && (entry = next_entry(d, &ended)))
		r = show(run, dirfd(d), entry->d_name, &id, e);
	if (r >= 0 && ended < 0)
		r = error_errno(e, ended, E_NAMESPACE, "cannot read /");
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]) && r >= 0; i++) {
		snprintf(path, sizeof(path), "%s/%s", run->place.root, own[i]);
		if (mkdir(path, 0755) < 0)
			r = error_errno(e, -errno, E_NAMESPACE, "cannot make /%s", own[i]);
	}
	return r;
}

int run_user_device(const struct run *run, const char *name, struct error *e)
{
	char from[64], to[PATH_SIZE];
	int fd;

	snprintf(from, sizeof(from), "/dev/%s", name);
	snprintf(to, sizeof(to), "%s/dev/%s", run->place.root, name);
	fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	close_fd(&fd);
	if (mount(from, to, NULL, MS_BIND, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot bind /dev/%s", name);
	return 0;
}
