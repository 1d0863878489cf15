/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/shared_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/pagemap.h"

/* To protect what is not there takes page tables. Of a mapping that is mostly holes, or of very
 * many, they would be larger than what is saved. */
#define MAPPED_MOST    16
/* A tick has at most 10 ms. */
#define TICKS_NS       25000000ll
#define PIECE	       (16ul << 20) /* the lock of an address space is held meanwhile */
/* Of more, nothing that is shared is copied in advance, or not the objects with more mappings. */
#define ADDRESS_SPACES 4096
#define MAPPINGS       4096

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory to track pages");
}

/* ---- begin and end ---- */

void shared_end(struct shared_objects *s)
{
	if (!s)
		return;
	vec_for_each (o, &s->v) {
		close_fd(&o->is.fd);
		vec_free(&o->maps);
		vec_free(&o->data);
		vec_free(&o->todo);
		vec_free(&o->kept);
	}
	vec_free(&s->v);
	kernel_watch_free(s->watch);
	free(s);
}

static int begin(struct checkpoint *c, struct shared_objects *s, struct error *e)
{
	unsigned int room = ADDRESS_SPACES + MAPPINGS + 2 * (unsigned int)s->v.n;
	struct kernel_memory *k;
	int r = checkpoint_kernel_memory(c, &k, e);

	if (r >= 0)
		r = kernel_watch_new(&s->watch, k, room, e);
	vec_for_each (o, &s->v) {
		if (r < 0)
			break;
		r = kernel_watch_file(s->watch, c->kernel, o->is.fd, &o->watched);
		if (r >= 0 && o->is.is_segment)
			r = kernel_watch_segment(s->watch, (int)o->is.ino);
		if (r < 0)
			error_errno(e, r, E_SYSTEM, "who maps a file cannot be watched");
	}
	return r;
}

int shared_begin(struct checkpoint *c, struct memory_objects *objects, struct shared_objects **ret,
		 struct error *e)
{
	struct shared_objects *s = calloc(1, sizeof(*s));
	int r = s ? 0 : no_memory(e);

	vec_for_each (o, &objects->v) {
		struct shared_object *new = r < 0 ? NULL : vec_push(&s->v);

		if (new)
			new->is = *o;
		if (new)
			o->fd = -EBADF;
		else if (r >= 0)
			r = no_memory(e);
	}
	if (r >= 0)
		r = begin(c, s, e);
	if (r >= 0)
		s->tells_holes = pagemap_tells_holes(c->proc_fd, MAP_SHARED);
	if (r < 0)
		shared_end(s);
	else
		*ret = s;
	return r;
}

/* ---- mappings ---- */

/* Segments are numbered by themselves, on the same device as all other memory. */
static bool is_segment(const char *name)
{
	return strncmp(name, "/SYSV", 5) == 0;
}

bool shared_is_of(const struct shared_object *o, const struct vma *v)
{
	return v->shared && v->ino == o->is.ino &&
	       o->is.dev == makedev(v->dev_major, v->dev_minor) &&
	       o->is.is_segment == is_segment(v->name);
}

static struct shared_object *object_of(const struct shared_objects *s, const struct vma *v)
{
	if (v->shared && v->ino)
		vec_for_each (o, &s->v)
			if (shared_is_of(o, v))
				return o;
	return NULL;
}

bool shared_maps(const struct shared_objects *s, int proc_fd, pid_t tid)
{
	_cleanup_(vma_list_free) struct vma_list maps = {};
	struct error unused = {};

	if (vmas_read(proc_fd, tid, "maps", &maps, &unused) < 0)
		return false;
	vec_for_each (v, &maps.vmas)
		if (object_of(s, v))
			return true;
	return false;
}

static int watch_process(struct checkpoint *c, struct shared_objects *s,
			 const struct frozen_process *f)
{
	vec_for_each (t, &f->threads)
		if (!t->zombie)
			return kernel_watch_space(s->watch, c->kernel, t->tid);
	return 0;
}

/* All of the tree: what maps nothing may have a descriptor. */
static int watch_all(struct checkpoint *c, struct shared_objects *s, struct error *e)
{
	vec_for_each (f, &c->freezer.processes) {
		int r = watch_process(c, s, f);

		if (r < 0 && r != -ESRCH)
			return error_errno(e, r, E_SYSTEM, "task %d cannot be watched", f->pid);
	}
	s->all_watched = true;
	return 0;
}

/* What can never be written to (no VM_MAYWRITE) is refused by the kernel, and not counted by it. */
static int register_map(struct shared_objects *s, struct shared_object *o, const struct mm_track *t,
			const struct vma *v)
{
	struct uffdio_register reg = {
		.range = {v->start, v->end - v->start},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct shared_map *map;

	if (kernel_watch_mapping(s->watch, v->end) < 0 || ioctl(t->uffd, UFFDIO_REGISTER, &reg) < 0)
		return 0;
	map = vec_push(&o->maps);
	if (!map)
		return -ENOMEM;
	*map = (struct shared_map){t->tid, v->start, v->end, v->offset, false};
	return 0;
}

/* Of an object that is not sure. */
static int register_space(struct checkpoint *c, struct shared_objects *s, const struct mm_track *t,
			  struct error *e)
{
	_cleanup_(vma_list_free) struct vma_list maps = {};
	int r = vmas_read(c->proc_fd, t->tid, "maps", &maps, e);

	vec_for_each (v, &maps.vmas) {
		struct shared_object *o = r < 0 ? NULL : object_of(s, v);

		if (!o || o->sure)
			continue;
		if (register_map(s, o, t, v) < 0)
			return no_memory(e);
	}
	if (r == -ESRCH) { /* it has ended, and its mappings with it */
		error_clear(e);
		return 0;
	}
	return r;
}

static bool is_recent(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	return (now.tv_sec - t->tv_sec) * 1000000000ll + now.tv_nsec - t->tv_nsec < TICKS_NS;
}

static bool same_time(const struct stat *a, const struct stat *b)
{
	return a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void forget(struct shared_object *o)
{
	o->sure = false;
	o->fresh = true;
	o->maps.n = 0;
	o->data.n = 0;
	o->todo.n = 0;
	o->kept.n = 0;
}

const char *shared_doubt(const struct shared_objects *s, const struct shared_object *o)
{
	uint64_t count;
	struct stat now;

	if (!o->sure)
		return "its mappings are not all known";
	if (kernel_watch_count(s->watch, o->watched, &count) < 0 || count != o->count)
		return "a system call may have written to it, or mapped it once more";
	if (fstat(o->is.fd, &now) < 0 || now.st_size != o->st.st_size ||
	    (!o->maps.n && !same_time(&now, &o->st)))
		return "its size or its times have changed";
	return NULL;
}

static bool still_sure(const struct shared_objects *s, const struct shared_object *o)
{
	return !shared_doubt(s, o);
}

static void make_sure(struct checkpoint *c, struct shared_objects *s, struct shared_object *o)
{
	uint64_t mapped = 0;
	int writable = 0;

	if (kernel_watch_count(s->watch, o->watched, &o->count) < 0)
		return;
	vec_for_each (map, &o->maps)
		mapped += map->end - map->start;
	if (kernel_writable_mappings(c->kernel, o->is.fd, &writable) < 0 ||
	    fstat(o->is.fd, &o->st) < 0 || (!o->maps.n && is_recent(&o->st.st_ctim)))
		return;
	/* a seal against writing makes it negative */
	o->sure = (writable < 0 ? 0 : (size_t)writable) == o->maps.n &&
		  mapped / MAPPED_MOST <= o->is.bytes;
	if (!o->sure)
		checkpoint_trace(c, "shared memory %llu is left to the freeze: %zu of %d mappings",
				 (unsigned long long)o->is.ino, o->maps.n, writable);
}

int shared_register(struct checkpoint *c, struct mm_tracks *tracks, struct error *e)
{
	struct shared_objects *s = tracks->shared;
	bool all = true;
	int r = 0;

	if (!s)
		return 0;
	if (!s->all_watched)
		r = watch_all(c, s, e);
	vec_for_each (o, &s->v) {
		if (still_sure(s, o))
			continue;
		forget(o);
		all = false;
	}
	if (all || r < 0)
		return r;
	vec_for_each (t, &tracks->v)
		if (r >= 0)
			r = register_space(c, s, t, e);
	vec_for_each (o, &s->v)
		if (r >= 0 && !o->sure)
			make_sure(c, s, o);
	return r;
}

/* ---- looking ---- */

static int add_data(const struct shared_object *o, struct span_vec *ret)
{
	for (off_t at = 0; at < o->st.st_size;) {
		off_t data = lseek(o->is.fd, at, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(o->is.fd, data, SEEK_HOLE);
		if (hole <= data)
			return hole < 0 ? -errno : -EIO;
		if (span_add(ret, (uint64_t)data & -PAGE_BYTES,
			     ((uint64_t)hole + PAGE_BYTES - 1) & -PAGE_BYTES) < 0)
			return -ENOMEM;
		at = hole;
	}
	return 0;
}

/* Also where no page is mapped yet: a marker stands there until a page comes (pte_marker). */
static int protect(const struct mm_track *t, const struct shared_map *map)
{
	for (uint64_t at = map->start; at < map->end;) {
		uint64_t next = (at & ~(PIECE - 1)) + PIECE,
			 end = next < map->end ? next : map->end;
		struct uffdio_writeprotect wp = {
			.range = {at, end - at},
			.mode = UFFDIO_WRITEPROTECT_MODE_WP,
		};

		if (ioctl(t->uffd, UFFDIO_WRITEPROTECT, &wp) < 0)
			return -errno;
		at = end;
	}
	return 0;
}

static const struct mm_track *track_with(const struct mm_tracks *tracks, pid_t tid)
{
	vec_for_each (t, &tracks->v)
		if (t->tid == tid)
			return t;
	return NULL;
}

int shared_pagemap(const struct checkpoint *c, pid_t tid)
{
	return procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%d/pagemap", tid);
}

static int look_fresh(struct mm_tracks *tracks, struct shared_object *o)
{
	int r = 0;

	vec_for_each (map, &o->maps) {
		const struct mm_track *t = track_with(tracks, map->tid);

		if (r >= 0)
			r = t && t->uffd >= 0 ? protect(t, map) : -ESRCH;
	}
	if (r < 0)
		return r;
	o->fresh = false;
	r = add_data(o, &o->data);
	return r < 0 ? r : spans_unite(&o->todo, &o->data);
}

int shared_offsets(const struct shared_map *map, const struct span_vec *from, struct span_vec *to)
{
	vec_for_each (span, from) {
		struct span *new = vec_push(to);

		if (!new)
			return -ENOMEM;
		*new = (struct span){span->start - map->start + map->offset,
				     span->end - map->start + map->offset};
	}
	return 0;
}

static int look_again(struct checkpoint *c, struct shared_object *o, bool take,
		      struct span_vec *ret)
{
	int r = 0;

	vec_for_each (map, &o->maps) {
		_cleanup_(close_fd) int fd = shared_pagemap(c, map->tid);
		const struct span span = {map->start, map->end};
		struct span_vec found = {};

		if (r >= 0 && fd < 0)
			r = fd;
		if (r >= 0)
			r = take ? pagemap_take_marks(fd, &span, &found)
				 : pagemap_find_written(fd, &span, &found);
		if (r >= 0)
			r = shared_offsets(map, &found, ret);
		vec_free(&found);
	}
	return r < 0 ? r : spans_unite(ret, &(struct span_vec){});
}

int shared_look(struct checkpoint *c, struct mm_tracks *tracks, uint64_t *ret_bytes,
		struct error *e)
{
	if (!tracks->shared)
		return 0;
	vec_for_each (o, &tracks->shared->v) {
		int r = 0;

		o->todo.n = 0;
		if (!o->sure)
			continue;
		r = o->fresh ? look_fresh(tracks, o) : look_again(c, o, true, &o->todo);
		if (r == -ENOMEM)
			return no_memory(e);
		if (r < 0)
			forget(o);
		vec_for_each (span, &o->todo)
			*ret_bytes += span->end - span->start;
	}
	return 0;
}

int shared_again(struct checkpoint *c, struct mm_tracks *tracks, uint64_t *ret_bytes,
		 struct error *e)
{
	if (!tracks->shared)
		return 0;
	vec_for_each (o, &tracks->shared->v) {
		struct span_vec written = {}, again = {};
		int r = o->sure ? look_again(c, o, false, &written) : 0;

		if (r >= 0)
			r = spans_common(&o->todo, &written, &again);
		vec_for_each (span, &again)
			*ret_bytes += span->end - span->start;
		vec_free(&written);
		vec_free(&again);
		if (r == -ENOMEM)
			return no_memory(e);
	}
	return 0;
}

/* ---- copying ---- */

static int read_object(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct shared_object *o = arg;
	size_t done = 0;

	while (done < len) {
		ssize_t n =
			pread(o->is.fd, (char *)buf + done, len - done, (off_t)(address + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(e, -errno, E_VMA_READ, "cannot read shared memory");
		if (n == 0) { /* the rest of the last page, or cut off meanwhile, which counts */
			memset((char *)buf + done, 0, len - done);
			return 0;
		}
		done += (size_t)n;
	}
	return 0;
}

static int placed(void *arg, uint64_t address, uint64_t length, uint64_t position)
{
	struct shared_object *o = arg;
	struct kept_span *k = vec_push(&o->kept);

	if (!k)
		return -ENOMEM;
	*k = (struct kept_span){address, address + length, position};
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct kept_span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

int shared_drop(struct shared_object *o, const struct span_vec *spans, struct error *e)
{
	struct kept_spans others = {};

	if (kept_but(&o->kept, spans, &others) < 0) {
		vec_free(&others);
		return no_memory(e);
	}
	vec_free(&o->kept);
	o->kept = others;
	return 0;
}

static int copy(struct checkpoint *c, struct shared_object *o, struct error *e)
{
	VEC(struct page_run) runs = {};
	int r = shared_drop(o, &o->todo, e);

	vec_for_each (s, &o->todo) {
		struct page_run *run = r < 0 ? NULL : vec_push(&runs);

		if (run)
			*run = (struct page_run){s->start, s->end - s->start, 0};
		else if (r >= 0)
			r = no_memory(e);
	}
	if (r >= 0 && runs.n)
		r = store_put_all(c->store, o->is.parent, runs.v, runs.n, read_object, placed, o,
				  e);
	vec_free(&runs);
	if (o->kept.n)
		qsort(o->kept.v, o->kept.n, sizeof(*o->kept.v), by_start);
	return r;
}

/* What is not sure any more has nothing to be done. */
int shared_copy(struct checkpoint *c, struct mm_tracks *tracks, struct error *e)
{
	int r = 0;

	if (tracks->shared)
		vec_for_each (o, &tracks->shared->v)
			if (r >= 0 && o->todo.n)
				r = copy(c, o, e);
	return r;
}

int shared_leave(struct mm_tracks *tracks, struct error *e)
{
	int r = 0;

	if (tracks->shared)
		vec_for_each (o, &tracks->shared->v)
			if (r >= 0)
				r = shared_drop(o, &o->todo, e);
	return r;
}
