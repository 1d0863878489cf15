/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/crypto.h"
#include "image/envelope_private.h"

void envelope_header_digest(const struct envelope_header *h, const struct envelope_slot *slots,
			    struct envelope_digest *ret)
{
	crypto_generichash_state s;

	crypto_generichash_init(&s, NULL, 0, sizeof(ret->bytes));
	crypto_generichash_update(&s, (const uint8_t *)h, sizeof(*h));
	crypto_generichash_update(&s, (const uint8_t *)slots, h->slots * sizeof(*slots));
	crypto_generichash_final(&s, ret->bytes, sizeof(ret->bytes));
}

void envelope_chunk_digest(const struct envelope_header *h, uint64_t number,
			   const struct envelope_chunk *c, const void *data,
			   struct envelope_digest *ret)
{
	crypto_generichash_state s;

	crypto_generichash_init(&s, NULL, 0, sizeof(ret->bytes));
	crypto_generichash_update(&s, h->id, sizeof(h->id));
	crypto_generichash_update(&s, (const uint8_t *)&number, sizeof(number));
	crypto_generichash_update(&s, (const uint8_t *)c, sizeof(*c));
	crypto_generichash_update(&s, data, c->length);
	crypto_generichash_final(&s, ret->bytes, sizeof(ret->bytes));
}

ssize_t envelope_read(int fd, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int envelope_write(int fd, const void *buf, size_t len, struct error *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(e, -errno, E_OUTPUT, "cannot write the image");
		done += (size_t)n;
	}
	return 0;
}

static const struct {
	const char *name;
	size_t size;
} key_kinds[] = {{"reprise-sign-secret:", 32},
		 {"reprise-sign-public:", 32},
		 {"reprise-box-secret:", 32},
		 {"reprise-box-public:", 32}};

static int parse_key(const char *line, size_t len, uint8_t raw[32], int *ret_kind)
{
	for (int i = 0; i < 4; i++) {
		size_t head = strlen(key_kinds[i].name), got;

		if (len < head || strncmp(line, key_kinds[i].name, head))
			continue;
		*ret_kind = i;
		return sodium_base642bin(raw, 32, line + head, len - head, " \r", &got, NULL,
					 sodium_base64_VARIANT_ORIGINAL) == 0 &&
				       got == 32
			       ? 0
			       : -EINVAL;
	}
	return -EINVAL;
}

static void set_key(struct envelope_keys *k, int kind, const uint8_t raw[32])
{
	switch (kind) {
	case 0:
		crypto_sign_seed_keypair(k->sign_public, k->sign_secret, raw);
		k->has_sign_secret = k->has_sign_public = true;
		break;
	case 1:
		memcpy(k->sign_public, raw, 32);
		k->has_sign_public = true;
		break;
	case 2:
		memcpy(k->box_secret, raw, 32);
		crypto_scalarmult_base(k->box_public, raw);
		k->has_box_secret = k->has_box_public = true;
		break;
	default:
		memcpy(k->box_public, raw, 32);
		k->has_box_public = true;
	}
}

int envelope_parse_keys(const char *text, struct envelope_keys *ret, struct error *e)
{
	memset(ret, 0, sizeof(*ret));
	if (crypto_ready() < 0)
		return error_set(e, -EIO, E_KEY, "the library for cryptography cannot be used");
	while (*text) {
		size_t len = strcspn(text, "\n");
		uint8_t raw[32];
		int kind;

		if (len && *text != '#') {
			if (parse_key(text, len, raw, &kind) < 0)
				return error_set(e, -EINVAL, E_KEY, "this is no key of reprise");
			set_key(ret, kind, raw);
			sodium_memzero(raw, sizeof(raw));
		}
		text += len + (text[len] != '\0');
	}
	if (!ret->has_sign_public && !ret->has_box_public)
		return error_set(e, -EINVAL, E_KEY, "there is no key in it");
	return 0;
}

static char *two_lines(int first, const uint8_t *a, int second, const uint8_t *b)
{
	char x[64], y[64], *text;

	sodium_bin2base64(x, sizeof(x), a, 32, sodium_base64_VARIANT_ORIGINAL);
	sodium_bin2base64(y, sizeof(y), b, 32, sodium_base64_VARIANT_ORIGINAL);
	if (asprintf(&text, "%s%s\n%s%s\n", key_kinds[first].name, x, key_kinds[second].name, y) <
	    0)
		return NULL;
	return text;
}

int envelope_new_keys(char **secret, char **public_, struct error *e)
{
	uint8_t seed[32], box[32], sign_public[32], box_public[32], unused[64];

	if (crypto_ready() < 0)
		return error_set(e, -EIO, E_KEY, "the library for cryptography cannot be used");
	randombytes_buf(seed, sizeof(seed));
	crypto_sign_seed_keypair(sign_public, unused, seed);
	crypto_box_keypair(box_public, box);
	*secret = two_lines(0, seed, 2, box);
	*public_ = two_lines(1, sign_public, 3, box_public);
	sodium_memzero(seed, sizeof(seed));
	sodium_memzero(box, sizeof(box));
	sodium_memzero(unused, sizeof(unused));
	if (*secret && *public_)
		return 0;
	free(*secret);
	free(*public_);
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for keys");
}

/* ---- sealing ---- */

struct sealing {
	const struct envelope_seal *opt;
	struct envelope_header header;
	struct envelope_slot slots[ENVELOPE_RECIPIENTS + 1];
	crypto_secretstream_xchacha20poly1305_state stream;
	struct envelope_digest digest; /* of header and slots */
	uint64_t number;
	int out;
	uint8_t plain[ENVELOPE_CHUNK];
	uint8_t payload[ENVELOPE_CHUNK_MAX];
};

static int lock_by_passphrase(struct envelope_slot *slot, const char *passphrase,
			      const uint8_t *key, struct error *e)
{
	uint8_t derived[crypto_secretbox_KEYBYTES];

	slot->kind = 0;
	slot->opslimit = crypto_pwhash_OPSLIMIT_MODERATE;
	slot->memlimit = crypto_pwhash_MEMLIMIT_INTERACTIVE;
	randombytes_buf(slot->salt, sizeof(slot->salt));
	randombytes_buf(slot->nonce, sizeof(slot->nonce));
	if (crypto_pwhash(derived, sizeof(derived), passphrase, strlen(passphrase), slot->salt,
			  slot->opslimit, (size_t)slot->memlimit, crypto_pwhash_ALG_ARGON2ID13) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to derive a key");
	crypto_secretbox_easy(slot->key, key, crypto_secretstream_xchacha20poly1305_KEYBYTES,
			      slot->nonce, derived);
	sodium_memzero(derived, sizeof(derived));
	return 0;
}

static int lock_contents(struct sealing *s, struct error *e)
{
	const struct envelope_seal *opt = s->opt;
	uint8_t key[crypto_secretstream_xchacha20poly1305_KEYBYTES];
	int r = 0;

	crypto_secretstream_xchacha20poly1305_keygen(key);
	if (opt->passphrase)
		r = lock_by_passphrase(&s->slots[s->header.slots++], opt->passphrase, key, e);
	for (size_t i = 0; i < opt->n_recipients && r >= 0; i++) {
		struct envelope_slot *slot = &s->slots[s->header.slots++];

		slot->kind = 1;
		if (crypto_box_seal(slot->key, key, sizeof(key), opt->recipients[i].box_public) < 0)
			r = error_set(e, -EINVAL, E_KEY, "a public key is not good");
	}
	crypto_secretstream_xchacha20poly1305_init_push(&s->stream, s->header.stream, key);
	sodium_memzero(key, sizeof(key));
	return r;
}

static int sign(struct sealing *s, const struct envelope_digest *d, struct error *e)
{
	uint8_t signature[crypto_sign_BYTES];

	if (!s->opt->signer)
		return 0;
	crypto_sign_detached(signature, NULL, d->bytes, sizeof(d->bytes),
			     s->opt->signer->sign_secret);
	return envelope_write(s->out, signature, sizeof(signature), e);
}

static int begin(struct sealing *s, struct error *e)
{
	struct envelope_header *h = &s->header;
	int r = 0;

	memcpy(h->magic, ENVELOPE_MAGIC, sizeof(h->magic));
	h->version = ENVELOPE_VERSION;
	randombytes_buf(h->id, sizeof(h->id));
	if (s->opt->signer) {
		h->flags |= ENVELOPE_SIGNED;
		memcpy(h->signer, s->opt->signer->sign_public, sizeof(h->signer));
	}
	if (s->opt->passphrase || s->opt->n_recipients) {
		h->flags |= ENVELOPE_ENCRYPTED;
		r = lock_contents(s, e);
	}
	if (r >= 0)
		r = envelope_write(s->out, h, sizeof(*h), e);
	if (r >= 0)
		r = envelope_write(s->out, s->slots, h->slots * sizeof(*s->slots), e);
	envelope_header_digest(h, s->slots, &s->digest);
	return r < 0 ? r : sign(s, &s->digest, e);
}

static int put_chunk(struct sealing *s, size_t len, bool last, struct error *e)
{
	struct envelope_chunk c = {.length = (uint32_t)len, .flags = last ? ENVELOPE_LAST : 0};
	const uint8_t *data = s->plain;
	unsigned long long n = len;
	struct envelope_digest d;
	int r;

	if (s->header.flags & ENVELOPE_ENCRYPTED) {
		crypto_secretstream_xchacha20poly1305_push(
			&s->stream, s->payload, &n, s->plain, len, s->digest.bytes,
			sizeof(s->digest.bytes),
			last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL : 0);
		data = s->payload;
		c.length = (uint32_t)n;
	}
	r = envelope_write(s->out, &c, sizeof(c), e);
	if (r >= 0)
		r = envelope_write(s->out, data, c.length, e);
	if (r >= 0 && s->opt->signer) {
		envelope_chunk_digest(&s->header, s->number, &c, data, &d);
		r = sign(s, &d, e);
	}
	s->number++;
	return r;
}

static void sealing_free(struct sealing **s)
{
	if (*s)
		sodium_memzero(*s, sizeof(**s));
	free(*s);
}

int envelope_seal(int in, int out, const struct envelope_seal *opt, struct error *e)
{
	_cleanup_(sealing_free) struct sealing *s = calloc(1, sizeof(*s));
	ssize_t n;
	int r;

	if (!s || opt->n_recipients > ENVELOPE_RECIPIENTS || crypto_ready() < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the envelope");
	s->opt = opt;
	s->out = out;
	r = begin(s, e);
	while (r >= 0) {
		n = envelope_read(in, s->plain, sizeof(s->plain));
		if (n < 0)
			return error_errno(e, (int)n, E_SYSTEM, "cannot read from a pipe");
		r = put_chunk(s, (size_t)n, (size_t)n < sizeof(s->plain), e);
		if ((size_t)n < sizeof(s->plain))
			break;
	}
	return r;
}
