/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_ENVELOPE_H
#define REPRISE_IMAGE_ENVELOPE_H

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/*
 * An envelope around an image: signed (Ed25519), encrypted, or both. It is a
 * stream, like what it holds: a header, then chunks, each of which is verified and
 * authenticated before a byte of it is passed on. See doc/image-format.md.
 */
#define ENVELOPE_MAGIC	    "\x8fREV\r\n\x1a\n"
#define ENVELOPE_MAGIC_SIZE 8
#define ENVELOPE_RECIPIENTS 64

/* Keys as text, one a line: "reprise-sign-secret:BASE64" and the like. */
struct envelope_keys {
	bool has_sign_secret, has_sign_public, has_box_secret, has_box_public;
	uint8_t sign_secret[crypto_sign_SECRETKEYBYTES];
	uint8_t sign_public[crypto_sign_PUBLICKEYBYTES];
	uint8_t box_secret[crypto_box_SECRETKEYBYTES];
	uint8_t box_public[crypto_box_PUBLICKEYBYTES];
};
int envelope_parse_keys(const char *text, struct envelope_keys *ret, struct error *e) must_check;
/* New keys, as two texts to be freed by the caller. */
int envelope_new_keys(char **secret, char **public_, struct error *e) must_check;

struct envelope_seal {
	const struct envelope_keys *signer; /* NULL: not signed */
	const struct envelope_keys *recipients;
	size_t n_recipients;
	const char *passphrase; /* NULL: none. Neither recipients nor this: not encrypted */
};
/* Reads all of `in` and writes the envelope to `out`. */
int envelope_seal(int in, int out, const struct envelope_seal *seal, struct error *e) must_check;

struct envelope_open {
	const struct envelope_keys *trusted; /* signers */
	size_t n_trusted;		     /* 0: whoever signed it, or nobody */
	const struct envelope_keys *identities;
	size_t n_identities;
	const char *passphrase;
};
/*
 * Reads an envelope, or an image without one, from `in` and writes the image to `out`. Nothing
 * is written that is not verified.
 */
int envelope_open(int in, int out, const struct envelope_open *open, struct error *e) must_check;

#endif
