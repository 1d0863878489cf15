/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/mounts_early.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/layer.h"
#include "ns/mounts.h"

/* A list of nodes goes on behind a comma with a digit (shmem_parse_monolithic()). */
static char *end_of(char *option)
{
	char *comma = strchr(option, ',');

	while (comma && isdigit((unsigned char)comma[1]))
		comma = strchr(comma + 1, ',');
	return comma;
}

static int set_options(int fs, char *options)
{
	char *next;

	for (char *o = options; o && *o; o = next) {
		char *comma = end_of(o), *value;

		next = comma ? comma + 1 : NULL;
		if (comma)
			*comma = '\0';
		value = strchr(o, '=');
		if (value)
			*value++ = '\0';
		if (fsconfig(fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, o, value, 0) < 0)
			return -errno;
	}
	return 0;
}

int mounts_new(const Reprise__Mount *m)
{
	_cleanup_(close_fd) int fs = fsopen(m->type, FSOPEN_CLOEXEC);
	_cleanup_(free_ptr) char *options = strdup(m->data);
	int fd, r;

	if (fs < 0 || !options)
		return fs < 0 ? -errno : -ENOMEM;
	if (*m->source && fsconfig(fs, FSCONFIG_SET_STRING, "source", m->source, 0) < 0)
		return -errno;
	r = set_options(fs, options);
	if (r < 0)
		return r;
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	fd = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

bool mounts_early_any(const Reprise__Container *msg)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->kind == MOUNT_TMPFS)
			return true;
	return false;
}

int mounts_early_init(struct mounts_early *ret, size_t n)
{
	ret->fds = calloc(n + 1, sizeof(*ret->fds));
	if (!ret->fds)
		return -ENOMEM;
	ret->n = n;
	for (size_t i = 0; i < n; i++)
		ret->fds[i] = -EBADF;
	return 0;
}

int mounts_early_make(struct mounts_early *ret, const Reprise__Container *msg, struct error *e)
{
	if (mounts_early_init(ret, msg->n_mounts) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the mounts");
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Reprise__Mount *m = msg->mounts[i];

		if (m->kind != MOUNT_TMPFS)
			continue;
		ret->fds[i] = mounts_new(m);
		if (ret->fds[i] < 0)
			return error_object(e,
					    error_errno(e, ret->fds[i], E_CONTAINER_MOUNT,
							"cannot make a new %s", m->type),
					    "mount %s", m->point);
	}
	return 0;
}

static int fill_one(int fd, struct restart *r, const Reprise__Mount *m,
		    void (*become)(void *arg, bool on), void *arg, struct error *e)
{
	int ret = 0;

	if (become)
		become(arg, true);
	if (m->layer)
		ret = layer_restart(r, m->layer, fd, e);
	if (become)
		become(arg, false);
	return ret;
}

int mounts_early_fill(struct mounts_early *early, struct restart *r, const Reprise__Container *msg,
		      bool noted, void (*become)(void *arg, bool on), void *arg, struct error *e)
{
	for (size_t i = 0; i < early->n; i++) {
		const Reprise__Mount *m = msg->mounts[i];

		if (early->fds[i] >= 0 && m->early == noted &&
		    fill_one(early->fds[i], r, m, become, arg, e) < 0)
			return error_object(e, e->err, "mount %s", m->point);
	}
	/* They were filled from within. */
	return early->n && chdir("/") < 0 ? error_errno(e, -errno, E_SYSTEM, "chdir") : 0;
}

int mounts_make_readonly(int dir_fd, const char *path, struct error *e)
{
	_cleanup_(close_fd) int fd =
		fspick(dir_fd, path, FSPICK_CLOEXEC | (*path ? 0 : FSPICK_EMPTY_PATH));

	if (fd < 0 || fsconfig(fd, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 ||
	    fsconfig(fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT,
				   "cannot make its file system read-only");
	return 0;
}

void mounts_early_free(struct mounts_early *early)
{
	for (size_t i = 0; i < early->n; i++)
		close_fd(&early->fds[i]);
	free(early->fds);
	*early = (struct mounts_early){};
}
