/* SPDX-License-Identifier: Apache-2.0 */
#include "image_common.h"

/* The proof that an image was made with a key: whoever does not have it cannot change a byte of
 * the state part, though all checksums and digests are made to fit. */

static const struct test_group groups[] = {{{1, 0}, {{0x10000, 0x5000}}, 1}};
#define RECORDS 3

static const struct image_key ours = {"the key of this machine"}, theirs = {"that of another one"};

static uint8_t *make(const struct image_key *key, size_t *ret_len)
{
	struct image_writer_options opt = {.jobs = 1, .origin = key, .compress = COMPRESS_LZ4};
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct image_totals totals;
	struct error e = {};
	uint8_t *v;

	assert_int_equal(write_image(fd, &opt, RECORDS, groups, 1, &totals, &e), 0);
	v = file_bytes(fd, ret_len);
	close(fd);
	return v;
}

/* -1: it cannot be read at all. */
static int made_with(const uint8_t *v, size_t len, const struct image_key *key)
{
	struct image_reader *r = NULL;
	int fd = bytes_file(v, len), made;

	made = image_reader_new(&r, fd, 1, NULL) < 0 ? -1 : image_made_with(r, key);
	image_reader_free(r);
	close(fd);
	return made;
}

/* Puts checksums and digest of the state part right, as anybody can. */
static void reseal(uint8_t *v)
{
	struct image_header *h = (struct image_header *)v;
	struct digest *d = digest_new();
	size_t at = h->length;

	h->checksum = 0;
	h->checksum = checksum_of(h, h->length);
	for (;;) {
		struct frame *f = (struct frame *)(v + at);

		if (f->type == FRAME_STATE_END) {
			digest_update(d, v, at);
			digest_now(d, ((struct state_end *)(f + 1))->digest);
			frame_seal(f);
			break;
		}
		at += frame_seal(f);
	}
	digest_free(d);
}

static void test_key(void **state)
{
	size_t len, plain_len;
	uint8_t *v = make(&ours, &len), *plain = make(NULL, &plain_len);

	assert_int_equal(made_with(v, len, &ours), 1);
	assert_int_equal(made_with(v, len, &theirs), 0);
	assert_int_equal(made_with(plain, plain_len, &ours), 0);
	reseal(v);
	assert_int_equal(made_with(v, len, &ours), 1);
	free(v);
	free(plain);
}

/* All of header and frames, but for what the format itself pins down. */
static void test_every_byte(void **state)
{
	size_t len, end;
	uint8_t *v = make(&ours, &len), *copy = malloc(len);
	const struct image_header *h = (const struct image_header *)v;
	unsigned int readable = 0;

	end = h->length + h->state_length - sizeof(struct frame) - sizeof(struct state_end);
	for (size_t i = 0; i < end; i++) {
		size_t at = h->length;

		while (i >= at && i - at >= frame_size((const struct frame *)(v + at)))
			at += frame_size((const struct frame *)(v + at));
		/* lengths, and the last type, are left: they would lead the sealing astray */
		if ((i >= at && i - at >= offsetof(struct frame, length) &&
		     i - at < offsetof(struct frame, id)) ||
		    (i >= 12 && i < 16) ||
		    (i >= offsetof(struct image_header, state_length) &&
		     i < offsetof(struct image_header, sysname)))
			continue;
		memcpy(copy, v, len);
		copy[i] ^= 1 << i % 8;
		reseal(copy);
		if (!memcmp(copy, v, len))
			continue; /* a checksum, which was put right */
		readable += made_with(copy, len, &ours) == 0;
		assert_int_not_equal(made_with(copy, len, &ours), 1);
	}
	assert_true(readable > 200);
	free(copy);
	free(v);
}

/* The proof of one image in another one, and twice, and not at the end. */
static void test_moved(void **state)
{
	size_t len, other_len, at;
	uint8_t *v = make(&ours, &len), *other = make(&ours, &other_len), *both;
	const size_t size = sizeof(struct frame) + sizeof(struct origin);
	struct image_header *h = (struct image_header *)v;
	struct state_end *end;

	at = h->length + h->state_length - sizeof(struct frame) - sizeof(*end) - size;
	assert_int_equal(((struct frame *)(v + at))->type, FRAME_ORIGIN);
	assert_int_equal(len, other_len); /* they differ by uuid and time */
	both = malloc(len + size);
	memcpy(both, other, len);
	memcpy(both + at, v + at, size);
	reseal(both);
	assert_int_equal(made_with(both, len, &ours), 0);
	/* once more behind itself */
	memcpy(both, v, at + size);
	memcpy(both + at + size, v + at, len - at);
	h = (struct image_header *)both;
	h->state_length += size;
	end = (struct state_end *)(both + at + 2 * size + sizeof(struct frame));
	end->bytes += size;
	reseal(both);
	assert_int_equal(made_with(both, len + size, &ours), 0);
	/* a frame of padding behind it */
	((struct frame *)(both + at + size))->type = FRAME_PAD;
	reseal(both);
	assert_int_equal(made_with(both, len + size, &ours), 0);
	free(v);
	free(other);
	free(both);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_key),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_moved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
