/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the rings of io_uring of a process outside keep open, whether it has that open itself or
 * not: registered files, and those of requests that wait. They are known as those that it has open
 * are: by their inodes where these tell, or as the very file.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/leaks.h"
#include "ns/outside.h"
#include "ns/outsider.h"

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the search for leaks");
}

static int by_file(const void *a, const void *b)
{
	const struct known_file *x = a, *y = b;

	return x->file < y->file ? -1 : x->file > y->file;
}

/* Of those in flight nothing but their inode is known. */
static int note_files(struct leak_search *s, struct error *e)
{
	if (s->files.n)
		return 0;
	vec_for_each (x, &s->things) {
		struct known_file known = {.what = x};
		struct known_file *at;

		if (x->file && !x->file->in_flight)
			known.file = outsider_file(s->ct->outside,
						   leak_pid_outside(s, x->file->pid), x->file->fd);
		at = known.file ? vec_push(&s->files) : NULL;
		if (known.file && !at)
			return no_memory(e);
		if (at)
			*at = known;
	}
	if (s->files.n)
		qsort(s->files.v, s->files.n, sizeof(*s->files.v), by_file);
	return 0;
}

static struct inside *find_same(const struct leak_search *s, const struct outside_file *f)
{
	const struct known_file key = {.file = f->file};
	const struct known_file *found =
		s->files.n ? bsearch(&key, s->files.v, s->files.n, sizeof(key), by_file) : NULL;

	if (found)
		return found->what;
	/* inodes that only one object has */
	if (S_ISFIFO(f->mode) || S_ISSOCK(f->mode) || f->dev == s->c->files->memory_dev)
		return leak_find(s, f->dev, f->ino);
	return NULL;
}

static void describe(const struct outside_held *h, char *ret, size_t size)
{
	const char *what = h->waits ? "for a request of" : "as a registered file of";

	if (h->ring >= 0)
		snprintf(ret, size, " %s the io_uring that is its descriptor %d", what, h->ring);
	else
		snprintf(ret, size, " %s an io_uring that it has %s", what,
			 h->ring == RING_MAPPED ? "mapped" : "by a number");
}

/* The namespace that this file holds, as /proc calls it; or NULL. */
static const char *find_namespace(const struct leak_search *s, const struct outside_file *f)
{
	char end[32];

	snprintf(end, sizeof(end), ":[%llu]", (unsigned long long)f->ino);
	vec_for_each (l, &s->links)
		if (f->dev == s->nsfs && !strcmp(strchrnul(l->link, ':'), end))
			return l->link;
	return NULL;
}

static int look_at_held(struct leak_search *s, const struct outsider *o,
			const struct outside_held *h, struct error *e)
{
	struct inside *x = find_same(s, &h->f);
	const char *ns = find_namespace(s, &h->f);
	char how[80], link[sizeof(h->name) + 16];

	describe(h, how, sizeof(how));
	if (x && x->file)
		return leak_report(s, o, leak_kind(h->f.mode, x->file->link), x->file->link, x, how,
				   e);
	if (ns)
		return leak_report(s, o, "namespace", ns, NULL, how, e);
	if (S_ISSOCK(h->f.mode))
		snprintf(link, sizeof(link), "socket:[%llu]", (unsigned long long)h->f.ino);
	else
		snprintf(link, sizeof(link), "%s", h->name);
	if (x || leak_is_own_device(s, h->f.dev) ||
	    (S_ISSOCK(h->f.mode) && leak_is_network(s, h->f.network)))
		return leak_report(s, o,
				   leak_kind(h->f.mode, h->f.dev == s->c->files->memory_dev
								? "/memfd:"
								: link),
				   link, x, how, e);
	return 0;
}

static bool was_looked_at(const struct leak_search *s, uint64_t ring)
{
	vec_for_each (x, &s->rings)
		if (*x == ring)
			return true;
	return false;
}

static int note_ring(struct leak_search *s, uint64_t ring, struct error *e)
{
	uint64_t *at = was_looked_at(s, ring) ? NULL : vec_push(&s->rings);

	if (at)
		*at = ring;
	return at || was_looked_at(s, ring) ? 0 : no_memory(e);
}

/* o NULL: whoever has it. */
static int look_at_all(struct leak_search *s, const struct outside *all, const struct outsider *o,
		       struct error *e)
{
	size_t known = s->rings.n;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < all->n_held; i++) {
		const struct outside_held *h = &all->held[i];
		struct outsider who = {.pid = h->f.tid, .tid = h->f.tid, .comm = "?"};
		struct error unused = {};
		struct proc_stat st;
		bool old = false;

		for (size_t j = 0; j < known; j++)
			old |= s->rings.v[j] == h->by;
		if (old)
			continue;
		if (!o && proc_stat_read(s->ct->host_proc, who.pid, who.tid, &st, &unused) >= 0)
			memcpy(who.comm, st.comm, sizeof(who.comm) - 1);
		r = look_at_held(s, o ? o : &who, h, e);
		if (r >= 0)
			r = note_ring(s, h->by, e);
	}
	return r;
}

int leak_look_at_rings(struct leak_search *s, const struct outsider *o, struct error *e)
{
	const struct outside *all;
	int r = note_files(s, e);

	/* where the memory of the kernel cannot be read, nobody knows */
	all = r < 0 ? NULL : outsider_rings(s->ct->outside, o->pid);
	return all ? look_at_all(s, all, o, e) : r;
}

int leak_look_at_numbers(struct leak_search *s, struct error *e)
{
	const struct outside *all = outsider_rings(s->ct->outside, 0);
	int r = all && all->n_held ? note_files(s, e) : 0;

	return r < 0 || !all || !all->n_held ? r : look_at_all(s, all, NULL, e);
}
