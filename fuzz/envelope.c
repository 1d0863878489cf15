/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Envelopes of signed and encrypted images, and texts with keys. The first byte
 * says what is done to the rest: it is opened as it is; it is the image in an envelope that was
 * made well, in which then a byte is changed (nothing of which may come out); or it is a key.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct envelope_keys ours;
static bool have_keys;

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("envelope", MFD_CLOEXEC);

	if (fd >= 0 && write(fd, data, size) != (ssize_t)size)
		__builtin_trap();
	if (fd >= 0)
		lseek(fd, 0, SEEK_SET);
	return fd;
}

static void make_keys(void)
{
	char *secret, *public_;

	if (envelope_new_keys(&secret, &public_, NULL) < 0 ||
	    envelope_parse_keys(secret, &ours, NULL) < 0)
		abort();
	free(secret);
	free(public_);
	have_keys = true;
}

static int try_open(int in, int out, bool trust)
{
	const struct envelope_open opt = {
		.trusted = &ours, .n_trusted = trust, .identities = &ours, .n_identities = 1};
	struct error e = {};
	int r = envelope_open(in, out, &opt, &e);

	if ((r < 0) != (e.code != ERROR_NONE) || e.code == E_INTERNAL)
		__builtin_trap();
	return r;
}

/* What came out is a part of what had been put in, and all of it only if nothing was changed. */
static void check_output(int out, const uint8_t *data, size_t size)
{
	off_t n = lseek(out, 0, SEEK_END);
	_cleanup_(free_ptr) uint8_t *got = malloc((size_t)n + 1);

	if (!got || pread(out, got, (size_t)n, 0) != n)
		return;
	if ((size_t)n > size || memcmp(got, data, (size_t)n))
		__builtin_trap();
}

static void change_one(const uint8_t *data, size_t size, uint32_t where, int how)
{
	const struct envelope_seal seal = {.signer = how & 1 ? &ours : NULL,
					   .recipients = &ours,
					   .n_recipients = how & 2 ? 1 : 0};
	_cleanup_(close_fd) int sealed = memfd_create("sealed", MFD_CLOEXEC);
	_cleanup_(close_fd) int out = memfd_create("out", MFD_CLOEXEC);
	_cleanup_(close_fd) int in = file_of(data, size);
	uint8_t byte;
	off_t len;

	if (envelope_seal(in, sealed, &seal, NULL) < 0)
		__builtin_trap();
	len = lseek(sealed, 0, SEEK_CUR);
	where %= (uint32_t)len;
	if (pread(sealed, &byte, 1, where) != 1)
		__builtin_trap();
	byte ^= 1 << (size % 8);
	if (pwrite(sealed, &byte, 1, where) != 1)
		__builtin_trap();
	lseek(sealed, 0, SEEK_SET);
	/* The magic decides whether it is an envelope at all. */
	if (try_open(sealed, out, how & 1) >= 0 && where >= ENVELOPE_MAGIC_SIZE)
		__builtin_trap();
	if (where >= ENVELOPE_MAGIC_SIZE)
		check_output(out, data, size);
}

static void parse_key(const uint8_t *data, size_t size)
{
	_cleanup_(free_ptr) char *text = malloc(size + 1);
	struct envelope_keys k;
	struct error e = {};

	if (!text)
		return;
	memcpy(text, data, size);
	text[size] = '\0';
	if ((envelope_parse_keys(text, &k, &e) < 0) != (e.code != ERROR_NONE))
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(close_fd) int in = -EBADF, out = -EBADF;
	uint32_t where;

	if (!have_keys)
		make_keys();
	if (size < 1 + sizeof(where))
		return 0;
	memcpy(&where, data + 1, sizeof(where));
	if (data[0] == 0x10) {
		parse_key(data + 1, size - 1);
	} else if (data[0] & 3) {
		change_one(data + 5, size - 5, where, data[0] & 3);
	} else {
		in = file_of(data + 1, size - 1);
		out = memfd_create("o", MFD_CLOEXEC);
		ignore(try_open(in, out, data[0] & 4), "either will do");
	}
	return 0;
}
