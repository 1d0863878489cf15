/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/cleanup.h"
#include "image/pages.h"
#include "image/pool.h"
#include "image/reader.h"

/*
 * Frames are taken in the order of the image, one by one, under the lock: that
 * needs their headers only. Verifying, decompressing and delivering is done by
 * all threads at once. From a file each thread reads the frame that it took;
 * from a stream the calling thread reads them, and others work on them.
 */
enum slot_state {
	SLOT_FREE,
	SLOT_LOADED,
	SLOT_BUSY,
};

struct slot {
	enum slot_state state;
	uint8_t *buf;
	size_t room; /* in buf */
	uint64_t offset;
	struct pages_codec codec;
	struct early_cache early;
	uint8_t strong[IMAGE_DIGEST_SIZE];
};

struct pages_reader {
	struct image_reader *r;
	struct pool pool;
	struct slot *slots;
	unsigned int nslots;
	unsigned int used; /* slots that are not free */
	uint64_t taken;	   /* bytes of frames, ever */
	uint64_t done;	   /* bytes of pages, delivered */

	/* the group that is being read */
	bool active;
	struct page_group group;
	image_when when; /* NULL: everything now */
	page_sink sink;
	void *arg;
};

/* Threads are not made for less. */
#define HELPERS_WORTH (4u << 20)

static void fail(struct pages_reader *pr, int err, const struct error *e)
{
	if (!pr->r->failed) {
		pr->r->failed = err;
		pr->r->error = *e;
	}
	pool_changed(&pr->pool);
}

/* ---- one frame ahead ---- */

/* Reads through a frame that nobody wants, which may be of any length. */
static int frame_skip(struct image_reader *r, struct error *e)
{
	_cleanup_(free_ptr) uint8_t *buf = malloc(64 << 10);
	uint64_t at = r->offset + sizeof(r->next), left = frame_size(&r->next) - sizeof(r->next);
	uint64_t payload = r->next.length;
	struct frame head = r->next;
	XXH3_state_t *state = XXH3_createState();
	bool intact = true;
	int err = 0;

	head.checksum = 0;
	if (!buf || !state)
		err = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to read the image");
	else
		XXH3_64bits_reset(state);
	if (!err)
		XXH3_64bits_update(state, &head, sizeof(head));
	while (!err && left) {
		size_t n = left < 64 << 10 ? left : 64 << 10;
		size_t sum = n < payload ? n : payload;

		err = reader_take(r, buf, n, at, "a frame", e);
		if (err < 0)
			break;
		XXH3_64bits_update(state, buf, sum);
		for (size_t i = sum; i < n; i++)
			intact = intact && !buf[i];
		payload -= sum;
		at += n;
		left -= n;
	}
	if (!err && !(intact && checksum_equal(XXH3_64bits_digest(state), r->next.checksum)))
		err = reader_damaged(r->offset, "checksum of a frame", e);
	XXH3_freeState(state);
	return err;
}

static int unexpected_frame(struct image_reader *r, struct error *e)
{
	if (r->next.type >= FRAME_STATE_FIRST || r->next.type == FRAME_STATE_END ||
	    r->next.type == FRAME_INDEX)
		return reader_damaged(r->offset, "a frame that does not belong into the page part",
				      e);
	return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER,
			 "the frame at offset %llu is of unknown type %u",
			 (unsigned long long)r->offset, r->next.type);
}

int reader_peek_strong(struct image_reader *r, struct error *e)
{
	const struct pages_header *p = &r->next_pages;

	if (!r->strong)
		return 0;
	if (p->data_offset < PAGES_HEAD + p->nruns * sizeof(struct pages_run) + IMAGE_DIGEST_SIZE)
		return reader_damaged(r->offset, "offset of page data", e);
	if (!r->in.positioned || r->heads.frame)
		return 0;
	return reader_take(r, r->next_strong, IMAGE_DIGEST_SIZE, r->offset + frame_strong_at(p),
			   "a frame of pages", e);
}

void reader_loaded(struct image_reader *r, const uint8_t *frame, uint8_t strong[IMAGE_DIGEST_SIZE])
{
	const struct pages_header *p = (const struct pages_header *)(frame + sizeof(struct frame));

	if (!r->strong)
		return;
	memcpy(strong, frame + frame_strong_at(p), IMAGE_DIGEST_SIZE);
	reader_digest_strong(r, strong);
}

static int peek_pages(struct image_reader *r, struct error *e)
{
	const struct index_entry *last = r->index.n ? &r->index.v[r->index.n - 1] : NULL;
	const char *wrong = pages_check_head(&r->next, &r->next_pages);
	int err;

	if (wrong)
		return reader_damaged(r->offset, wrong, e);
	if (last && last->object == r->next.id && last->stage == r->next_pages.stage &&
	    r->next_pages.first < r->group_end)
		return reader_damaged(r->offset, "order of the pages in a group", e);
	err = reader_peek_strong(r, e);
	if (err < 0)
		return err;
	r->peeked = true;
	return 0;
}

/* The header, and as much more as is sure to be there. */
static int peek_read(struct image_reader *r, struct error *e)
{
	struct {
		struct frame f;
		struct pages_header p;
	} u = {};
	ssize_t n;
	int err;

	if (heads_peek(r))
		return 0;
	n = stream_read(&r->in, &u, r->in.positioned ? sizeof(u) : sizeof(u.f), r->offset, e);
	if (n < 0)
		return n;
	if ((size_t)n < sizeof(u.f))
		return error_set(e, -EBADMSG, E_IMAGE_CUT,
				 "the image ends at offset %llu, before its end record",
				 (unsigned long long)r->offset + n);
	if ((u.f.type == FRAME_PAGES || u.f.type == FRAME_EARLY) && (size_t)n < sizeof(u)) {
		err = reader_take(r, (uint8_t *)&u + n, sizeof(u) - n, r->offset + n,
				  "a frame of pages", e);
		if (err < 0)
			return err;
	}
	r->next = u.f;
	r->next_pages = u.p;
	return 0;
}

int reader_peek(struct image_reader *r, struct error *e)
{
	int err;

	while (!r->peeked && !r->at_end) {
		err = peek_read(r, e);
		if (err < 0)
			return err;
		if (r->next.type == FRAME_PAGES)
			return peek_pages(r, e);
		if (r->next.type == FRAME_END) {
			r->at_end = true;
			break;
		}
		if (r->next.type == FRAME_EARLY) {
			err = early_pass(r, e);
			if (err < 0)
				return err;
			continue;
		}
		if (r->next.flags & ~RECORD_OPTIONAL ||
		    (r->next.type != FRAME_PAD && !r->next.flags))
			return unexpected_frame(r, e);
		if (r->next.length > PAGES_ADDRESS_MAX)
			return reader_damaged(r->offset, "length of a frame", e);
		if (r->next.type == FRAME_HEADS)
			err = heads_check(r, e);
		else
			err = r->heads.frame ? 0 : frame_skip(r, e);
		if (err < 0)
			return err;
		reader_digest(r);
		r->offset += frame_size(&r->next);
	}
	return 0;
}

int reader_taken(struct image_reader *r, struct error *e)
{
	struct index_entry *last = r->index.n ? &r->index.v[r->index.n - 1] : NULL;

	if (!last || last->object != r->next.id || last->stage != r->next_pages.stage) {
		last = vec_push(&r->index);
		if (!last)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the index");
		*last = (struct index_entry){
			.object = r->next.id,
			.stage = r->next_pages.stage,
			.offset = r->offset,
		};
	}
	reader_digest(r);
	if (r->strong && r->in.positioned)
		reader_digest_strong(r, r->next_strong);
	r->group_end = r->next_pages.end;
	r->offset += frame_size(&r->next);
	r->peeked = false;
	return 0;
}

/* ---- slots ---- */

static struct slot *slot_find(struct pages_reader *pr, enum slot_state state)
{
	struct slot *found = NULL;

	for (unsigned int i = 0; i < pr->nslots; i++) {
		struct slot *s = &pr->slots[i];

		if (s->state == state && (!found || s->offset < found->offset))
			found = s;
	}
	return found;
}

static bool next_is_ours(const struct pages_reader *pr)
{
	const struct image_reader *r = pr->r;

	return r->peeked && r->next.id == pr->group.object &&
	       r->next_pages.stage == pr->group.stage;
}

/* Takes the peeked frame into a free slot. */
static int slot_take(struct pages_reader *pr, struct slot *s, struct error *e)
{
	struct image_reader *r = pr->r;
	size_t size = frame_size(&r->next);

	if (s->room < size) {
		free(s->buf);
		s->room = align_up(size, IMAGE_PAGE);
		s->buf = aligned_alloc(IMAGE_PAGE, s->room);
		if (!s->buf) {
			s->room = 0;
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pages");
		}
	}
	memcpy(s->buf, &r->next, sizeof(r->next));
	memcpy(s->buf + sizeof(r->next), &r->next_pages, sizeof(r->next_pages));
	memcpy(s->strong, r->next_strong, sizeof(s->strong));
	s->offset = r->offset;
	return reader_taken(r, e);
}

static int slot_load(struct pages_reader *pr, struct slot *s, struct error *e)
{
	size_t size = frame_size((const struct frame *)s->buf);
	int err = reader_take(pr->r, s->buf + PAGES_HEAD, size - PAGES_HEAD, s->offset + PAGES_HEAD,
			      "a frame of pages", e);

	if (err >= 0 && !pr->r->in.positioned)
		reader_loaded(pr->r, s->buf, s->strong);
	return err;
}

static int slot_deliver(struct pages_reader *pr, struct slot *s, uint64_t *ret_pages,
			struct error *e)
{
	if (!frame_intact(s->buf))
		return reader_damaged(s->offset, "checksum of a frame of pages", e);
	if (pr->r->strong && !frame_is(s->buf, s->strong))
		return reader_damaged(s->offset, "digest of a frame of pages", e);
	s->early.r = pr->r;
	reader_base(pr->r, &s->codec, ((const struct frame *)s->buf)->id);
	return pages_deliver(&s->codec, s->buf, s->offset,
			     &(struct pages_early){.find = early_find, .arg = &s->early}, pr->sink,
			     pr->arg, ret_pages, e);
}

/* The lock is held again, and the slot's frame is done with. */
static void slot_done(struct pages_reader *pr, struct slot *s, uint64_t pages, int err,
		      const struct error *e)
{
	const struct frame *f = (const struct frame *)s->buf;

	if (err < 0) {
		fail(pr, err, e);
	} else {
		totals_add(&pr->r->totals, (const struct pages_header *)(f + 1));
		pr->done += pages * IMAGE_PAGE;
	}
	s->state = SLOT_FREE;
	pr->used--;
	pool_changed(&pr->pool);
}

static int leave_for_later(struct image_reader *r, struct error *e)
{
	struct image_later *later = vec_push(&r->later);

	if (!later)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of pages");
	*later = (struct image_later){
		.group = {r->next.id, r->next_pages.stage},
		.first = r->next_pages.first,
		.end = r->next_pages.end,
		.offset = r->offset,
		.size = frame_size(&r->next),
		.checksum = r->next.checksum,
		.data = r->next_pages.raw_length,
	};
	memcpy(later->strong, r->next_strong, sizeof(later->strong));
	return 0;
}

/* The peeked frame, of which nothing may be wanted now: returns 1 then, and passes it over. */
static int sort_out(struct pages_reader *pr, struct error *e)
{
	struct image_reader *r = pr->r;
	const struct pages_header *p = &r->next_pages;
	int when = pr->when ? pr->when(pr->arg, p->first, p->end) : IMAGE_NOW;
	int err = when & IMAGE_LATER ? leave_for_later(r, e) : 0;

	if (err < 0 || when & IMAGE_NOW)
		return err;
	r->totals.page_frames++;
	r->totals.page_bytes += p->stored_length;
	r->totals.pages += (p->end - p->first) / IMAGE_PAGE;
	err = reader_taken(r, e);
	return err < 0 ? err : 1;
}

/* From a file: take a frame, read it, deliver it. */
static bool step_file(struct pages_reader *pr)
{
	struct slot *s = slot_find(pr, SLOT_FREE);
	uint64_t pages = 0;
	struct error e = {};
	int err;

	if (!pr->active || !s || pr->r->failed)
		return false;
	err = reader_peek(pr->r, &e);
	if (!err && !next_is_ours(pr)) {
		pr->active = false;
		return false;
	}
	if (!err)
		err = sort_out(pr, &e);
	if (err > 0)
		return true;
	if (!err)
		err = slot_take(pr, s, &e);
	if (err < 0) {
		fail(pr, err, &e);
		return true;
	}
	s->state = SLOT_BUSY;
	pr->used++;
	pthread_mutex_unlock(&pr->pool.lock);
	err = slot_load(pr, s, &e);
	if (!err)
		err = slot_deliver(pr, s, &pages, &e);
	pthread_mutex_lock(&pr->pool.lock);
	slot_done(pr, s, pages, err, &e);
	return true;
}

static bool step_loaded(struct pages_reader *pr)
{
	struct slot *s = slot_find(pr, SLOT_LOADED);
	uint64_t pages = 0;
	struct error e = {};
	int err = 0;

	if (!s)
		return false;
	s->state = SLOT_BUSY;
	if (!pr->r->failed) {
		pthread_mutex_unlock(&pr->pool.lock);
		err = slot_deliver(pr, s, &pages, &e);
		pthread_mutex_lock(&pr->pool.lock);
	}
	slot_done(pr, s, pages, err, &e);
	return true;
}

/* The calling thread, which alone touches a stream and what describes the place in it. */
static bool step_load(struct pages_reader *pr)
{
	struct slot *s = slot_find(pr, SLOT_FREE);
	struct error e = {};
	int err;

	if (!pr->active || !s || pr->r->failed)
		return false;
	s->state = SLOT_BUSY;
	pr->used++;
	pthread_mutex_unlock(&pr->pool.lock);
	err = reader_peek(pr->r, &e);
	if (!err && next_is_ours(pr)) {
		err = slot_take(pr, s, &e);
		if (!err)
			err = slot_load(pr, s, &e);
		pthread_mutex_lock(&pr->pool.lock);
		if (!err)
			s->state = SLOT_LOADED;
	} else {
		pthread_mutex_lock(&pr->pool.lock);
		pr->active = false;
	}
	if (err < 0)
		fail(pr, err, &e);
	if (s->state != SLOT_LOADED) {
		s->state = SLOT_FREE;
		pr->used--;
	}
	pool_changed(&pr->pool);
	return true;
}

static bool step(void *arg, bool helper)
{
	struct pages_reader *pr = arg;

	if (pr->r->in.positioned)
		return step_file(pr);
	if (helper)
		return step_loaded(pr);
	/* Alone, deliver what there is before waiting for more. */
	if (!pr->pool.helpers)
		return step_loaded(pr) || step_load(pr);
	return step_load(pr) || step_loaded(pr);
}

static void turn(struct pages_reader *pr)
{
	struct progress *progress = &pr->r->progress;
	struct error e = {};
	int err;

	if (!step(pr, false) && pr->used)
		pool_wait(&pr->pool);
	if (pr->r->failed || !progress_due(progress, pr->done))
		return;
	pthread_mutex_unlock(&pr->pool.lock);
	err = progress_report(progress, &e);
	pthread_mutex_lock(&pr->pool.lock);
	if (err < 0)
		fail(pr, err, &e);
}

static int failure(const struct image_reader *r, struct error *e)
{
	if (r->failed && e && e->code == ERROR_NONE)
		*e = r->error;
	return r->failed;
}

int pages_reader_group(struct pages_reader *pr, const struct page_group *group, image_when when,
		       page_sink sink, void *arg, struct error *e)
{
	uint64_t total = pr->r->progress.total;

	if (!when && (total == 0 || total >= HELPERS_WORTH))
		pool_start(&pr->pool);
	pthread_mutex_lock(&pr->pool.lock);
	pr->group = *group;
	pr->when = when;
	pr->sink = sink;
	pr->arg = arg;
	pr->active = true;
	pool_changed(&pr->pool);
	while (pr->used || (pr->active && !pr->r->failed))
		turn(pr);
	pr->active = false;
	pthread_mutex_unlock(&pr->pool.lock);
	return failure(pr->r, e);
}

int image_next_group(struct image_reader *r, struct page_group *ret, struct error *e)
{
	struct error cause = {};
	int err;

	/* No helper is at work now, but one may be looking for some. */
	pthread_mutex_lock(&r->pages->pool.lock);
	if (!r->failed) {
		err = reader_peek(r, &cause);
		if (err < 0)
			fail(r->pages, err, &cause);
	}
	pthread_mutex_unlock(&r->pages->pool.lock);
	if (r->failed)
		return failure(r, e);
	if (r->at_end)
		return 0;
	*ret = (struct page_group){.object = r->next.id, .stage = r->next_pages.stage};
	return 1;
}

int image_read_pages(struct image_reader *r, const struct page_group *group, page_sink sink,
		     void *arg, struct error *e)
{
	return image_read_some(r, group, NULL, sink, arg, e);
}

int image_read_some(struct image_reader *r, const struct page_group *group, image_when when,
		    page_sink sink, void *arg, struct error *e)
{
	struct page_group next;
	int err;

	r->groups_read = true;
	err = image_next_group(r, &next, e);
	if (err <= 0)
		return err;
	if (next.object != group->object || next.stage != group->stage)
		return 0;
	return pages_reader_group(r->pages, group, when, sink, arg, e);
}

int pages_reader_new(struct pages_reader **ret, struct image_reader *r, struct error *e)
{
	_cleanup_(free_ptr) struct pages_reader *pr = calloc(1, sizeof(*pr));
	int err;

	if (!pr)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pages");
	pr->r = r;
	err = pool_init(&pr->pool, r->jobs, step, pr);
	if (err < 0)
		return error_errno(e, err, E_NO_MEMORY, "no threads for pages");
	/* In a stream, one to read and one to work on for each thread. */
	pr->nslots = (r->in.positioned ? 1 : 2) * (pr->pool.wanted + 1);
	pr->slots = calloc(pr->nslots, sizeof(*pr->slots));
	if (!pr->slots) {
		pool_destroy(&pr->pool);
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pages");
	}
	*ret = take_ptr(&pr);
	return 0;
}

void pages_reader_free(struct pages_reader *pr)
{
	if (!pr)
		return;
	pool_destroy(&pr->pool);
	for (unsigned int i = 0; i < pr->nslots; i++) {
		pages_codec_free(&pr->slots[i].codec);
		early_cache_free(&pr->slots[i].early);
		free(pr->slots[i].buf);
	}
	free(pr->slots);
	free(pr);
}
