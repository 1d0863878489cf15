/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/wait.h>

#include "image/reader.h"
#include "image_common.h"

/*
 * The list of frames at the end of an image: with it and without it the same frames are found, and
 * where it is not that of the image nobody believes it.
 */

#define AT     0x10000ull
#define BYTES  (20ull << 20)
#define GROUPS 90 /* behind those, of one page each */

struct bytes {
	uint8_t *v;
	size_t len;
};

static int placed(void *arg, uint64_t address, uint64_t length, uint64_t position)
{
	struct page_run **next = arg;

	*(*next)++ = (struct page_run){address, length, position};
	return 0;
}

static int read_one(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	struct test_source source = {1, 0};

	return test_read(&source, address, buf, len, e);
}

static struct bytes make(bool strong, bool early, unsigned int groups)
{
	const struct image_writer_options opt = {.jobs = 2, .strong = strong};
	const struct page_run all = {AT, BYTES, 0}, one = {AT, PAGE, 0};
	struct page_run *runs = calloc(BYTES / PAGE, sizeof(*runs)), *next = runs;
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct image_writer *w = NULL;
	struct image_info info;
	struct error e = {};
	struct bytes b;

	image_info_here(&info);
	assert_int_equal(image_writer_new(&w, fd, &info, &opt, &e), 0);
	if (early) {
		assert_int_equal(image_early_begin(w, PAGE), 0);
		assert_int_equal(image_put_early(w, &all, 1, read_one, placed, &next, &e), 0);
	}
	assert_int_equal(put_record(w, 1, "/x", &e), 0);
	assert_int_equal(image_write_state(w, &e), 0);
	for (unsigned int i = 0; i < groups; i++) {
		struct page_group group = {1, i};

		const struct page_run *what = early && !i ? runs : &one;

		assert_int_equal(image_put_pages(w, &group, what,
						 early && !i ? (size_t)(next - runs) : 1, read_one,
						 NULL, &e),
				 0);
	}
	assert_int_equal(image_finish(w, NULL, &e), 0);
	image_writer_free(w);
	b.v = file_bytes(fd, &b.len);
	close(fd);
	free(runs);
	return b;
}

/* NULL: there is none. */
static struct frame *list_of(const struct bytes *b)
{
	struct image_trailer *t = (struct image_trailer *)(b->v + b->len) - 1;
	struct frame *end = (struct frame *)(b->v + t->end_offset);

	assert_int_equal(end->type, FRAME_END);
	return end->id ? (struct frame *)(b->v + end->id) : NULL;
}

enum how { AT_ONCE, STREAM, LATER, LISTED, HOWS };

static int later(void *arg, uint64_t first, uint64_t end)
{
	return IMAGE_LATER;
}

/* All that is said of frames that are left for later. */
static int note_later(struct image_reader *r, uint64_t *sum, struct error *e)
{
	struct image_room *room = image_room_new(r);
	const struct image_later *f;
	int res = 0;

	for (size_t i = 0; !res && (f = image_later(r, i)); i++) {
		struct test_sink sink = {.object = 1};

		*sum = mix(*sum ^ checksum_of(f, sizeof(*f)));
		res = image_read_later(room, f, f->first, f->end, test_write, &sink, e);
		if (sink.wrong)
			res = -ENOMSG;
	}
	image_room_free(room);
	return res;
}

static int read_all(struct image_reader *r, enum how how, uint64_t *sum, struct error *e)
{
	struct image_totals totals;
	struct page_group group;
	int res = how == LISTED ? image_use_heads(r, e) : 0;

	if (!res && how == LISTED && !r->heads.frame)
		res = -ENOENT;
	while (!res) {
		struct test_sink sink = {.object = 1};

		res = image_next_group(r, &group, e);
		if (res <= 0)
			break;
		res = image_read_some(r, &group, how >= LATER ? later : NULL, test_write, &sink, e);
		if (sink.wrong)
			res = -ENOMSG;
	}
	if (!res)
		res = image_read_end(r, &totals, e);
	if (!res)
		*sum = checksum_of(totals.digest, sizeof(totals.digest));
	return res || how < LATER ? res : note_later(r, sum, e);
}

static int stream_of(const struct bytes *b, pid_t *ret)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	*ret = fork();
	if (*ret == 0) {
		close(fds[0]);
		signal(SIGPIPE, SIG_DFL);
		for (size_t at = 0; at < b->len;)
			at += (size_t)write(fds[1], b->v + at, b->len - at);
		_exit(0);
	}
	close(fds[1]);
	return fds[0];
}

static int read_how(const struct bytes *b, enum how how, uint64_t *sum, struct error *e)
{
	struct image_reader *r = NULL;
	pid_t pid = 0;
	int fd = how == STREAM ? stream_of(b, &pid) : bytes_file(b->v, b->len);
	int res = image_reader_new(&r, fd, 2, e);

	if (!res)
		res = read_all(r, how, sum, e);
	image_reader_free(r);
	close(fd);
	if (pid)
		waitpid(pid, NULL, 0);
	return res;
}

static void test_same_frames(void **state)
{
	for (int n = 0; n < 4; n++) {
		struct bytes b = make(n & 1, n & 2, GROUPS);
		uint64_t sums[HOWS] = {};
		struct error e = {};

		assert_non_null(list_of(&b));
		for (enum how how = 0; how < HOWS; how++)
			if (read_how(&b, how, &sums[how], &e) != 0)
				fail_msg("kind %d, way %d: %s", n, how, e.text);
		assert_int_equal(sums[AT_ONCE], sums[STREAM]);
		assert_int_equal(sums[LATER], sums[LISTED]);
		free(b.v);
	}
}

static void test_few_frames(void **state)
{
	struct bytes b = make(false, false, HEADS_WORTH - 1);
	struct error e = {};
	uint64_t sum;

	assert_null(list_of(&b));
	assert_int_equal(read_how(&b, LISTED, &sum, &e), -ENOENT);
	assert_int_equal(read_how(&b, LATER, &sum, &e), 0);
	free(b.v);
}

static void refused(const struct bytes *b, size_t at)
{
	for (enum how how = 0; how < HOWS; how++) {
		struct error e = {};
		uint64_t sum;

		/* not looked for there: it is what it is without */
		if (how != STREAM && read_how(b, how, &sum, &e) != -EBADMSG)
			fail_msg("byte %zu, way %d: %s", at, how, e.text);
	}
}

static void test_damaged(void **state)
{
	struct bytes b = make(true, false, HEADS_WORTH);
	struct frame *f = list_of(&b);
	uint8_t *bytes = (uint8_t *)f;

	/* the flag that it may be passed over is another matter */
	for (size_t i = 8; i < frame_size(f); i += i < 300 ? 1 : 97) {
		bytes[i] ^= 0x40;
		refused(&b, i);
		bytes[i] ^= 0x40;
	}
	free(b.v);
}

/* After a change of frames: the digest is that of their headers again. */
static void digest_again(struct bytes *b, bool strong)
{
	struct digest *d = digest_new();
	size_t at = sizeof(struct image_header);
	struct image_end *end;
	struct frame *f;

	for (;; at += frame_size(f)) {
		f = (struct frame *)(b->v + at);
		if (f->type == FRAME_STATE_END)
			break;
	}
	at += frame_size(f);
	digest_update(d, b->v, at);
	for (;; at += frame_size(f)) {
		f = (struct frame *)(b->v + at);
		if (f->type == FRAME_END)
			break;
		digest_update(d, f, sizeof(*f));
		if (strong && head_has_pages(f))
			digest_update(d,
				      b->v + at + frame_strong_at((struct pages_header *)(f + 1)),
				      IMAGE_DIGEST_SIZE);
	}
	end = (struct image_end *)(f + 1);
	digest_update(d, end, offsetof(struct image_end, digest));
	digest_now(d, end->digest);
	frame_seal(f);
	digest_free(d);
}

/* By somebody who can make all checksums and the digest right. */
static void test_lies(void **state)
{
	struct bytes b = make(false, false, HEADS_WORTH);
	struct frame *list = list_of(&b), *second;
	struct pages_header *p;
	uint64_t sum;
	struct error e = {};

	/* behind a PAD frame and the first one with pages */
	second = (struct frame *)((uint8_t *)(list + 2) + PAGES_HEAD);
	assert_int_equal(second->type, FRAME_PAGES);
	p = (struct pages_header *)(second + 1);
	digest_again(&b, false);
	assert_int_equal(read_how(&b, LISTED, &sum, &e), 0);

	p->first -= PAGE;
	frame_seal(list);
	digest_again(&b, false);
	refused(&b, 1);
	p->first += PAGE;

	/* the frames would not end where the list begins */
	second->length += PAGE;
	frame_seal(list);
	digest_again(&b, false);
	refused(&b, 2);
	second->length = UINT64_MAX - 8;
	frame_seal(list);
	digest_again(&b, false);
	refused(&b, 3);
	second->length = p->data_offset - sizeof(*second) + p->stored_length;

	second->checksum++;
	frame_seal(list);
	digest_again(&b, false);
	refused(&b, 4);
	second->checksum--;

	frame_seal(list);
	digest_again(&b, false);
	assert_int_equal(read_how(&b, LISTED, &sum, &e), 0);
	free(b.v);
}

/* In the end record: it is somewhere else. */
static void test_wrong_place(void **state)
{
	struct bytes b = make(false, false, HEADS_WORTH);
	struct image_trailer *t = (struct image_trailer *)(b.v + b.len) - 1;
	struct frame *end = (struct frame *)(b.v + t->end_offset);
	const uint64_t places[] = {1,	  4096,		 end->id - 8, end->id + 8, t->end_offset,
				   b.len, UINT64_MAX - 7};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct error e = {};
		uint64_t sum;

		end->id = places[i];
		frame_seal(end);
		assert_int_equal(read_how(&b, LISTED, &sum, &e), -EBADMSG);
	}
	free(b.v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_frames), cmocka_unit_test(test_few_frames),
		cmocka_unit_test(test_damaged),	    cmocka_unit_test(test_lies),
		cmocka_unit_test(test_wrong_place),
	};

	return cmocka_run_group_tests_name("image_heads", tests, NULL, NULL);
}
