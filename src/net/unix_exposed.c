/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a socket is made that belongs to a user. Whoever may write to a directory on the way can
 * have put another one, or a link, in the place of what comes next.
 */
#include "net/unix_exposed.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"

#define DEPTH_MAX 4096 /* PATH_MAX */

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Nobody but root changes what is in there; with the sticky bit, not what is root's. An access list
 * shows in the bits of the group. */
static bool is_roots(const struct stat *st, const struct stat *below)
{
	if (st->st_uid != 0)
		return false;
	return !(st->st_mode & (S_IWGRP | S_IWOTH)) ||
	       ((st->st_mode & S_ISVTX) && below->st_uid == 0);
}

bool unix_exposed(const char *path, int dir)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
			       .resolve = RESOLVE_NO_SYMLINKS};
	_cleanup_(close_fd) int at = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
	struct stat st, above;

	if (at < 0 || fstat(at, &st) < 0 || fstat(dir, &above) < 0 || !same(&st, &above))
		return true;
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (up < 0 || fstat(up, &above) < 0) {
			close_fd(&up);
			return true;
		}
		close(at);
		at = up;
		if (same(&st, &above))
			return false;
		if (!is_roots(&above, &st))
			return true;
		st = above;
	}
	return true;
}

/* ---- in a thread of its own ---- */

struct owner {
	int dir;
	uid_t uid;
	gid_t gid;
	int result;
};

/* Capabilities over files go with the user (setfsuid(2)), and whoever changes so is not dumpable
 * any more (commit_creds()). */
static void *try(void *arg)
{
	struct owner *o = arg;

	o->result = syscall(SYS_setgroups, 0, NULL) < 0 ? -errno : 0;
	syscall(SYS_setfsgid, o->gid);
	syscall(SYS_setfsuid, o->uid);
	if (o->result >= 0 && syscall(SYS_faccessat2, o->dir, ".", W_OK | X_OK, AT_EACCESS) < 0)
		o->result = -errno;
	return NULL;
}

int unix_check_right(int dir, uid_t uid, gid_t gid)
{
	struct owner o = {.dir = dir, .uid = uid, .gid = gid};
	int dumpable = prctl(PR_GET_DUMPABLE);
	pthread_t thread;
	int r = uid ? pthread_create(&thread, NULL, try, &o) : 0;

	if (r || !uid)
		return -r;
	pthread_join(thread, NULL);
	if (dumpable == 1)
		prctl(PR_SET_DUMPABLE, 1);
	return o.result;
}
