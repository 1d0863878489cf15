/* SPDX-License-Identifier: Apache-2.0 */
/* Overlays of a container: files of the host, and what was written over them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
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

/* One that cannot be opened is not searched. */
static int add_part(struct mounts_survey *sv, dev_t dev, const char *dir, struct error *e)
{
	int fd = *dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	struct overlay_part *part = fd < 0 ? NULL : vec_push(&sv->overlays);

	if (fd >= 0 && !part) {
		close(fd);
		return no_memory(e);
	}
	if (part)
		*part = (struct overlay_part){dev, fd};
	return 0;
}

static int add_parts(struct mounts_survey *sv, dev_t dev, const char *lower, const char *upper,
		     struct error *e)
{
	_cleanup_(free_ptr) char *copy = strdup(lower);
	int r = upper ? add_part(sv, dev, upper, e) : 0;
	char *rest = copy, *dir;

	if (!copy)
		return no_memory(e);
	while (r >= 0 && (dir = strsep(&rest, ":")))
		r = add_part(sv, dev, dir, e);
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
 * The directories are told as whoever mounted it called them, and looked for where we are: in a
 * container that mounts one itself these are others. Its root shows the times of the uppermost of
 * them (ovl_getattr()), also those that nobody can set.
 */
static int check_directory(const struct mount_line *m, int root, const char *dir, struct error *e)
{
	const unsigned int mask = STATX_BTIME | STATX_CTIME;

	for (int i = 0; i < 5; i++) {
		struct statx a, b;

		if (statx(AT_FDCWD, dir, 0, mask, &a) < 0)
			break;
		if (statx(root, "", AT_EMPTY_PATH, mask, &b) < 0 ||
		    makedev(b.stx_dev_major, b.stx_dev_minor) != m->dev)
			return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
					 "it is hidden by another mount");
		if (same_time(&a.stx_ctime, &b.stx_ctime) &&
		    (!(a.stx_mask & b.stx_mask & STATX_BTIME) ||
		     same_time(&a.stx_btime, &b.stx_btime)))
			return 0;
	}
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
			 "its directory %s is not one of the host: it was mounted in the container",
			 dir);
}

int mounts_look_overlay(struct mounts_survey *sv, const struct mount_line *m, int root,
			Reprise__Mount *msg, struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *lower = mount_option(m->super, "lowerdir");
	_cleanup_(free_ptr) char *upper = mount_option(m->super, "upperdir");
	_cleanup_(free_ptr) char *uppermost = NULL;
	int fd, r;

	if (sv->nested)
		return error_set(
			e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
			"it is an overlay in another mount namespace than the root task's");
	if (!lower)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "the lower directories of the overlay are not known");
	msg->kind = MOUNT_OVERLAY;
	msg->lower = scratch_string(s, lower);
	if (!msg->lower)
		return no_memory(e);
	uppermost = upper ? strdup(upper) : strndup(lower, strcspn(lower, ":"));
	r = uppermost ? check_directory(m, root, uppermost, e) : no_memory(e);
	if (r >= 0)
		r = take_overlay_options(m, msg, s, e);
	if (r >= 0)
		r = add_parts(sv, m->dev, lower, upper, e);
	if (r < 0 || !upper)
		return r;
	msg->external = scratch_string(s, upper);
	if (!sv->with_overlays)
		return 0;
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
	if (*m->external && (!mounts_absolute(m->external) || strchr(m->external, ',')))
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
