/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unread events of inotify, which can be read by taking them only: struct fsnotify_group has them
 * in a list. How they are put back is said in inotify_replay.c.
 */
#include "fs/inotify_events.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#include "core/cleanup.h"

#define EVENTS_MAX (1 << 20)
#define EVENT_ROOM 128
#define KEPT \
	(IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ISDIR | INOTIFY_OPEN_EXEC)

/* Where the members of struct inotify_event_info stand. */
struct event_layout {
	int list, mask, wd, cookie, length, name, size;
};

static int find_layout(struct kernel_memory *k, struct event_layout *l)
{
	static const char type[] = "inotify_event_info";

	*l = (struct event_layout){
		.list = kernel_offset(k, type, "fse.list"),
		.mask = kernel_offset(k, type, "mask"),
		.wd = kernel_offset(k, type, "wd"),
		.cookie = kernel_offset(k, type, "sync_cookie"),
		.length = kernel_offset(k, type, "name_len"),
		.name = kernel_offset(k, type, "name"),
		.size = kernel_size(k, type),
	};
	if (l->list < 0 || l->mask < 0 || l->wd < 0 || l->cookie < 0 || l->length < 0 ||
	    l->name < 0 || l->size <= 0 || l->size > EVENT_ROOM)
		return -EOPNOTSUPP;
	return 0;
}

static int read_event(struct kernel_memory *k, const struct event_layout *l, uint64_t node,
		      struct scratch *s, Reprise__InotifyEvent **ret, uint64_t *ret_next)
{
	uint64_t at = node - (uint64_t)l->list;
	Reprise__InotifyEvent *m =
		scratch_message(s, Reprise__InotifyEvent, reprise__inotify_event__init);
	char raw[EVENT_ROOM];
	int length, r;

	if (!m)
		return -ENOMEM;
	r = kernel_read(k, at, raw, (size_t)l->size);
	if (r < 0)
		return r;
	memcpy(ret_next, raw + l->list, sizeof(*ret_next));
	memcpy(&m->mask, raw + l->mask, sizeof(m->mask));
	memcpy(&m->wd, raw + l->wd, sizeof(m->wd));
	memcpy(&m->cookie, raw + l->cookie, sizeof(m->cookie));
	memcpy(&length, raw + l->length, sizeof(length));
	m->mask &= KEPT;
	*ret = m;
	if (length < 0 || length > NAME_MAX)
		return -EOPNOTSUPP;
	if (!length)
		return 0;
	m->name.data = scratch_alloc(s, (size_t)length);
	m->name.len = (size_t)length;
	return m->name.data ? kernel_read(k, at + (uint64_t)l->name, m->name.data, m->name.len)
			    : -ENOMEM;
}

/* Whoever adds to it meanwhile does so at its end, where each event is whole before it is linked
 * (fsnotify_insert_event()); nobody takes any. */
static int read_list(struct kernel_memory *k, uint64_t group, Reprise__Inotify *m,
		     struct scratch *s)
{
	struct event_layout l;
	VEC(Reprise__InotifyEvent *) events = {};
	int at = kernel_offset(k, "fsnotify_group", "notification_list"), r = find_layout(k, &l);
	uint64_t head = group + (uint64_t)at, node;

	if (r < 0 || at < 0)
		return r < 0 ? r : at;
	node = kernel_pointer(k, head);
	while (r >= 0 && node != head) {
		Reprise__InotifyEvent **slot = vec_push(&events);

		if (!node || !slot || events.n > EVENTS_MAX)
			r = !slot ? -ENOMEM : -EOPNOTSUPP;
		else
			r = read_event(k, &l, node, s, slot, &node);
	}
	if (r >= 0 && events.n) {
		m->events = scratch_copy(s, events.v, events.n * sizeof(*events.v));
		m->n_events = m->events ? events.n : 0;
		r = m->events ? 0 : -ENOMEM;
	}
	vec_free(&events);
	return r;
}

int inotify_events_save(struct checkpoint *c, int fd, Reprise__Inotify *m, struct scratch *s,
			struct error *e)
{
	struct kernel_memory *k;
	uint64_t file, group;
	int r = files_kernel_memory(c, &k, e);

	if (r < 0)
		return r;
	r = kernel_file(k, fd, &file);
	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &group, sizeof(group));
	if (r >= 0)
		r = kernel_member(k, group, "fsnotify_group", "inotify_data.idr.idr_next",
				  &m->next_wd, sizeof(m->next_wd));
	if (r >= 0 && !c->checking)
		r = read_list(k, group, m, s);
	if (r < 0)
		return error_errno(e, r, E_SYSTEM, "its events are not understood");
	return inotify_events_possible(m, e);
}

/* ---- what can be made ---- */

static bool is_name(const ProtobufCBinaryData *name)
{
	const char *text = (const char *)name->data;

	if (name->len > NAME_MAX || memchr(text, '\0', name->len) || memchr(text, '/', name->len))
		return false;
	return !(text[0] == '.' && (name->len == 1 || (name->len == 2 && text[1] == '.')));
}

static bool possible(const Reprise__InotifyEvent *m)
{
	bool directory = m->mask & IN_ISDIR, named = m->name.len != 0;

	if (m->mask == IN_Q_OVERFLOW)
		return m->wd == -1 && !named;
	if (m->wd < 1 || (named && !is_name(&m->name)))
		return false;
	switch (m->mask & ~(uint32_t)IN_ISDIR) {
	case IN_OPEN:
	case IN_ACCESS:
	case IN_MODIFY:
	case IN_ATTRIB:
	case IN_CLOSE_NOWRITE:
		return true;
	case IN_OPEN | INOTIFY_OPEN_EXEC:
	case IN_CLOSE_WRITE:
		return !directory;
	case IN_CREATE:
	case IN_DELETE:
	case IN_MOVED_FROM:
	case IN_MOVED_TO:
		return named;
	case IN_UNMOUNT:
		return !named;
	case IN_DELETE_SELF:
	case IN_MOVE_SELF:
	case IN_IGNORED:
		return !named && !directory;
	default:
		return false;
	}
}

bool inotify_events_pair(const Reprise__Inotify *m, size_t i)
{
	const Reprise__InotifyEvent *from = m->events[i], *to;

	if (i + 1 == m->n_events || !(from->mask & IN_MOVED_FROM))
		return false;
	to = m->events[i + 1];
	return to->mask == ((from->mask & IN_ISDIR) | IN_MOVED_TO) && to->cookie == from->cookie;
}

/* Events by a number that they have, and in their order. */
struct numbered {
	uint32_t number;
	uint32_t at;
};

static int compare(const void *a, const void *b)
{
	const struct numbered *x = a, *y = b;

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

static struct numbered *sort(const Reprise__Inotify *m, bool by_cookie)
{
	struct numbered *list = calloc(m->n_events + 1, sizeof(*list));

	for (size_t i = 0; list && i < m->n_events; i++)
		list[i] = (struct numbered){
			by_cookie ? m->events[i]->cookie : (uint32_t)m->events[i]->wd, (uint32_t)i};
	if (list)
		qsort(list, m->n_events, sizeof(*list), compare);
	return list;
}

/* What an event tells of the inode that is watched; 0: nothing. */
static uint8_t tells(const Reprise__InotifyEvent *m)
{
	if (m->name.len || m->mask & IN_ISDIR)
		return INOTIFY_DIRECTORY;
	return m->mask & (IN_OPEN | IN_ACCESS | IN_MODIFY | IN_ATTRIB | IN_CLOSE) ? INOTIFY_FILE
										  : 0;
}

/* The life of a watch ends with an IN_IGNORED: from there backwards it is known what it was on. */
static void look_at_watches(const Reprise__Inotify *m, const struct numbered *by_wd, uint8_t *facts)
{
	uint8_t known = 0;

	for (size_t i = m->n_events; i-- > 0;) {
		const Reprise__InotifyEvent *event = m->events[by_wd[i].at];

		if (event->mask == IN_IGNORED ||
		    (i + 1 < m->n_events && by_wd[i + 1].number != by_wd[i].number))
			known = 0;
		known |= tells(event);
		if (event->mask & IN_UNMOUNT)
			known |= INOTIFY_UNMOUNTED;
		facts[by_wd[i].at] = known;
	}
}

/* Both halves of a rename have one number, so that they have to be made at once. */
static bool torn(const Reprise__Inotify *m, const struct numbered *by_cookie)
{
	for (size_t i = 1; i < m->n_events; i++)
		if (by_cookie[i].number && by_cookie[i].number == by_cookie[i - 1].number &&
		    !inotify_events_pair(m, by_cookie[i - 1].at))
			return true;
	return false;
}

int inotify_events_facts(const Reprise__Inotify *m, uint8_t **ret)
{
	_cleanup_(free_ptr) struct numbered *by_wd = sort(m, false);
	_cleanup_(free_ptr) struct numbered *by_cookie = sort(m, true);
	_cleanup_(free_ptr) uint8_t *facts = calloc(m->n_events + 1, 1);

	if (!by_wd || !by_cookie || !facts)
		return -ENOMEM;
	look_at_watches(m, by_wd, facts);
	if (torn(m, by_cookie))
		return -EOPNOTSUPP;
	*ret = take_ptr(&facts);
	return 0;
}

/* Events that no stand-in can have. */
static bool is_odd(const Reprise__Inotify *m, size_t i, const uint8_t *facts)
{
	const uint8_t both = INOTIFY_FILE | INOTIFY_DIRECTORY;

	if (!possible(m->events[i]) || (facts[i] & both) == both)
		return true;
	return inotify_events_pair(m, i) && (facts[i] | facts[i + 1]) & INOTIFY_UNMOUNTED;
}

int inotify_events_possible(const Reprise__Inotify *m, struct error *e)
{
	_cleanup_(free_ptr) uint8_t *facts = NULL;
	size_t overflows = 0;
	int r = m->n_events > EVENTS_MAX ? -E2BIG : inotify_events_facts(m, &facts);

	if (r < 0)
		return error_errno(e, r, r == -ENOMEM ? E_NO_MEMORY : E_FILE_EVENTS,
				   "its unread events cannot be made again");
	for (size_t i = 0; i < m->n_events; i++) {
		const Reprise__InotifyEvent *event = m->events[i];

		/* fsnotify_inode_delete() removes the watch at once. */
		if (event->mask & (IN_DELETE_SELF | IN_UNMOUNT) &&
		    (i + 1 == m->n_events || m->events[i + 1]->mask != IN_IGNORED ||
		     m->events[i + 1]->wd != event->wd))
			return error_set(e, -EBUSY, E_FILE_EVENTS,
					 "a file that it watches is being removed");
		overflows += event->mask == IN_Q_OVERFLOW;
		if (is_odd(m, i, facts) || overflows > 1)
			return error_set(e, -EOPNOTSUPP, E_FILE_EVENTS,
					 "it holds an unread event (watch %d, %#x) that cannot be "
					 "made again",
					 event->wd, event->mask);
	}
	return 0;
}
