/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "image/writer.h"

static int writer_grow(struct image_writer *w, size_t more, struct error *e)
{
	size_t want = w->state_size ? w->state_size : 64 << 10;
	uint8_t *p;

	if (w->state_len + more > IMAGE_STATE_MAX)
		return error_set(e, -EFBIG, E_OUTPUT, "the state part is too large for an image");
	while (want < w->state_len + more)
		want *= 2;
	if (want == w->state_size)
		return 0;
	p = realloc(w->state, want);
	if (!p)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the state part");
	w->state = p;
	w->state_size = want;
	return 0;
}

/* Appends a frame whose payload the caller fills in at the returned place; then comes
 * writer_seal(). */
int writer_put(struct image_writer *w, const struct frame *f, void **ret_payload, struct error *e)
{
	int r;

	if (f->length > IMAGE_STATE_MAX)
		return error_set(e, -EFBIG, E_OUTPUT, "a record is too large for an image");
	r = writer_grow(w, frame_size(f), e);
	if (r < 0)
		return r;
	memcpy(w->state + w->state_len, f, sizeof(*f));
	*ret_payload = w->state + w->state_len + sizeof(*f);
	return 0;
}

void writer_seal(struct image_writer *w)
{
	w->state_len += frame_seal(w->state + w->state_len);
}

void writer_digest(struct image_writer *w, const struct frame *f, const struct pages_header *p,
		   const uint8_t *strong)
{
	bool with_strong = p && w->opt.strong;

	digest_update(w->digest, f, sizeof(*f));
	if (with_strong)
		digest_update(w->digest, strong, IMAGE_DIGEST_SIZE);
	if (w->out.positioned)
		heads_add(&w->heads, f, p, with_strong ? strong : NULL);
}

static uint32_t digest_kind(const struct image_writer *w)
{
	return w->opt.strong ? IMAGE_DIGEST_ALL : IMAGE_DIGEST_HEADERS;
}

static void header_fill(struct image_header *h, const struct image_info *info)
{
	*h = (struct image_header){
		.version = IMAGE_VERSION,
		.length = sizeof(*h),
		.created_ns = info->created_ns,
		.xfeatures = info->xfeatures,
		.xstate_size = info->xstate_size,
	};
	memcpy(h->magic, IMAGE_MAGIC, sizeof(h->magic));
	memcpy(h->uuid, info->uuid, sizeof(h->uuid));
	snprintf(h->arch, sizeof(h->arch), "%s", info->arch);
	snprintf(h->sysname, sizeof(h->sysname), "%s", info->sysname);
	snprintf(h->release, sizeof(h->release), "%s", info->release);
	snprintf(h->kernel_version, sizeof(h->kernel_version), "%s", info->kernel_version);
	snprintf(h->cpu, sizeof(h->cpu), "%s", info->cpu);
}

int image_writer_new(struct image_writer **ret, int fd, const struct image_info *info,
		     const struct image_writer_options *opt, struct error *e)
{
	_cleanup_(free_ptr) struct image_writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the image");
	if (opt)
		w->opt = *opt;
	if (w->opt.compress > PAGES_COMPRESS_MAX)
		return error_set(e, -EINVAL, E_USAGE, "unknown compression");
	/* Data without gaps cost a copy; an incremental image is to be small. */
	w->packed = w->opt.compress != COMPRESS_NONE || w->opt.parents;
	r = stream_open_output(&w->out, fd, e);
	if (r < 0)
		return r;
	room_begin(&w->ahead, &w->out);
	w->out.progress = &w->progress;
	w->progress.report = w->opt.progress;
	w->progress.arg = w->opt.progress_arg;
	r = writer_grow(w, sizeof(struct image_header), e);
	if (r < 0)
		return r;
	header_fill((struct image_header *)w->state, info);
	w->state_len = sizeof(struct image_header);
	w->digest = digest_new();
	if (!w->digest) {
		free(w->state);
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the image");
	}
	*ret = take_ptr(&w);
	return 0;
}

int image_put(struct image_writer *w, uint32_t type, uint32_t flags, uint64_t id,
	      const ProtobufCMessage *msg, struct error *e)
{
	struct frame f = {.type = type, .flags = flags, .id = id};
	void *payload;
	int r;

	if (w->phase != WRITER_STATE || type < FRAME_STATE_FIRST || (flags & ~RECORD_OPTIONAL))
		return error_set(e, -EINVAL, E_INTERNAL,
				 "record of type %u out of place in the image", type);
	f.length = protobuf_c_message_get_packed_size(msg);
	r = writer_put(w, &f, &payload, e);
	if (r < 0)
		return r;
	protobuf_c_message_pack(msg, payload);
	writer_seal(w);
	w->totals.state_records++;
	return 0;
}

int image_put_record(struct image_writer *w, const struct image_record *record, struct error *e)
{
	const struct frame f = {.type = record->type,
				.flags = record->flags,
				.length = record->len,
				.id = record->id};
	void *payload;
	int r;

	if (w->phase != WRITER_STATE)
		return error_set(e, -EINVAL, E_INTERNAL,
				 "record of type %u out of place in the image", record->type);
	r = writer_put(w, &f, &payload, e);
	if (r < 0)
		return r;
	memcpy(payload, record->data, record->len);
	writer_seal(w);
	w->totals.state_records++;
	return 0;
}

void image_expect(struct image_writer *w, uint64_t page_bytes)
{
	/* Threads may be writing what is copied in advance. */
	__atomic_store_n(&w->progress.total, page_bytes, __ATOMIC_RELAXED);
}

static int put_origin(struct image_writer *w, struct error *e)
{
	const struct frame f = {
		.type = FRAME_ORIGIN, .flags = RECORD_OPTIONAL, .length = sizeof(struct origin)};
	void *payload;
	int r;

	if (!w->opt.origin)
		return 0;
	r = writer_put(w, &f, &payload, e);
	if (r < 0)
		return r;
	origin_fill(w->opt.origin, w->state, w->state_len, payload);
	writer_seal(w);
	return 0;
}

/* The header becomes final here, since it tells the length of the state part, and so do the digest
 * and the end. */
static int state_finish(struct image_writer *w, struct error *e)
{
	const struct frame f = {.type = FRAME_STATE_END, .length = sizeof(struct state_end)};
	struct image_header *h;
	struct state_end *end;
	size_t at;
	void *payload;
	int r;

	r = writer_put_parent(w, e);
	if (r >= 0)
		r = put_origin(w, e);
	if (r >= 0)
		r = writer_put(w, &f, &payload, e);
	if (r < 0)
		return r;
	at = w->state_len;
	h = (struct image_header *)w->state;
	h->state_length = w->state_len + frame_size(&f) - sizeof(*h);
	h->checksum = checksum_of(h, sizeof(*h));
	digest_update(w->digest, w->state, w->state_len);
	end = payload;
	*end = (struct state_end){
		.records = w->totals.state_records,
		.bytes = w->state_len,
		.page_bytes = w->progress.total,
		.digest_kind = digest_kind(w),
	};
	digest_now(w->digest, end->digest);
	writer_seal(w);
	digest_update(w->digest, w->state + at, w->state_len - at);
	w->totals.state_bytes = w->state_len;
	return 0;
}

/* Brings what follows to a multiple of the page size, so that the data in uncompressed frames are
 * aligned. */
static int pad_to_page(struct image_writer *w, struct error *e)
{
	struct frame f = {.type = FRAME_PAD};
	size_t at = w->state_len;
	uint64_t end = align_up(at + sizeof(f), IMAGE_PAGE);
	void *payload;
	int r;

	f.length = end - at - sizeof(f);
	r = writer_put(w, &f, &payload, e);
	if (r < 0)
		return r;
	memset(payload, 0, f.length);
	writer_seal(w);
	writer_digest(w, (const struct frame *)(w->state + at), NULL, NULL);
	return 0;
}

int image_write_state(struct image_writer *w, struct error *e)
{
	int r;

	if (w->phase != WRITER_STATE)
		return error_set(e, -EINVAL, E_INTERNAL, "the state part was written already");
	w->phase = WRITER_DONE; /* unless all goes well */
	r = state_finish(w, e);
	if (r < 0)
		return r;
	if (w->early.room)
		r = early_close(w, e);
	else if (!w->packed)
		r = pad_to_page(w, e);
	if (r < 0)
		return r;
	r = stream_write(&w->out, w->state, w->state_len, 0, e);
	if (r < 0)
		return r;
	if (!w->early.room)
		w->offset = w->state_len;
	free(w->state);
	w->state = NULL;
	w->state_len = 0;
	w->state_size = 0;
	if (!w->pages) {
		r = pages_writer_new(&w->pages, w, e);
		if (r < 0)
			return r;
	}
	w->phase = WRITER_PAGES;
	return 0;
}

/* The list of frames, if there is one: *ret is where. */
static int put_heads(struct image_writer *w, uint64_t *ret, struct error *e)
{
	size_t size = heads_seal(&w->heads);
	int r;

	*ret = 0;
	if (!size)
		return 0;
	r = stream_write(&w->out, w->heads.frame, size, w->offset, e);
	if (r < 0)
		return r;
	digest_update(w->digest, w->heads.frame, sizeof(struct frame));
	*ret = w->offset;
	w->offset += size;
	return 0;
}

static int put_end(struct image_writer *w, uint64_t heads, uint64_t trailing, struct error *e)
{
	const struct frame f = {.type = FRAME_END, .length = sizeof(struct image_end), .id = heads};
	struct image_totals *t = &w->totals;
	struct image_end *end;
	void *payload;
	int r;

	r = writer_put(w, &f, &payload, e);
	if (r < 0)
		return r;
	t->total_bytes = w->offset + frame_size(&f) + trailing;
	end = payload;
	*end = (struct image_end){
		.state_records = t->state_records,
		.state_bytes = t->state_bytes,
		.page_frames = t->page_frames,
		.pages = t->pages,
		.zero_pages = t->zero_pages,
		.page_bytes = t->page_bytes,
		.total_bytes = t->total_bytes,
		.trailing_bytes = trailing,
		.digest_kind = digest_kind(w),
	};
	digest_update(w->digest, end, offsetof(struct image_end, digest));
	digest_now(w->digest, end->digest);
	memcpy(t->digest, end->digest, sizeof(t->digest));
	t->strong = w->opt.strong;
	writer_seal(w);
	return 0;
}

static int put_index(struct image_writer *w, const struct frame *f, struct error *e)
{
	struct image_trailer *trailer;
	void *payload;
	int r;

	r = writer_grow(w, frame_size(f) + sizeof(*trailer), e);
	if (r < 0)
		return r;
	struct image_trailer t = {
		.end_offset = w->offset,
		.index_offset = w->offset + w->state_len,
	};
	r = writer_put(w, f, &payload, e);
	if (r < 0)
		return r;
	if (w->index.n)
		memcpy(payload, w->index.v, w->index.n * sizeof(*w->index.v));
	writer_seal(w);
	memcpy(t.magic, IMAGE_TRAILER_MAGIC, sizeof(t.magic));
	t.checksum = checksum_of(&t, sizeof(t));
	memcpy(w->state + w->state_len, &t, sizeof(t));
	w->state_len += sizeof(t);
	return 0;
}

static int finish(struct image_writer *w, struct error *e)
{
	struct frame index = {
		.type = FRAME_INDEX,
		.length = w->index.n * sizeof(*w->index.v),
	};
	uint64_t heads;
	int r = put_heads(w, &heads, e);

	if (r < 0)
		return r;
	r = put_end(w, heads,
		    w->out.positioned ? frame_size(&index) + sizeof(struct image_trailer) : 0, e);
	if (r < 0)
		return r;
	if (w->out.positioned) {
		r = put_index(w, &index, e);
		if (r < 0)
			return r;
	}
	r = stream_write(&w->out, w->state, w->state_len, w->offset, e);
	if (r < 0)
		return r;
	r = room_end(&w->ahead, &w->out, w->totals.total_bytes, e);
	return r < 0 ? r : stream_finish(&w->out, w->totals.total_bytes, e);
}

int image_finish(struct image_writer *w, struct image_totals *ret, struct error *e)
{
	int r;

	if (w->phase != WRITER_PAGES)
		return error_set(e, -EINVAL, E_INTERNAL, "the image is not ready to be finished");
	w->phase = WRITER_DONE;
	r = pages_writer_drain(w->pages, e);
	if (r < 0)
		return r;
	r = finish(w, e);
	if (r < 0)
		return r;
	if (ret)
		*ret = w->totals;
	return 0;
}

void image_writer_free(struct image_writer *w)
{
	if (!w)
		return;
	pages_writer_free(w->pages);
	digest_free(w->digest);
	heads_free(&w->heads);
	vec_free(&w->index);
	vec_free(&w->early.frames);
	vec_free(&w->parent_objects);
	free(w->state);
	free(w);
}
