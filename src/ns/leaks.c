/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaks: what processes outside a container use of it. Every process outside is
 * looked at: its namespaces, its descriptors, its mappings. What has an inode of its own is known
 * by that; of regular files of the host and of anonymous inodes, which many have in common,
 * kcmp(2) tells whether the open file is the same.
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
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "ns/container.h"
#include "ns/run.h"
#include "ns/spaces.h"

struct inside {
	uint64_t dev, ino;
	const struct file_entry *file; /* NULL: memory without a descriptor */
	pid_t pid;		       /* outside, of a task that has it open; 0 */
};

struct translated {
	pid_t in, out;
};

struct ns_link {
	const char *name; /* in /proc/PID/ns */
	char *link;	  /* as /proc shows it */
};

struct leak_search {
	struct checkpoint *c;
	struct container *ct;
	VEC(struct inside) things; /* sorted by device and inode */
	VEC(struct translated) pids;
	VEC(dev_t) devices;	   /* file systems that are the container's alone */
	VEC(struct ns_link) links; /* its namespaces */
	const char *pid_link;
};

static void search_free(struct leak_search *s)
{
	vec_free(&s->things);
	vec_free(&s->pids);
	vec_free(&s->devices);
	vec_for_each (l, &s->links)
		free(l->link);
	vec_free(&s->links);
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the search for leaks");
}

static int compare_things(const void *a, const void *b)
{
	const struct inside *x = a, *y = b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static const char *const ns_names[8] = {"mnt",	  "net", "ipc",	 "uts",
					"cgroup", "pid", "user", "time"};
static const uint64_t ns_flags[8] = {CLONE_NEWNS,     CLONE_NEWNET, CLONE_NEWIPC,  CLONE_NEWUTS,
				     CLONE_NEWCGROUP, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWTIME};

static int note_namespaces(struct leak_search *s, struct error *e)
{
	for (size_t i = 0; i < 8; i++) {
		struct ns_link *l = s->ct->own & ns_flags[i] ? vec_push(&s->links) : NULL;
		int r;

		if (!(s->ct->own & ns_flags[i]))
			continue;
		if (!l)
			return no_memory(e);
		l->name = ns_names[i];
		r = procfs_readlink(s->c->proc_fd, &l->link, e, "%d/ns/%s", s->c->freezer.root,
				    l->name);
		if (r < 0)
			return r;
		if (ns_flags[i] == CLONE_NEWPID)
			s->pid_link = l->link;
	}
	return 0;
}

/* Those that only some of its tasks are in. */
static int note_spaces(struct leak_search *s, struct error *e)
{
	vec_for_each (x, &s->c->spaces.list) {
		struct ns_link *l = vec_push(&s->links);

		if (!l)
			return no_memory(e);
		l->name = space_kind_name(x->flag);
		if (asprintf(&l->link, "%s:[%llu]", l->name, (unsigned long long)x->ino) < 0) {
			l->link = NULL;
			return no_memory(e);
		}
	}
	return 0;
}

static int note_files(struct leak_search *s, struct error *e)
{
	vec_for_each (f, &s->c->files->files) {
		struct inside *x;

		/* A stream that leads outside is meant to. */
		if (!(*f)->ops || (*f)->msg->outside || (*f)->in_flight)
			continue;
		x = vec_push(&s->things);
		if (!x)
			return no_memory(e);
		*x = (struct inside){(*f)->dev, (*f)->ino, *f, 0};
	}
	vec_for_each (i, &s->c->files->inodes) {
		struct inside *x;

		if (i->msg.kind == INODE_NAMED)
			continue;
		x = vec_push(&s->things);
		if (!x)
			return no_memory(e);
		*x = (struct inside){i->msg.dev, i->msg.ino, NULL, 0};
	}
	if (s->things.n)
		qsort(s->things.v, s->things.n, sizeof(*s->things.v), compare_things);
	return 0;
}

static int note_devices(struct leak_search *s, struct error *e)
{
	vec_for_each (m, &s->ct->mounts.mounts) {
		dev_t *dev;

		if ((*m)->kind != MOUNT_TMPFS && (*m)->kind != MOUNT_OVERLAY &&
		    strcmp((*m)->type, "devpts") && strcmp((*m)->type, "mqueue"))
			continue;
		if ((*m)->kind == MOUNT_EXTERNAL || (*m)->kind == MOUNT_REMOUNT)
			continue;
		dev = vec_push(&s->devices);
		if (!dev)
			return no_memory(e);
		*dev = mounts_device(&s->ct->mounts, (*m)->id);
	}
	return 0;
}

/* Who has ended, or is kept from us, is left out. */
static int unless_hidden(ssize_t r, struct error *e)
{
	if (r != -EACCES && r != -EPERM)
		return procfs_unless_gone(r, e);
	error_clear(e);
	return 0;
}

/* How far below the pid namespace of the container is this one? -1: it is outside. */
static int depth_below(const struct leak_search *s, const char *link)
{
	const char *number = strchr(link, '[');

	if (!strcmp(link, s->pid_link))
		return 0;
	return number ? pid_space_depth_below(s->c, strtoull(number + 1, NULL, 10)) : -1;
}

/* Pids as they are outside, of the tasks inside; these are known by that of the container. */
static int translate(struct leak_search *s, pid_t out, int depth, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	ssize_t read = procfs_read(s->ct->host_proc, &status, e, "%d/status", out);
	struct translated *t;
	const char *at;
	size_t len;

	if (read < 0)
		return unless_hidden(read, e);
	at = proc_field(status, "NSpid", &len);
	for (const char *end = at + len; at && end > at && depth >= 0; depth--) {
		for (len = (size_t)(end - at); len && at[len - 1] != '\t'; len--)
			continue;
		end = at + len - (len > 0);
	}
	t = vec_push(&s->pids);
	if (!t)
		return no_memory(e);
	*t = (struct translated){at ? atoi(at + len) : 0, out};
	return 0;
}

static pid_t pid_outside(const struct leak_search *s, pid_t in)
{
	vec_for_each (t, &s->pids)
		if (t->in == in)
			return t->out;
	return 0;
}

static bool allowed(const struct leak_search *s, const char *kind, const char *link)
{
	for (const char *const *a = s->ct->allow_leaks; a && *a; a++)
		if (!strcmp(*a, kind) || (link && !strcmp(*a, link)) || !strcmp(*a, "all"))
			return true;
	return false;
}

struct outsider {
	pid_t pid;
	char comm[16];
};

static int report(struct leak_search *s, const struct outsider *o, const char *kind,
		  const char *link, const struct inside *x, int fd, struct error *e)
{
	char place[64] = "";
	int r;

	if (allowed(s, kind, link))
		return 0;
	if (fd >= 0)
		snprintf(place, sizeof(place), " as descriptor %d", fd);
	r = error_set(e, -EBUSY, E_CONTAINER_LEAK,
		      "the %s %s is in use by process %d (%s) outside%s", kind, link, o->pid,
		      o->comm, place);
	if (x && x->file)
		error_object(e, r, "task %d (%s), descriptor %d", x->file->pid, x->file->comm,
			     x->file->fd);
	else
		error_object(e, r, "the container");
	return checkpoint_refuse(s->c, r, e);
}

static bool is_own_device(const struct leak_search *s, uint64_t dev)
{
	vec_for_each (d, &s->devices)
		if (*d == dev)
			return true;
	return false;
}

static const char *kind_of(const struct stat *st, const char *link)
{
	if (S_ISFIFO(st->st_mode))
		return "pipe";
	if (S_ISSOCK(st->st_mode))
		return "socket";
	if (!strncmp(link, "/memfd:", 7) || !strncmp(link, "/SYSV", 5) ||
	    !strncmp(link, "/dev/zero (deleted)", 19))
		return "memory";
	return "file";
}

/* Inodes that only one object has. */
static bool inode_tells(const struct leak_search *s, const struct stat *st, const char *link)
{
	return S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode) ||
	       st->st_dev == s->c->files->memory_dev || !strcmp(kind_of(st, link), "memory");
}

static int look_at_same(struct leak_search *s, const struct outsider *o, int fd,
			const struct stat *st, const char *link, struct error *e)
{
	struct inside key = {st->st_dev, st->st_ino, NULL, 0};
	struct inside *x = s->things.n ? bsearch(&key, s->things.v, s->things.n,
						 sizeof(*s->things.v), compare_things)
				       : NULL;

	if (!x)
		return 0;
	if (inode_tells(s, st, link))
		return report(s, o, kind_of(st, link), link, x, fd, e);
	while (x > s->things.v && !compare_things(x - 1, &key))
		x--;
	for (; x < s->things.v + s->things.n && !compare_things(x, &key); x++) {
		pid_t pid = x->file ? pid_outside(s, x->file->pid) : 0;

		if (pid && container_compare(s->ct, KCMP_FILE, pid, (unsigned long)x->file->fd,
					     o->pid, (unsigned long)fd) == 0)
			return report(s, o, "file", link, x, fd, e);
	}
	return 0;
}

/* Whoever is attached to the terminal of the container shares the master of the first process. */
static bool is_attached(const struct leak_search *s, const struct outsider *o, int fd,
			const struct stat *st)
{
	pid_t init = pid_outside(s, s->c->freezer.root);

	return st->st_rdev == makedev(TTYAUX_MAJOR, 2) && init &&
	       container_compare(s->ct, KCMP_FILE, init, RUN_TERMINAL, o->pid, (unsigned long)fd) ==
		       0;
}

static int look_at_fd(struct leak_search *s, const struct outsider *o, int dir, const char *name,
		      struct error *e)
{
	struct stat st;
	char link[512];
	ssize_t n = readlinkat(dir, name, link, sizeof(link) - 1);

	if (n < 0 || fstatat(dir, name, &st, 0) < 0)
		return 0;
	link[n] = '\0';
	vec_for_each (l, &s->links)
		if (!strcmp(link, l->link))
			return report(s, o, "namespace", link, NULL, atoi(name), e);
	if (is_attached(s, o, atoi(name), &st))
		return 0;
	if (is_own_device(s, st.st_dev))
		return report(s, o, "file", link, NULL, atoi(name), e);
	return look_at_same(s, o, atoi(name), &st, link, e);
}

static int look_at_fds(struct leak_search *s, const struct outsider *o, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	struct dirent *d;
	int fd = procfs_open(s->ct->host_proc, O_RDONLY | O_DIRECTORY | O_CLOEXEC, NULL, "%d/fd",
			     o->pid);
	int r = 0;

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	while (dir && r >= 0 && (d = readdir(dir)))
		if (d->d_name[0] != '.')
			r = look_at_fd(s, o, dirfd(dir), d->d_name, e);
	return r;
}

static int look_at_mapping(struct leak_search *s, const struct outsider *o, const char *line,
			   struct error *e)
{
	unsigned int maj, min;
	unsigned long long ino;
	struct inside key = {}, *x;
	char path[256] = "";

	if (sscanf(line, "%*s %*s %*s %x:%x %llu %255[^\n]", &maj, &min, &ino, path) < 3 || !ino)
		return 0;
	key.dev = makedev(maj, min);
	key.ino = ino;
	if (is_own_device(s, key.dev))
		return report(s, o, "file", path, NULL, -1, e);
	x = s->things.n
		    ? bsearch(&key, s->things.v, s->things.n, sizeof(*s->things.v), compare_things)
		    : NULL;
	/* Segments of different IPC namespaces have the same numbers: their users are in the
	 * namespace. */
	if (!x || x->file || !strncmp(path, "/SYSV", 5))
		return 0;
	return report(s, o, "memory", path, x, -1, e);
}

static int look_at_maps(struct leak_search *s, const struct outsider *o, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t n = procfs_read(s->ct->host_proc, &text, e, "%d/maps", o->pid);
	int r = 0;

	if (n < 0)
		return unless_hidden(n, e);
	for (const char *line = text; r >= 0 && *line; line = strchrnul(line, '\n') + 1) {
		r = look_at_mapping(s, o, line, e);
		if (!*strchrnul(line, '\n'))
			break;
	}
	return r;
}

static int look_at_namespaces(struct leak_search *s, const struct outsider *o, struct error *e)
{
	vec_for_each (l, &s->links) {
		_cleanup_(free_ptr) char *link = NULL;
		int r = procfs_readlink(s->ct->host_proc, &link, e, "%d/ns/%s", o->pid, l->name);

		if (r < 0 && unless_hidden(r, e) < 0)
			return r;
		if (!link)
			continue;
		r = strcmp(link, l->link) ? 0 : report(s, o, "namespace", link, NULL, -1, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Whoever made the container may have come with its namespaces, and waits for its end. */
static bool made_it(const struct leak_search *s, pid_t pid)
{
	pid_t at = pid_outside(s, s->c->freezer.root);

	for (int depth = 0; at > 1 && depth < 1000; depth++) {
		struct error unused = {};
		struct proc_stat st;

		if (proc_stat_read(s->ct->host_proc, at, at, &st, &unused) < 0)
			return false;
		at = st.ppid;
		if (at == pid)
			return true;
	}
	return false;
}

static int look_at_process(struct leak_search *s, pid_t pid, struct error *e)
{
	struct outsider o = {.pid = pid};
	struct proc_stat st;
	int r;

	r = proc_stat_read(s->ct->host_proc, pid, pid, &st, e);
	if (r < 0)
		return unless_hidden(r, e);
	memcpy(o.comm, st.comm, sizeof(o.comm) - 1);
	r = made_it(s, pid) ? 0 : look_at_namespaces(s, &o, e);
	if (r >= 0)
		r = look_at_fds(s, &o, e);
	return r < 0 ? r : look_at_maps(s, &o, e);
}

/* Twice over the processes: those inside first, whose pids are needed for the others. */
static int look_at_all(struct leak_search *s, bool inside, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	struct dirent *d;
	int fd = openat(s->ct->host_proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir)
		return error_errno(e, -errno, E_SYSTEM, "cannot read /proc");
	while (r >= 0 && (d = readdir(dir))) {
		_cleanup_(free_ptr) char *link = NULL;
		pid_t pid = (pid_t)atoi(d->d_name);
		int depth;

		if (pid <= 0)
			continue;
		r = procfs_readlink(s->ct->host_proc, &link, e, "%d/ns/pid", pid);
		if (r < 0) {
			r = unless_hidden(r, e);
			continue;
		}
		depth = depth_below(s, link);
		if (inside && depth >= 0)
			r = translate(s, pid, depth, e);
		/* Whoever stays outside for us came with our namespaces. */
		if (!inside && depth < 0 && pid != s->ct->outsider)
			r = look_at_process(s, pid, e);
	}
	return r;
}

int container_check_leaks(struct checkpoint *c, struct container *ct, struct error *e)
{
	_cleanup_(search_free) struct leak_search s = {.c = c, .ct = ct};
	int r;

	if (!(ct->own & CLONE_NEWPID))
		return 0;
	r = note_namespaces(&s, e);
	if (r >= 0)
		r = note_spaces(&s, e);
	if (r >= 0)
		r = note_files(&s, e);
	if (r >= 0)
		r = note_devices(&s, e);
	if (r >= 0)
		r = look_at_all(&s, true, e);
	return r < 0 ? r : look_at_all(&s, false, e);
}
