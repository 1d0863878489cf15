/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll at the checkpoint: which descriptions are in the set. The kernel tells
 * the number under which each was added; that number may by now be closed, or
 * mean something else, while the description lives on in other descriptors. kcmp(2) can
 * compare an entry with a descriptor (KCMP_EPOLL_TFD).
 *
 * The restart side is in epoll_restart.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/kabi.h"
#include "fs/context.h"
#include "fs/epoll_private.h"
#include "fs/fdinfo.h"
#include "fs/file_kinds.h"

static bool epoll_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:[eventpoll]");
}

#define LARGE 200 /* entries, from where on kcmp(2) takes its time */

static int parse_entry(const char *text, Reprise__EpollEntry *m, struct epoll_seen *seen)
{
	unsigned int sdev = 0;
	char line[256];

	fdinfo_copy_line(text, line, sizeof(line));
	/* fs/eventpoll.c, ep_show_fdinfo() */
	if (sscanf(line, "tfd: %d events: %x data: %" SCNx64 " pos:%*d ino:%" SCNx64 " sdev:%x",
		   &m->fd, &m->events, &m->data, &seen->ino, &sdev) != 5)
		return -EINVAL;
	seen->dev = makedev(sdev >> 20, sdev & 0xfffff);
	return 0;
}

static size_t count_entries(const char *text)
{
	size_t n = 0;

	for (; fdinfo_find_line(&text, "tfd:"); fdinfo_skip_line(&text))
		n++;
	return n;
}

struct numbered {
	int fd;
	size_t index;
};

static int compare_number(const void *a, const void *b)
{
	const struct numbered *x = a, *y = b;

	if (x->fd != y->fd)
		return x->fd < y->fd ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* kcmp(2) finds the n-th of a number in the order in which fdinfo shows them (ep_find_tfd()). */
static int count_same(const Reprise__Epoll *m, struct epoll_seen *seen, struct scratch *s,
		      struct error *e)
{
	struct numbered *v = scratch_alloc(s, (m->n_entries + 1) * sizeof(*v));

	if (!v)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an epoll set");
	for (size_t i = 0; i < m->n_entries; i++)
		v[i] = (struct numbered){m->entries[i]->fd, i};
	if (m->n_entries)
		qsort(v, m->n_entries, sizeof(*v), compare_number);
	for (size_t i = 1; i < m->n_entries; i++)
		if (v[i].fd == v[i - 1].fd)
			seen[v[i].index].nth = seen[v[i - 1].index].nth + 1;
	return 0;
}

/* A kernel that does not know them (before 6.9) has none set. */
static void read_params(int fd, Reprise__Epoll *m)
{
	struct epoll_busy_params params = {};

	if (ioctl(fd, EPIOCGPARAMS, &params) < 0)
		return;
	m->busy_poll_usecs = params.busy_poll_usecs;
	m->busy_poll_budget = params.busy_poll_budget;
	m->prefer_busy_poll = params.prefer_busy_poll;
}

static int epoll_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			    struct scratch *scratch, struct error *e)
{
	size_t n = count_entries(f->fdinfo), i = 0;
	Reprise__Epoll *m = scratch_message(scratch, Reprise__Epoll, reprise__epoll__init);
	struct epoll_seen *seen = scratch_alloc(scratch, (n + 1) * sizeof(*seen));
	const char *text = f->fdinfo;

	if (m)
		m->entries = scratch_alloc(scratch, (n + 1) * sizeof(*m->entries));
	if (!m || !m->entries || !seen)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an epoll set");
	msg->epoll = m;
	f->entry->private = (uint64_t)(uintptr_t)seen;
	for (; fdinfo_find_line(&text, "tfd:"); fdinfo_skip_line(&text), i++) {
		m->entries[i] =
			scratch_message(scratch, Reprise__EpollEntry, reprise__epoll_entry__init);
		if (!m->entries[i])
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an epoll set");
		if (parse_entry(text, m->entries[i], &seen[i]) < 0)
			return error_set(e, -EINVAL, E_SYSTEM, "its fdinfo is not understood");
	}
	m->n_entries = n;
	read_params(f->local, m);
	return count_same(m, seen, scratch, e);
}

/* Is entry `nth` with number `fd` of the set the description of `candidate`? */
static bool is_entry(const struct file_entry *set, int fd, uint32_t nth,
		     const struct file_entry *candidate)
{
	struct kcmp_epoll_slot slot = {.efd = (uint32_t)set->fd, .tfd = (uint32_t)fd, .toff = nth};

	return candidate->fd >= 0 && syscall(SYS_kcmp, candidate->tid, set->tid, KCMP_EPOLL_TFD,
					     candidate->fd, &slot) == 0;
}

static const struct file_entry *by_number(const struct checkpoint *c,
					  const struct table_entry *table, int fd)
{
	const Reprise__Files *msg = table->msg;
	size_t lo = 0, hi = msg ? msg->n_fds : 0;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (msg->fds[mid]->fd == fd)
			return file_entry_by_id(c, msg->fds[mid]->file);
		if (msg->fds[mid]->fd < fd)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool same_inode(const struct file_entry *f, const struct epoll_seen *seen)
{
	return f->ino == seen->ino && f->dev == seen->dev;
}

/* A socket has an inode for itself; anything else may share it with other descriptions. */
static bool is_member(const struct file_entry *set, const Reprise__EpollEntry *entry,
		      const struct epoll_seen *seen, const struct file_entry *f)
{
	return same_inode(f, seen) && (f->is_socket || is_entry(set, entry->fd, seen->nth, f));
}

static const struct file_entry *find_member(const struct checkpoint *c,
					    const struct file_entry *set,
					    const Reprise__EpollEntry *entry,
					    const struct epoll_seen *seen)
{
	/* Nearly always the number still means what it did, in the table that has the set. */
	const struct file_entry *same = by_number(c, &c->files->tables.v[set->table], entry->fd);

	if (same && ((seen->proven && same_inode(same, seen)) || is_member(set, entry, seen, same)))
		return same;
	vec_for_each (f, &c->files->files)
		if (is_member(set, entry, seen, *f))
			return *f;
	return NULL;
}

/* Of a signalfd whose adder nothing tells (epoll_signals.c). */
static bool task_can_add(const struct checkpoint *c, const struct file_entry *set, int fd,
			 const struct file_entry *f)
{
	vec_for_each (table, &c->files->tables)
		for (size_t i = 0; table->msg && i < table->msg->n_fds; i++)
			if (table->msg->fds[i]->file == set->id && by_number(c, table, fd) == f)
				return true;
	return false;
}

static int find_adder(struct checkpoint *c, const struct file_entry *set,
		      const struct file_entry *f, Reprise__EpollEntry *m, struct error *e)
{
	if (epoll_signals_find(c, set, f, m) >= 0)
		return 0;
	if (!task_can_add(c, set, m->fd, f))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "no task that has it open has the signalfd in it as descriptor "
				 "%d, under which it was added",
				 m->fd);
	return 0;
}

static int resolve(struct checkpoint *c, const struct file_entry *set, struct error *e)
{
	struct epoll_seen *seen = (struct epoll_seen *)(uintptr_t)set->private;
	Reprise__Epoll *m = set->msg->epoll;

	if (m->n_entries > LARGE)
		epoll_prove(c, set, seen);
	for (size_t i = 0; i < m->n_entries; i++) {
		const struct file_entry *f = find_member(c, set, m->entries[i], &seen[i]);

		if (!f && c->files->unseen)
			continue;
		if (!f)
			return error_set(
				e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				"it waits for a file, added as descriptor %d, that nobody in "
				"the tree has open",
				m->entries[i]->fd);
		m->entries[i]->file = f->id;
		if (f->ops == &signalfd_file_ops) {
			int r = find_adder(c, set, f, m->entries[i], e);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int epoll_checkpoint_all(struct checkpoint *c, struct error *e)
{
	return file_for_each(c, &epoll_file_ops, resolve, e);
}

static void epoll_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "%zu entries", msg->epoll ? msg->epoll->n_entries : 0);
}

const struct file_ops epoll_file_ops = {
	.kind = FILE_EPOLL,
	.name = "epoll",
	.support =
		"nested, edge-triggered, one-shot (armed and fired), entries whose descriptor was closed, "
		"busy polling",
	.match = epoll_match,
	.checkpoint = epoll_checkpoint,
	.checkpoint_all = epoll_checkpoint_all,
	.validate = epoll_validate,
	.restart = epoll_restart,
	.restart_all = epoll_restart_all,
	.describe = epoll_describe,
};
