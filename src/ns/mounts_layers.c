/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts whose files go into the image. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/mounts_layers.h"

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
}

static bool name_inside(size_t n, Reprise__IdMap *const *map, uint32_t id, uint32_t *ret)
{
	for (size_t i = 0; i < n; i++)
		if (id >= map[i]->outside && id - map[i]->outside < map[i]->count) {
			*ret = map[i]->inside + (id - map[i]->outside);
			return true;
		}
	return false;
}

/*
 * mountinfo has the ids of the host, and mount(2) takes those of the user namespace. Whose a file
 * is comes with the files, but a devpts has more and more of them.
 */
static void add_id(const struct mounts_survey *sv, const char *option, char *out)
{
	const Reprise__Container *ids = sv->ids;
	const bool user = *option == 'u';
	uint32_t id = (uint32_t)strtoul(option + 4, NULL, 10);

	if (ids && name_inside(user ? ids->n_uid_map : ids->n_gid_map,
			       user ? ids->uid_map : ids->gid_map, id, &id))
		sprintf(out + strlen(out), "%s%.4s%u", *out ? "," : "", option, id);
}

/* Options that mount(2) takes as flags, or that tell what the kernel chose. */
char *mounts_data(const struct mounts_survey *sv, struct scratch *s, const char *super)
{
	_cleanup_(free_ptr) char *copy = strdup(super);
	/* a number may get longer */
	char *save = NULL, *out = scratch_alloc(s, strlen(super) * 2 + 32);

	if (!copy || !out)
		return NULL;
	for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		if (!strcmp(w, "rw") || !strcmp(w, "ro") || !strncmp(w, "seclabel", 8))
			continue;
		if ((sv->user || sv->ids) && (!strncmp(w, "uid=", 4) || !strncmp(w, "gid=", 4))) {
			add_id(sv, w, out);
			continue;
		}
		if (*out)
			strcat(out, ",");
		strcat(out, w);
	}
	return out;
}

int mounts_add_layer(struct mounts_survey *sv, Reprise__Mount *msg, int fd, struct error *e)
{
	struct mount_layer *l = fd < 0 ? NULL : vec_push(&sv->layers);

	if (!l) {
		close_fd(&fd);
		return no_memory(e);
	}
	l->mount = msg;
	l->dir_fd = fd;
	return 0;
}

/*
 * A part of a file system is as good as the whole if nothing else of it is mounted: nobody comes to
 * the rest (bubblewrap leaves its containers so).
 */
static bool is_all_that_is_seen(const struct mounts_survey *sv, const struct mount_line *m)
{
	if (!strcmp(m->root, "/"))
		return true;
	vec_for_each (other, &sv->theirs)
		if (other != m && other->dev == m->dev && !mount_is_below(other->root, m->root))
			return false;
	vec_for_each (other, &sv->ours)
		if (other->dev == m->dev)
			return false;
	return true;
}

int mounts_look_memory(struct mounts_survey *sv, const struct mount_line *m, Reprise__Mount *msg,
		       struct scratch *s, struct error *e)
{
	struct mount_layer *l;

	if (!is_all_that_is_seen(sv, m))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "only a part of the %s is mounted", m->type);
	msg->kind = MOUNT_TMPFS;
	msg->data = mounts_data(sv, s, m->super);
	msg->layer = 1;
	msg->early = true;
	l = vec_push(&sv->layers);
	if (!l || !msg->data)
		return no_memory(e);
	l->mount = msg;
	l->dir_fd = msg->hidden ? mounts_open(sv, -EBADF, 0, m, e) : -EBADF;
	return msg->hidden && l->dir_fd < 0 ? l->dir_fd : 0;
}

int mounts_open_alone(const char *point)
{
	int fd = open_tree(AT_FDCWD, point, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	/* One that cannot be bound has no copy. */
	if (fd < 0 && errno == EINVAL)
		fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int mounts_open_here(void *arg, const char *point, struct error *e)
{
	int fd = mounts_open_alone(point);

	(void)arg;
	return fd < 0 ? error_errno(e, fd, E_CONTAINER_MOUNT, "cannot open mount %s", point) : fd;
}

/* In the order in which a restart needs them. */
static void put_early_first(struct mounts_survey *sv)
{
	for (size_t i = 0, n = 0; i < sv->layers.n; i++) {
		const struct mount_layer l = sv->layers.v[i];

		if (!l.mount->early)
			continue;
		memmove(&sv->layers.v[n + 1], &sv->layers.v[n], (i - n) * sizeof(l));
		sv->layers.v[n++] = l;
	}
}

int mounts_open_layers(struct mounts_survey *sv, mounts_open_fn open_mount, void *arg,
		       struct error *e)
{
	put_early_first(sv);
	vec_for_each (l, &sv->layers) {
		struct stat st;

		if (l->dir_fd >= 0)
			continue;
		l->dir_fd = open_mount(arg, l->mount->point, e);
		if (l->dir_fd < 0)
			return l->dir_fd;
		if (fstat(l->dir_fd, &st) < 0)
			return error_errno(e, -errno, E_SYSTEM, "fstat");
		if (st.st_dev != mounts_device(sv, l->mount->id))
			return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
					 "mount %s is hidden by another one", l->mount->point);
	}
	return 0;
}
