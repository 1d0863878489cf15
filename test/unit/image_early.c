/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <pthread.h>

#include "image/writer.h"
#include "image_common.h"

/*
 * Pages that are written before the state part, and used by groups that come later: in part, in any
 * order, by more than one.
 */

#define SPAN  (9ull << 20)
#define BASE  0x10000ull
#define STALE 8 /* every so many pages, one was written later */

struct written {
	struct page_run *runs; /* with positions, by address */
	size_t n;
};

static int remember(void *arg, uint64_t address, uint64_t length, uint64_t position)
{
	struct written *w = arg;

	w->runs = realloc(w->runs, (w->n + 1) * sizeof(*w->runs));
	assert_non_null(w->runs);
	w->runs[w->n++] = (struct page_run){address, length, position};
	return 0;
}

/* What is read early is that of object 1, but for stale pages. */
static int read_early(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	struct test_source source = {1, 0};

	for (size_t at = 0; at < len; at += PAGE)
		if ((address + at) / PAGE % STALE == 0)
			memset((char *)buf + at, 0xee, PAGE);
		else
			assert_int_equal(
				test_read(&source, address + at, (char *)buf + at, PAGE, e), 0);
	return 0;
}

/* Nothing may be read that was written early. */
static int read_late(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	struct test_source source = {1, 0};

	for (size_t at = 0; at < len; at += PAGE)
		assert_int_equal((address + at) / PAGE % STALE, 0);
	return test_read(&source, address, buf, len, e);
}

/* The pages of a group: with positions, but for the stale ones, which are read. */
static size_t make_runs(const struct written *early, struct page_run *to)
{
	size_t n = 0;

	for (size_t i = 0; i < early->n; i++)
		for (uint64_t at = 0; at < early->runs[i].length; at += PAGE) {
			uint64_t address = early->runs[i].address + at, length = PAGE;
			bool stale = address / PAGE % STALE == 0;

			if (!stale)
				while (at + length < early->runs[i].length &&
				       (address + length) / PAGE % STALE)
					length += PAGE;
			to[n++] = (struct page_run){address, length,
						    stale ? 0 : early->runs[i].position + at};
			at += length - PAGE;
		}
	return n;
}

struct plan {
	enum image_compress compress;
	int jobs;
	uint64_t room;
	unsigned int records;
	bool huge; /* room is made ahead, whatever this machine is like */
};

static void write_records(struct image_writer *w, unsigned int n)
{
	char path[64];

	for (unsigned int i = 1; i <= n; i++) {
		snprintf(path, sizeof(path), "/some/where/%u", i);
		assert_int_equal(put_record(w, i, path, NULL), 0);
	}
}

/* All as if this were a machine where huge pages are worth it. */
static void make_room(struct image_writer *w)
{
	assert_int_equal(w->ahead.end, 0);
	w->ahead.off = false;
	image_expect(w, 8 * SPAN);
}

/* The file has something before the image. */
static int write_early(const struct plan *p, struct image_totals *totals)
{
	const struct image_writer_options opt = {.jobs = p->jobs, .compress = p->compress};
	const struct page_run where[] = {{BASE, SPAN}, {1ull << 40, PAGE}};
	struct page_run *runs = calloc(SPAN / PAGE + 8, sizeof(*runs));
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct written early = {};
	struct image_writer *w;
	struct image_info info;
	struct error e = {};
	size_t n;
	uint64_t before = p->huge ? 0 : 100;

	image_info_here(&info);
	assert_int_equal(lseek(fd, (off_t)before, SEEK_SET), before);
	assert_int_equal(image_writer_new(&w, fd, &info, &opt, &e), 0);
	if (p->huge)
		make_room(w);
	assert_int_equal(image_early_begin(w, p->room), 0);
	/* several times: what was put first is of no use */
	for (int i = 0; i < (p->huge ? 4 : 1); i++)
		assert_int_equal(image_put_early(w, where, 2, read_early, remember, &early, &e), 0);
	early.n = 0;
	assert_int_equal(image_put_early(w, where, 2, read_early, remember, &early, &e), 0);
	write_records(w, p->records);
	image_expect(w, 2 * (SPAN + PAGE));
	n = make_runs(&early, runs);
	assert_int_equal(image_write_state(w, &e), 0);
	for (uint32_t stage = 0; stage < 2; stage++) {
		const struct page_group group = {1, stage};

		assert_int_equal(image_put_pages(w, &group, runs, n, read_late, NULL, &e), 0);
	}
	assert_int_equal(image_finish(w, totals, &e), 0);
	/* unless this kernel, or its administrator, makes none */
	assert_true(!p->huge || w->ahead.off || w->ahead.made >= 4 << 20);
	image_writer_free(w);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), before + totals->total_bytes);
	assert_int_equal(lseek(fd, 0, SEEK_END), before + totals->total_bytes);
	lseek(fd, (off_t)before, SEEK_SET);
	free(runs);
	free(early.runs);
	return fd;
}

static const struct test_group groups[] = {
	{{1, 0}, {{BASE, SPAN}, {1ull << 40, PAGE}}, 2},
	{{1, 1}, {{BASE, SPAN}, {1ull << 40, PAGE}}, 2},
};

struct pump {
	int from, to;
};

static void *pump(void *arg)
{
	struct pump *p = arg;
	char buf[64 << 10];
	ssize_t n;

	while ((n = read(p->from, buf, sizeof(buf))) > 0)
		if (write(p->to, buf, n) != n)
			break;
	close(p->to);
	return NULL;
}

static int read_piped(int fd, const struct plan *p, struct image_totals *totals, struct error *e)
{
	pthread_t thread;
	int fds[2], r;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(pthread_create(&thread, NULL, pump, &(struct pump){fd, fds[1]}), 0);
	r = read_image(fds[0], p->jobs, p->records, groups, 2, totals, e);
	close(fds[0]);
	pthread_join(thread, NULL);
	return r;
}

static void round_trip(const struct plan *p)
{
	struct image_totals totals, seen;
	struct image_reader *reader;
	struct error e = {};
	int fd = write_early(p, &totals), r;
	off_t start = lseek(fd, 0, SEEK_CUR);

	r = read_image(fd, p->jobs, p->records, groups, 2, &seen, &e);
	if (r)
		print_message("compress %d jobs %d: %s\n", p->compress, p->jobs, e.text);
	assert_int_equal(r, 0);
	assert_memory_equal(&totals, &seen, sizeof(totals));
	assert_int_equal(totals.pages, 2 * (SPAN / PAGE + 1));
	assert_true(totals.zero_pages > totals.pages / 4);
	lseek(fd, start, SEEK_SET);
	assert_int_equal(read_piped(fd, p, &seen, &e), 0);
	assert_memory_equal(&totals, &seen, sizeof(totals));
	/* all is looked at, also what is of no use */
	lseek(fd, start, SEEK_SET);
	assert_int_equal(image_reader_new(&reader, fd, p->jobs, &e), 0);
	assert_int_equal(image_read_end(reader, &seen, &e), 0);
	image_reader_free(reader);
	close(fd);
}

static void test_round_trips(void **state)
{
	for (int compress = COMPRESS_NONE; compress <= COMPRESS_ZSTD; compress++) {
		round_trip(&(struct plan){compress, 1, 1 << 20, 20});
		round_trip(&(struct plan){compress, 3, 1 << 20, 20});
		/* the state part needs more room than it was left */
		round_trip(&(struct plan){compress, 2, PAGE, 2000});
	}
	for (unsigned int records = 0; records < 400; records += 17)
		round_trip(&(struct plan){COMPRESS_NONE, 1, 2 * PAGE, records});
}

static void test_huge(void **state)
{
	round_trip(&(struct plan){COMPRESS_NONE, 1, 1 << 20, 20, true});
	round_trip(&(struct plan){COMPRESS_NONE, 3, 1 << 20, 20, true});
	round_trip(&(struct plan){COMPRESS_NONE, 2, PAGE, 2000, true});
	round_trip(&(struct plan){COMPRESS_LZ4, 2, 1 << 20, 20, true});
}

static void test_where(void **state)
{
	struct image_writer *w;
	struct image_info info;
	struct error e = {};
	int fds[2], fd = memfd_create("image", MFD_CLOEXEC);

	image_info_here(&info);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(image_writer_new(&w, fds[1], &info, NULL, &e), 0);
	assert_int_equal(image_early_begin(w, PAGE), -EOPNOTSUPP);
	image_writer_free(w);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(pwrite(fd, "x", 1, 1000), 1);
	assert_int_equal(image_writer_new(&w, fd, &info, NULL, &e), 0);
	assert_int_equal(image_early_begin(w, PAGE), -EOPNOTSUPP);
	image_writer_free(w);
	close(fd);
}

/* What was written early may be given up. */
static void test_drop(void **state)
{
	const struct page_run where = {BASE, 5 << 20};
	const struct test_group g = {{1, 0}, {{BASE, PAGE * 20}}, 1};
	struct test_source source = {1, 0};
	int fd = memfd_create("image", MFD_CLOEXEC);
	struct image_totals totals;
	struct written early = {};
	struct image_writer *w;
	struct image_info info;
	struct error e = {};

	image_info_here(&info);
	assert_int_equal(image_writer_new(&w, fd, &info, NULL, &e), 0);
	assert_int_equal(image_early_begin(w, 1 << 20), 0);
	assert_int_equal(image_put_early(w, &where, 1, read_early, remember, &early, &e), 0);
	assert_int_equal(image_early_drop(w, &e), 0);
	assert_false(image_has_early(w));
	assert_int_equal(image_write_state(w, &e), 0);
	assert_int_equal(image_put_pages(w, &g.group, g.runs, 1, test_read, &source, &e), 0);
	assert_int_equal(image_finish(w, &totals, &e), 0);
	image_writer_free(w);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(read_image(fd, 1, 0, &g, 1, &totals, &e), 0);
	free(early.runs);
	close(fd);
}

/* ---- damage ---- */

static uint8_t *frame_at(uint8_t *bytes, uint32_t type, unsigned int n)
{
	struct frame *f;

	for (size_t at = sizeof(struct image_header);; at += frame_size(f)) {
		f = (struct frame *)(bytes + at);
		if (f->type == type && n-- == 0)
			return bytes + at;
		assert_int_not_equal(f->type, FRAME_END);
	}
}

#define PAGES_OF(f) ((struct pages_header *)((struct frame *)(f) + 1))
#define RUNS_OF(f)  ((struct pages_run *)(PAGES_OF(f) + 1))

static struct pages_run *placed_run(uint8_t *frame, uint64_t **place)
{
	struct pages_run *run = RUNS_OF(frame);

	*place = (uint64_t *)(run + PAGES_OF(frame)->nruns);
	while (run->flags != PAGES_RUN_PLACED)
		run++;
	return run;
}

static void far_away(uint8_t *bytes)
{
	uint64_t *place;

	placed_run(frame_at(bytes, FRAME_PAGES, 0), &place);
	*place += 8;
}

static void at_a_group(uint8_t *bytes)
{
	uint8_t *frame = frame_at(bytes, FRAME_PAGES, 0);
	uint64_t *place;

	placed_run(frame, &place);
	*place = frame - bytes;
}

static void at_another(uint8_t *bytes)
{
	uint64_t *place;

	placed_run(frame_at(bytes, FRAME_PAGES, 0), &place);
	*place = frame_at(bytes, FRAME_EARLY, 5) - bytes;
}

static void no_offsets(uint8_t *bytes)
{
	uint8_t *frame = frame_at(bytes, FRAME_PAGES, 0);

	for (uint32_t i = 0; i < PAGES_OF(frame)->nruns; i++)
		if (RUNS_OF(frame)[i].flags == PAGES_RUN_PLACED)
			RUNS_OF(frame)[i].flags = PAGES_RUN_PLACED | PAGES_RUN_ZERO;
}

static void placed_early(uint8_t *bytes)
{
	RUNS_OF(frame_at(bytes, FRAME_EARLY, 45))->flags = PAGES_RUN_PLACED;
}

static void early_id(uint8_t *bytes)
{
	((struct frame *)frame_at(bytes, FRAME_EARLY, 1))->id = 1;
}

static void early_stage(uint8_t *bytes)
{
	PAGES_OF(frame_at(bytes, FRAME_EARLY, 1))->stage = 1;
}

static void early_in_group(uint8_t *bytes)
{
	struct frame *f = (struct frame *)frame_at(bytes, FRAME_PAGES, 1);

	f->type = FRAME_EARLY;
	f->id = 0;
}

/* Which frame was changed: it is sealed again, and all digests are made anew. */
static void reseal(uint8_t *bytes)
{
	struct digest *digest = digest_new();
	struct image_end *end;
	struct frame *f;
	bool page_part = false;
	size_t at = sizeof(struct image_header);

	digest_update(digest, bytes, at);
	for (;; at += frame_size(f)) {
		f = (struct frame *)(bytes + at);
		if (f->type == FRAME_END)
			break;
		if (f->type == FRAME_PAGES || f->type == FRAME_EARLY)
			frame_seal(f);
		digest_update(digest, f, page_part ? sizeof(*f) : frame_size(f));
		page_part = page_part || f->type == FRAME_STATE_END;
	}
	end = (struct image_end *)(f + 1);
	digest_update(digest, end, offsetof(struct image_end, digest));
	digest_now(digest, end->digest);
	frame_seal(f);
	digest_free(digest);
}

static int read_changed(const uint8_t *bytes, size_t len, bool all, struct error *e)
{
	int fd = bytes_file(bytes, len), r;
	struct image_totals totals;
	struct image_reader *reader;

	*e = (struct error){};
	if (all) {
		r = read_image(fd, 2, 20, groups, 2, &totals, e);
	} else {
		r = image_reader_new(&reader, fd, 2, e);
		assert_int_equal(r, 0);
		r = image_read_end(reader, &totals, e);
		image_reader_free(reader);
	}
	close(fd);
	return r;
}

static void test_damage(void **state)
{
	static void (*const changes[])(uint8_t *) = {far_away,	  at_a_group,	 at_another,
						     no_offsets,  placed_early,	 early_id,
						     early_stage, early_in_group};
	struct image_totals totals;
	int fd = write_early(&(struct plan){COMPRESS_NONE, 1, 1 << 20, 20}, &totals);
	struct error e;
	size_t len;
	uint8_t *bytes = file_bytes(fd, &len), *copy = malloc(len);

	len -= 100;
	memcpy(copy, bytes + 100, len);
	reseal(copy);
	assert_int_equal(read_changed(copy, len, true, &e), 0);
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		memcpy(copy, bytes + 100, len);
		changes[i](copy);
		reseal(copy);
		for (int all = 0; all < 2; all++) {
			if (read_changed(copy, len, all, &e) == 0)
				fail_msg("change %zu was not seen, %d", i, all);
			assert_int_equal(e.code, E_IMAGE_DAMAGED);
		}
	}
	/* a bit of contents: of a frame that is used, and of one that is not */
	for (int used = 0; used < 2; used++) {
		memcpy(copy, bytes + 100, len);
		frame_at(copy, FRAME_EARLY, used ? 40 : 2)[PAGE + 12345] ^= 4;
		assert_int_equal(read_changed(copy, len, false, &e), -EBADMSG);
		assert_int_equal(read_changed(copy, len, true, &e), used ? -EBADMSG : 0);
	}
	free(bytes);
	free(copy);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips), cmocka_unit_test(test_huge),
		cmocka_unit_test(test_where),	    cmocka_unit_test(test_drop),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
