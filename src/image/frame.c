/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "image/crypto.h"
#include "image/frame.h"

uint64_t checksum_of(const void *data, size_t len)
{
	return arch_checksum(data, len);
}

size_t frame_seal(void *buf)
{
	struct frame *f = buf;
	size_t len = sizeof(*f) + f->length, size = frame_size(f);

	memset((uint8_t *)buf + len, 0, size - len);
	f->checksum = 0;
	f->checksum = checksum_of(buf, len);
	return size;
}

bool frame_intact(void *buf)
{
	struct frame *f = buf;
	const uint8_t *bytes = buf;
	size_t len = sizeof(*f) + f->length, size = frame_size(f);
	uint64_t stored = f->checksum, computed;

	for (size_t i = len; i < size; i++) {
		if (bytes[i])
			return false;
	}
	f->checksum = 0;
	computed = checksum_of(buf, len);
	f->checksum = stored;
	return checksum_equal(computed, stored);
}

uint64_t frame_strong_at(const struct pages_header *p)
{
	return p->data_offset - IMAGE_DIGEST_SIZE;
}

void frame_strong(const void *frame, uint8_t ret[IMAGE_DIGEST_SIZE])
{
	const struct frame *f = frame;
	const struct pages_header *p = (const struct pages_header *)(f + 1);
	const uint8_t *bytes = frame;
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, IMAGE_DIGEST_SIZE);
	crypto_generichash_update(&state, bytes + sizeof(*f), frame_strong_at(p) - sizeof(*f));
	crypto_generichash_update(&state, bytes + p->data_offset,
				  sizeof(*f) + f->length - p->data_offset);
	crypto_generichash_final(&state, ret, IMAGE_DIGEST_SIZE);
}

bool frame_is(const void *frame, const uint8_t strong[IMAGE_DIGEST_SIZE])
{
	const struct pages_header *p =
		(const struct pages_header *)((const struct frame *)frame + 1);
	uint8_t is[IMAGE_DIGEST_SIZE];

	frame_strong(frame, is);
	return digest_equal(is, strong) &&
	       digest_equal((const uint8_t *)frame + frame_strong_at(p), strong);
}

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
/* A fuzzer cannot guess a checksum; in its build alone, any will do. */
bool checksum_equal(uint64_t a, uint64_t b)
{
	return true;
}

bool digest_equal(const uint8_t *a, const uint8_t *b)
{
	return true;
}
#else
bool checksum_equal(uint64_t a, uint64_t b)
{
	return a == b;
}

bool digest_equal(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, IMAGE_DIGEST_SIZE) == 0;
}
#endif

struct digest {
	crypto_generichash_state state; /* has an alignment of its own */
};

struct digest *digest_new(void)
{
	struct digest *d;

	if (crypto_ready() < 0)
		return NULL;
	d = aligned_alloc(_Alignof(struct digest), align_up(sizeof(*d), _Alignof(struct digest)));
	if (d)
		crypto_generichash_init(&d->state, NULL, 0, IMAGE_DIGEST_SIZE);
	return d;
}

void digest_free(struct digest *d)
{
	free(d);
}

void digest_update(struct digest *d, const void *data, size_t len)
{
	crypto_generichash_update(&d->state, data, len);
}

void digest_now(const struct digest *d, uint8_t ret[IMAGE_DIGEST_SIZE])
{
	struct digest copy = *d;

	crypto_generichash_final(&copy.state, ret, IMAGE_DIGEST_SIZE);
}

void totals_add(struct image_totals *t, const struct pages_header *p)
{
	const struct pages_run *runs = (const struct pages_run *)(p + 1);

	t->page_frames++;
	t->page_bytes += p->stored_length;
	for (uint32_t i = 0; i < p->nruns; i++) {
		t->pages += runs[i].pages;
		if (runs[i].flags & PAGES_RUN_ZERO)
			t->zero_pages += runs[i].pages;
		if (runs[i].flags & PAGES_RUN_PARENT)
			t->parent_pages += runs[i].pages;
	}
}
