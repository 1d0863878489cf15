/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/mounts_overlay.h"
#include "ns/userns.h"

/* Before anything is mounted over it; what is not found is told when it is to be mounted. */
static int open_sources(struct foreign *f, const struct mounts_place *place, struct error *e)
{
	f->sources = calloc(f->msg->n_mounts + 1, sizeof(*f->sources));
	if (!f->sources)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the mounts");
	for (f->n = 0; f->n < f->msg->n_mounts; f->n++) {
		const Reprise__Mount *m = f->msg->mounts[f->n];

		f->sources[f->n] = m->kind != MOUNT_EXTERNAL
					   ? -EBADF
					   : open_tree(AT_FDCWD, mounts_mapped(place, m->external),
						       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	}
	return 0;
}

static bool is_of_outside(const Reprise__Mount *m)
{
	return m->kind == MOUNT_OVERLAY && !m->inside;
}

static uint32_t outside_of(size_t n, Reprise__IdMap *const *map, uint32_t inside)
{
	for (size_t i = 0; i < n; i++)
		if (inside >= map[i]->inside && inside - map[i]->inside < map[i]->count)
			return map[i]->outside + (inside - map[i]->inside);
	return 0;
}

static int open_uppers(struct foreign *f, const struct mounts_place *place, struct error *e)
{
	const uint32_t uid = userns_somebody(f->msg->n_uid_map, f->msg->uid_map),
		       gid = userns_somebody(f->msg->n_gid_map, f->msg->gid_map);

	f->uppers = calloc(f->msg->n_mounts + 1, sizeof(*f->uppers));
	if (!f->uppers)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the mounts");
	for (size_t i = 0; i < f->msg->n_mounts; i++)
		f->uppers[i] = -EBADF;
	for (size_t i = 0; i < f->msg->n_mounts; i++) {
		const Reprise__Mount *m = f->msg->mounts[i];

		if (!is_of_outside(m) || !m->layer)
			continue;
		f->uppers[i] = mounts_upper(place, m, e);
		if (f->uppers[i] < 0)
			return f->uppers[i];
		if (fchown(f->uppers[i], outside_of(f->msg->n_uid_map, f->msg->uid_map, uid),
			   outside_of(f->msg->n_gid_map, f->msg->gid_map, gid)) < 0)
			return error_errno(e, -errno, E_NAMESPACE,
					   "cannot give away a writable layer");
	}
	return 0;
}

/* ---- who stays root of the machine ---- */

#define VALUE_MAX 65536

enum asked { ASK_MARK, ASK_MOUNT };
struct request {
	enum asked what;
	size_t mount, len;
	char name[256], attribute[256];
};

union fd_message {
	char space[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static int put(int socket, const void *data, size_t len, int fd)
{
	union fd_message space = {};
	struct iovec iov = {(void *)(uintptr_t)data, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		m.msg_control = space.space;
		m.msg_controllen = sizeof(space);
		space.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
					       .cmsg_type = SCM_RIGHTS,
					       .cmsg_len = CMSG_LEN(sizeof(int))};
		memcpy(CMSG_DATA(&space.align), &fd, sizeof(fd));
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -EPIPE;
}

/* *fd: -1 if none came. */
static ssize_t get(int socket, void *data, size_t len, int *fd)
{
	union fd_message space;
	struct iovec iov = {data, len};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = space.space,
			   .msg_controllen = sizeof(space)};
	struct cmsghdr *h;
	ssize_t n;

	do
		n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	h = n < 0 ? NULL : CMSG_FIRSTHDR(&m);
	*fd = -1;
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(h), sizeof(*fd));
	return n < 0 ? -errno : n;
}

/* In a mount namespace of its own, over the root directory, where no path goes. */
static int mount_overlay(const Reprise__Mount *m, const struct mounts_place *place, size_t i,
			 struct error *e)
{
	_cleanup_(close_fd) int fs = fsopen("tmpfs", FSOPEN_CLOEXEC), bench = -EBADF;
	char name[32];
	int r;

	if (fs >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		bench = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	snprintf(name, sizeof(name), "overlay%zu", i);
	if (bench < 0 || move_mount(bench, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
	    mkdirat(bench, name, 0700) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a place for an overlay");
	r = mounts_restart_overlay(m, place, "", bench, name, e);
	if (r < 0)
		return r;
	r = open_tree(bench, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return r < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind it") : r;
}

static void __attribute__((noreturn))
help(int socket, const struct foreign *f, const struct mounts_place *place)
{
	_cleanup_(free_ptr) char *value = malloc(VALUE_MAX);
	struct request q;
	int fd, r = value && unshare(CLONE_NEWNS) == 0 ? 0 : -EPERM;

	r = put(socket, &r, sizeof(r), -1);
	while (r >= 0 && get(socket, &q, sizeof(q), &fd) == sizeof(q)) {
		struct error e = {};
		int unused;

		if (q.what == ASK_MOUNT) {
			_cleanup_(close_fd) int made =
				mount_overlay(f->msg->mounts[q.mount], place, q.mount, &e);

			r = put(socket, &e, sizeof(e), made);
			continue;
		}
		r = q.len <= VALUE_MAX ? (int)get(socket, value, VALUE_MAX, &unused) : -EPIPE;
		if (strncmp(q.attribute, "trusted.", 8))
			r = -EPERM;
		if (r >= 0)
			r = fchdir(fd) < 0 || lsetxattr(q.name, q.attribute, value, q.len, 0) < 0
				    ? -errno
				    : 0;
		close_fd(&fd);
		r = put(socket, &r, sizeof(r), -1);
	}
	_exit(0);
}

static int begin_helper(struct foreign *f, const struct mounts_place *place, struct error *e)
{
	int pair[2], r = -EPIPE, unused;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	child = fork();
	if (child == 0) {
		close(pair[0]);
		/* with us: it holds the other end */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		help(pair[1], f, place);
	}
	close(pair[1]);
	f->helper = pair[0];
	f->pid = child > 0 ? child : 0;
	if (child > 0 && get(f->helper, &r, sizeof(r), &unused) == sizeof(r) && r >= 0)
		return 0;
	if (child < 0)
		close(f->helper);
	return error_set(e, -EPERM, E_NAMESPACE, "cannot make a process that stays outside");
}

int foreign_upper(const struct foreign *f, size_t i)
{
	return f->uppers ? f->uppers[i] : -1;
}

int foreign_set_mark(const struct foreign *f, int parent, const char *name, const char *attribute,
		     const void *value, size_t len)
{
	struct request q = {.what = ASK_MARK, .len = len};
	int r = -EPIPE, unused;

	if (strlen(name) >= sizeof(q.name) || strlen(attribute) >= sizeof(q.attribute) ||
	    len > VALUE_MAX)
		return -ENAMETOOLONG;
	memcpy(q.name, name, strlen(name) + 1);
	memcpy(q.attribute, attribute, strlen(attribute) + 1);
	if (put(f->helper, &q, sizeof(q), parent) < 0 || put(f->helper, value, len, -1) < 0 ||
	    get(f->helper, &r, sizeof(r), &unused) != sizeof(r))
		return -EPIPE;
	return r;
}

int foreign_mount_overlays(struct foreign *f, struct error *e)
{
	for (size_t i = 0; i < f->n && f->pid > 0; i++) {
		const struct request q = {.what = ASK_MOUNT, .mount = i};
		struct error answer = {};

		if (!is_of_outside(f->msg->mounts[i]))
			continue;
		if (put(f->helper, &q, sizeof(q), -1) < 0 ||
		    get(f->helper, &answer, sizeof(answer), &f->sources[i]) != sizeof(answer))
			return error_set(e, -EPIPE, E_NAMESPACE, "the helper has ended");
		if (f->sources[i] < 0) {
			*e = answer;
			return error_object(e, e->err, "mount %s (overlay)",
					    f->msg->mounts[i]->point);
		}
	}
	return 0;
}

/* The directories of a path one after the other, whose last one is made if it has to be. */
static int make_way(char *path, size_t from, struct error *e)
{
	for (char *s = path + from; s; s = strchr(s + 1, '/')) {
		char *end = strchr(s + 1, '/');
		int r;

		if (end)
			*end = '\0';
		r = mkdir(path, 0755);
		if (end)
			*end = '/';
		if (r < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot make %s", path);
	}
	return 0;
}

/*
 * Where the container's root is mounted, and nobody but us comes to: what is there is covered, for
 * this mount namespace alone, by something in which there is nothing but the way.
 */
static int open_way(const char *root, struct error *e)
{
	_cleanup_(free_ptr) char *path = strdup(root);
	struct stat st;

	if (!path)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	for (char *s = strchr(path + 1, '/');; s = strchr(s + 1, '/')) {
		int r;

		if (s)
			*s = '\0';
		if (stat(path, &st) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot look at %s", path);
		if (!(st.st_mode & S_IXOTH)) {
			if (mount("reprise", path, "tmpfs", 0, "mode=755") < 0)
				return error_errno(e, -errno, E_NAMESPACE, "cannot cover %s", path);
			r = s ? (int)strlen(path) : 0;
			if (s)
				*s = '/';
			return s ? make_way(path, (size_t)r, e) : 0;
		}
		if (!s)
			return 0;
		*s = '/';
	}
}

int foreign_begin(struct foreign *f, const Reprise__Container *msg,
		  const struct mounts_place *place, struct error *e)
{
	bool any = false;
	int r;

	if (!(msg->own & CLONE_NEWNS) || msg->derived_mounts)
		return 0;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a mount namespace");
	f->msg = msg;
	r = open_sources(f, place, e);
	for (size_t i = 0; i < msg->n_mounts; i++)
		any |= is_of_outside(msg->mounts[i]);
	if (r >= 0 && any)
		r = open_uppers(f, place, e);
	if (r >= 0 && any)
		r = begin_helper(f, place, e);
	return r < 0 || !place->root ? r : open_way(place->root, e);
}

int foreign_source(const void *foreign, const Reprise__Mount *m)
{
	const struct foreign *f = foreign;

	for (size_t i = 0; i < f->n; i++)
		if (f->msg->mounts[i] == m)
			return f->sources[i];
	return -1;
}

void foreign_end(struct foreign *f)
{
	for (size_t i = 0; i < f->n; i++) {
		close_fd(&f->sources[i]);
		if (f->uppers)
			close_fd(&f->uppers[i]);
	}
	free(f->sources);
	free(f->uppers);
	/* What we have forked may have that end, too. */
	if (f->pid > 0) {
		shutdown(f->helper, SHUT_RDWR);
		close_fd(&f->helper);
		while (waitpid(f->pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	*f = (struct foreign){};
}
