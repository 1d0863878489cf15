/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "image/chain.h"
#include "image/cut.h"
#include "image/pages.h"
#include "image/pool.h"
#include "image/writer.h"

/*
 * Page contents pass through a ring of slots, each a buffer with whole frames
 * in it. Slots are claimed in order, filled by whichever thread has time, given
 * their place in the stream in the order of their claims, and written in that
 * order, so that the image does not depend on the number of threads.
 *
 * One thread at a time writes, while others fill: on a regular file any of them,
 * since write() holds the lock of the inode in tmpfs, ext4, XFS and btrfs alike
 * (generic_file_write_iter() and its like), so that a second one would only
 * wait; into a stream the calling thread, whom signals can interrupt.
 *
 * A large group is cut into blocks that the threads fill in parallel. Small
 * groups are gathered by the calling thread, many to a slot, which the threads
 * at most write: a thousand small processes shall not cost a thousand wake-ups.
 */
enum slot_state {
	SLOT_FREE,
	SLOT_FILLING, /* some thread's own, no lock needed */
	SLOT_READY,   /* complete, but one before it is not */
	SLOT_PLACED,  /* waits for being written */
	SLOT_WRITING, /* some thread's own again */
	SLOT_WRITTEN, /* but one before it is not */
};

struct slot {
	enum slot_state state;
	uint8_t *buf;
	size_t len;
	uint64_t offset; /* once it is placed */
	struct pages_input in;
	struct pages_codec codec;
};

/* Groups up to this size are gathered; compressing takes longer and is worth a wake-up sooner. */
#define GATHER_MAX	    PAGES_BLOCK
#define GATHER_MAX_COMPRESS (64u << 10)
/* Threads are not made for less. */
#define HELPERS_WORTH	    (4u << 20)

#define WRITERS_MOST 2

struct pages_writer {
	struct image_writer *w;
	struct pool pool;
	struct slot *slots; /* slot i % nslots is the i-th of the stream */
	unsigned int nslots;
	uint64_t claimed, placed, written; /* slots, from the first on */
	struct slot *gather;		   /* the last claimed one, still being filled, or NULL */
	uint64_t accepted;		   /* bytes of pages, of all groups so far */
	uint64_t done;			   /* of these read and framed */
	unsigned int writers;
	bool drained; /* once: what was written may be moved now, by who asked for that */
	VEC(struct page_cursor *) cursors; /* into the parents, that nobody uses now */
	uint8_t *warm; /* the buffer that was written last, for the next slot; may be NULL */
	int failed;
	struct error error;

	struct page_group group; /* that was put last */
	uint64_t group_end;	 /* of its last run */

	struct cut cut; /* of the group that is shared out */
	page_source source;
	page_placed placed_at; /* of early frames: who is told where they are */
	void *arg;
	unsigned int filling; /* slots that take from it */
};

static struct slot *slot_at(struct pages_writer *pw, uint64_t i)
{
	return &pw->slots[i % pw->nslots];
}

static void fail(struct pages_writer *pw, int r, const struct error *e)
{
	if (!pw->failed) {
		pw->failed = r;
		pw->error = *e;
	}
	pool_changed(&pw->pool);
}

/* Takes a slot, whose buffer exists from now on. NULL: none is free, or no memory, which is a
 * failure. */
static struct slot *slot_claim(struct pages_writer *pw)
{
	struct slot *s = slot_at(pw, pw->claimed);
	struct error e = {};

	if (pw->claimed - pw->written == pw->nslots || pw->failed)
		return NULL;
	if (pw->warm) {
		uint8_t *other = s->buf;

		s->buf = pw->warm;
		pw->warm = other;
	}
	if (!s->buf)
		s->buf = aligned_alloc(IMAGE_PAGE, PAGES_BLOCK_MAX);
	if (!s->buf) {
		fail(pw, error_set(&e, -ENOMEM, E_NO_MEMORY, "no memory for pages"), &e);
		return NULL;
	}
	s->codec.compress = pw->w->opt.compress;
	s->codec.level = pw->w->opt.level;
	s->codec.packed = pw->w->packed;
	s->codec.strong = pw->w->opt.strong;
	s->codec.parents = pw->w->opt.parents;
	s->state = SLOT_FILLING;
	s->len = 0;
	pw->claimed++;
	return s;
}

/*
 * An early frame has its place, at which a later one will find it. What is zero or in the parent
 * needs none.
 */
static int early_placed(struct pages_writer *pw, const struct frame *f,
			const struct pages_header *p, uint64_t offset)
{
	const struct pages_run *runs = (const struct pages_run *)(p + 1);
	uint64_t position = PAGE_EARLY | pw->w->early.frames.n * PAGES_BLOCK;
	struct early_entry *entry = p->raw_length ? vec_push(&pw->w->early.frames) : NULL;
	int r = 0;

	if (p->raw_length && !entry)
		return -ENOMEM;
	if (entry) {
		*entry = (struct early_entry){.frame = *f, .pages = *p, .offset = offset};
		memcpy(entry->strong, (const uint8_t *)f + frame_strong_at(p),
		       sizeof(entry->strong));
	}
	pw->w->totals.page_bytes += p->stored_length;
	for (uint32_t i = 0; r >= 0 && i < p->nruns; i++) {
		uint64_t length = (uint64_t)runs[i].pages * IMAGE_PAGE;

		if (runs[i].flags) {
			uint64_t kind = runs[i].flags & PAGES_RUN_ZERO ? PAGE_ZERO : PAGE_PARENT;

			r = pw->placed_at(pw->arg, runs[i].address, length,
					  kind | runs[i].address % PAGE_PARENT);
			continue;
		}
		r = pw->placed_at(pw->arg, runs[i].address, length, position);
		position += length;
	}
	return r;
}

/* Accounts for a frame that has its place now. */
static int frame_placed(struct pages_writer *pw, const uint8_t *frame, uint64_t offset)
{
	const struct frame *f = (const struct frame *)frame;
	const struct pages_header *p = (const struct pages_header *)(f + 1);
	struct image_writer *w = pw->w;
	struct index_entry *last = w->index.n ? &w->index.v[w->index.n - 1] : NULL;

	if (f->type == FRAME_EARLY)
		return early_placed(pw, f, p, offset);
	writer_digest(w, f, p, frame + frame_strong_at(p));
	totals_add(&w->totals, p);
	if (last && last->object == f->id && last->stage == p->stage)
		return 0;
	last = vec_push(&w->index);
	if (!last)
		return -ENOMEM;
	*last = (struct index_entry){.object = f->id, .stage = p->stage, .offset = offset};
	return 0;
}

/* An early frame without data, which nothing will refer to. */
static bool is_bare(const struct slot *s)
{
	const struct frame *f = (const struct frame *)s->buf;

	return s->len && f->type == FRAME_EARLY &&
	       !((const struct pages_header *)(f + 1))->raw_length;
}

static int slot_place(struct pages_writer *pw, struct slot *s)
{
	struct image_writer *w = pw->w;
	int r;

	s->offset = w->offset;
	for (size_t at = 0; at < s->len;) {
		r = frame_placed(pw, s->buf + at, s->offset + at);
		if (r < 0)
			return r;
		at += frame_size((const struct frame *)(s->buf + at));
	}
	if (is_bare(s))
		s->len = 0;
	w->offset += s->len;
	return 0;
}

static void slots_place(struct pages_writer *pw)
{
	struct error e = {};
	int r;

	while (pw->placed < pw->claimed) {
		struct slot *s = slot_at(pw, pw->placed);

		if (s->state != SLOT_READY)
			break;
		r = pw->failed ? pw->failed : slot_place(pw, s);
		if (r < 0)
			fail(pw, error_set(&e, r, E_NO_MEMORY, "no memory for the index"), &e);
		s->state = SLOT_PLACED;
		pw->placed++;
	}
	pool_changed(&pw->pool);
}

/*
 * Frames of the parents that have been read are the thread's, not the slot's: it goes on where it
 * has been. Lock held.
 */
static void base_take(struct pages_writer *pw, struct slot *s, uint64_t object)
{
	if (!s->codec.parents)
		return;
	s->codec.parent_object = pw->cut.type == FRAME_EARLY ? pw->w->early.parent
							     : image_parent_object(pw->w, object);
	if (pw->cursors.n)
		s->codec.cursor = pw->cursors.v[--pw->cursors.n];
}

static void base_leave(struct pages_writer *pw, struct slot *s)
{
	struct page_cursor **place = s->codec.cursor ? vec_push(&pw->cursors) : NULL;

	if (place)
		*place = take_ptr(&s->codec.cursor);
}

/* Lock held, and let go meanwhile. */
static void slot_write(struct pages_writer *pw, struct slot *s)
{
	struct error e = {};
	int r = 0;

	s->state = SLOT_WRITING;
	if (!pw->failed) {
		pw->writers++;
		pthread_mutex_unlock(&pw->pool.lock);
		r = stream_write(&pw->w->out, s->buf, s->len, s->offset, &e);
		pthread_mutex_lock(&pw->pool.lock);
		pw->writers--;
	}
	s->state = SLOT_WRITTEN;
	/* In the cache still; and one thread alone has one buffer faulted in, not all. */
	if (!pw->warm) {
		pw->warm = s->buf;
		s->buf = NULL;
	}
	while (pw->written < pw->placed && slot_at(pw, pw->written)->state == SLOT_WRITTEN)
		slot_at(pw, pw->written++)->state = SLOT_FREE;
	if (r < 0)
		fail(pw, r, &e);
	/* A wake-up takes a tenth of the time of a write: one is for many slots. */
	if (pw->claimed - pw->written <= pw->nslots / 2 || pw->written == pw->placed)
		pool_changed(&pw->pool);
}

static bool step_fill(struct pages_writer *pw)
{
	struct slot *s = pw->cut.run < pw->cut.end ? slot_claim(pw) : NULL;
	struct error e = {};
	int r;

	if (!s)
		return false;
	cut_next(pw->w, &pw->cut, &s->in);
	pw->filling++;
	base_take(pw, s, s->in.group.object);
	pthread_mutex_unlock(&pw->pool.lock);
	r = pages_build(&s->codec, &s->in, pw->source, pw->arg, s->buf, &s->len, &e);
	pthread_mutex_lock(&pw->pool.lock);
	pw->filling--;
	base_leave(pw, s);
	pw->done += s->in.bytes;
	s->state = SLOT_READY;
	if (r < 0)
		fail(pw, r, &e);
	slots_place(pw);
	/* One more than can write at a time: so the lock is handed over without anybody sleeping */
	if (pw->w->out.positioned && s->state == SLOT_PLACED && pw->writers < WRITERS_MOST)
		slot_write(pw, s);
	return true;
}

static bool step_write(struct pages_writer *pw, bool helper)
{
	if (pw->writers || (helper && !pw->w->out.positioned))
		return false;
	for (uint64_t i = pw->written; i < pw->placed; i++)
		if (slot_at(pw, i)->state == SLOT_PLACED) {
			slot_write(pw, slot_at(pw, i));
			return true;
		}
	return false;
}

/* Ahead of what will be written; others fill slots meanwhile. */
static bool step_room(struct pages_writer *pw)
{
	struct image_writer *w = pw->w;
	uint64_t at, most;

	if (pw->writers || pw->failed || pw->drained)
		return false;
	at = w->offset;
	most = w->early.room + __atomic_load_n(&w->progress.total, __ATOMIC_RELAXED) / 64 * 65;
	if (!room_wanted(&w->ahead, at, at - w->early.room, most))
		return false;
	pw->writers = WRITERS_MOST;
	pthread_mutex_unlock(&pw->pool.lock);
	room_make(&w->ahead, &w->out, at, most);
	pthread_mutex_lock(&pw->pool.lock);
	pw->writers = 0;
	pool_changed(&pw->pool);
	return true;
}

static bool step(void *arg, bool helper)
{
	struct pages_writer *pw = arg;

	return step_room(pw) || step_write(pw, helper) || step_fill(pw);
}

/* One turn of the calling thread, which alone reports progress. Lock held. */
static void turn(struct pages_writer *pw)
{
	struct error e = {};
	int r;

	if (!step(pw, false))
		pool_wait(&pw->pool);
	if (pw->failed || !progress_due(&pw->w->progress, pw->done))
		return;
	pthread_mutex_unlock(&pw->pool.lock);
	r = progress_report(&pw->w->progress, &e);
	pthread_mutex_lock(&pw->pool.lock);
	if (r < 0)
		fail(pw, r, &e);
}

static int failure(struct pages_writer *pw, struct error *e)
{
	if (pw->failed && e && e->code == ERROR_NONE)
		*e = pw->error;
	return pw->failed;
}

/* Hands the gathered frames on. Lock held. */
static void gather_end(struct pages_writer *pw)
{
	if (!pw->gather)
		return;
	pw->gather->state = SLOT_READY;
	pw->gather = NULL;
	slots_place(pw);
}

static struct slot *gather_begin(struct pages_writer *pw)
{
	pthread_mutex_lock(&pw->pool.lock);
	gather_end(pw);
	while (!pw->failed) {
		pw->gather = slot_claim(pw);
		if (pw->gather)
			break;
		turn(pw);
	}
	pthread_mutex_unlock(&pw->pool.lock);
	return pw->gather;
}

/* In one block. */
static int put_small(struct pages_writer *pw, struct cut *cut, page_source source, void *arg,
		     struct error *e)
{
	struct slot *s = pw->gather;
	struct pages_input in;
	size_t size;
	int r;

	cut_next(pw->w, cut, &in);
	if (!s || s->len + IMAGE_PAGE + in.bytes > PAGES_BLOCK_MAX) {
		s = gather_begin(pw);
		if (!s)
			return failure(pw, e);
	}
	pthread_mutex_lock(&pw->pool.lock);
	base_take(pw, s, in.group.object);
	pthread_mutex_unlock(&pw->pool.lock);
	r = pages_build(&s->codec, &in, source, arg, s->buf + s->len, &size, e);
	pthread_mutex_lock(&pw->pool.lock);
	base_leave(pw, s);
	pthread_mutex_unlock(&pw->pool.lock);
	if (r < 0)
		return r;
	s->len += size;
	pw->done += in.bytes;
	return progress_due(&pw->w->progress, pw->done) ? progress_report(&pw->w->progress, e) : 0;
}

static int put_large(struct pages_writer *pw, const struct cut *cut, page_source source, void *arg,
		     struct error *e)
{
	pthread_mutex_lock(&pw->pool.lock);
	gather_end(pw);
	pw->cut = *cut;
	pw->source = source;
	pw->arg = arg;
	pool_changed(&pw->pool);
	while (pw->filling || (pw->cut.run < pw->cut.end && !pw->failed))
		turn(pw);
	pw->cut = (struct cut){};
	pthread_mutex_unlock(&pw->pool.lock);
	return failure(pw, e);
}

static int check_input(struct pages_writer *pw, const struct page_group *group,
		       const struct page_run *runs, size_t nruns, uint64_t *ret_bytes,
		       struct error *e)
{
	bool again = group->object == pw->group.object && group->stage == pw->group.stage;
	uint64_t at = again ? pw->group_end : 0, bytes = 0;

	for (size_t i = 0; i < nruns; i++) {
		if (runs[i].address < at || (runs[i].address | runs[i].length) % IMAGE_PAGE ||
		    runs[i].length == 0 || runs[i].length > PAGES_ADDRESS_MAX ||
		    runs[i].address > PAGES_ADDRESS_MAX - runs[i].length)
			return error_set(e, -EINVAL, E_INTERNAL,
					 "run of pages out of order at %#llx+%#llx",
					 (unsigned long long)runs[i].address,
					 (unsigned long long)runs[i].length);
		at = runs[i].address + runs[i].length;
		bytes += runs[i].length;
	}
	*ret_bytes = bytes;
	return 0;
}

static int put_group(struct pages_writer *pw, struct cut *cut, uint64_t bytes, page_source source,
		     void *arg, struct error *e)
{
	bool plain = pw->w->opt.compress == COMPRESS_NONE;

	pw->group = cut->group;
	pw->group_end = cut->end[-1].address + cut->end[-1].length;
	pw->accepted += bytes;
	if (pw->accepted >= HELPERS_WORTH)
		pool_start(&pw->pool);
	if (bytes > (plain ? GATHER_MAX : GATHER_MAX_COMPRESS))
		return put_large(pw, cut, source, arg, e);
	return put_small(pw, cut, source, arg, e);
}

int image_put_pages(struct image_writer *w, const struct page_group *group,
		    const struct page_run *runs, size_t nruns, page_source source, void *arg,
		    struct error *e)
{
	struct pages_writer *pw = w->pages;
	struct cut cut = {FRAME_PAGES, *group, runs, runs + nruns, 0};
	uint64_t bytes = 0;
	int r;

	if (w->phase != WRITER_PAGES)
		return error_set(e, -EINVAL, E_INTERNAL, "pages out of place in the image");
	r = check_input(pw, group, runs, nruns, &bytes, e);
	if (r < 0 || bytes == 0)
		return r;
	r = put_group(pw, &cut, bytes, source, arg, e);
	/* An image that lacks a part of a group is never finished. */
	if (r < 0)
		w->phase = WRITER_DONE;
	return r;
}

int image_put_early(struct image_writer *w, const struct page_run *runs, size_t nruns,
		    page_source source, page_placed placed, void *arg, struct error *e)
{
	struct pages_writer *pw = w->pages;
	struct cut cut = {FRAME_EARLY, {}, runs, runs + nruns, 0};
	uint64_t bytes = 0;
	int r;

	if (w->phase != WRITER_STATE || !w->early.room)
		return error_set(e, -EINVAL, E_INTERNAL, "early pages out of place in the image");
	pw->group_end = 0;
	r = check_input(pw, &cut.group, runs, nruns, &bytes, e);
	if (r < 0 || bytes == 0)
		return r;
	if (bytes >= HELPERS_WORTH)
		pool_start(&pw->pool);
	pw->placed_at = placed;
	return put_large(pw, &cut, source, arg, e);
}

int pages_writer_drain(struct pages_writer *pw, struct error *e)
{
	pthread_mutex_lock(&pw->pool.lock);
	pw->drained = true;
	gather_end(pw);
	while (pw->written < pw->claimed || pw->writers)
		turn(pw);
	pthread_mutex_unlock(&pw->pool.lock);
	return failure(pw, e);
}

int pages_writer_new(struct pages_writer **ret, struct image_writer *w, struct error *e)
{
	_cleanup_(free_ptr) struct pages_writer *pw = calloc(1, sizeof(*pw));
	int r;

	if (!pw)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pages");
	pw->w = w;
	r = pool_init(&pw->pool, w->opt.jobs, step, pw);
	if (r < 0)
		return error_errno(e, r, E_NO_MEMORY, "no threads for pages");
	/* Enough that neither those who fill nor the one who writes sleeps at each slot. */
	pw->nslots = 4 * (pw->pool.wanted + 1);
	pw->slots = calloc(pw->nslots, sizeof(*pw->slots));
	if (!pw->slots) {
		pool_destroy(&pw->pool);
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pages");
	}
	*ret = take_ptr(&pw);
	return 0;
}

void pages_writer_free(struct pages_writer *pw)
{
	if (!pw)
		return;
	pool_destroy(&pw->pool);
	for (unsigned int i = 0; i < pw->nslots; i++) {
		pages_codec_free(&pw->slots[i].codec);
		free(pw->slots[i].buf);
	}
	vec_for_each (cursor, &pw->cursors)
		page_cursor_free(*cursor);
	vec_free(&pw->cursors);
	free(pw->warm);
	free(pw->slots);
	free(pw);
}
