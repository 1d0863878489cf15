/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an image was made: by a key that only root of this machine can read, a MAC of the
 * header and of all state records. It says who made the image, and nothing of what became of it
 * since: contents of pages are not covered (doc/security.md).
 */
#include <string.h>

#include "image/reader.h"
#include "image/writer.h"

static void compute(const struct image_key *key, const uint8_t *header, size_t header_len,
		    const uint8_t *frames, size_t len, uint8_t ret[IMAGE_DIGEST_SIZE])
{
	crypto_generichash_state s;
	struct image_header h;

	/* Two fields are known only when all is written. */
	memcpy(&h, header, sizeof(h));
	h.checksum = 0;
	h.state_length = 0;
	crypto_generichash_init(&s, key->bytes, sizeof(key->bytes), IMAGE_DIGEST_SIZE);
	crypto_generichash_update(&s, (const uint8_t *)&h, sizeof(h));
	crypto_generichash_update(&s, header + sizeof(h), header_len - sizeof(h));
	crypto_generichash_update(&s, frames, len);
	crypto_generichash_final(&s, ret, IMAGE_DIGEST_SIZE);
}

void origin_fill(const struct image_key *key, const uint8_t *state, size_t len, struct origin *ret)
{
	*ret = (struct origin){.kind = ORIGIN_BLAKE2B};
	compute(key, state, sizeof(struct image_header), state + sizeof(struct image_header),
		len - sizeof(struct image_header), ret->mac);
}

bool image_made_with(const struct image_reader *r, const struct image_key *key)
{
	const struct frame *f = (const struct frame *)(r->state + r->origin_at);
	const struct origin *o = (const struct origin *)(f + 1);
	uint8_t mac[IMAGE_DIGEST_SIZE];

	if (!r->has_origin || f->flags != RECORD_OPTIONAL || f->id || f->length != sizeof(*o) ||
	    o->kind != ORIGIN_BLAKE2B || o->reserved)
		return false;
	compute(key, r->header, r->state_offset, r->state, r->origin_at, mac);
	return sodium_memcmp(mac, o->mac, sizeof(mac)) == 0;
}
