/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where message queues are: each IPC namespace has a file system of its own for them, whose device
 * tells which one a queue is in. In namespaces that nobody but the tree is in, all are looked for:
 * queues stay when nobody has them open.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "ipc/mqueue.h"
#include "ipc/sysv.h"
#include "ns/resident.h"

#define SOME_DIRECTORY "/proc"

static int cannot_look(struct error *e, int r)
{
	return error_errno(e, r, E_NAMESPACE, "cannot look for message queues");
}

/* What fsmount() gives cannot be read (O_PATH). */
static int open_root(int at)
{
	int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/*
 * -ENODEV: a kernel without them. The mount ends with its descriptor, for which the kernel waits
 * until all processors have passed a point of rest (dissolve_on_fput(), namespace_unlock()): of a
 * busy machine milliseconds, which nobody should stand still for.
 */
static int mount_here(int *ret_mount)
{
	_cleanup_(close_fd) int fs = fsopen("mqueue", FSOPEN_CLOEXEC);

	if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	*ret_mount = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	return *ret_mount < 0 ? -errno : open_root(*ret_mount);
}

static int mount_apart(void *arg, struct error *e)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("mqueue", SOME_DIRECTORY, "mqueue", 0, NULL) < 0)
		return cannot_look(e, -errno);
	return 0;
}

/* Where we may not mount, in a user namespace without mounts of its own, another process may. */
static int open_apart(struct checkpoint *c, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	const struct resident_begin how = {
		.proc_fd = c->proc_fd, .pidns = -1, .first = mount_apart};
	int r = resident_begin(&res, &how, e);

	return r < 0 ? r
		     : procfs_open(c->proc_fd, O_RDONLY | O_DIRECTORY | O_CLOEXEC, e,
				   "%d/root" SOME_DIRECTORY, res.pid);
}

/* 0: a kernel without them. */
static int open_place(struct checkpoint *c, int *ret_dir, int *ret_mount, struct stat *st,
		      struct error *e)
{
	_cleanup_(close_fd) int mount = -EBADF;
	_cleanup_(close_fd) int dir = mount_here(&mount);

	if (dir == -ENODEV)
		return 0;
	if (dir == -EPERM || dir == -EACCES)
		dir = open_apart(c, e);
	if (dir < 0)
		return e->err ?: cannot_look(e, dir);
	if (fstat(dir, st) < 0)
		return cannot_look(e, -errno);
	*ret_dir = take_fd(&dir);
	*ret_mount = take_fd(&mount);
	return 1;
}

static int add_place(struct checkpoint *c, void *arg, struct error *e)
{
	const uint64_t *space = arg;
	_cleanup_(close_fd) int dir = -EBADF, mount = -EBADF;
	struct mqueue_place *place;
	struct stat st;
	int r = open_place(c, &dir, &mount, &st, e);

	if (r <= 0)
		return r;
	place = vec_push(&c->ipc->places);
	if (!place)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for message queues");
	*place = (struct mqueue_place){*space, st.st_dev, take_fd(&dir), take_fd(&mount)};
	return 0;
}

int mqueue_find_places(struct checkpoint *c, struct error *e)
{
	uint64_t space = 0;
	int r = c->own_ipc ? ipc_note_space(&c->ipc->placed, space, e) : 0;

	if (r > 0)
		r = add_place(c, &space, e);
	for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++) {
		space = c->spaces.list.v[i].id;
		if (c->spaces.list.v[i].flag != CLONE_NEWIPC || c->spaces.list.v[i].refused)
			continue;
		r = ipc_note_space(&c->ipc->placed, space, e);
		if (r > 0)
			r = ipc_visit(c, space, add_place, &space, e);
	}
	return r;
}

void mqueue_places_free(struct ipc_checkpoint *x)
{
	vec_for_each (p, &x->places) {
		close_fd(&p->dir);
		close_fd(&p->mount);
	}
	vec_free(&x->places);
}

const struct mqueue_place *mqueue_place_of(const struct checkpoint *c, dev_t dev)
{
	vec_for_each (p, &c->ipc->places)
		if (p->dev == dev)
			return p;
	return NULL;
}

int mqueue_shows(struct checkpoint *c, dev_t dev, uint64_t space, struct error *e)
{
	_cleanup_(close_fd) int dir = -EBADF, mount = -EBADF;
	const struct mqueue_place *place;
	struct stat st;
	int r = mqueue_find_places(c, e);

	if (r < 0)
		return r;
	place = mqueue_place_of(c, dev);
	if (place || space || c->own_ipc)
		return place && place->space == space;
	r = open_place(c, &dir, &mount, &st, e);
	return r <= 0 ? r : st.st_dev == dev;
}

/* ---- queues that nobody has open ---- */

static bool is_known(const struct checkpoint *c, const struct stat *st)
{
	vec_for_each (entry, &c->ipc->queues)
		if (entry->dev == st->st_dev && entry->ino == st->st_ino)
			return true;
	return false;
}

/* In its namespace. */
static int look_at_queue(struct checkpoint *c, const char *name, struct error *e)
{
	_cleanup_(close_fd) int fd =
		(int)syscall(SYS_mq_open, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0, NULL);
	struct file_seen f = {.local = fd};
	int r;

	if (fd < 0 && errno == ENOENT) /* removed meanwhile */
		return 0;
	if (fd < 0 || fstat(fd, &f.st) < 0)
		r = error_errno(e, -errno, errno == EACCES ? E_PERMISSION : E_IPC_STATE,
				"cannot be opened");
	else if (is_known(c, &f.st))
		return 0;
	else
		r = mqueue_add(c, &f, name, e);
	if (r < 0)
		error_object(e, r, "message queue /%s", name);
	return checkpoint_refuse(c, r, e);
}

static int look_at_all(struct checkpoint *c, void *arg, struct error *e)
{
	const struct mqueue_place *place = arg;
	_cleanup_(close_directory) DIR *dir = NULL;
	int fd = open_root(place->dir), r = 0, ended = 0;
	struct dirent *d;

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return cannot_look(e, fd < 0 ? fd : -errno);
	while (r >= 0 && (d = next_entry(dir, &ended)))
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
			r = look_at_queue(c, d->d_name, e);
	return r >= 0 && ended < 0 ? cannot_look(e, ended) : r;
}

int mqueue_find_unopened(struct checkpoint *c, struct error *e)
{
	int r = mqueue_find_places(c, e);

	for (size_t i = 0; i < c->ipc->places.n && r >= 0; i++)
		r = ipc_visit(c, c->ipc->places.v[i].space, look_at_all, &c->ipc->places.v[i], e);
	return r;
}
