/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unread events of inotify, made anew: by what we do to stand-ins, files of a file system that
 * nobody else sees, which are watched under the numbers that the events have. Afterwards these
 *watches have to go, and each would leave an IN_IGNORED behind the events (inotify_freeing_mark()).
 *But what comes to a queue that is full, and that holds an overflow already, leaves no trace
 * (fsnotify_insert_event()). So the queue is filled to the last place with events that are read
 * away in the end:
 *
 *	[filling ... IN_Q_OVERFLOW, filling ... the events]
 *
 * If an overflow is among the events, it is that one.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/inotify_events.h"
#include "fs/watch.h"

#define NUMBERED 24	/* room for the name of a stand-in */
#define TEXT	 "text" /* a file of every file system of ours, see make_text() */

/* What an event's watch is on instead. */
struct stand_in {
	int wd;
	int base; /* directory in which it stands; a file system of its own if that is unmounted */
	char name[NUMBERED];
	bool directory, own_fs;
	uint32_t mask;
};

struct replay {
	struct restart *r;
	int fd;	  /* the instance */
	int base; /* root of our file system */
	unsigned int serial;
	uint64_t limit; /* of the queue */
	const Reprise__Inotify *m;
	uint8_t *facts; /* see inotify_events_facts() */
	VEC(struct stand_in) stand_ins;
	int filler; /* watch of the file that fills */
	int file;
	bool odd;
};

/* A file that can be executed and is no program: text, since for that no module is looked for
 * (search_binary_handler()). */
static int make_text(int base, const char *name)
{
	_cleanup_(close_fd) int fd =
		openat(base, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);

	return fd < 0 || write(fd, "no program\n", 11) != 11 ? -errno : 0;
}

static int make_fs(void)
{
	_cleanup_(close_fd) int fd = watch_make_fs();
	int r = fd < 0 ? fd : make_text(fd, TEXT);

	return r < 0 ? r : take_fd(&fd);
}

/* The same inode is watched under the same number; only what is to be told changes. */
static int watch(struct replay *p, int base, const char *name, int wd, uint32_t mask)
{
	_cleanup_(close_fd) int fd = openat(base, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char path[32];
	int got;

	snprintf(path, sizeof(path), "self/fd/%d", fd);
	if (fd < 0 || ioctl(p->fd, INOTIFY_IOC_SETNEXTWD, wd) < 0)
		return -errno;
	got = inotify_add_watch(p->fd, path, mask);
	return got < 0 ? -errno : got == wd ? 0 : -EEXIST;
}

/* In a directory of the file system whose root is base; that it is there is all that it does. */
static int make_file(int base, int dir, const char *name, bool directory)
{
	int r = directory ? mkdirat(dir, name, 0700) : linkat(base, TEXT, dir, name, 0);

	return r < 0 ? -errno : 0;
}

static int remove_file(int base, const char *name, bool directory)
{
	return unlinkat(base, name, directory ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}

static void new_name(struct replay *p, char *name)
{
	snprintf(name, NUMBERED, "%u", p->serial++);
}

/* ---- stand-ins ---- */

static struct stand_in *find_stand_in(struct replay *p, int wd)
{
	vec_for_each (s, &p->stand_ins)
		if (s->wd == wd)
			return s;
	return NULL;
}

static int add_stand_in(struct replay *p, size_t event)
{
	int wd = p->m->events[event]->wd, r;
	struct stand_in *s;

	if (find_stand_in(p, wd))
		return 0;
	s = vec_push(&p->stand_ins);
	if (!s)
		return -ENOMEM;
	*s = (struct stand_in){.wd = wd,
			       .base = p->base,
			       .directory = p->facts[event] & INOTIFY_DIRECTORY,
			       .own_fs = p->facts[event] & INOTIFY_UNMOUNTED};
	new_name(p, s->name);
	if (s->own_fs)
		s->base = make_fs();
	if (s->base < 0)
		return s->base;
	r = s->directory ? make_file(s->base, s->base, s->name, true) : make_text(s->base, s->name);
	return r < 0 ? r : watch(p, s->base, s->name, wd, IN_DELETE_SELF);
}

/* The kernel has removed its watch, or we shall. */
static void drop_stand_in(struct replay *p, struct stand_in *s)
{
	if (s->own_fs)
		close_fd(&s->base);
	*s = p->stand_ins.v[--p->stand_ins.n];
}

static int tell(struct replay *p, struct stand_in *s, uint32_t mask)
{
	int r = s->mask == mask ? 0 : watch(p, s->base, s->name, s->wd, mask);

	if (r >= 0)
		s->mask = mask;
	return r;
}

/* ---- events ---- */

static int open_and_close(int base, const char *name, int flags)
{
	int fd = openat(base, name, flags | O_CLOEXEC);

	return fd < 0 || close(fd) < 0 ? -errno : 0;
}

static int try_to_execute(int base, const char *name)
{
	char *const none[] = {NULL};

	syscall(SYS_execveat, base, name, none, none, 0);
	return errno == ENOEXEC ? 0 : -errno;
}

static int set_time(int base, const char *name, bool modified)
{
	const struct timespec times[2] = {{.tv_nsec = modified ? UTIME_OMIT : UTIME_NOW},
					  {.tv_nsec = modified ? UTIME_NOW : UTIME_OMIT}};

	/* fsnotify_change(): one of the two is an access or a modification. */
	return utimensat(base, name, times, 0) < 0 ? -errno : 0;
}

/* One event of a file or directory that is there. */
static int do_to(int base, const char *name, uint32_t mask)
{
	switch (mask) {
	case IN_OPEN:
	case IN_CLOSE_NOWRITE:
		return open_and_close(base, name, O_RDONLY);
	case IN_OPEN | INOTIFY_OPEN_EXEC:
		return try_to_execute(base, name);
	case IN_CLOSE_WRITE:
		return open_and_close(base, name, O_WRONLY);
	case IN_ACCESS:
		return set_time(base, name, false);
	case IN_MODIFY:
		return set_time(base, name, true);
	case IN_ATTRIB:
		return fchmodat(base, name, 0700, 0) < 0 ? -errno : 0;
	default:
		return -EINVAL;
	}
}

/* Something in the directory that stands in. What else this does is not told (see tell()). */
static int do_inside(struct stand_in *s, const char *name, uint32_t mask, bool directory)
{
	_cleanup_(close_fd) int dir = openat(s->base, s->name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (dir < 0)
		return -errno;
	r = make_file(s->base, dir, name, directory);
	if (r >= 0 && !(mask & (IN_CREATE | IN_DELETE)))
		r = do_to(dir, name, mask);
	return r < 0 ? r : remove_file(dir, name, directory);
}

static int do_self(struct replay *p, struct stand_in *s, uint32_t mask)
{
	char old[NUMBERED];
	int r;

	switch (mask) {
	case IN_DELETE_SELF:
		r = remove_file(s->base, s->name, s->directory);
		drop_stand_in(p, s);
		return r;
	case IN_UNMOUNT:
		drop_stand_in(p, s);
		return 0;
	case IN_IGNORED:
		r = inotify_rm_watch(p->fd, s->wd) < 0 ? -errno : 0;
		drop_stand_in(p, s);
		return r;
	case IN_MOVE_SELF:
		memcpy(old, s->name, sizeof(old));
		new_name(p, s->name);
		return renameat(s->base, old, s->base, s->name) < 0 ? -errno : 0;
	default:
		return do_to(s->base, s->name, mask);
	}
}

static void copy_name(const Reprise__InotifyEvent *event, char *name)
{
	memcpy(name, event->name.data, event->name.len);
	name[event->name.len] = '\0';
}

static int open_directory(const struct stand_in *s, int base)
{
	int fd = openat(base, s ? s->name : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* From one directory to another, of which either may be one that is not watched. */
static int move(const struct stand_in *from, const char *old, const struct stand_in *to,
		const char *new, bool directory)
{
	int base = from ? from->base : to->base;
	_cleanup_(close_fd) int source = open_directory(from, base);
	_cleanup_(close_fd) int target = open_directory(to, base);
	int r = source < 0 ? source : target < 0 ? target : make_file(base, source, old, directory);

	if (r >= 0 && renameat(source, old, target, new) < 0)
		r = -errno;
	return r < 0 ? r : remove_file(target, new, directory);
}

/* One or both halves; the number that the two have in common is the kernel's to choose. */
static int do_move(struct replay *p, size_t i, bool both)
{
	const Reprise__InotifyEvent *event = p->m->events[i];
	bool is_from = event->mask & IN_MOVED_FROM;
	struct stand_in *from = is_from ? find_stand_in(p, event->wd) : NULL;
	struct stand_in *to = both	? find_stand_in(p, p->m->events[i + 1]->wd)
			      : is_from ? NULL
					: find_stand_in(p, event->wd);
	char old[NAME_MAX + 1], new[NAME_MAX + 1];
	int r = 0;

	new_name(p, old);
	new_name(p, new);
	copy_name(event, is_from ? old : new);
	if (both)
		copy_name(p->m->events[i + 1], new);
	if (from)
		r = tell(p, from, IN_MOVED_FROM | (from == to ? IN_MOVED_TO : 0));
	if (r >= 0 && to && to != from)
		r = tell(p, to, IN_MOVED_TO);
	return r < 0 ? r : move(from, old, to, new, event->mask & IN_ISDIR);
}

/* Returns how many events that were. */
static int make_event(struct replay *p, size_t i)
{
	const Reprise__InotifyEvent *event = p->m->events[i];
	uint32_t mask = event->mask & ~(uint32_t)IN_ISDIR;
	bool both = inotify_events_pair(p->m, i);
	struct stand_in *s;
	char name[NAME_MAX + 1];
	int r = add_stand_in(p, i);

	if (r >= 0 && both)
		r = add_stand_in(p, i + 1);
	if (r < 0)
		return r;
	if (mask & (IN_MOVED_FROM | IN_MOVED_TO)) {
		r = do_move(p, i, both);
		return r < 0 ? r : both ? 2 : 1;
	}
	s = find_stand_in(p, event->wd);
	/* Of these two everybody is told. */
	r = tell(p, s, mask & (IN_IGNORED | IN_UNMOUNT) ? IN_DELETE_SELF : mask & IN_ALL_EVENTS);
	if (r < 0)
		return r;
	if (event->name.len) {
		copy_name(event, name);
		r = do_inside(s, name, mask, event->mask & IN_ISDIR);
	} else {
		r = do_self(p, s, mask);
	}
	return r < 0 ? r : mask & (IN_DELETE_SELF | IN_UNMOUNT) ? 2 : 1;
}

static int make_events(struct replay *p, size_t from, size_t to, struct error *e)
{
	while (from < to) {
		int r = make_event(p, from);

		if (r < 0)
			return error_errno(e, r, E_RESTORE,
					   "cannot make an event again (watch %d, %#x)",
					   p->m->events[from]->wd, p->m->events[from]->mask);
		from += (size_t)r;
	}
	return 0;
}

/* ---- filling ---- */

/* Of two kinds, since an event that is equal to the last is merged with it. */
static int fill(struct replay *p, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++, p->odd = !p->odd) {
		char byte = 0;

		if ((p->odd ? pread(p->file, &byte, 1, 0) : pwrite(p->file, &byte, 1, 0)) != 1)
			return -EIO;
	}
	return 0;
}

/* From the front; none of them has a name. */
static int drop(struct replay *p, uint64_t count)
{
	struct inotify_event events[256];

	while (count) {
		size_t part = count < 256 ? (size_t)count : 256;

		if (read(p->fd, events, part * sizeof(*events)) !=
		    (ssize_t)(part * sizeof(*events)))
			return -EIO;
		count -= part;
	}
	return 0;
}

/* A number that no event and no watch has. */
static int free_number(const Reprise__Inotify *m)
{
	int wd = 1;

	for (size_t i = 0; i < m->n_events; i++)
		if (m->events[i]->wd >= wd)
			wd = m->events[i]->wd < INT_MAX ? m->events[i]->wd + 1 : 0;
	if (wd)
		return wd;
	for (wd = 1; wd < INT_MAX; wd++) {
		bool taken = false;

		for (size_t i = 0; i < m->n_events && !taken; i++)
			taken = m->events[i]->wd == wd;
		if (!taken)
			break;
	}
	return wd;
}

static int begin(struct replay *p, struct error *e)
{
	int r = watch_queue_limit(p->r, "inotify", &p->limit, e);

	if (r < 0)
		return r;
	r = inotify_events_facts(p->m, &p->facts);
	if (r < 0)
		return error_errno(e, r, E_RESTORE, "cannot put unread events back");
	p->base = make_fs();
	if (p->base < 0)
		return error_errno(e, p->base, E_RESTORE,
				   "cannot make a file system to put unread events back");
	p->file = openat(p->base, "filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	p->filler = free_number(p->m);
	r = p->file < 0		   ? -errno
	    : p->filler == INT_MAX ? -ENOSPC
				   : watch(p, p->base, "filler", p->filler, IN_MODIFY | IN_ACCESS);
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot put unread events back") : 0;
}

static void end(struct replay *p)
{
	vec_for_each (s, &p->stand_ins)
		if (s->own_fs)
			close_fd(&s->base);
	vec_free(&p->stand_ins);
	free(p->facts);
	close_fd(&p->file);
	close_fd(&p->base);
}

/* Unseen: the queue is full. */
static int remove_watches(struct replay *p)
{
	vec_for_each (s, &p->stand_ins)
		if (inotify_rm_watch(p->fd, s->wd) < 0)
			return -errno;
	return inotify_rm_watch(p->fd, p->filler) < 0 ? -errno : 0;
}

/* include/linux/inotify.h: the name with its zero, rounded up. */
static int check(const struct replay *p)
{
	size_t want = 0;
	int is;

	for (size_t i = 0; i < p->m->n_events; i++)
		want += sizeof(struct inotify_event) +
			(p->m->events[i]->name.len
				 ? (p->m->events[i]->name.len / sizeof(struct inotify_event) + 1) *
					   sizeof(struct inotify_event)
				 : 0);
	return ioctl(p->fd, FIONREAD, &is) < 0 || (size_t)is != want ? -EIO : 0;
}

static int put_back(struct replay *p, struct error *e)
{
	size_t n = p->m->n_events, before = 0, behind = n;
	uint64_t filling, early;
	bool lost = false;
	int r;

	for (size_t i = 0; i < n && !lost; i++)
		if (p->m->events[i]->mask == IN_Q_OVERFLOW) {
			lost = true;
			before = i;
			behind = n - i - 1;
		}
	/* What goes early makes room for the events behind the overflow, and for its own place. */
	early = behind ? behind + 1 : 0;
	if (before + early > p->limit)
		return error_set(e, -ENOSPC, E_RESTORE,
				 "%zu unread events have no room in a queue of %llu "
				 "(/proc/sys/fs/inotify/max_queued_events)",
				 n, (unsigned long long)p->limit);
	filling = p->limit - before;
	r = fill(p, filling);
	if (r >= 0)
		r = make_events(p, 0, before, e);
	if (r >= 0)
		r = fill(p, 1); /* has no room, and becomes the overflow */
	if (r >= 0)
		r = drop(p, early);
	if (r >= 0)
		r = make_events(p, n - behind, n, e);
	if (r >= 0)
		r = remove_watches(p);
	if (r >= 0)
		r = drop(p, filling - early + !lost);
	return r < 0 ? r : check(p);
}

int inotify_events_restart(struct restart *r, int fd, const Reprise__Inotify *m, struct error *e)
{
	_cleanup_(end) struct replay p = {.r = r, .fd = fd, .base = -EBADF, .file = -EBADF, .m = m};
	int res;

	if (!m->n_events)
		return 0;
	res = begin(&p, e);
	if (res < 0)
		return res;
	res = put_back(&p, e);
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot put unread events back") : 0;
}
