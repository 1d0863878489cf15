/* SPDX-License-Identifier: Apache-2.0 */
/* Files of sockets that a restart makes, and that have to go again if it fails. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "model/restart.h"

int restart_replaced(struct restart *r, int dir, const char *name, const struct stat *was,
		     struct error *e)
{
	struct restart_made *m = vec_push(&r->made);

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the file of a socket");
	m->was = *was;
	m->dir = fcntl(dir, F_DUPFD_CLOEXEC, 0);
	m->name = strdup(name);
	return m->dir >= 0 && m->name
		       ? 0
		       : error_errno(e, -errno, E_RESTORE, "cannot keep the directory of %s", name);
}

int restart_made(struct restart *r, struct error *e)
{
	struct restart_made *m = &r->made.v[r->made.n - 1];

	return fstatat(m->dir, m->name, &m->is, AT_SYMLINK_NOFOLLOW) < 0
		       ? error_errno(e, -errno, E_RESTORE, "cannot look at %s", m->name)
		       : 0;
}

static bool is_ours(const struct stat *st)
{
	return S_ISSOCK(st->st_mode) && st->st_nlink == 1 && st->st_uid == geteuid();
}

/* A socket that is nobody's is as good as another. */
static void put_back(const struct restart *r, const struct restart_made *m)
{
	_cleanup_(close_fd) int fd = -EBADF;
	struct stat st;

	if (!m->was.st_ino || mknodat(m->dir, m->name, S_IFSOCK | 0600, 0) < 0)
		return;
	fd = openat(m->dir, m->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && is_ours(&st))
		ignore(procfs_give(r->proc_fd, fd, m->was.st_mode & 07777, m->was.st_uid,
				   m->was.st_gid),
		       "there is another error already");
}

/* Somebody else may have put another one there, with that name. */
static void take_back(const struct restart *r, const struct restart_made *m)
{
	struct stat st;

	if (m->is.st_ino && fstatat(m->dir, m->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_dev == m->is.st_dev && st.st_ino == m->is.st_ino)
		ignore(unlinkat(m->dir, m->name, 0), "there is another error already");
	put_back(r, m);
}

void restart_made_end(struct restart *r, bool keep)
{
	vec_for_each (m, &r->made) {
		if (!keep && m->dir >= 0 && m->name)
			take_back(r, m);
		close_fd(&m->dir);
		free(m->name);
	}
	vec_free(&r->made);
}
