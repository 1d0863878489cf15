/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/agent.h"
#include "remote/maps.h"

#define PAGE		4096UL
#define LOOK_PAGES	64 /* from the low end of the stack */
#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62) /* set for guard pages as well */

/*
 * Should a signal handler of the application run on top of the frame (which takes
 * our death at the wrong moment), its own frame needs room below. Deeper than that the stack grows.
 */
#define ROOM_BELOW 24576UL

/*
 * Stands at the low end of the stack: if we are killed, what was in the slot stays, as does what
 * handlers have left below it, and the next one has to know that it is nobody's.
 */
struct mark {
	uint64_t magic[6];
	uint64_t pages, unused;
};
#define MARK \
	((struct mark){.magic = {MAGIC, ~MAGIC, MAGIC << 1, ~MAGIC << 1, MAGIC << 2, ~MAGIC << 2}})
#define MAGIC	   0x5c81b3d2f06e947aULL
#define PAGES_MOST 32

/* Without memory of ours: what is done to tasks has to be undone, whatever happens to us. */
static int write_zeros(pid_t tid, uint64_t at, size_t size, struct error *e)
{
	static const uint8_t zeros[4 * PAGE];

	for (size_t n; size; at += n, size -= n) {
		int r;

		n = size < sizeof(zeros) ? size : sizeof(zeros);
		r = mem_write(tid, at, zeros, n, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Zeros again, but for the mark itself: it goes when all else has gone. */
static bool clean(pid_t tid, uint64_t at, size_t pages)
{
	return write_zeros(tid, at + sizeof(struct mark), pages * PAGE - sizeof(struct mark),
			   NULL) == 0;
}

/*
 * How many of the `most` pages from `at` on, where a stack begins, hold nothing that is of use to
 * the application. A mark of somebody who was killed is worth nothing when the stack has grown into
 * what it is for.
 */
static size_t nobodys_pages(pid_t tid, uint64_t at, size_t most, bool first)
{
	uint64_t page[PAGE / sizeof(uint64_t)];
	const struct mark *mark = (const struct mark *)page;

	if (mem_read(tid, at, page, sizeof(page), NULL) < 0)
		return 0;
	if (first && !memcmp(mark->magic, MARK.magic, sizeof(mark->magic)) && mark->pages &&
	    mark->pages < PAGES_MOST && mark->pages <= most)
		return clean(tid, at, mark->pages) ? mark->pages : 0;
	for (size_t i = 0; i < PAGE / sizeof(uint64_t); i++)
		if (page[i])
			return 0;
	return 1;
}

/*
 * How many pages from the low end of the stack have never been used, or hold nothing. What is above
 * the stack pointer is in use, if it is on this stack; else nobody knows what is, and a mark that
 * was left there may be older than that.
 */
static size_t unused_pages(int proc_fd, pid_t tid, uint64_t sp, const struct map_entry *stack)
{
	_cleanup_(close_fd) int fd = procfs_open(proc_fd, O_RDONLY, NULL, "%d/pagemap", tid);
	bool here = stack->start <= sp && sp < stack->end;
	size_t n = ((here ? sp : stack->end) - stack->start) / PAGE, i;
	uint64_t pages[LOOK_PAGES];

	if (n > LOOK_PAGES)
		n = LOOK_PAGES;
	if (fd < 0 || pread(fd, pages, n * sizeof(*pages), (off_t)(stack->start / PAGE * 8)) !=
			      (ssize_t)(n * sizeof(*pages)))
		return 0;
	for (i = 0; i < n;) {
		size_t free = 1;

		if (pages[i] & PAGEMAP_SWAPPED)
			break;
		if (pages[i] & PAGEMAP_PRESENT)
			free = nobodys_pages(tid, stack->start + i * PAGE, n - i, here && !i);
		if (!free)
			break;
		i += free;
	}
	return i;
}

static bool is_writable(const struct map_entry *m)
{
	return (m->perms & (MAP_READ | MAP_WRITE | MAP_IS_SHARED)) == (MAP_READ | MAP_WRITE);
}

static bool set_mark(pid_t tid, uint64_t at, size_t size)
{
	struct mark mark = MARK;

	mark.pages = (size + PAGE - 1) / PAGE;
	return mem_write(tid, at, &mark, sizeof(mark), NULL) == 0;
}

/* Below the low-water mark of the main thread's stack. */
static bool slot_below_stack(int proc_fd, pid_t tid, uint64_t sp, struct maps *maps, size_t size,
			     struct slot *ret)
{
	vec_for_each (m, &maps->entries) {
		uint64_t room, below;
		size_t all = size + sizeof(struct mark);

		if (strcmp(m->name, "[stack]") || !is_writable(m))
			continue;
		room = unused_pages(proc_fd, tid, sp, m) * PAGE;
		if (room < all)
			return false;
		below = room - all < ROOM_BELOW ? (room - all) & ~(PAGE - 1) : ROOM_BELOW;
		*ret = (struct slot){.mark = m->start,
				     .at = m->start + below + sizeof(struct mark),
				     .end = m->start + room,
				     .used = size};
		return set_mark(tid, m->start, below + all);
	}
	return false;
}

/* As the kernel itself would put a signal frame; sp is below the red zone. */
int slot_below(pid_t tid, uint64_t sp, size_t size, struct slot *ret, struct error *e)
{
	uint64_t end = sp & ~(ARCH_FRAME_ALIGN - 1UL), at;

	*ret = (struct slot){};
	if (sp < size + PAGE)
		return error_set(e, -ENOSPC, E_REMOTE, "task %d has no stack", tid);
	at = (end - size) & ~(ARCH_FRAME_ALIGN - 1UL);
	ret->kept = malloc(end - at);
	if (!ret->kept)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot keep the stack of task %d", tid);
	ret->at = at;
	ret->end = end;
	return mem_read(tid, at, ret->kept, end - at, e);
}

static bool slot_below_sp(pid_t tid, uint64_t sp, struct maps *maps, size_t size, struct slot *ret)
{
	vec_for_each (m, &maps->entries)
		if (m->start <= sp && sp < m->end && sp - m->start > size + ARCH_FRAME_ALIGN &&
		    is_writable(m))
			return slot_below(tid, sp, size, ret, NULL) == 0;
	return false;
}

int slot_find(int proc_fd, pid_t tid, uint64_t sp, struct maps *maps, size_t size, struct slot *ret,
	      struct error *e)
{
	*ret = (struct slot){};
	if (slot_below_stack(proc_fd, tid, sp, maps, size, ret) ||
	    slot_below_sp(tid, sp, maps, size, ret))
		return 0;
	slot_free(ret);
	return error_set(e, -ENOSPC, E_REMOTE,
			 "task %d has no room for %zu bytes on any stack of its own", tid, size);
}

/* What was there comes back: zeros, or what lay below the stack pointer. The mark goes last. */
int slot_clear(const struct slot *s, pid_t tid, struct error *e)
{
	const struct mark none = {};
	size_t size = s->used < s->end - s->at ? s->used : s->end - s->at;
	int r;

	if (s->kept)
		return mem_write(tid, s->at, s->kept, s->end - s->at, e);
	r = write_zeros(tid, s->at, size, e);
	return r < 0 ? r : mem_write(tid, s->mark, &none, sizeof(none), e);
}

void slot_free(struct slot *s)
{
	free(s->kept);
	*s = (struct slot){};
}
