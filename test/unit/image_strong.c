/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "image/page_map.h"
#include "image_common.h"

/*
 * Contents of pages that were changed so that their checksum remains: XXH3 is none against malice.
 * Only the strong digest finds that, in whatever way they are read.
 */

#define AT     0x10000ull
#define BYTES  (512ull << 10)
#define VICTIM 5 /* a page */

/*
 * XXH3 adds up products of halves of words, after xor with a secret that everybody knows, and the
 * words. Where one half is zero then, the other one does not matter but for the sum, and another
 * word makes up for that.
 */
static uint64_t blind(size_t stripe, uint32_t high)
{
	uint64_t key;

	memcpy(&key, XXH3_kSecret + 8 * stripe, sizeof(key));
	return (uint64_t)high << 32 | (uint32_t)key;
}

static int read_blind(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	struct test_source source = {1, 0};
	int r = test_read(&source, address, buf, len, e);

	for (size_t at = 0; at < len; at += PAGE) {
		uint64_t *page = (uint64_t *)((char *)buf + at);

		page[0] = address + at;
		page[128] = blind(0, 1000);
		page[136] = blind(1, 1000);
	}
	return r;
}

static void tamper(uint8_t *image, size_t len)
{
	for (size_t at = 0; at < len; at += PAGE) {
		uint64_t *page = (uint64_t *)(image + at);

		if (page[0] != AT + VICTIM * PAGE || page[128] != blind(0, 1000))
			continue;
		page[128] += 1ull << 32;
		page[136] -= 1ull << 32;
		return;
	}
	fail_msg("the page is not there");
}

static int placed(void *arg, uint64_t address, uint64_t length, uint64_t position)
{
	struct page_run **next = arg;

	*(*next)++ = (struct page_run){address, length, position};
	return 0;
}

static int make(bool strong, bool early)
{
	const struct image_writer_options opt = {.jobs = 2, .strong = strong};
	const struct page_run all = {AT, BYTES, 0};
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct page_run runs[64] = {all}, *next = runs;
	struct image_writer *w = NULL;
	struct image_totals totals;
	struct image_info info;
	struct error e = {};

	image_info_here(&info);
	assert_int_equal(image_writer_new(&w, fd, &info, &opt, &e), 0);
	if (early) {
		assert_int_equal(image_early_begin(w, PAGE), 0);
		assert_int_equal(image_put_early(w, &all, 1, read_blind, placed, &next, &e), 0);
	}
	assert_int_equal(put_record(w, 1, "/x", &e), 0);
	assert_int_equal(image_write_state(w, &e), 0);
	assert_int_equal(image_put_pages(w, &(struct page_group){1, 0}, runs,
					 early ? (size_t)(next - runs) : 1, read_blind, NULL, &e),
			 0);
	assert_int_equal(image_finish(w, &totals, &e), 0);
	assert_int_equal(totals.strong, strong);
	image_writer_free(w);
	return fd;
}

static int ignore_data(void *arg, uint64_t address, const void *data, size_t len, struct error *e)
{
	return 0;
}

static int later(void *arg, uint64_t first, uint64_t end)
{
	return IMAGE_LATER;
}

enum how { FILE_AT_ONCE, STREAM, LATER, MAP, LOOK, HOWS };

static int read_rest(struct image_reader *r, enum how how, bool strong, struct error *e)
{
	const struct page_group group = {1, 0};
	struct image_totals totals;
	int res = how == LOOK ? 0
			      : image_read_some(r, &group, how == LATER ? later : NULL, ignore_data,
						NULL, e);

	if (!res)
		res = image_read_end(r, &totals, e);
	if (!res)
		assert_int_equal(totals.strong, strong);
	if (!res && how == LATER) {
		struct image_room *room = image_room_new(r);
		const struct image_later *f;

		for (size_t i = 0; !res && (f = image_later(r, i)); i++)
			res = image_read_later(room, f, f->first, f->end, ignore_data, NULL, e);
		image_room_free(room);
	}
	return res;
}

static int read_how(int fd, enum how how, bool strong, struct error *e)
{
	struct image_reader *r = NULL;
	struct page_map *map = NULL;
	int fds[2] = {-1, -1}, res;
	size_t len;
	uint8_t *bytes;

	if (how == MAP) {
		res = page_map_open(&map, dup(fd), e);
		if (!res)
			res = page_map_verify(map, e);
		page_map_free(map);
		return res;
	}
	if (how == STREAM) {
		bytes = file_bytes(fd, &len);
		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		assert_true(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20) >= (int)len);
		assert_int_equal(write(fds[1], bytes, len), len);
		close(fds[1]);
		free(bytes);
	}
	res = image_reader_new(&r, how == STREAM ? fds[0] : fd, 2, e);
	if (!res)
		res = read_rest(r, how, strong, e);
	image_reader_free(r);
	close(fds[0]);
	return res;
}

static void test_pages_changed_under_their_checksum(void **state)
{
	for (int n = 0; n < 4 * HOWS; n++) {
		enum how how = n / 4;
		bool strong = n & 1, early = n & 2;
		int fd = make(strong, early);
		struct error e = {};
		uint8_t *image;
		size_t len;

		assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
		assert_int_equal(read_how(fd, how, strong, &e), 0);
		image = file_bytes(fd, &len);
		tamper(image, len);
		assert_int_equal(pwrite(fd, image, len, 0), len);
		free(image);
		assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
		if (read_how(fd, how, strong, &e) != (strong ? -EBADMSG : 0))
			fail_msg("%s, way %d: %s", early ? "early" : "late", how, e.text);
		if (strong)
			assert_non_null(strstr(e.text, how == MAP ? "checksum" : "digest"));
		close(fd);
	}
}

/* Which kind of digest it is stands in the state part and in the end record: both or none. */
static void test_kind_taken_away(void **state)
{
	int fd = make(true, false);
	struct error e = {};
	uint8_t *image;
	size_t len;

	image = file_bytes(fd, &len);
	for (size_t at = sizeof(struct image_header); at + sizeof(struct frame) < len;) {
		struct frame *f = (struct frame *)(image + at);
		uint32_t *kind = NULL;

		if (f->type == FRAME_STATE_END)
			kind = &((struct state_end *)(f + 1))->digest_kind;
		if (f->type == FRAME_END)
			kind = &((struct image_end *)(f + 1))->digest_kind;
		at += frame_size(f);
		if (!kind)
			continue;
		*kind = IMAGE_DIGEST_HEADERS;
		frame_seal(f);
		assert_int_equal(pwrite(fd, image, len, 0), len);
		assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
		assert_int_not_equal(read_how(fd, FILE_AT_ONCE, true, &e), 0);
		*kind = IMAGE_DIGEST_ALL;
		frame_seal(f);
		if (f->type == FRAME_END)
			break;
	}
	free(image);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_changed_under_their_checksum),
		cmocka_unit_test(test_kind_taken_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
