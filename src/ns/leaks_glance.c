/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who outside may use something of a container, by what the kernel's own numbers tell of all at
 * once (outside.h). Whoever has nothing in common with it, which is nearly everybody, is not looked
 * at any further; the others are, as if there were no such numbers.
 */
#include <errno.h>
#include <linux/major.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/kernel_memory.h"
#include "core/procfs.h"
#include "ipc/sysv.h"
#include "ns/leaks.h"
#include "ns/outside.h"

#define TUN_MINOR 200 /* linux/miscdevice.h */

struct view {
	struct leak_search *s;
	struct outside *all;
	VEC(uint64_t) files;   /* struct file of what is open in the container; sorted */
	VEC(uint64_t) watched; /* of those that are in epoll sets the first entry */
	VEC(pid_t) suspects;
};

static void view_free(struct view *v)
{
	vec_free(&v->files);
	vec_free(&v->watched);
	vec_free(&v->suspects);
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the search for leaks");
}

static int by_pid(const void *a, const void *b)
{
	const pid_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int by_address(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Whoever is there only since the threads were listed is new, and outside: those inside stand. */
static pid_t process_of(const struct view *v, pid_t tid)
{
	const struct outside_task *t = outside_find_task(v->all, tid);

	return t ? t->pid : tid;
}

static bool is_inside(const struct view *v, pid_t tid)
{
	const struct outside_task *t = outside_find_task(v->all, tid);

	return t && t->inside;
}

static bool is_looked_at(const struct view *v, pid_t tid)
{
	return !is_inside(v, tid) && !outsider_is(v->s->ct->outside, process_of(v, tid));
}

static int suspect(struct view *v, pid_t pid, struct error *e)
{
	pid_t *at;

	if (v->suspects.n && v->suspects.v[v->suspects.n - 1] == pid)
		return 0;
	at = vec_push(&v->suspects);
	if (!at)
		return no_memory(e);
	*at = pid;
	return 0;
}

/* Returns 1; or 0: one of them was not seen, so that all have to be compared with it. */
static int note_inside(struct view *v, struct error *e)
{
	vec_for_each (x, &v->s->things) {
		const struct outside_file *f;
		uint64_t *at;

		if (!x->file || x->file->in_flight)
			continue;
		f = outside_find_file(v->all, leak_pid_outside(v->s, x->file->pid), x->file->fd);
		if (!f)
			return 0;
		at = vec_push(&v->files);
		if (!at)
			return no_memory(e);
		*at = f->file;
		at = f->watched ? vec_push(&v->watched) : NULL;
		if (f->watched && !at)
			return no_memory(e);
		if (at)
			*at = f->watched;
	}
	if (v->files.n)
		qsort(v->files.v, v->files.n, sizeof(*v->files.v), by_address);
	return 1;
}

static bool is_in_container(const struct view *v, uint64_t file)
{
	return v->files.n && bsearch(&file, v->files.v, v->files.n, sizeof(file), by_address);
}

/* The same open file; or of what is known by its inode, another one of that. */
static bool is_suspicious(const struct view *v, const struct outside_file *f)
{
	if (is_in_container(v, f->file))
		return true;
	if (f->dev == v->s->nsfs || leak_is_own_device(v->s, f->dev))
		return true;
	if (S_ISCHR(f->mode)) /* it may serve an interface */
		return v->s->taps.n && f->rdev == makedev(MISC_MAJOR, TUN_MINOR);
	if (S_ISSOCK(f->mode) && (f->waiting || leak_is_network(v->s, f->network)))
		return true;
	if (S_ISREG(f->mode) && leak_may_be_segment(v->s, f->dev, f->ino))
		return true;
	return (S_ISFIFO(f->mode) || S_ISSOCK(f->mode) || S_ISREG(f->mode)) &&
	       leak_first(v->s, f->dev, f->ino);
}

static int look_at_files(struct view *v, struct error *e)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < v->all->n_files; i++) {
		const struct outside_file *f = &v->all->files[i];

		if (is_looked_at(v, f->tid) && is_suspicious(v, f))
			r = suspect(v, process_of(v, f->tid), e);
	}
	return r;
}

/* What rings keep; one that is mapped and not open may be the container's itself. */
static int look_at_rings(struct view *v, struct error *e)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < v->all->n_held; i++) {
		const struct outside_file *f = &v->all->held[i].f;

		if (is_looked_at(v, f->tid) && is_suspicious(v, f))
			r = suspect(v, process_of(v, f->tid), e);
	}
	return r;
}

/* Who has that open. */
static int suspect_users(struct view *v, uint64_t file, struct error *e)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < v->all->n_files; i++)
		if (v->all->files[i].file == file && is_looked_at(v, v->all->files[i].tid))
			r = suspect(v, process_of(v, v->all->files[i].tid), e);
	return r;
}

#define WATCHED_MAX 10000 /* sets outside may change while we look */

/*
 * The sets in which files of the container are (file.f_ep): most are its own. Returns 1, or 0: that
 * is not known.
 */
static int look_at_watched(struct view *v, struct error *e)
{
	struct kernel_memory *k = outsider_kernel_memory(v->s->ct->outside);
	int entry, set, file, next;

	if (!v->watched.n)
		return 1;
	if (!k)
		return 0;
	entry = kernel_offset(k, "epitem", "fllink");
	set = kernel_offset(k, "epitem", "ep");
	file = kernel_offset(k, "eventpoll", "file");
	next = kernel_offset(k, "hlist_node", "next");
	if (entry < 0 || set < 0 || file < 0 || next < 0)
		return 0;
	vec_for_each (w, &v->watched) {
		uint64_t node = *w;

		for (size_t n = 0; node; n++) {
			uint64_t at = kernel_pointer(k, node + (uint64_t)(int64_t)(set - entry));
			uint64_t who = kernel_pointer(k, at + (uint64_t)file);

			if (n == WATCHED_MAX || !at || !who)
				return 0;
			if (!is_in_container(v, who) && suspect_users(v, who, e) < 0)
				return e->err;
			node = kernel_pointer(k, node + (uint64_t)next);
		}
	}
	return 1;
}

static int look_at_maps(struct view *v, struct error *e)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < v->all->n_maps; i++) {
		const struct outside_map *m = &v->all->maps[i];

		if (!is_looked_at(v, m->tid))
			continue;
		if (leak_is_own_device(v->s, m->dev) || leak_is_own_device(v->s, m->user) ||
		    leak_first(v->s, m->dev, m->ino) || leak_may_be_segment(v->s, m->dev, m->ino))
			r = suspect(v, process_of(v, m->tid), e);
	}
	return r;
}

/* Who has these namespaces has been looked at. */
struct alike {
	uint64_t namespaces, user;
};
struct seen {
	VEC(struct alike) v;
};

static bool was_seen(const struct seen *seen, const struct outside_task *t)
{
	vec_for_each (a, &seen->v)
		if (a->namespaces == t->namespaces && a->user == t->user)
			return true;
	return false;
}

static bool has_spaces(const struct view *v, const struct outside_task *t)
{
	return !t->kernel && t->namespaces && is_looked_at(v, t->tid);
}

/* One process of all that have the same namespaces is asked. Threads that have others than all
 * processes are looked at with theirs. */
static int look_at_spaces(struct view *v, struct seen *seen, struct error *e)
{
	const struct outside *all = v->all;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < all->n_tasks; i++) {
		const struct outside_task *t = &all->tasks[i];
		struct alike *a;

		if (!has_spaces(v, t) || t->tid != t->pid || leak_made_it(v->s, t->pid) ||
		    was_seen(seen, t))
			continue;
		a = vec_push(&seen->v);
		if (!a)
			return no_memory(e);
		*a = (struct alike){t->namespaces, t->user};
		r = leak_look_at_spaces(v->s, t->pid, e);
	}
	for (size_t i = 0; r >= 0 && i < all->n_tasks; i++) {
		const struct outside_task *t = &all->tasks[i];

		if (has_spaces(v, t) && t->tid != t->pid && !leak_made_it(v->s, t->pid) &&
		    !was_seen(seen, t))
			r = suspect(v, t->pid, e);
	}
	return r;
}

static int look_at_tasks(struct view *v, struct error *e)
{
	struct seen seen = {};
	int r = look_at_spaces(v, &seen, e);

	for (size_t i = 0; r >= 0 && i < v->all->n_tasks; i++) {
		const struct outside_task *t = &v->all->tasks[i];

		/* of whom namespaces do not count, since it waits for the container */
		if (has_spaces(v, t) && t->tid == t->pid && leak_made_it(v->s, t->pid))
			r = suspect(v, t->pid, e);
		else if (has_spaces(v, t) &&
			 (leak_is_own_device(v->s, t->root) || leak_is_own_device(v->s, t->cwd)))
			r = suspect(v, t->pid, e);
	}
	vec_free(&seen.v);
	return r;
}

/* Of those, one that is inside nevertheless (who has just been put there) is passed over. */
static int look_at_suspect(struct view *v, pid_t pid, struct error *e)
{
	_cleanup_(free_ptr) char *link = NULL;
	int r = procfs_readlink(v->s->ct->host_proc, &link, e, "%d/ns/pid", pid);

	if (r < 0)
		return leak_unless_hidden(r, e);
	return leak_depth_below(v->s, link) < 0 ? leak_look_at_process(v->s, pid, e) : 0;
}

int leak_look_at_suspects(struct leak_search *s, struct outside *all, struct error *e)
{
	_cleanup_(view_free) struct view v = {.s = s, .all = all};
	int r;

	r = note_inside(&v, e);
	if (r > 0)
		r = look_at_watched(&v, e);
	if (r <= 0)
		return r;
	r = look_at_tasks(&v, e);
	if (r >= 0)
		r = look_at_files(&v, e);
	if (r >= 0)
		r = look_at_rings(&v, e);
	if (r >= 0)
		r = look_at_maps(&v, e);
	s->glanced = true;
	if (v.suspects.n)
		qsort(v.suspects.v, v.suspects.n, sizeof(*v.suspects.v), by_pid);
	for (size_t i = 0; r >= 0 && i < v.suspects.n; i++)
		if (i == 0 || v.suspects.v[i] != v.suspects.v[i - 1])
			r = look_at_suspect(&v, v.suspects.v[i], e);
	return r < 0 ? r : 1;
}
