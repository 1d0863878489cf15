/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts over which others were mounted. */
#include "ns/mounts_hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/mounts.h"
#include "ns/resident.h"

void mounts_hidden_free(struct mounts_hidden *h)
{
	vec_for_each (m, h)
		close_fd(&m->fd);
	vec_free(h);
}

const struct mount_hidden *mount_hidden_of(const struct mounts_hidden *h, int id)
{
	vec_for_each (m, h)
		if (m->id == id)
			return m;
	return NULL;
}

static bool leads_to(int dir, const char *path, int id)
{
	return mount_id_at(dir, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == id;
}

bool mount_is_hidden(int proc_fd, pid_t pid, const struct mount_line *m)
{
	_cleanup_(free_ptr) char *path = NULL;

	if (asprintf(&path, "%d/root%s", pid, m->point) < 0) {
		path = NULL;
		return false;
	}
	return !leads_to(proc_fd, path, m->id);
}

/* ---- in the copy ---- */

struct copy {
	int proc_fd;
	const struct mount_table *t; /* of the original */
	struct mounts_hidden *hidden;
	struct mount_table own;
	const struct mount_line **of; /* for each of ours that of the original, NULL: none */
};

static bool is_root(const struct mount_table *t, const struct mount_line *m)
{
	vec_for_each (other, t)
		if (other->id == m->parent && other != m)
			return false;
	return !strcmp(m->point, "/");
}

/* At one place of a mount there is one other (__lookup_mnt()). */
static void match(struct copy *c, const struct mount_line *own, const struct mount_line *of)
{
	c->of[own - c->own.v] = of;
	vec_for_each (below, &c->own) {
		if (below->parent != own->id || below == own)
			continue;
		vec_for_each (m, c->t)
			if (m->parent == of->id && m != of && !strcmp(m->point, below->point))
				match(c, below, m);
	}
}

static int match_all(struct copy *c)
{
	c->of = calloc(c->own.n + 1, sizeof(*c->of));
	if (!c->of)
		return -ENOMEM;
	vec_for_each (own, &c->own)
		vec_for_each (m, c->t)
			if (is_root(&c->own, own) && is_root(c->t, m))
				match(c, own, m);
	return 0;
}

static struct mount_hidden *wanted(struct copy *c, const struct mount_line *own)
{
	const struct mount_line *of = c->of[own - c->own.v];

	vec_for_each (m, c->hidden)
		if (of && m->id == of->id)
			return m;
	return NULL;
}

/* Something that is looked for is there, or below it. */
static bool matters(struct copy *c, const struct mount_line *own)
{
	vec_for_each (m, &c->own)
		if (wanted(c, m) && mount_is_below(m->point, own->point))
			return true;
	return false;
}

/* What lies at a shorter path lies over the others. */
static const struct mount_line *next_on(struct copy *c, const struct mount_line *own,
					const bool *done)
{
	const struct mount_line *best = NULL;

	vec_for_each (m, &c->own)
		if (m->parent == own->id && m != own && !done[m - c->own.v] && matters(c, m) &&
		    (!best || strlen(m->point) < strlen(best->point)))
			best = m;
	return best;
}

/*
 * Opens what is looked for, when all that lies over it is taken away, and takes it away. What is
 * locked stays (mounts of another user namespace), and so does what lies below it.
 */
static void strip(struct copy *c, const struct mount_line *own, bool *done)
{
	const struct mount_line *on;
	struct mount_hidden *m = wanted(c, own);

	while ((on = next_on(c, own, done))) {
		strip(c, on, done);
		done[on - c->own.v] = true;
	}
	if (!leads_to(AT_FDCWD, own->point, own->id))
		return;
	if (m)
		m->fd = open_tree(AT_FDCWD, own->point, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	/* What is locked there stays on it (has_locked_children()); the rest goes with this
	 * namespace. */
	if (m && m->fd < 0 && m->loose)
		m->fd = open(own->point, O_PATH | O_CLOEXEC);
	if (!is_root(&c->own, own))
		ignore(umount2(own->point, MNT_DETACH | UMOUNT_NOFOLLOW),
		       "what lies below is missed then");
}

static int strip_all(struct copy *c)
{
	_cleanup_(free_ptr) bool *done = calloc(c->own.n + 1, sizeof(*done));

	if (!done)
		return -ENOMEM;
	vec_for_each (own, &c->own)
		if (is_root(&c->own, own) && c->of[own - c->own.v])
			strip(c, own, done);
	return 0;
}

/* In a process of its own: what it finds, it hands out. */
static int look(void *arg, struct error *e)
{
	struct copy *c = arg;
	_cleanup_(free_ptr) char *text = NULL;
	int r;

	/* Of its owner nothing of the copy is locked that was not before (copy_mnt_ns()). */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot copy a mount namespace");
	if (procfs_read(c->proc_fd, &text, e, "thread-self/mountinfo") < 0)
		return e->err;
	r = mount_table_parse(text, &c->own);
	if (r >= 0)
		r = match_all(c);
	if (r >= 0)
		r = strip_all(c);
	return r < 0 ? error_errno(e, r, E_CONTAINER_MOUNT, "cannot look for hidden mounts") : 0;
}

static int give(void *arg, size_t i)
{
	const struct copy *c = arg;

	return i < c->hidden->n ? c->hidden->v[i].fd : -EINVAL;
}

/* ---- outside ---- */

static bool same(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino;
}

int mounts_hidden_find(int proc_fd, pid_t pid, const struct mount_table *t,
		       struct mounts_hidden *ret, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	_cleanup_(close_fd) int user = -EBADF, ns = -EBADF, own = -EBADF;
	struct copy c = {.proc_fd = proc_fd, .t = t, .hidden = ret};
	struct resident_begin how = {
		.proc_fd = proc_fd, .pidns = -1, .first = look, .give = give, .arg = &c};
	int enter[2], r;

	if (!ret->n)
		return 0;
	ns = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/mnt", pid);
	own = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "thread-self/ns/user");
	if (ns < 0 || own < 0)
		return e->err;
	user = ioctl(ns, NS_GET_USERNS);
	if (user >= 0 && !same(user, own))
		enter[how.n++] = user;
	enter[how.n++] = ns;
	how.enter = enter;
	r = resident_begin(&res, &how, e);
	for (size_t i = 0; i < ret->n && r >= 0; i++)
		ret->v[i].fd = resident_give(&res, i);
	return r;
}
