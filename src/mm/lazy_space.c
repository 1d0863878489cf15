/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mm/lazy.h"

struct lazy_space *lazy_space_new(uint64_t object, pid_t pid)
{
	struct lazy_space *s = calloc(1, sizeof(*s));
	pthread_rwlockattr_t prefer;

	if (!s)
		return NULL;
	s->object = object;
	s->pid = pid;
	s->uffd = -EBADF;
	/* The application waits for whoever reads what it has done. */
	pthread_rwlockattr_init(&prefer);
	pthread_rwlockattr_setkind_np(&prefer, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&s->changing, &prefer);
	pthread_rwlockattr_destroy(&prefer);
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

void lazy_space_free(struct lazy_space *s)
{
	if (!s)
		return;
	close_fd(&s->uffd);
	missing_free(&s->missing);
	pthread_rwlock_destroy(&s->changing);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void lazy_space_close(struct lazy_space *s)
{
	pthread_rwlock_wrlock(&s->changing);
	close_fd(&s->uffd);
	missing_free(&s->missing);
	pthread_rwlock_unlock(&s->changing);
}

/* ---- what the application does ---- */

/* A child of fork() lacks what its parent lacked in that instant: none can have come since. */
static int forked(struct lazy_space *parent, int uffd, const struct lazy_events *events)
{
	struct lazy_space *child = lazy_space_new(parent->object, 0);
	int r;

	if (!child) {
		/* Closed, it would read as empty what it lacks: kept, it waits for ever. */
		return -ENOMEM;
	}
	child->uffd = uffd;
	child->moved = parent->moved;
	r = missing_copy(&child->missing, &parent->missing);
	return r < 0 ? r : events->forked(events->arg, child);
}

static int take_in(struct lazy_space *s, const struct uffd_msg *m, const struct lazy_events *events)
{
	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		return events->fault(events->arg, s, m->arg.pagefault.address & ~(PAGE_BYTES - 1));
	case UFFD_EVENT_FORK:
		return forked(s, (int)m->arg.fork.ufd, events);
	case UFFD_EVENT_REMAP:
		s->moved = true;
		return missing_move(&s->missing, m->arg.remap.from, m->arg.remap.to,
				    m->arg.remap.len);
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		return missing_drop(&s->missing, m->arg.remove.start, m->arg.remove.end);
	default:
		return -EPROTO;
	}
}

int lazy_space_read(struct lazy_space *s, const struct lazy_events *events)
{
	struct uffd_msg m;
	int r = 0;

	pthread_rwlock_wrlock(&s->changing);
	while (r >= 0 && s->uffd >= 0) {
		ssize_t n = read(s->uffd, &m, sizeof(m));

		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(m))
			break;
		r = take_in(s, &m, events);
	}
	pthread_rwlock_unlock(&s->changing);
	return r;
}

/* ---- putting pages into place ---- */

static void wake(struct lazy_space *s, uint64_t address)
{
	struct uffdio_range range = {address, PAGE_BYTES};

	ioctl(s->uffd, UFFDIO_WAKE, &range);
}

/*
 * One piece of one mapping, as far as it gets; returns how many bytes are settled. A page that is
 * there already is one that was put there by somebody else, or that has been written to since.
 */
static ssize_t copy_some(struct lazy_space *s, uint64_t to, const uint8_t *from, size_t len)
{
	struct uffdio_copy c = {.dst = to, .src = (uintptr_t)from, .len = len};

	if (ioctl(s->uffd, UFFDIO_COPY, &c) == 0)
		return (ssize_t)len;
	if (c.copy > 0)
		return c.copy;
	if (errno == EEXIST) {
		wake(s, to);
		return PAGE_BYTES;
	}
	/* Not within one mapping, which may have been divided; or not registered any more. */
	if (errno == ENOENT)
		return len > PAGE_BYTES ? copy_some(s, to, from, PAGE_BYTES) : (ssize_t)PAGE_BYTES;
	return -errno;
}

/* The kernel lets a task with too little memory in its control group wait; us it tells so. */
static ssize_t copy_patiently(struct lazy_space *s, uint64_t to, const uint8_t *from, size_t len)
{
	ssize_t n = copy_some(s, to, from, len);

	for (int tries = 0; n == -ENOMEM && tries < 100; tries++) {
		usleep(10000);
		n = copy_some(s, to, from, len);
	}
	return n;
}

static int put_part(struct lazy_space *s, const struct missing *part, const uint8_t *data)
{
	uint64_t at = part->start;
	ssize_t n = 0;
	int r;

	while (data && at < part->end) {
		n = copy_patiently(s, at, data + (at - part->start), part->end - at);
		if (n < 0)
			break;
		at += (uint64_t)n;
	}
	if (!data)
		at = part->end;
	pthread_mutex_lock(&s->lock);
	r = missing_drop(&s->missing, part->start, at);
	pthread_mutex_unlock(&s->lock);
	return n < 0 ? (int)n : r;
}

int lazy_space_put(struct lazy_space *s, uint64_t source, const uint8_t *data, size_t len)
{
	int r = 0;

	pthread_rwlock_rdlock(&s->changing);
	while (r >= 0 && s->uffd >= 0) {
		struct missing part;
		bool found;
		size_t i;

		pthread_mutex_lock(&s->lock);
		i = missing_from(&s->missing, s->moved, source);
		found = missing_next(&s->missing, &i, source, source + len, &part);
		pthread_mutex_unlock(&s->lock);
		if (!found)
			break;
		r = put_part(s, &part, data ? data + (part.source - source) : NULL);
	}
	pthread_rwlock_unlock(&s->changing);
	if (r != -ESRCH)
		return r;
	lazy_space_close(s);
	return 0;
}

bool lazy_space_lacks(struct lazy_space *s, uint64_t source, uint64_t end)
{
	struct missing part;
	bool found;
	size_t i;

	pthread_rwlock_rdlock(&s->changing);
	pthread_mutex_lock(&s->lock);
	i = missing_from(&s->missing, s->moved, source);
	found = s->uffd >= 0 && missing_next(&s->missing, &i, source, end, &part);
	pthread_mutex_unlock(&s->lock);
	pthread_rwlock_unlock(&s->changing);
	return found;
}

bool lazy_space_complete(struct lazy_space *s)
{
	bool complete;

	pthread_rwlock_rdlock(&s->changing);
	pthread_mutex_lock(&s->lock);
	complete = s->missing.n == 0 || s->uffd < 0;
	pthread_mutex_unlock(&s->lock);
	pthread_rwlock_unlock(&s->changing);
	return complete;
}

uint64_t lazy_space_source(struct lazy_space *s, uint64_t address)
{
	uint64_t source;

	pthread_rwlock_rdlock(&s->changing);
	pthread_mutex_lock(&s->lock);
	source = missing_source(&s->missing, address);
	pthread_mutex_unlock(&s->lock);
	pthread_rwlock_unlock(&s->changing);
	return source;
}

int lazy_space_zero(struct lazy_space *s, uint64_t address)
{
	struct uffdio_zeropage z = {.range = {address, PAGE_BYTES}};
	bool zero;
	int r = 0;

	pthread_rwlock_rdlock(&s->changing);
	pthread_mutex_lock(&s->lock);
	zero = missing_source(&s->missing, address) == MISSING_NOTHING;
	pthread_mutex_unlock(&s->lock);
	if (zero && s->uffd >= 0 && ioctl(s->uffd, UFFDIO_ZEROPAGE, &z) < 0) {
		r = -errno;
		if (r == -EEXIST || r == -ENOENT || r == -ESRCH) {
			wake(s, address);
			r = 0;
		}
	}
	pthread_rwlock_unlock(&s->changing);
	return zero ? r : -EAGAIN;
}
