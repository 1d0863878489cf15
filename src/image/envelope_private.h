/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_ENVELOPE_PRIVATE_H
#define REPRISE_IMAGE_ENVELOPE_PRIVATE_H

#include <assert.h>

#include "image/envelope.h"

#define ENVELOPE_VERSION   2 /* before 2, chunks were not bound to the header */
#define ENVELOPE_SIGNED	   1u
#define ENVELOPE_ENCRYPTED 2u
#define ENVELOPE_CHUNK	   (1u << 20) /* of the image */
#define ENVELOPE_CHUNK_MAX (ENVELOPE_CHUNK + crypto_secretstream_xchacha20poly1305_ABYTES)
#define ENVELOPE_LAST	   1u

/* What stands in for a recipient: the key of the contents, for one who can open it. */
struct envelope_slot {
	uint32_t kind; /* 0 a pass phrase, 1 a public key */
	uint32_t reserved;
	uint64_t opslimit, memlimit; /* of crypto_pwhash() */
	uint8_t salt[crypto_pwhash_SALTBYTES];
	uint8_t nonce[crypto_secretbox_NONCEBYTES];
	uint8_t key[80]; /* crypto_box_seal(), or crypto_secretbox_easy() and zeros */
};
static_assert(sizeof(struct envelope_slot) == 144, "size is part of the format");

struct envelope_header {
	uint8_t magic[ENVELOPE_MAGIC_SIZE];
	uint32_t version;
	uint32_t flags;
	uint32_t slots;
	uint32_t reserved;
	uint8_t id[32]; /* random: chunks of one envelope do not fit into another */
	uint8_t signer[crypto_sign_PUBLICKEYBYTES];
	uint8_t stream[crypto_secretstream_xchacha20poly1305_HEADERBYTES];
};
static_assert(sizeof(struct envelope_header) == 112, "size is part of the format");

struct envelope_chunk {
	uint32_t length; /* of what follows, without the signature */
	uint32_t flags;
};

/* BLAKE2b-512 of what a signature covers. */
struct envelope_digest {
	uint8_t bytes[crypto_generichash_BYTES_MAX];
};
void envelope_header_digest(const struct envelope_header *h, const struct envelope_slot *slots,
			    struct envelope_digest *ret);
void envelope_chunk_digest(const struct envelope_header *h, uint64_t number,
			   const struct envelope_chunk *c, const void *data,
			   struct envelope_digest *ret);
/* All of it, or fewer bytes at the end of the input. */
ssize_t envelope_read(int fd, void *buf, size_t len);
int envelope_write(int fd, const void *buf, size_t len, struct error *e) must_check;

#endif
