/* SPDX-License-Identifier: Apache-2.0 */
/* Overlays of a container: files of the host, and what was written over them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/mounts.h"
#include "ns/mounts_overlay.h"

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an overlay");
}

static bool same_time(const struct statx_timestamp *a, const struct statx_timestamp *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* By a path outside, or in the mount namespace of the overlay. */
static int open_part(const struct overlay_place *at, bool inside, const char *dir, int flags)
{
	char path[4200];

	if (!inside)
		return open(dir, flags | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%d/root%s", at->pid, dir);
	return openat(at->proc_fd, path, flags | O_DIRECTORY | O_CLOEXEC);
}

/* One that cannot be opened is not searched; inside it must be known on which mount it is, and with
 * other owners what would take its place. */
static int add_part(struct mounts_survey *sv, dev_t dev, const struct overlay_place *at,
		    bool inside, const char *dir, struct error *e)
{
	int fd = *dir ? open_part(at, inside, dir, O_RDONLY) : -1;
	struct overlay_part *part = fd < 0 ? NULL : vec_push(&sv->overlays);

	/* podman shows lower directories with other owners by mounts that it takes away again. */
	if (fd < 0 && (inside || (sv->marks && *dir)))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "its directory %s is not found any more", dir);
	if (fd >= 0 && !part) {
		close(fd);
		return no_memory(e);
	}
	if (part)
		*part = (struct overlay_part){dev, fd};
	return 0;
}

static int add_parts(struct mounts_survey *sv, dev_t dev, const struct overlay_place *at,
		     const Reprise__Mount *msg, struct error *e)
{
	_cleanup_(free_ptr) char *copy = strdup(msg->lower);
	int r = *msg->external ? add_part(sv, dev, at, msg->inside, msg->external, e) : 0;
	char *rest = copy, *dir;

	if (!copy)
		return no_memory(e);
	if (r >= 0 && *msg->work)
		r = add_part(sv, dev, at, msg->inside, msg->work, e);
	while (r >= 0 && (dir = strsep(&rest, ":")))
		/* an empty name stands before those of data only */
		r = *dir ? add_part(sv, dev, at, msg->inside, dir, e) : 0;
	return r;
}

static bool is_on(const char *options, const char *name)
{
	_cleanup_(free_ptr) char *value = mount_option(options, name);

	return value && !strcmp(value, "on");
}

static const char *const kept[] = {"userxattr", "redirect_dir", "metacopy",
				   "xino",	"uuid",		"verity",
				   "volatile",	"fsync",	"default_permissions"};

/*
 * Those that say what marks in the writable layer mean, and how it is written to. An index is by
 * handles of files, and in the working directory, which is not saved.
 */
static int take_overlay_options(const struct mount_line *m, Reprise__Mount *msg, struct scratch *s,
				struct error *e)
{
	char all[256] = "";

	if (is_on(m->super, "index") || is_on(m->super, "nfs_export"))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "an overlay with an index (index=on) cannot be saved");
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		_cleanup_(free_ptr) char *value = mount_option(m->super, kept[i]);
		size_t len = strlen(all);

		if (mount_has_option(m->super, kept[i]))
			snprintf(all + len, sizeof(all) - len, "%s%s%s%s", len ? "," : "", kept[i],
				 value ? "=" : "", value ?: "");
	}
	msg->data = scratch_string(s, all);
	return msg->data ? 0 : no_memory(e);
}

/*
 * Its root shows the times of the uppermost of its directories (ovl_getattr()), also those that
 * nobody can set. They may change while we look.
 */
static bool is_directory_of(const struct overlay_place *at, bool inside, const char *dir)
{
	const unsigned int mask = STATX_BTIME | STATX_CTIME;
	_cleanup_(close_fd) int fd = open_part(at, inside, dir, O_PATH);

	for (int i = 0; i < 5; i++) {
		struct statx a, b;

		if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, mask, &a) < 0 ||
		    statx(at->root, "", AT_EMPTY_PATH, mask, &b) < 0)
			break;
		if (same_time(&a.stx_ctime, &b.stx_ctime) &&
		    (!(a.stx_mask & b.stx_mask & STATX_BTIME) ||
		     same_time(&a.stx_btime, &b.stx_btime)))
			return true;
	}
	return false;
}

static bool all_absolute(const char *list)
{
	for (const char *dir = list; dir; dir = strchr(dir, ':')) {
		dir += *dir == ':';
		/* an empty one stands before those of data only */
		if (*dir != '/' && *dir != ':')
			return false;
	}
	return true;
}

static char *uppermost_of(const char *upper, const char *lower)
{
	return upper ? strdup(upper) : strndup(lower, strcspn(lower, ":"));
}

static bool has_directories_of_host(const struct mount_line *m, const struct overlay_place *at)
{
	_cleanup_(free_ptr) char *lower = mount_option(m->super, "lowerdir");
	_cleanup_(free_ptr) char *upper = mount_option(m->super, "upperdir");
	_cleanup_(free_ptr) char *uppermost = lower ? uppermost_of(upper, lower) : NULL;

	return uppermost && *uppermost == '/' && all_absolute(lower) &&
	       is_directory_of(at, false, uppermost);
}

static bool is_of_host(const struct mounts_survey *sv, const char *point, dev_t dev)
{
	vec_for_each (h, &sv->ours)
		if (h->dev == dev && !strcmp(h->point, point))
			return true;
	return false;
}

bool mounts_is_given(const struct mounts_survey *sv, const struct mount_line *m,
		     const struct overlay_place *at)
{
	if (sv->derived || sv->nested || strcmp(m->root, "/") || is_of_host(sv, m->point, m->dev))
		return false;
	if (!strcmp(m->point, "/dev/shm"))
		return mounts_is_memory(m->type);
	return !strcmp(m->point, "/") && sv->with_overlays && !strcmp(m->type, "overlay") &&
	       has_directories_of_host(m, at);
}

/*
 * The directories are told as whoever mounted it called them: they are of the host, or of the mount
 * namespace itself, which may have others of these names.
 */
static int find_directories(const struct mounts_survey *sv, const struct overlay_place *at,
			    const char *uppermost, Reprise__Mount *msg, struct error *e)
{
	if (!sv->nested && is_directory_of(at, false, uppermost))
		return 0;
	msg->inside = true;
	if (!all_absolute(msg->lower) || (*msg->external && *msg->external != '/') ||
	    (*msg->work && *msg->work != '/'))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "its directories were not named from the root (%s)", msg->lower);
	if (is_directory_of(at, true, uppermost))
		return 0;
	return error_set(
		e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
		"its directory %s is neither one of the host nor one that is seen where it "
		"is mounted",
		uppermost);
}

bool mounts_overlay_needs(const char *super, const char *point)
{
	static const char *const names[] = {"lowerdir", "upperdir", "workdir"};

	for (size_t i = 0; i < 3; i++) {
		_cleanup_(free_ptr) char *list = mount_option(super, names[i]);
		char *rest = list, *dir;

		while (list && (dir = strsep(&rest, ":")))
			if (mount_is_below(dir, point))
				return true;
	}
	return false;
}

/* Made read-only since, it is so already when this is mounted again. */
static int check_writable(const struct mounts_survey *sv, const struct overlay_place *at,
			  const char *upper, struct error *e)
{
	_cleanup_(close_fd) int fd = open_part(at, true, upper, O_PATH);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	vec_for_each (h, &sv->ours)
		if (h->dev == st.st_dev && mount_has_option(h->super, "ro"))
			return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
					 "its writable directory %s is on a file system of outside "
					 "that has been made read-only since",
					 upper);
	return 0;
}

/* Those of directories that hide what is below, and of files that were renamed, are for root of the
 * machine (xattr_permission()), if whoever mounted it was that. */
static int check_marks(const struct mounts_survey *sv, const struct mount_line *m,
		       const Reprise__Mount *msg, struct error *e)
{
	if (!sv->user || sv->marks || msg->inside || mount_has_option(m->super, "userxattr"))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
			 "it was mounted outside, and nobody in a user namespace sees all of its "
			 "marks (trusted.overlay)");
}

int mounts_look_overlay(struct mounts_survey *sv, const struct mount_line *m,
			const struct overlay_place *at, Reprise__Mount *msg, struct scratch *s,
			struct error *e)
{
	_cleanup_(free_ptr) char *lower = mount_option(m->super, "lowerdir");
	_cleanup_(free_ptr) char *upper = mount_option(m->super, "upperdir");
	_cleanup_(free_ptr) char *work = mount_option(m->super, "workdir");
	_cleanup_(free_ptr) char *uppermost = NULL;
	int fd, r;

	if (!lower)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "the lower directories of the overlay are not known");
	msg->kind = MOUNT_OVERLAY;
	msg->lower = scratch_string(s, lower);
	msg->external = scratch_string(s, upper ?: "");
	msg->work = scratch_string(s, work ?: "");
	uppermost = uppermost_of(upper, lower);
	if (!msg->lower || !msg->external || !msg->work || !uppermost)
		return no_memory(e);
	r = find_directories(sv, at, uppermost, msg, e);
	if (r >= 0 && msg->inside && upper)
		r = check_writable(sv, at, upper, e);
	if (r >= 0)
		r = check_marks(sv, m, msg, e);
	if (r >= 0)
		r = take_overlay_options(m, msg, s, e);
	if (r >= 0)
		r = add_parts(sv, m->dev, at, msg, e);
	if (r < 0 || !upper || !sv->with_overlays || msg->inside)
		return r;
	fd = open(upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT,
				   "cannot open the writable layer %s", upper);
	msg->layer = 1; /* the id follows when it is saved */
	return mounts_add_layer(sv, msg, fd, e);
}

/* ---- restart ---- */

/* A name and a value, neither of which leads anywhere. */
static bool is_kept(const char *option, size_t len)
{
	const size_t name = strcspn(option, "=,");

	for (size_t i = name; i < len; i++)
		if (!strchr("=abcdefghijklmnopqrstuvwxyz0123456789_", option[i]))
			return false;
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (strlen(kept[i]) == name && !strncmp(kept[i], option, name))
			return true;
	return false;
}

int mounts_validate_overlay(const Reprise__Mount *m, struct error *e)
{
	const char *option = m->data;

	/* A comma would begin another option. */
	if (!mounts_absolute(m->lower) || strchr(m->lower, ','))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an overlay without a lower directory");
	if ((m->inside && m->layer) || (*m->work && (*m->work != '/' || strchr(m->work, ','))) ||
	    (m->inside && *m->external && !*m->work) ||
	    (*m->external && (!mounts_absolute(m->external) || strchr(m->external, ','))))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an overlay with an impossible writable layer");
	while (*option) {
		size_t len = strcspn(option, ",");

		if (!is_kept(option, len))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an overlay with an option of another kind");
		option += len + (option[len] == ',');
	}
	return 0;
}

/* Of another mount namespace it may be a directory of the same name. */
static bool is_other(int proc, pid_t pid, const char *upper, const struct stat *own)
{
	char path[MOUNTS_PATH_SIZE];
	struct stat st;

	snprintf(path, sizeof(path), "%d/root%s", pid, upper);
	return own && fstatat(proc, path, &st, 0) == 0 &&
	       (st.st_dev != own->st_dev || st.st_ino != own->st_ino);
}

/*
 * Is a writable layer that was not saved mounted somewhere? The kernel only warns of it in its log
 * (ovl_report_in_use()), and what is seen through either mount is undefined. own: of a directory
 * inside; NULL: it is named as the host does.
 */
static int check_unused(const char *upper, const struct stat *own, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = opendir("/proc");
	_cleanup_(free_ptr) char *option = NULL;
	struct dirent *d;
	int ended = 0;

	if (!dir || asprintf(&option, ",upperdir=%s,", upper) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	while ((d = next_entry(dir, &ended))) {
		_cleanup_(free_ptr) char *mounts = NULL;
		pid_t pid = (pid_t)atoi(d->d_name);

		if (pid > 0 && procfs_read(dirfd(dir), &mounts, NULL, "%d/mountinfo", pid) >= 0 &&
		    strstr(mounts, option) && !is_other(dirfd(dir), pid, upper, own))
			return error_set(
				e, -EBUSY, E_CONTAINER_MOUNT,
				"the writable layer %s is in use by process %d; end that first",
				upper, pid);
	}
	return ended < 0 ? error_errno(e, ended, E_SYSTEM, "cannot read /proc") : 0;
}

/* One that is volatile keeps a file there that forbids to mount it again (ovl_make_workdir()). */
static void forget_volatile(const char *work)
{
	static const char *const names[] = {"work/incompat/volatile/dirty",
					    "work/incompat/volatile", "work/incompat"};
	char path[MOUNTS_PATH_SIZE];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", work, names[i]);
		ignore(remove(path), "then it is not there, or the mount fails");
	}
}

/* Where its directories are called what they are, which it tells from then on. */
static int mount_inside(const char *below, const Reprise__Mount *m, const char *data, int dir,
			const char *name, struct error *e)
{
	_cleanup_(close_fd) int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (root < 0 || (*below && (chroot(below) < 0 || chdir("/") < 0)))
		return error_errno(e, -errno, E_SYSTEM, "cannot change the root directory");
	/* Newer kernels call it fsync=volatile. */
	if (mount_has_option(m->data, "volatile") || mount_has_option(m->data, "fsync=volatile"))
		forget_volatile(m->work);
	if (fchdir(dir) < 0 || mount(m->source, name, "overlay", 0, data) < 0)
		r = error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount the overlay (%s)",
				data);
	if (*below && (fchdir(root) < 0 || chroot(".") < 0))
		r = error_errno(e, -errno, E_SYSTEM, "cannot change the root directory");
	return r;
}

static int overlay_inside(const char *below, const Reprise__Mount *m, int dir, const char *name,
			  struct error *e)
{
	_cleanup_(close_fd) int root = -EBADF, upper = -EBADF;
	char data[MOUNTS_PATH_SIZE];
	const char *extra = *m->data ? "," : "";
	struct stat st;
	int r, n;

	if (!*m->external) {
		n = snprintf(data, sizeof(data), "lowerdir=%s%s%s", m->lower, extra, m->data);
	} else {
		root = open(*below ? below : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		upper = root < 0 ? -1 : mounts_open_in_root(root, m->external);
		if (upper < 0 || fstat(upper, &st) < 0)
			return error_errno(e, -errno, E_CONTAINER_MOUNT,
					   "cannot open the writable layer %s", m->external);
		r = check_unused(m->external, &st, e);
		if (r < 0)
			return r;
		n = snprintf(data, sizeof(data), "lowerdir=%s,upperdir=%s,workdir=%s%s%s", m->lower,
			     m->external, m->work, extra, m->data);
	}
	/* mount(2) takes a page of options. */
	if (n >= 4096)
		return error_set(e, -ENAMETOOLONG, E_CONTAINER_MOUNT, "too many lower directories");
	return mount_inside(below, m, data, dir, name, e);
}

static int find_lower(const char *dir, struct error *e)
{
	if (*dir && access(dir, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
		return error_errno(e, -errno, E_CONTAINER_SOURCE, "cannot find %s below it", dir);
	return 0;
}

/* A list of directories (two colons stand before those of data only). What takes the place of each
 * of them, or of all together, may have been given. */
static int map_lower(const struct mounts_place *place, const char *lower, char *buf, size_t size,
		     struct error *e)
{
	const char *at = mounts_mapped(place, lower);
	bool each = at == lower;
	size_t used = 0;
	int r = 0;

	for (buf[0] = '\0'; *at && r >= 0 && used < size;) {
		size_t length = strcspn(at, ":");
		_cleanup_(free_ptr) char *name = strndup(at, length);
		const char *dir = name && each ? mounts_mapped(place, name) : name;

		if (!dir)
			return no_memory(e);
		r = find_lower(dir, e);
		at += length;
		used += (size_t)snprintf(buf + used, size - used, "%s%s", dir, *at ? ":" : "");
		at += *at == ':';
	}
	if (r >= 0 && used >= size)
		r = error_set(e, -ENAMETOOLONG, E_CONTAINER_MOUNT, "too many lower directories");
	return r;
}

int mounts_restart_overlay(const Reprise__Mount *m, const struct mounts_place *place,
			   const char *below, int dir, const char *name, struct error *e)
{
	const char *upper = mounts_mapped(place, m->external);
	char lower[MOUNTS_PATH_SIZE / 2], data[MOUNTS_PATH_SIZE];
	const char *extra = *m->data ? "," : "";
	int r = m->inside || m->layer || !*m->external ? 0 : check_unused(upper, NULL, e);

	if (r < 0 || m->inside)
		return r < 0 ? r : overlay_inside(below, m, dir, name, e);
	r = map_lower(place, m->lower, lower, sizeof(lower), e);
	if (r < 0)
		return r;
	if (m->layer)
		snprintf(data, sizeof(data),
			 "lowerdir=%s,upperdir=%s/%d/upper,workdir=%s/%d/work%s%s", lower,
			 place->layers, m->id, place->layers, m->id, extra, m->data);
	else if (*m->external)
		snprintf(data, sizeof(data), "lowerdir=%s,upperdir=%s,workdir=%s/../work%s%s",
			 lower, upper, upper, extra, m->data);
	else
		snprintf(data, sizeof(data), "lowerdir=%s%s%s", lower, extra, m->data);
	if (fchdir(dir) < 0 || mount(m->source, name, "overlay", 0, data) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount the overlay (%s)",
				   data);
	return 0;
}
