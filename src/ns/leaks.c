/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaks: what processes outside a container use of it. Every process outside is
 * looked at: its namespaces, what it has open and mapped, the namespaces that are mounted where it
 * is.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ipc/sysv.h"
#include "ns/leaks.h"
#include "ns/spaces.h"

#define PF_KTHREAD 0x00200000 /* linux/sched.h */

static void search_free(struct leak_search *s)
{
	vec_free(&s->things);
	vec_free(&s->devices);
	vec_for_each (l, &s->links)
		free(l->link);
	vec_free(&s->links);
	vec_free(&s->networks);
	vec_free(&s->seen);
	vec_free(&s->makers);
	vec_free(&s->taps);
	vec_free(&s->rings);
	vec_free(&s->files);
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

/* Who makes children in a namespace is as good as in it. */
static const char *children_link(const char *name)
{
	if (!strcmp(name, "pid"))
		return "pid_for_children";
	return !strcmp(name, "time") ? "time_for_children" : NULL;
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
		l->children = children_link(l->name);
		/* Tasks may be in one below that of the container, in which we are. */
		r = procfs_readlink(s->c->proc_fd, &l->link, e, "%d/ns/%s",
				    ns_flags[i] == CLONE_NEWUSER ? s->c->self : s->c->freezer.root,
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
		l->children = children_link(l->name);
		if (asprintf(&l->link, "%s:[%llu]", l->name, (unsigned long long)x->ino) < 0) {
			l->link = NULL;
			return no_memory(e);
		}
	}
	return 0;
}

/* A stream that leads outside is meant to. Where there are no mounts of its own, files and devices
 * are those of the host. */
static bool leads_outside(const struct leak_search *s, const struct file_entry *f)
{
	if (f->msg->outside)
		return true;
	return !(s->ct->own & CLONE_NEWNS) && !f->in_flight && f->fd <= STDERR_FILENO &&
	       (f->ops->kind == FILE_REGULAR || f->ops->kind == FILE_DEVICE);
}

static int note_files(struct leak_search *s, struct error *e)
{
	vec_for_each (f, &s->c->files->files) {
		struct inside *x;

		if (!(*f)->ops || leads_outside(s, *f))
			continue;
		x = vec_push(&s->things);
		if (!x)
			return no_memory(e);
		*x = (struct inside){(*f)->dev, (*f)->ino, *f};
	}
	vec_for_each (i, &s->c->files->inodes) {
		struct inside *x;

		if (i->msg.kind == INODE_NAMED)
			continue;
		x = vec_push(&s->things);
		if (!x)
			return no_memory(e);
		*x = (struct inside){i->msg.dev, i->msg.ino, NULL};
	}
	if (s->things.n)
		qsort(s->things.v, s->things.n, sizeof(*s->things.v), compare_things);
	return 0;
}

/* Sockets belong to a network, whoever has them. */
static int note_networks(struct leak_search *s, struct error *e)
{
	uint64_t *cookie = NULL;

	if (s->ct->own & CLONE_NEWNET) {
		_cleanup_(close_fd) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		socklen_t len = sizeof(*cookie);

		cookie = vec_push(&s->networks);
		if (!cookie)
			return no_memory(e);
		/* Before Linux 5.14 nothing tells. */
		if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &len) < 0)
			s->networks.n = 0;
	}
	vec_for_each (v, &s->c->files->networks) {
		cookie = vec_push(&s->networks);
		if (!cookie)
			return no_memory(e);
		*cookie = v->cookie;
	}
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
	/* mounted or not */
	vec_for_each (p, &s->c->ipc->places) {
		dev_t *dev = vec_push(&s->devices);

		if (!dev)
			return no_memory(e);
		*dev = p->dev;
	}
	vec_for_each (d, &s->c->spaces.looked->detached) {
		dev_t *dev = d->brought ? vec_push(&s->devices) : NULL;

		if (d->brought && !dev)
			return no_memory(e);
		if (dev)
			*dev = d->dev;
	}
	return 0;
}

int leak_unless_hidden(ssize_t r, struct error *e)
{
	if (r != -EACCES && r != -EPERM)
		return procfs_unless_gone(r, e);
	error_clear(e);
	return 0;
}

int leak_unlisted(const struct outsider *o, int err, const char *what, struct error *e)
{
	error_errno(e, err, E_SYSTEM, "cannot list the %s of task %d (%s)", what, o->pid, o->comm);
	return leak_unless_hidden(err, e);
}

int leak_compare(int type, pid_t a, unsigned long index_a, pid_t b, unsigned long index_b)
{
	long r = syscall(SYS_kcmp, a, b, type, index_a, index_b);

	return r < 0 ? -errno : (int)r;
}

bool leak_allowed(const struct leak_search *s, const char *kind, const char *link)
{
	for (const char *const *a = s->ct->allow_leaks; a && *a; a++)
		if (!strcmp(*a, kind) || (link && !strcmp(*a, link)) || !strcmp(*a, "all"))
			return true;
	return false;
}

int leak_report(struct leak_search *s, const struct outsider *o, const char *kind, const char *link,
		const struct inside *x, const char *how, struct error *e)
{
	int r;

	if (leak_allowed(s, kind, link))
		return 0;
	r = error_set(e, -EBUSY, E_CONTAINER_LEAK, "the %s %s is in use by %s %d (%s) outside%s",
		      kind, link, o->tid == o->pid ? "process" : "thread", o->tid, o->comm, how);
	if (x && x->file && x->file->in_flight)
		error_object(e, r, "a message in a queue of the container");
	else if (x && x->file)
		error_object(e, r, "task %d (%s), descriptor %d", x->file->pid, x->file->comm,
			     x->file->fd);
	else
		error_object(e, r, "the container");
	return checkpoint_refuse(s->c, r, e);
}

struct inside *leak_first(const struct leak_search *s, uint64_t dev, uint64_t ino)
{
	const struct inside key = {dev, ino, NULL};
	struct inside *x = s->things.n ? bsearch(&key, s->things.v, s->things.n,
						 sizeof(*s->things.v), compare_things)
				       : NULL;

	while (x && x > s->things.v && !compare_things(x - 1, &key))
		x--;
	return x;
}

struct inside *leak_next(const struct leak_search *s, struct inside *x)
{
	struct inside *next = x + 1;

	return next < s->things.v + s->things.n && !compare_things(next, x) ? next : NULL;
}

struct inside *leak_find(const struct leak_search *s, uint64_t dev, uint64_t ino)
{
	struct inside *first = leak_first(s, dev, ino);

	for (struct inside *x = first; x; x = leak_next(s, x))
		if (x->file && !x->file->in_flight)
			return x;
	return first;
}

bool leak_is_own_device(const struct leak_search *s, uint64_t dev)
{
	vec_for_each (d, &s->devices)
		if (*d == dev)
			return true;
	return false;
}

static int look_at_namespace(struct leak_search *s, const struct outsider *o, const char *name,
			     const char *link, const char *how, struct error *e)
{
	_cleanup_(free_ptr) char *theirs = NULL;
	int r = procfs_readlink(s->ct->host_proc, &theirs, e, "%d/task/%d/ns/%s", o->pid, o->tid,
				name);

	if (r < 0 && leak_unless_hidden(r, e) < 0)
		return r;
	if (!theirs || strcmp(theirs, link))
		return 0;
	return leak_report(s, o, "namespace", link, NULL, how, e) ?: 1;
}

/*
 * A thread that shares its places with the first of its process is in the same mount and user
 * namespace (CLONE_FS forbids others); of the rest, networks and what is like them are those that
 * threads visit.
 */
static bool threads_visit(const char *name)
{
	return !strcmp(name, "net") || !strcmp(name, "ipc") || !strcmp(name, "uts");
}

static int look_at_namespaces(struct leak_search *s, const struct outsider *o, bool all,
			      struct error *e)
{
	vec_for_each (l, &s->links) {
		int r;

		if (!all && !threads_visit(l->name))
			continue;
		r = look_at_namespace(s, o, l->name, l->link, "", e);

		if (!r && l->children)
			r = look_at_namespace(s, o, l->children, l->link, " for its children", e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Whoever made the container may have come with its namespaces, and waits for its end. */
static int note_makers(struct leak_search *s, struct error *e)
{
	pid_t at = leak_pid_outside(s, s->c->freezer.root), *maker;

	for (int depth = 0; at > 1 && depth < 1000; depth++) {
		struct error unused = {};
		struct proc_stat st;

		if (proc_stat_read(s->ct->host_proc, at, at, &st, &unused) < 0)
			return 0;
		at = st.ppid;
		maker = vec_push(&s->makers);
		if (!maker)
			return no_memory(e);
		*maker = at;
	}
	return 0;
}

bool leak_made_it(const struct leak_search *s, pid_t pid)
{
	vec_for_each (m, &s->makers)
		if (*m == pid)
			return true;
	return false;
}

/* A thread may have left what it shared with the first one. */
static int look_at_thread(struct leak_search *s, const struct outsider *o, bool apart,
			  struct error *e)
{
	int r = leak_made_it(s, o->pid) ? 0 : look_at_namespaces(s, o, apart, e);

	return r < 0 || !apart ? r : leak_look_at_files(s, o, e);
}

static bool is_apart(pid_t a, pid_t b)
{
	return leak_compare(KCMP_FILES, a, 0, b, 0) > 0 || leak_compare(KCMP_FS, a, 0, b, 0) > 0;
}

static int look_at_threads(struct leak_search *s, const struct outsider *first, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	struct dirent *d;
	int fd = procfs_open(s->ct->host_proc, O_RDONLY | O_DIRECTORY | O_CLOEXEC, NULL, "%d/task",
			     first->pid);
	int r = fd < 0 ? fd : 0, ended = 0;

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir)
		return leak_unlisted(first, r < 0 ? r : -errno, "threads", e);
	while (r >= 0 && (d = next_entry(dir, &ended))) {
		struct outsider o = *first;

		o.tid = (pid_t)atoi(d->d_name);
		if (o.tid > 0 && o.tid != first->pid)
			r = look_at_thread(s, &o, is_apart(first->pid, o.tid), e);
	}
	return r >= 0 && ended < 0 ? leak_unlisted(first, ended, "threads", e) : r;
}

/* Returns 1, or 0: it is not there (any more), or a thread of the kernel. */
static int begin_process(struct leak_search *s, pid_t pid, struct outsider *o, struct proc_stat *st,
			 struct error *e)
{
	int r = proc_stat_read(s->ct->host_proc, pid, pid, st, e);

	if (r < 0)
		return leak_unless_hidden(r, e);
	*o = (struct outsider){.pid = pid, .tid = pid};
	memcpy(o->comm, st->comm, sizeof(o->comm) - 1);
	return !(st->flags & PF_KTHREAD);
}

int leak_look_at_spaces(struct leak_search *s, pid_t pid, struct error *e)
{
	struct outsider o;
	struct proc_stat st;
	int r = begin_process(s, pid, &o, &st, e);

	if (r > 0)
		r = look_at_namespaces(s, &o, true, e);
	return r < 0 ? r : leak_look_at_mounts(s, &o, e);
}

int leak_look_at_process(struct leak_search *s, pid_t pid, struct error *e)
{
	struct outsider o;
	struct proc_stat st;
	int r = begin_process(s, pid, &o, &st, e);

	if (r <= 0)
		return r;
	s->ring = s->glanced;
	r = look_at_thread(s, &o, true, e);
	if (r >= 0)
		r = leak_look_at_mounts(s, &o, e);
	if (r >= 0 && st.num_threads > 1)
		r = look_at_threads(s, &o, e);
	if (r >= 0)
		r = leak_look_at_memory(s, &o, e);
	return r < 0 || !s->ring ? r : leak_look_at_rings(s, &o, e);
}

/* Twice over the processes: those inside first, whose pids are needed for the others. */
static int look_at_all(struct leak_search *s, bool inside, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	struct dirent *d;
	int fd = openat(s->ct->host_proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	int ended = 0;

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir)
		return error_errno(e, -errno, E_SYSTEM, "cannot read /proc");
	while (r >= 0 && (d = next_entry(dir, &ended))) {
		_cleanup_(free_ptr) char *link = NULL;
		pid_t pid = (pid_t)atoi(d->d_name);
		int depth;

		if (pid <= 0)
			continue;
		r = procfs_readlink(s->ct->host_proc, &link, e, "%d/ns/pid", pid);
		if (r < 0) {
			r = leak_unless_hidden(r, e);
			continue;
		}
		depth = leak_depth_below(s, link);
		if (inside && depth >= 0)
			r = leak_translate(s, pid, depth, e);
		s->ct->others += inside && depth < 0;
		/* What is ours there has what we have. */
		if (!inside && depth < 0 && !outsider_is(s->ct->outside, pid))
			r = leak_look_at_process(s, pid, e);
	}
	if (r >= 0 && ended < 0)
		return error_errno(e, ended, E_SYSTEM, "cannot read /proc");
	return r;
}

static int look_inside(struct leak_search *s, struct error *e)
{
	int r;

	if (!s->c->checking && leak_pids_known(s))
		return 0;
	s->ct->pids.n = s->ct->others = 0;
	r = look_at_all(s, true, e);
	leak_pids_note(s);
	return r;
}

/* They are attached by somebody: one who is hidden from us. */
static int check_segments(struct leak_search *s, struct error *e)
{
	int r = 0;

	vec_for_each (l, &s->c->ipc->leaked) {
		if (r < 0 || l->found || leak_allowed(s, "memory", NULL))
			continue;
		r = error_set(
			e, -EBUSY, E_CONTAINER_LEAK,
			"System V shared memory segment %d (key 0x%x) is attached outside, by a "
			"process that cannot be seen",
			l->id, l->key);
		r = checkpoint_refuse(s->c, r, e);
	}
	return r;
}

static int find_nsfs(struct leak_search *s, struct error *e)
{
	struct stat st;

	if (fstatat(s->ct->host_proc, "self/ns/mnt", &st, 0) < 0)
		return error_errno(e, -errno, E_SYSTEM, "/proc/self/ns/mnt");
	s->nsfs = st.st_dev;
	return 0;
}

static int search_outside(void *arg)
{
	struct leak_search *s = arg;
	int r = find_nsfs(s, s->e);

	if (r >= 0)
		r = look_inside(s, s->e);
	if (r >= 0)
		r = note_makers(s, s->e);
	if (r >= 0)
		r = s->all ? leak_look_at_suspects(s, s->all, s->e) : 0;
	if (r == 0)
		r = look_at_all(s, false, s->e);
	return r < 0 || s->glanced ? r : leak_look_at_numbers(s, s->e);
}

int container_check_leaks(struct checkpoint *c, struct container *ct, struct error *e)
{
	_cleanup_(search_free) struct leak_search s = {.c = c, .ct = ct, .e = e};
	int r;

	r = leak_note_taps(&s, e);
	/* Others are not looked for. */
	if (r < 0 || !(ct->own & CLONE_NEWPID))
		return r < 0 ? r : leak_check_taps(&s, e);
	if (c->checking)
		container_begin_scan(ct);
	container_end_scan(ct, &s.all);
	r = note_namespaces(&s, e);
	if (r >= 0)
		r = note_spaces(&s, e);
	if (r >= 0)
		r = note_files(&s, e);
	if (r >= 0)
		r = note_devices(&s, e);
	if (r >= 0)
		r = note_networks(&s, e);
	if (r >= 0)
		r = outsider_do(ct->outside, search_outside, &s);
	if (r >= 0)
		r = leak_check_taps(&s, e);
	return r < 0 ? r : check_segments(&s, e);
}
