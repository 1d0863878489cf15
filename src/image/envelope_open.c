/* SPDX-License-Identifier: Apache-2.0 */
/* Opening an envelope: nothing is passed on that has not been verified. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/crypto.h"
#include "image/envelope_private.h"

/* More would let an envelope of somebody else use up time and memory. */
#define OPSLIMIT_MAX 16
#define MEMLIMIT_MAX (1u << 30)

struct opening {
	const struct envelope_open *opt;
	int in, out;
	struct envelope_header header;
	struct envelope_slot slots[ENVELOPE_RECIPIENTS + 1];
	crypto_secretstream_xchacha20poly1305_state stream;
	struct envelope_digest digest; /* of header and slots */
	uint64_t number;
	uint8_t payload[ENVELOPE_CHUNK_MAX];
	uint8_t plain[ENVELOPE_CHUNK_MAX];
};

static int damaged(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_ENVELOPE_DAMAGED, "%s", what);
}

static int read_all(struct opening *o, void *buf, size_t len, struct error *e)
{
	ssize_t n = envelope_read(o->in, buf, len);

	if (n < 0)
		return error_errno(e, (int)n, E_IMAGE_OPEN, "cannot read the image");
	return (size_t)n == len ? 0 : damaged(e, "the envelope of the image is cut short");
}

static int check_signature(struct opening *o, const struct envelope_digest *d, const char *what,
			   struct error *e)
{
	uint8_t signature[crypto_sign_BYTES];
	int r = read_all(o, signature, sizeof(signature), e);

	if (r < 0)
		return r;
	if (crypto_sign_verify_detached(signature, d->bytes, sizeof(d->bytes), o->header.signer) <
	    0)
		return damaged(e, what);
	return 0;
}

static int check_signer(const struct opening *o, struct error *e)
{
	if (!o->opt->n_trusted)
		return 0;
	if (!(o->header.flags & ENVELOPE_SIGNED))
		return error_set(e, -EKEYREJECTED, E_NOT_TRUSTED, "the image is not signed");
	for (size_t i = 0; i < o->opt->n_trusted; i++)
		if (o->opt->trusted[i].has_sign_public &&
		    !memcmp(o->opt->trusted[i].sign_public, o->header.signer,
			    sizeof(o->header.signer)))
			return 0;
	return error_set(e, -EKEYREJECTED, E_NOT_TRUSTED,
			 "the image is signed by a key that is not trusted");
}

static bool unlock_by_passphrase(const struct envelope_slot *slot, const char *passphrase,
				 uint8_t *key)
{
	uint8_t derived[crypto_secretbox_KEYBYTES];
	bool good;

	if (!passphrase || slot->opslimit > OPSLIMIT_MAX || slot->memlimit > MEMLIMIT_MAX)
		return false;
	good = crypto_pwhash(derived, sizeof(derived), passphrase, strlen(passphrase), slot->salt,
			     slot->opslimit, (size_t)slot->memlimit,
			     crypto_pwhash_ALG_ARGON2ID13) == 0 &&
	       crypto_secretbox_open_easy(key, slot->key,
					  crypto_secretstream_xchacha20poly1305_KEYBYTES +
						  crypto_secretbox_MACBYTES,
					  slot->nonce, derived) == 0;
	sodium_memzero(derived, sizeof(derived));
	return good;
}

static bool unlock_slot(const struct opening *o, const struct envelope_slot *slot, uint8_t *key)
{
	if (slot->kind == 0)
		return unlock_by_passphrase(slot, o->opt->passphrase, key);
	for (size_t i = 0; i < o->opt->n_identities; i++) {
		const struct envelope_keys *k = &o->opt->identities[i];

		if (slot->kind == 1 && k->has_box_secret &&
		    crypto_box_seal_open(key, slot->key, sizeof(slot->key), k->box_public,
					 k->box_secret) == 0)
			return true;
	}
	return false;
}

static int unlock(struct opening *o, struct error *e)
{
	uint8_t key[crypto_secretstream_xchacha20poly1305_KEYBYTES];
	bool good = false;

	for (uint32_t i = 0; i < o->header.slots && !good; i++)
		good = unlock_slot(o, &o->slots[i], key);
	if (!good)
		return error_set(
			e, -ENOKEY, E_KEY,
			"the image is encrypted, and no key or pass phrase that was given opens it");
	if (crypto_secretstream_xchacha20poly1305_init_pull(&o->stream, o->header.stream, key) < 0)
		return damaged(e, "the envelope of the image is damaged");
	sodium_memzero(key, sizeof(key));
	return 0;
}

static int read_header(struct opening *o, struct error *e)
{
	struct envelope_header *h = &o->header;
	int r = read_all(o, (char *)h + ENVELOPE_MAGIC_SIZE, sizeof(*h) - ENVELOPE_MAGIC_SIZE, e);

	if (r < 0)
		return r;
	if (h->version < 1 || h->version > ENVELOPE_VERSION ||
	    h->flags & ~(ENVELOPE_SIGNED | ENVELOPE_ENCRYPTED))
		return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER, "an envelope of version %u",
				 h->version);
	if (h->slots > ENVELOPE_RECIPIENTS + 1 || !(h->flags & ENVELOPE_ENCRYPTED) != !h->slots ||
	    !h->flags)
		return damaged(e, "the envelope of the image is damaged");
	r = read_all(o, o->slots, h->slots * sizeof(*o->slots), e);
	/* Trust comes first: nothing else is done for an image that is not to be had. */
	if (r >= 0)
		r = check_signer(o, e);
	envelope_header_digest(h, o->slots, &o->digest);
	if (r >= 0 && h->flags & ENVELOPE_SIGNED)
		r = check_signature(o, &o->digest, "the signature of the envelope is wrong", e);
	return r < 0 || !(h->flags & ENVELOPE_ENCRYPTED) ? r : unlock(o, e);
}

static int decrypt(struct opening *o, const struct envelope_chunk *c, size_t *ret_len,
		   struct error *e)
{
	const unsigned long long bound = o->header.version < 2 ? 0 : sizeof(o->digest.bytes);
	unsigned long long n = 0;
	unsigned char tag = 0;

	if (c->length < crypto_secretstream_xchacha20poly1305_ABYTES ||
	    crypto_secretstream_xchacha20poly1305_pull(&o->stream, o->plain, &n, &tag, o->payload,
						       c->length, o->digest.bytes, bound) < 0)
		return damaged(e, "the contents of the envelope are damaged");
	if (!(c->flags & ENVELOPE_LAST) != (tag != crypto_secretstream_xchacha20poly1305_TAG_FINAL))
		return damaged(e, "the end of the envelope is in the wrong place");
	*ret_len = (size_t)n;
	return 0;
}

static int pass_chunk(struct opening *o, bool *ret_last, struct error *e)
{
	struct envelope_chunk c;
	struct envelope_digest d;
	const uint8_t *data = o->payload;
	size_t len;
	int r = read_all(o, &c, sizeof(c), e);

	if (r < 0)
		return r;
	if (c.length > sizeof(o->payload) || c.flags & ~ENVELOPE_LAST)
		return damaged(e, "the envelope of the image is damaged");
	len = c.length;
	r = read_all(o, o->payload, len, e);
	if (r >= 0 && o->header.flags & ENVELOPE_SIGNED) {
		envelope_chunk_digest(&o->header, o->number, &c, o->payload, &d);
		r = check_signature(o, &d, "a signature of the contents is wrong", e);
	}
	if (r >= 0 && o->header.flags & ENVELOPE_ENCRYPTED) {
		r = decrypt(o, &c, &len, e);
		data = o->plain;
	}
	o->number++;
	*ret_last = c.flags & ENVELOPE_LAST;
	return r < 0 ? r : envelope_write(o->out, data, len, e);
}

static int copy_plain(struct opening *o, size_t have, struct error *e)
{
	int r = envelope_write(o->out, o->header.magic, have, e);

	while (r >= 0) {
		ssize_t n = envelope_read(o->in, o->plain, sizeof(o->plain));

		if (n < 0)
			return error_errno(e, (int)n, E_IMAGE_OPEN, "cannot read the image");
		if (n == 0)
			break;
		r = envelope_write(o->out, o->plain, (size_t)n, e);
	}
	return r;
}

static void opening_free(struct opening **o)
{
	if (*o)
		sodium_memzero(*o, sizeof(**o));
	free(*o);
}

int envelope_open(int in, int out, const struct envelope_open *opt, struct error *e)
{
	_cleanup_(opening_free) struct opening *o = calloc(1, sizeof(*o));
	bool last = false;
	char byte;
	ssize_t n;
	int r;

	if (!o || crypto_ready() < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the envelope");
	o->opt = opt;
	o->in = in;
	o->out = out;
	n = envelope_read(in, o->header.magic, ENVELOPE_MAGIC_SIZE);
	if (n < 0)
		return error_errno(e, (int)n, E_IMAGE_OPEN, "cannot read the image");
	if (n < ENVELOPE_MAGIC_SIZE ||
	    memcmp(o->header.magic, ENVELOPE_MAGIC, ENVELOPE_MAGIC_SIZE)) {
		r = check_signer(o, e);
		return r < 0 ? r : copy_plain(o, (size_t)n, e);
	}
	r = read_header(o, e);
	while (r >= 0 && !last)
		r = pass_chunk(o, &last, e);
	if (r >= 0 && envelope_read(in, &byte, 1) != 0)
		return damaged(e, "there is something behind the end of the envelope");
	return r;
}
