/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a task outside has open of a container, where it stands in it, and what it has mapped. What
 * has an inode of its own is known by that; of regular files of the host and of anonymous inodes,
 * which many have in common, kcmp(2) tells whether the open file is the same.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/major.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ipc/sysv.h"
#include "ns/leaks.h"
#include "ns/run.h"

/* An open file of somebody outside. */
struct use {
	int fd;
	dev_t dev, rdev;
	uint64_t ino;
	mode_t mode;
	char link[512];
};

const char *leak_kind(mode_t mode, const char *link)
{
	if (S_ISFIFO(mode) || !strncmp(link, "pipe:", 5))
		return "pipe";
	if (S_ISSOCK(mode) || !strncmp(link, "socket:", 7))
		return "socket";
	if (!strncmp(link, "/memfd:", 7) || !strncmp(link, "/SYSV", 5) ||
	    !strncmp(link, "/dev/zero (deleted)", 19))
		return "memory";
	return "file";
}

/* Inodes that only one object has. */
static bool inode_tells(const struct leak_search *s, const struct use *u)
{
	return S_ISFIFO(u->mode) || S_ISSOCK(u->mode) || u->dev == s->c->files->memory_dev ||
	       !strcmp(leak_kind(u->mode, u->link), "memory");
}

/* Without asking a server for what it knows by now: it may not answer. */
static bool look(int dir, const char *name, struct use *u)
{
	struct statx st;

	if (statx(dir, name, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &st) < 0)
		return false;
	u->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	u->rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor);
	u->ino = st.stx_ino;
	u->mode = st.stx_mode;
	return true;
}

/* Is it this one of the container? `pid` is outside, of who has it as descriptor u->fd. */
static bool is_same(const struct leak_search *s, const struct inside *x, pid_t pid,
		    const struct use *u)
{
	pid_t ours = x->file ? leak_pid_outside(s, x->file->pid) : 0;

	return ours && leak_compare(KCMP_FILE, ours, (unsigned long)x->file->fd, pid,
				    (unsigned long)u->fd) == 0;
}

static struct inside *find_same(const struct leak_search *s, pid_t pid, const struct use *u)
{
	if (inode_tells(s, u))
		return leak_find(s, u->dev, u->ino);
	for (struct inside *x = leak_first(s, u->dev, u->ino); x; x = leak_next(s, x))
		if (is_same(s, x, pid, u))
			return x;
	return NULL;
}

/* Whoever is attached to the terminal of the container shares the master of the first process. */
static bool is_attached(const struct leak_search *s, const struct outsider *o, const struct use *u)
{
	pid_t init = leak_pid_outside(s, s->c->freezer.root);

	return u->rdev == makedev(TTYAUX_MAJOR, 2) && init &&
	       leak_compare(KCMP_FILE, init, RUN_TERMINAL, o->tid, (unsigned long)u->fd) == 0;
}

/* 1 if it was reported. */
static int look_at_use(struct leak_search *s, const struct outsider *o, pid_t holder,
		       const struct use *u, const char *how, struct error *e)
{
	struct inside *x;
	int r = 0;

	vec_for_each (l, &s->links)
		if (!strcmp(u->link, l->link))
			r = leak_report(s, o, "namespace", u->link, NULL, how, e) ?: 1;
	if (r || is_attached(s, o, u))
		return r;
	if (leak_is_own_device(s, u->dev))
		return leak_report(s, o, "file", u->link, NULL, how, e) ?: 1;
	x = find_same(s, holder, u);
	return x ? leak_report(s, o, leak_kind(u->mode, u->link), u->link, x, how, e) ?: 1 : 0;
}

static bool see(int dir, const char *name, struct use *u)
{
	ssize_t n = readlinkat(dir, name, u->link, sizeof(u->link) - 1);

	if (n < 0)
		return false;
	u->link[n] = '\0';
	u->fd = atoi(name);
	return look(dir, name, u);
}

static bool is_set(const struct use *u)
{
	return !strcmp(u->link, "anon_inode:[eventpoll]");
}

/* By a number that it has here. */
static int look_at_one(struct leak_search *s, const struct outsider *o, pid_t here,
		       const struct use *u, const char *how, struct error *e)
{
	const struct leak_set set = {here, u->fd, how};
	int r = look_at_use(s, o, here, u, how, e);

	return r || !is_set(u) ? r : leak_look_at_epoll(s, o, &set, e);
}

/* What the first message in a queue outside carries, by the numbers that it has here. */
static int look_at_carried(struct leak_search *s, const struct outsider *o, int number, int socket,
			   struct error *e)
{
	int fds[LEAK_PEEKED], r = 0, n;
	_cleanup_(close_fd) int dir =
		procfs_open(s->ct->host_proc, O_RDONLY | O_DIRECTORY | O_CLOEXEC, NULL, "self/fd");
	char how[64];

	snprintf(how, sizeof(how), " in the queue of its descriptor %d", number);
	n = dir < 0 ? 0 : leak_peek(s, socket, fds);
	for (int i = 0; i < n; i++) {
		struct use u;
		char name[16];

		snprintf(name, sizeof(name), "%d", fds[i]);
		if (r >= 0 && see(dir, name, &u))
			r = look_at_one(s, o, getpid(), &u, how, e);
		close(fds[i]);
	}
	return r < 0 ? r : 0;
}

/* One that is not the container's own: does it belong to its network, or carry something? */
static int look_at_socket(struct leak_search *s, const struct outsider *o, const struct use *u,
			  struct error *e)
{
	_cleanup_(close_fd) int fd = leak_take(o->tid, u->fd);
	char how[64];
	int r = 0;

	if (fd < 0)
		return 0;
	snprintf(how, sizeof(how), " as descriptor %d, in its network", u->fd);
	if (leak_is_in_network(s, fd))
		r = leak_report(s, o, "socket", u->link, NULL, how, e);
	return r < 0 ? r : look_at_carried(s, o, u->fd, fd, e);
}

bool leak_may_be_segment(const struct leak_search *s, dev_t dev, uint64_t ino)
{
	if (major(dev) || !(s->ct->own & CLONE_NEWIPC))
		return false;
	vec_for_each (l, &s->c->ipc->leaked)
		if ((uint64_t)l->id == ino)
			return true;
	vec_for_each (o, &s->c->ipc->objects[SYSV_SHM])
		if ((uint64_t)o->id == ino)
			return true;
	return false;
}

/* Had through /proc/PID/map_files, it does not count as attached: 1 if it was reported. */
static int look_at_file_of_segment(struct leak_search *s, const struct outsider *o, int fd,
				   const char *link, const char *how, struct error *e)
{
	if (!ipc_is_segment_of_tree(s->c, outsider_kernel_memory(s->ct->outside), fd))
		return 0;
	return leak_report(s, o, "memory", link, NULL, how, e) ?: 1;
}

static int look_at_fd(struct leak_search *s, const struct outsider *o, int dir, const char *name,
		      struct error *e)
{
	struct use u;
	char how[64];
	int r;

	if (!see(dir, name, &u))
		return 0;
	snprintf(how, sizeof(how), " as descriptor %d", u.fd);
	s->ring |= !strcmp(u.link, "anon_inode:[io_uring]");
	r = look_at_use(s, o, o->tid, &u, how, e);
	if (!r && !strncmp(u.link, "/SYSV", 5) && leak_may_be_segment(s, u.dev, u.ino)) {
		_cleanup_(close_fd) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

		r = look_at_file_of_segment(s, o, fd, u.link, how, e);
	}
	if (!r && S_ISCHR(u.mode) && u.rdev == makedev(MISC_MAJOR, 200)) /* /dev/net/tun */
		return leak_look_at_tap(s, o, u.fd, u.link, e);
	if (!r && is_set(&u)) {
		snprintf(how, sizeof(how), " that is its descriptor %d", u.fd);
		return leak_look_at_epoll(s, o, &(struct leak_set){o->tid, u.fd, how}, e);
	}
	if (!r && S_ISSOCK(u.mode))
		return look_at_socket(s, o, &u, e);
	return r < 0 ? r : 0;
}

static int look_at_place(struct leak_search *s, const struct outsider *o, int dir, const char *name,
			 const char *how, struct error *e)
{
	struct use u;

	if (!see(dir, name, &u) || !leak_is_own_device(s, u.dev))
		return 0;
	return leak_report(s, o, "file", u.link, NULL, how, e);
}

/* Who has made it and came with its mounts has to stand somewhere there: in a root that is changed
 * he stands in the new one (chroot_fs_refs()). */
static bool stands_for_it(const struct leak_search *s, const struct outsider *o)
{
	_cleanup_(free_ptr) char *link = NULL;
	struct error unused = {};

	if (!leak_made_it(s, o->pid) || procfs_readlink(s->ct->host_proc, &link, &unused,
							"%d/task/%d/ns/mnt", o->pid, o->tid) < 0)
		return false;
	vec_for_each (l, &s->links)
		if (!strcmp(l->link, link))
			return true;
	return false;
}

static int look_at_places(struct leak_search *s, const struct outsider *o, int task,
			  struct error *e)
{
	int r;

	if (stands_for_it(s, o))
		return 0;
	r = look_at_place(s, o, task, "cwd", " as its working directory", e);
	return r < 0 ? r : look_at_place(s, o, task, "root", " as its root", e);
}

int leak_look_at_files(struct leak_search *s, const struct outsider *o, struct error *e)
{
	_cleanup_(close_directory) DIR *fds = NULL;
	_cleanup_(close_fd) int task =
		procfs_open(s->ct->host_proc, O_PATH | O_DIRECTORY | O_CLOEXEC, NULL, "%d/task/%d",
			    o->pid, o->tid);
	struct dirent *d;
	int fd, r, ended = 0;

	if (task < 0)
		return leak_unlisted(o, task, "files", e);
	r = look_at_places(s, o, task, e);
	if (r < 0)
		return r;
	fd = openat(task, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fds = fd >= 0 ? fdopendir(fd) : NULL;
	if (!fds)
		return leak_unlisted(o, -errno, "descriptors", e);
	while (r >= 0 && (d = next_entry(fds, &ended)))
		if (d->d_name[0] != '.')
			r = look_at_fd(s, o, dirfd(fds), d->d_name, e);
	return r >= 0 && ended < 0 ? leak_unlisted(o, ended, "descriptors", e) : r;
}

/* Segments of different IPC namespaces have the same numbers: only where it is known that somebody
 * has it attached is he looked for. */
static int look_at_segment(struct leak_search *s, const struct outsider *o, dev_t dev, uint64_t ino,
			   const char *line, const char *path, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	unsigned long long start, end;
	unsigned long key = strtoul(path + 5, NULL, 16);
	bool found = false;
	int r = 0;

	vec_for_each (l, &s->c->ipc->leaked) {
		if (r < 0 || major(dev) || (uint64_t)l->id != ino || l->key != key)
			continue;
		found = l->found = true;
		r = leak_report(s, o, "memory", path, NULL, " as mapped memory", e);
	}
	if (r < 0 || found || !leak_may_be_segment(s, dev, ino) ||
	    sscanf(line, "%llx-%llx", &start, &end) != 2)
		return r;
	fd = procfs_open(s->ct->host_proc, O_RDONLY | O_CLOEXEC, NULL, "%d/map_files/%llx-%llx",
			 o->pid, start, end);
	r = look_at_file_of_segment(s, o, fd, path, " as mapped memory", e);
	return r < 0 ? r : 0;
}

static int look_at_mapping(struct leak_search *s, const struct outsider *o, const char *line,
			   struct inside *last, struct error *e)
{
	unsigned int maj, min;
	unsigned long long ino;
	struct inside *x;
	char path[256] = "";
	dev_t dev;

	if (sscanf(line, "%*s %*s %*s %x:%x %llu %255[^\n]", &maj, &min, &ino, path) < 3 ||
	    (!ino && strncmp(path, "/SYSV", 5))) /* a segment may have the number 0 */
		return 0;
	dev = makedev(maj, min);
	s->ring |= !strcmp(path, "anon_inode:[io_uring]");
	if (last->dev == dev && last->ino == ino)
		return 0;
	*last = (struct inside){dev, ino, NULL};
	if (leak_is_own_device(s, dev))
		return leak_report(s, o, "file", path, NULL, " as mapped memory", e);
	x = leak_find(s, dev, ino);
	if (!strncmp(path, "/SYSV", 5))
		return look_at_segment(s, o, dev, ino, line, path, e);
	/* Other files' mappings tell who shares memory, not the open file. */
	if (!x || (x->file && dev != s->c->files->memory_dev))
		return 0;
	return leak_report(s, o, "memory", path, x, " as mapped memory", e);
}

int leak_look_at_memory(struct leak_search *s, const struct outsider *o, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t n = procfs_read(s->ct->host_proc, &text, e, "%d/maps", o->pid);
	struct inside last = {};
	int r = 0;

	if (n < 0)
		return leak_unless_hidden(n, e);
	for (const char *line = text; r >= 0 && *line; line = strchrnul(line, '\n') + 1) {
		r = look_at_mapping(s, o, line, &last, e);
		if (!*strchrnul(line, '\n'))
			break;
	}
	return r;
}
