/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sys/socket.h>

#include "image_common.h"

/* Images that were cut, changed, made up or taken from elsewhere: each is refused, and with the
 * right word. */

static const struct test_group groups[] = {
	{{1, 0}, {{0x10000, 0x5000}, {0x7f0000000000, 0x3000}}, 2},
	{{1, 1}, {{0x1000, 0x2000}}, 1},
	{{2, 0}, {{0x1000, 0x9000}}, 1},
	{{3, 0}, {{0x2000, 0x1000}}, 1},
};
#define NGROUPS (sizeof(groups) / sizeof(*groups))
#define RECORDS 6

struct bytes {
	uint8_t *v;
	size_t len;
};

static struct bytes make(enum image_compress compress)
{
	struct image_writer_options opt = {.jobs = 1, .compress = compress};
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct image_totals totals;
	struct error e = {};
	struct bytes b;

	assert_int_equal(write_image(fd, &opt, RECORDS, groups, NGROUPS, &totals, &e), 0);
	b.v = file_bytes(fd, &b.len);
	assert_int_equal(b.len, totals.total_bytes);
	close(fd);
	return b;
}

/* As a file, and as a stream where it is small enough to be put into a pipe beforehand. */
static int read_back(const uint8_t *v, size_t len, bool stream, struct error *e)
{
	struct image_totals totals;
	int fds[2] = {-1, -1}, r;

	*e = (struct error){};
	if (stream) {
		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
		assert_int_equal(write(fds[1], v, len), len);
		close(fds[1]);
	} else {
		fds[0] = bytes_file(v, len);
	}
	r = read_image(fds[0], 1, RECORDS, groups, NGROUPS, &totals, e);
	close(fds[0]);
	return r;
}

static void refused(const uint8_t *v, size_t len, enum error_code code)
{
	struct error e;

	for (int stream = 0; stream < 2; stream++) {
		assert_int_not_equal(read_back(v, len, stream, &e), 0);
		if (e.code != code)
			print_message("%s\n", e.text);
		assert_int_equal(e.code, code);
	}
}

static void accepted(const uint8_t *v, size_t len)
{
	struct error e;

	for (int stream = 0; stream < 2; stream++) {
		int r = read_back(v, len, stream, &e);

		if (r)
			print_message("%s\n", e.text);
		assert_int_equal(r, 0);
	}
}

static size_t state_end(const struct bytes *b)
{
	const struct image_header *h = (const struct image_header *)b->v;

	return h->length + h->state_length;
}

/* ---- cut ---- */

static void test_cut(void **state)
{
	for (int compress = 0; compress <= COMPRESS_ZSTD; compress++) {
		struct bytes b = make(compress);
		size_t step = compress == COMPRESS_NONE ? 1021 : 101, next = 0;

		accepted(b.v, b.len);
		refused(b.v, 0, E_IMAGE_EMPTY);
		for (size_t len = 1; len < b.len; len++) {
			/* every byte of the state part, the head of every frame, and samples */
			if (len == next && len >= state_end(&b))
				next += frame_size((const struct frame *)(b.v + len));
			else if (len == state_end(&b))
				next = len + frame_size((const struct frame *)(b.v + len));
			else if (len > state_end(&b) && len < b.len - 200 && len % step)
				continue;
			struct error e;

			/* A pipe ends with the end record; what the index is to a file it does not
			 * miss. */
			assert_int_not_equal(read_back(b.v, len, len % 2, &e), 0);
			assert_int_equal(e.code, E_IMAGE_CUT);
		}
		free(b.v);
	}
}

/* ---- flipped ---- */

static void test_flip_state(void **state)
{
	struct bytes b = make(COMPRESS_LZ4);
	struct error e;

	for (size_t i = 0; i < state_end(&b); i++) {
		for (int bit = 0; bit < 8; bit += 2 + i % 3) {
			b.v[i] ^= 1 << bit;
			assert_int_not_equal(read_back(b.v, b.len, bit & 1, &e), 0);
			assert_int_not_equal(e.code, ERROR_NONE);
			assert_int_not_equal(e.code, E_INTERNAL);
			b.v[i] ^= 1 << bit;
		}
	}
	accepted(b.v, b.len);
	free(b.v);
}

/* Everything is read, without an idea of what there should be. */
static int verify(const uint8_t *v, size_t len)
{
	struct image_reader *r;
	int fd = bytes_file(v, len), err;

	assert_int_equal(image_reader_new(&r, fd, 1, NULL), 0);
	err = image_read_end(r, NULL, NULL);
	image_reader_free(r);
	close(fd);
	return err;
}

static void test_flip_pages(void **state)
{
	for (int compress = 0; compress <= COMPRESS_ZSTD; compress++) {
		struct bytes b = make(compress);
		size_t step = compress == COMPRESS_NONE ? 61 : 11;
		struct error e;

		assert_int_equal(verify(b.v, b.len), 0);
		for (size_t i = state_end(&b); i < b.len; i += b.len - i < 400 ? 1 : step) {
			b.v[i] ^= 1 << i % 8;
			/* A changed id or stage shows as a group that is missing. */
			assert_int_not_equal(read_back(b.v, b.len, i & 8, &e), 0);
			assert_true(e.code == E_IMAGE_DAMAGED || e.code == E_IMAGE_NEWER ||
				    e.code == E_IMAGE_CUT || e.code == ERROR_NONE);
			assert_int_not_equal(verify(b.v, b.len), 0);
			b.v[i] ^= 1 << i % 8;
		}
		free(b.v);
	}
}

static void test_tail(void **state)
{
	struct bytes b = make(COMPRESS_LZ4);
	struct error e;

	b.v = realloc(b.v, b.len + 1);
	b.v[b.len] = 0;
	assert_int_not_equal(read_back(b.v, b.len + 1, false, &e), 0);
	assert_int_equal(e.code, E_IMAGE_DAMAGED);
	/* a stream may go on with something else */
	assert_int_equal(read_back(b.v, b.len + 1, true, &e), 0);
	free(b.v);
}

/* ---- made up: frames put in, with all sums right ---- */

struct builder {
	uint8_t *v;
	size_t len;
	struct digest *digest;
	uint64_t removed; /* records that are not in the totals */
};

static void add_bytes(struct builder *b, const void *v, size_t len)
{
	b->v = realloc(b->v, b->len + len + 16);
	memcpy(b->v + b->len, v, len);
	b->len += len;
}

static struct frame *add_frame(struct builder *b, const struct frame *f, const void *payload)
{
	static const uint8_t zero[8];
	size_t at = b->len;

	add_bytes(b, f, sizeof(*f));
	add_bytes(b, payload, f->length);
	add_bytes(b, zero, align_up(f->length, 8) - f->length);
	frame_seal(b->v + at);
	return (struct frame *)(b->v + at);
}

static void add_state_end(struct builder *b, const struct frame *f)
{
	struct state_end end = *(const struct state_end *)(f + 1);
	struct image_header *h = (struct image_header *)b->v;
	struct frame *new;

	h->state_length = b->len + frame_size(f) - sizeof(*h);
	h->checksum = 0;
	h->checksum = checksum_of(h, sizeof(*h));
	end.bytes = b->len;
	b->digest = digest_new();
	digest_update(b->digest, b->v, b->len);
	digest_now(b->digest, end.digest);
	new = add_frame(b, f, &end);
	digest_update(b->digest, new, frame_size(new));
}

static void add_end(struct builder *b, const struct frame *f)
{
	struct image_end end = *(const struct image_end *)(f + 1);
	const struct frame *after;

	for (size_t at = sizeof(struct image_header); at < b->len; at += frame_size(after)) {
		after = (const struct frame *)(b->v + at);
		if (after->type == FRAME_STATE_END)
			end.state_bytes = at + frame_size(after);
	}
	end.trailing_bytes = 0;
	end.total_bytes = b->len + frame_size(f);
	digest_update(b->digest, &end, offsetof(struct image_end, digest));
	digest_now(b->digest, end.digest);
	add_frame(b, f, &end);
	digest_free(b->digest);
}

/* Copies the image, with another frame before the n-th; `change` may alter one on the way. */
static struct bytes rebuild(const struct bytes *from, unsigned int n, const struct frame *extra,
			    const void *payload, void (*change)(struct frame *f))
{
	struct builder b = {};
	const struct frame *f;
	unsigned int i = 0;

	add_bytes(&b, from->v, sizeof(struct image_header));
	for (size_t at = b.len;; at += frame_size(f), i++) {
		struct frame *copy;

		f = (const struct frame *)(from->v + at);
		if (i == n && extra) {
			copy = add_frame(&b, extra, payload);
			if (b.digest)
				digest_update(b.digest, copy, sizeof(*copy));
		}
		if (f->type == FRAME_STATE_END) {
			add_state_end(&b, f);
		} else if (f->type == FRAME_END) {
			add_end(&b, f);
			break;
		} else {
			copy = add_frame(&b, f, f + 1);
			if (change) {
				change(copy);
				frame_seal(copy);
			}
			if (b.digest)
				digest_update(b.digest, copy, sizeof(*copy));
		}
	}
	return (struct bytes){b.v, b.len};
}

static void test_extra_frames(void **state)
{
	static const uint8_t payload[100] = "whatever";
	const struct {
		struct frame f;
		enum error_code in_state, in_pages; /* ERROR_NONE: is passed over */
	} rows[] = {
		{{FRAME_PAD, 0, 17}, ERROR_NONE, ERROR_NONE},
		{{77, RECORD_OPTIONAL, 100}, ERROR_NONE, ERROR_NONE},
		{{77, RECORD_OPTIONAL, 0}, ERROR_NONE, ERROR_NONE},
		{{77, 0, 100}, E_IMAGE_NEWER, E_IMAGE_NEWER},
		{{77, RECORD_OPTIONAL | 2, 1}, E_IMAGE_NEWER, E_IMAGE_NEWER},
		{{FRAME_INDEX, 0, 24}, E_IMAGE_DAMAGED, E_IMAGE_DAMAGED},
		{{FRAME_PAGES, 0, 100}, E_IMAGE_DAMAGED, E_IMAGE_DAMAGED},
		{{FRAME_STATE_END, 0, 64}, E_IMAGE_DAMAGED, E_IMAGE_DAMAGED},
		{{TEST_TYPE, 0, 5}, E_IMAGE_DAMAGED, E_IMAGE_DAMAGED}, /* not counted */
		{{TEST_TYPE, 6, 5}, E_IMAGE_NEWER, E_IMAGE_DAMAGED},
	};
	struct bytes b = make(COMPRESS_ZSTD);

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		for (unsigned int at = 0; at < RECORDS + 5; at++) {
			bool in_pages = at > RECORDS;
			enum error_code code = in_pages ? rows[i].in_pages : rows[i].in_state;
			struct bytes x = rebuild(&b, at, &rows[i].f, payload, NULL);

			if (code == ERROR_NONE)
				accepted(x.v, x.len);
			else
				refused(x.v, x.len, code);
			free(x.v);
		}
	}
	free(b.v);
}

#define PAGES_OF(f) ((struct pages_header *)((f) + 1))
#define RUNS_OF(f)  ((struct pages_run *)(PAGES_OF(f) + 1))

#define CHANGE(name, what)                                                             \
	static void change_##name(struct frame *f)                                     \
	{                                                                              \
		if (f->type == FRAME_PAGES && f->id == 1 && PAGES_OF(f)->stage == 0) { \
			what;                                                          \
		}                                                                      \
	}
CHANGE(nothing, )
CHANGE(flags, f->flags = 1)
CHANGE(no_runs, PAGES_OF(f)->nruns = 0)
CHANGE(many_runs, PAGES_OF(f)->nruns = 0x10000000)
CHANGE(one_run_less, PAGES_OF(f)->nruns--)
CHANGE(compression, PAGES_OF(f)->compression = 99)
CHANGE(not_compressed, PAGES_OF(f)->compression = COMPRESS_NONE)
CHANGE(data_offset_low, PAGES_OF(f)->data_offset = 80)
CHANGE(data_offset_odd, PAGES_OF(f)->data_offset += 4)
CHANGE(data_offset_high, PAGES_OF(f)->data_offset = 0xfffffff8)
CHANGE(raw_length, PAGES_OF(f)->raw_length += PAGE)
CHANGE(raw_length_huge, PAGES_OF(f)->raw_length = 1ull << 40)
CHANGE(stored_length, PAGES_OF(f)->stored_length -= 8)
CHANGE(first, PAGES_OF(f)->first -= PAGE)
CHANGE(end, PAGES_OF(f)->end += PAGE)
CHANGE(end_high, PAGES_OF(f)->end = -(uint64_t)PAGE)
CHANGE(end_low, PAGES_OF(f)->end = PAGES_OF(f)->first)
CHANGE(run_flags, RUNS_OF(f)->flags |= 2)
CHANGE(run_zero, RUNS_OF(f)->flags ^= PAGES_RUN_ZERO)
CHANGE(run_empty, RUNS_OF(f)->pages = 0)
CHANGE(run_long, RUNS_OF(f)->pages = 0xffffffff)
CHANGE(run_odd, RUNS_OF(f)[1].address++)
CHANGE(run_back, RUNS_OF(f)[1].address = RUNS_OF(f)[0].address)
CHANGE(run_far, RUNS_OF(f)[1].address = -(uint64_t)PAGE)
CHANGE(stage, PAGES_OF(f)->stage = 1) /* then the next group continues it, at lower addresses */

static void test_wrong_pages(void **state)
{
	void (*const changes[])(struct frame * f) = {
		change_flags,
		change_no_runs,
		change_many_runs,
		change_one_run_less,
		change_compression,
		change_not_compressed,
		change_data_offset_low,
		change_data_offset_odd,
		change_data_offset_high,
		change_raw_length,
		change_raw_length_huge,
		change_stored_length,
		change_first,
		change_end,
		change_end_high,
		change_end_low,
		change_run_flags,
		change_run_zero,
		change_run_empty,
		change_run_long,
		change_run_odd,
		change_run_back,
		change_run_far,
	};
	struct bytes b = make(COMPRESS_LZ4), x;
	struct error e;

	x = rebuild(&b, 0, NULL, NULL, change_nothing);
	accepted(x.v, x.len);
	free(x.v);
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		x = rebuild(&b, 0, NULL, NULL, changes[i]);
		refused(x.v, x.len, E_IMAGE_DAMAGED);
		free(x.v);
	}
	x = rebuild(&b, 0, NULL, NULL, change_stage);
	assert_int_not_equal(read_back(x.v, x.len, false, &e), 0);
	free(x.v);
	free(b.v);
}

/* ---- from elsewhere ---- */

static void test_headers(void **state)
{
	struct bytes b = make(COMPRESS_LZ4);
	struct image_header *h = (struct image_header *)b.v, good = *h;
	static const char text[] = "#!/bin/sh\necho hello, this is not an image, but long enough\n";

#define WITH(code, change)                                \
	do {                                              \
		change;                                   \
		h->checksum = 0;                          \
		h->checksum = checksum_of(h, sizeof(*h)); \
		refused(b.v, b.len, code);                \
		*h = good;                                \
	} while (0)
	WITH(E_IMAGE_NEWER, h->version++);
	WITH(E_IMAGE_NEWER, h->flags = 1);
	WITH(E_IMAGE_DAMAGED, h->version = 0);
	WITH(E_IMAGE_ARCH, strcpy(h->arch, "riscv64"));
	WITH(E_IMAGE_ARCH, h->arch[0] = 0);
	WITH(E_IMAGE_DAMAGED, memset(h->cpu, 'x', sizeof(h->cpu)));
	WITH(E_IMAGE_DAMAGED, h->state_length = 0);
	WITH(E_IMAGE_DAMAGED, h->state_length -= 8);
	WITH(E_IMAGE_DAMAGED, h->state_length -= 1);
	WITH(E_IMAGE_DAMAGED, h->state_length += 8);
	WITH(E_IMAGE_DAMAGED, h->state_length = -(uint64_t)8);
	WITH(E_IMAGE_CUT, h->state_length = IMAGE_STATE_MAX);
	WITH(E_IMAGE_FORMAT, h->magic[1] ^= 1);
	WITH(E_IMAGE_DAMAGED, h->magic[0] &= 0x7f);
	WITH(E_IMAGE_DAMAGED, memcpy(h->magic, "\x8fREP\n\x1a\n", 7));
	accepted(b.v, b.len);
	refused((const uint8_t *)text, sizeof(text) - 1, E_IMAGE_FORMAT);
	refused((const uint8_t *)"x", 1, E_IMAGE_FORMAT);
	free(b.v);
}

static void test_directory(void **state)
{
	int fd = open("/", O_RDONLY | O_DIRECTORY);
	struct image_reader *r;
	struct error e = {};

	assert_int_equal(image_reader_new(&r, fd, 1, &e), -EISDIR);
	assert_int_equal(e.code, E_IMAGE_OPEN);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut),	     cmocka_unit_test(test_flip_state),
		cmocka_unit_test(test_flip_pages),   cmocka_unit_test(test_tail),
		cmocka_unit_test(test_extra_frames), cmocka_unit_test(test_wrong_pages),
		cmocka_unit_test(test_headers),	     cmocka_unit_test(test_directory),
	};

	return cmocka_run_group_tests_name("image_damage", tests, NULL, NULL);
}
