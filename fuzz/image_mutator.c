/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mutator that knows images: it takes one apart, changes a record, a field of a
 * message or the order of things, and puts it together again with lengths, counts, checksums and
 * digests that fit, so that what is tried gets as far as what is behind these.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/frame.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed);

#ifndef IMAGE_PREFIX
#define IMAGE_PREFIX 0 /* bytes of the input before the image */
#endif
#define PARTS_MAX 1024
#define DEPTH_MAX 6

struct part {
	struct frame head;
	const uint8_t *data;
	uint8_t *own; /* when it was changed */
};

struct apart {
	const uint8_t *image;
	struct part parts[PARTS_MAX];
	size_t n;
	struct state_end end;
	const uint8_t *tail; /* behind STATE_END */
	size_t tail_len;
	uint64_t random;
};

static uint64_t draw(struct apart *a, uint64_t below)
{
	a->random ^= a->random << 13;
	a->random ^= a->random >> 7;
	a->random ^= a->random << 17;
	return below ? (a->random * 0x2545f4914f6cdd1dull >> 20) % below : 0;
}

static bool take_apart(struct apart *a, const uint8_t *image, size_t size)
{
	const struct image_header *h = (const struct image_header *)image;
	size_t at = sizeof(*h);

	if (size < sizeof(*h) || memcmp(h->magic, IMAGE_MAGIC, sizeof(h->magic)))
		return false;
	a->image = image;
	while (at + sizeof(struct frame) <= size && a->n < PARTS_MAX) {
		struct part *p = &a->parts[a->n];

		memcpy(&p->head, image + at, sizeof(p->head));
		p->data = image + at + sizeof(p->head);
		if (p->head.length > size || at + frame_size(&p->head) > size)
			return false;
		at += frame_size(&p->head);
		if (p->head.type == FRAME_STATE_END) {
			if (p->head.length != sizeof(a->end))
				return false;
			memcpy(&a->end, p->data, sizeof(a->end));
			a->tail = image + at;
			a->tail_len = size - at;
			return true;
		}
		a->n++;
	}
	return false;
}

/* ---- messages of protobuf, as they stand in the image ---- */

struct field {
	size_t start, value, end; /* of the tag, of what follows it and its length, behind it */
	unsigned int wire;
	uint64_t n; /* varint or length */
};

static bool varint(const uint8_t *m, size_t len, size_t *at, uint64_t *ret)
{
	*ret = 0;
	for (int shift = 0; shift < 64 && *at < len; shift += 7) {
		uint8_t byte = m[(*at)++];

		*ret |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static size_t put_varint(uint8_t *to, uint64_t n)
{
	size_t len = 0;

	for (; n >= 0x80; n >>= 7)
		to[len++] = (uint8_t)n | 0x80;
	to[len++] = (uint8_t)n;
	return len;
}

static bool next_field(const uint8_t *m, size_t len, size_t *at, struct field *f)
{
	uint64_t tag;

	f->start = *at;
	if (!varint(m, len, at, &tag) || !(tag >> 3) || tag >> 3 > 4096)
		return false;
	f->wire = tag & 7;
	f->value = *at;
	switch (f->wire) {
	case 0:
		if (!varint(m, len, at, &f->n))
			return false;
		break;
	case 1:
		*at += 8;
		break;
	case 2:
		if (!varint(m, len, at, &f->n) || f->n > len - *at)
			return false;
		f->value = *at;
		*at += f->n;
		break;
	case 5:
		*at += 4;
		break;
	default:
		return false;
	}
	f->end = *at;
	return *at <= len;
}

static size_t count_fields(const uint8_t *m, size_t len)
{
	struct field f;
	size_t n = 0, at = 0;

	while (at < len) {
		if (!next_field(m, len, &at, &f))
			return 0;
		n++;
	}
	return n;
}

static uint64_t other_number(struct apart *a, uint64_t n)
{
	switch (draw(a, 10)) {
	case 0:
		return 0;
	case 1:
		return n + 1;
	case 2:
		return n - 1;
	case 3:
		return ~0ull;
	case 4:
		return 1ull << draw(a, 64);
	case 5:
		return (1ull << draw(a, 64)) - 1;
	case 6:
		return n ^ 1ull << draw(a, 64);
	case 7:
		return n + 4096 * draw(a, 512);
	case 8:
		return draw(a, 64);
	default: /* the id of some object */
		return a->n ? a->parts[draw(a, a->n)].head.id : n;
	}
}

/* A changed copy of a message; `to` has room for twice its length and some. */
static size_t change_message(struct apart *a, const uint8_t *m, size_t len, uint8_t *to, int depth)
{
	size_t n = count_fields(m, len), chosen = n ? draw(a, n) : 0, at = 0, out;
	struct field f;

	if (!n) {
		memcpy(to, m, len);
		return LLVMFuzzerMutate(to, len, len + 64);
	}
	for (size_t i = 0; i <= chosen; i++)
		next_field(m, len, &at, &f);
	memcpy(to, m, f.start);
	out = f.start;
	switch (draw(a, 8)) {
	case 0: /* away */
		break;
	case 1: /* twice */
		memcpy(to + out, m + f.start, f.end - f.start);
		memcpy(to + out + (f.end - f.start), m + f.start, f.end - f.start);
		out += 2 * (f.end - f.start);
		break;
	default:
		for (size_t i = f.start; i < f.value; i++) {
			to[out++] = m[i];
			if (!(m[i] & 0x80))
				break; /* the tag alone */
		}
		if (f.wire == 0) {
			out += put_varint(to + out, other_number(a, f.n));
		} else if (f.wire == 2 && depth < DEPTH_MAX) {
			uint8_t *inner = malloc(2 * f.n + 256);
			size_t inner_len =
				inner ? change_message(a, m + f.value, f.n, inner, depth + 1) : 0;

			out += put_varint(to + out, inner_len);
			memcpy(to + out, inner, inner_len);
			out += inner_len;
			free(inner);
		} else {
			memcpy(to + out,
			       m + f.end -
				       (f.wire == 1   ? 8
					: f.wire == 5 ? 4
						      : 0),
			       f.wire == 1   ? 8
			       : f.wire == 5 ? 4
					     : 0);
			if (f.wire == 1 || f.wire == 5) {
				to[out + draw(a, f.wire == 1 ? 8 : 4)] ^= 1 << draw(a, 8);
				out += f.wire == 1 ? 8 : 4;
			} else {
				to[out++] = 0;
			}
		}
	}
	memcpy(to + out, m + f.end, len - f.end);
	return out + len - f.end;
}

/* ---- records ---- */

static void change_payload(struct apart *a, struct part *p, bool blindly)
{
	size_t len = p->head.length;
	uint8_t *to = malloc(2 * len + 512);

	if (!to)
		return;
	if (blindly) {
		memcpy(to, p->data, len);
		len = LLVMFuzzerMutate(to, len, len + 64);
	} else {
		len = change_message(a, p->data, len, to, 0);
	}
	free(p->own);
	p->own = to;
	p->data = to;
	p->head.length = len;
}

static void change_order(struct apart *a, struct part *p)
{
	struct part *q = &a->parts[draw(a, a->n)], old = *p;

	switch (draw(a, 4)) {
	case 0: /* away */
		free(p->own);
		memmove(p, p + 1, (size_t)(a->parts + a->n - p - 1) * sizeof(*p));
		a->n--;
		return;
	case 1: /* once more */
		if (a->n == PARTS_MAX)
			return;
		a->parts[a->n] = (struct part){.head = p->head, .own = malloc(p->head.length + 1)};
		if (!a->parts[a->n].own)
			return;
		memcpy(a->parts[a->n].own, p->data, p->head.length);
		a->parts[a->n].data = a->parts[a->n].own;
		a->parts[a->n].head.id = draw(a, 2) ? a->n + 1 : draw(a, 4096);
		a->n++;
		return;
	case 2:
		*p = *q;
		*q = old;
		return;
	default:
		p->head.id = other_number(a, p->head.id);
	}
}

static void change(struct apart *a)
{
	struct part *p;

	if (!a->n)
		return;
	p = &a->parts[draw(a, a->n)];
	switch (draw(a, 16)) {
	case 0:
	case 1:
		change_order(a, p);
		return;
	case 2:
		p->head.type = draw(a, 2) ? 256 + draw(a, 120) : other_number(a, p->head.type);
		return;
	case 3:
		p->head.flags ^= 1u << draw(a, 3);
		return;
	case 4:
		change_payload(a, p, true);
		return;
	default:
		change_payload(a, p, false);
	}
}

/* ---- together again ---- */

static size_t seal(uint8_t *to, const struct frame *head, const void *payload)
{
	memcpy(to, head, sizeof(*head));
	memmove(to + sizeof(*head), payload, head->length);
	return frame_seal(to);
}

static size_t put_state(struct apart *a, uint8_t *to, struct digest *d)
{
	struct image_header *h = (struct image_header *)to;
	struct frame head = {.type = FRAME_STATE_END, .length = sizeof(a->end)};
	size_t at = sizeof(*h);

	memcpy(to, a->image, sizeof(*h));
	a->end.records = 0;
	for (size_t i = 0; i < a->n; i++) {
		a->end.records += a->parts[i].head.type >= FRAME_STATE_FIRST;
		at += seal(to + at, &a->parts[i].head, a->parts[i].data);
	}
	h->length = sizeof(*h);
	h->state_length = at + sizeof(head) + sizeof(a->end) - sizeof(*h);
	h->checksum = 0;
	h->checksum = checksum_of(h, sizeof(*h));
	digest_update(d, to, at);
	a->end.bytes = at;
	digest_now(d, a->end.digest);
	seal(to + at, &head, &a->end);
	digest_update(d, to + at, sizeof(head) + sizeof(a->end));
	return at + sizeof(head) + sizeof(a->end);
}

/* NULL: it has none. */
static const uint8_t *seal_strong(const struct apart *a, struct frame *f)
{
	const struct pages_header *p = (const struct pages_header *)(f + 1);

	if (a->end.digest_kind != IMAGE_DIGEST_ALL ||
	    (f->type != FRAME_PAGES && f->type != FRAME_EARLY) ||
	    f->length < sizeof(*p) + IMAGE_DIGEST_SIZE ||
	    p->data_offset < sizeof(*f) + sizeof(*p) + IMAGE_DIGEST_SIZE ||
	    p->data_offset > sizeof(*f) + f->length)
		return NULL;
	frame_strong(f, (uint8_t *)f + frame_strong_at(p));
	return (const uint8_t *)f + frame_strong_at(p);
}

/* Pages as they are; the index is left out. */
static size_t put_tail(const struct apart *a, uint8_t *to, size_t state, struct digest *d)
{
	const uint8_t *strong;
	size_t at = 0;

	memcpy(to, a->tail, a->tail_len);
	while (at + sizeof(struct frame) <= a->tail_len) {
		struct frame *f = (struct frame *)(to + at);

		if (f->length > a->tail_len || at + frame_size(f) > a->tail_len)
			break;
		if (f->type == FRAME_END && f->length == sizeof(struct image_end)) {
			struct image_end *end = (struct image_end *)(f + 1);

			end->state_records = a->end.records;
			end->state_bytes = state;
			end->total_bytes = state + at + frame_size(f);
			end->digest_kind = a->end.digest_kind;
			end->trailing_bytes = 0;
			digest_update(d, end, offsetof(struct image_end, digest));
			digest_now(d, end->digest);
			return at + frame_seal(f);
		}
		strong = seal_strong(a, f);
		frame_seal(f);
		digest_update(d, f, sizeof(*f));
		if (strong)
			digest_update(d, strong, IMAGE_DIGEST_SIZE);
		at += frame_size(f);
	}
	return a->tail_len;
}

static size_t put_together(struct apart *a, uint8_t *to, size_t max)
{
	size_t need = sizeof(struct image_header) + sizeof(struct frame) + sizeof(a->end), at;
	struct digest *d;

	for (size_t i = 0; i < a->n; i++)
		need += frame_size(&a->parts[i].head);
	if (need > max)
		return 0;
	if (need + a->tail_len > max)
		a->tail_len = max - need;
	d = digest_new();
	at = put_state(a, to, d);
	at += put_tail(a, to + at, at, d);
	digest_free(d);
	return at;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
	struct apart *a = calloc(1, sizeof(*a));
	/* What stands behind the prefix is to be aligned as in a file. */
	uint8_t *room = malloc(size + 128), *copy = room ? room + 16 - IMAGE_PREFIX : NULL;
	uint8_t *out = malloc(max + 8);
	size_t n = 0;

	if (copy)
		memcpy(copy, data, size);
	if (a && copy && out && size > IMAGE_PREFIX && max > size + 4096) {
		a->random = seed * 0x9e3779b97f4a7c15ull + 1;
		if (draw(a, 20) == 0) /* anything anywhere, to be put right below if it can be */
			size = LLVMFuzzerMutate(copy, size, size + 64);
		if (size > IMAGE_PREFIX &&
		    take_apart(a, copy + IMAGE_PREFIX, size - IMAGE_PREFIX)) {
			for (uint64_t i = draw(a, 4); i < 4; i++)
				change(a);
			memcpy(data, copy, IMAGE_PREFIX);
			n = put_together(a, out, max - IMAGE_PREFIX);
			memcpy(data + IMAGE_PREFIX, out, n);
			n = n ? n + IMAGE_PREFIX : 0;
		}
		for (size_t i = 0; i < a->n; i++)
			free(a->parts[i].own);
	}
	free(a);
	if (!n && copy)
		memcpy(data, copy, size < max ? size : max);
	free(room);
	free(out);
	return n ? n : LLVMFuzzerMutate(data, size < max ? size : max, max);
}
