/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <xxhash.h>

#include "arch/arch.h"
#include "image_common.h"

#define MANY 300

/* Large and small groups, with holes between runs, one object in two stages, one that is all zero.
 */
static size_t make_groups(struct test_group *g)
{
	size_t n = 0;

	g[n++] = (struct test_group){{5, 0}, {{0x10000, 9 << 20}, {0x7f0000000000, 3 << 20}}, 2};
	g[n++] = (struct test_group){{5, 1}, {{0x1000, 0x3000}}, 1};
	g[n++] = (struct test_group){{100, 0}, {{0, 5 << 20}}, 1};
	for (uint64_t i = 0; i < MANY; i++)
		g[n++] = (struct test_group){{1000 + i, 2},
					     {{0, PAGE * (1 + i % 5)},
					      {0x100000, PAGE * (1 + i % 7)},
					      {0x555000, PAGE * (1 + i % 70)}},
					     3};
	g[n++] = (struct test_group){{6, 0}, {{(1ull << 63) - (2 << 20), 2 << 20}}, 1};
	for (uint64_t i = 0; i < 30; i++)
		g[n++] = (struct test_group){{i + 10, 0}, {{0x1000, PAGE * (50 + i)}}, 1};
	return n;
}

enum channel { CHANNEL_FILE, CHANNEL_PIPE, CHANNEL_SOCKET, CHANNEL_APPEND, CHANNELS };

struct job {
	int fd;
	struct image_writer_options opt;
	const struct test_group *groups;
	size_t ngroups;
	struct image_totals totals;
	struct error e;
	int r;
};

static void *job_write(void *arg)
{
	struct job *j = arg;

	j->r = write_image(j->fd, &j->opt, 500, j->groups, j->ngroups, &j->totals, &j->e);
	close(j->fd);
	return NULL;
}

static int append_file(void)
{
	char path[] = "/tmp/image-test-XXXXXX";
	int fd = mkostemp(path, O_APPEND);

	assert_true(fd >= 0);
	unlink(path);
	return fd;
}

/* Returns the descriptor to read from; the writer may be in a thread that has to be joined. */
static int channel_write(enum channel channel, struct job *j, pthread_t *thread)
{
	int fds[2];

	*thread = 0;
	if (channel == CHANNEL_FILE || channel == CHANNEL_APPEND) {
		fds[0] = channel == CHANNEL_FILE ? memfd_create("image", 0) : append_file();
		j->fd = dup(fds[0]);
		job_write(j);
		lseek(fds[0], 0, SEEK_SET);
		return fds[0];
	}
	if (channel == CHANNEL_PIPE)
		assert_int_equal(pipe(fds), 0);
	else
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	j->fd = fds[1];
	assert_int_equal(pthread_create(thread, NULL, job_write, j), 0);
	return fds[0];
}

static void round_trip(enum channel channel, enum image_compress compress, int jobs)
{
	struct test_group *groups = calloc(MANY + 40, sizeof(*groups));
	size_t n = make_groups(groups);
	struct job j = {
		.opt = {.jobs = jobs, .compress = compress}, .groups = groups, .ngroups = n};
	struct image_totals totals = {};
	struct error e = {};
	pthread_t thread;
	uint64_t bytes = 0;
	int fd = channel_write(channel, &j, &thread), r;

	r = read_image(fd, jobs, 500, groups, n, &totals, &e);
	if (thread)
		pthread_join(thread, NULL);
	if (r || j.r)
		print_message("channel %d compress %d jobs %d: %s %s\n", channel, compress, jobs,
			      e.text, j.e.text);
	assert_int_equal(j.r, 0);
	assert_int_equal(r, 0);
	assert_memory_equal(&totals, &j.totals, sizeof(totals));
	for (size_t i = 0; i < n; i++)
		bytes += group_bytes(&groups[i]);
	assert_int_equal(totals.pages, bytes / PAGE);
	assert_int_equal(totals.state_records, 500);
	assert_true(totals.zero_pages > totals.pages / 4);
	close(fd);
	free(groups);
}

static void test_round_trips(void **state)
{
	for (enum channel channel = 0; channel < CHANNELS; channel++) {
		for (int compress = COMPRESS_NONE; compress <= COMPRESS_ZSTD; compress++) {
			round_trip(channel, compress, 1);
			round_trip(channel, compress, 3);
		}
	}
	round_trip(CHANNEL_FILE, COMPRESS_NONE, 0);
}

/* Where an image begins and where it ends is up to the file position, and the number of threads
 * does not show. */
static void test_same_bytes(void **state)
{
	struct test_group *groups = calloc(MANY + 40, sizeof(*groups));
	size_t n = make_groups(groups), len[2];
	struct image_totals totals;
	struct error e = {};
	uint8_t *bytes[2];

	for (int i = 0; i < 2; i++) {
		struct image_writer_options opt = {.jobs = 1 + 3 * i};
		int fd = memfd_create("image", 0);

		assert_int_equal(lseek(fd, 100, SEEK_SET), 100);
		assert_int_equal(write_image(fd, &opt, 0, groups, n, &totals, &e), 0);
		assert_int_equal(lseek(fd, 0, SEEK_CUR), 100 + totals.total_bytes);
		assert_int_equal(lseek(fd, 100, SEEK_SET), 100);
		assert_int_equal(read_image(fd, 2, 0, groups, n, &totals, &e), 0);
		assert_int_equal(lseek(fd, 0, SEEK_CUR), 100 + totals.total_bytes);
		bytes[i] = file_bytes(fd, &len[i]);
		close(fd);
	}
	assert_int_equal(len[0], len[1]);
	/* all but what image_info_here() tells of the moment, and the sums over it */
	assert_memory_equal(bytes[0] + 100 + PAGE, bytes[1] + 100 + PAGE, len[0] - 16384 - PAGE);
	free(bytes[0]);
	free(bytes[1]);
	free(groups);
}

static void test_data_aligned(void **state)
{
	const struct test_group g = {{7, 0}, {{0x1000, 0x7000}, {0x100000, 3 << 20}}, 2};
	struct image_totals totals;
	struct error e = {};
	size_t len, frames = 0;
	int fd = memfd_create("image", 0);
	uint8_t *bytes;

	assert_int_equal(write_image(fd, NULL, 3, &g, 1, &totals, &e), 0);
	bytes = file_bytes(fd, &len);
	for (size_t at = sizeof(struct image_header); at < len;) {
		const struct frame *f = (const struct frame *)(bytes + at);
		const struct pages_header *p = (const struct pages_header *)(f + 1);

		if (f->type == FRAME_PAGES) {
			assert_int_equal((at + p->data_offset) % PAGE, 0);
			frames++;
		}
		if (f->type == FRAME_END)
			break;
		at += frame_size(f);
	}
	assert_int_equal(frames, totals.page_frames);
	free(bytes);
	close(fd);
}

/* Whatever this processor has, it is the checksum of the format. */
static void test_checksum(void **state)
{
	enum { MOST = 300000 };
	uint8_t *bytes = malloc(MOST + 8);
	uint64_t x = 1;

	assert_non_null(bytes);
	for (size_t i = 0; i < MOST + 8; i++)
		bytes[i] = (uint8_t)((x = x * 6364136223846793005 + 1442695040888963407) >> 56);
	for (size_t len = 0; len <= MOST; len += len < 1100 ? 1 : 4999)
		assert_int_equal(arch_checksum(bytes + len % 8, len),
				 XXH3_64bits(bytes + len % 8, len));
	free(bytes);
}

static void test_records(void **state)
{
	struct image_writer *w;
	struct image_reader *r;
	struct image_info info;
	struct error e = {};
	int fd = memfd_create("image", 0);

	image_info_here(&info);
	memset(info.cpu, 0, sizeof(info.cpu));
	strcpy(info.cpu, "Some Processor");
	assert_int_equal(image_writer_new(&w, fd, &info, NULL, &e), 0);
	assert_int_equal(put_record(w, 3, "/three", &e), 0);
	assert_int_equal(put_record(w, 4, "", &e), 0);
	image_expect(w, 12345);
	assert_int_equal(image_write_state(w, &e), 0);
	assert_int_equal(put_record(w, 5, "", &e), -EINVAL);
	assert_int_equal(image_finish(w, NULL, NULL), 0);
	assert_int_equal(image_finish(w, NULL, NULL), -EINVAL);
	image_writer_free(w);
	lseek(fd, 0, SEEK_SET);
	memset(&e, 0, sizeof(e));
	assert_int_equal(image_reader_new(&r, fd, 1, &e), 0);
	assert_memory_equal(image_reader_info(r), &info, sizeof(info));
	assert_int_equal(image_reader_page_bytes(r), 12345);
	assert_int_equal(image_record_count(r), 2);
	assert_int_equal(image_record(r, 0)->id, 3);
	assert_int_equal(image_record(r, 0)->flags, RECORD_OPTIONAL);
	assert_int_equal(image_record(r, 1)->flags, 0);
	assert_int_equal(image_record(r, 1)->type, TEST_TYPE);
	assert_null(image_record(r, 2));
	Reprise__Inode *inode =
		reprise__inode__unpack(NULL, image_record(r, 0)->len, image_record(r, 0)->data);
	assert_string_equal(inode->path, "/three");
	assert_int_equal(inode->ino, 3);
	reprise__inode__free_unpacked(inode, NULL);
	assert_int_equal(image_read_end(r, NULL, &e), 0);
	assert_int_equal(image_read_end(r, NULL, &e), 0);
	image_reader_free(r);
	close(fd);
}

/* ---- failures of those around us ---- */

static void test_source_fails(void **state)
{
	for (int small = 0; small < 2; small++) {
		struct image_writer_options opt = {.jobs = 2};
		struct page_run run = {0x10000, small ? 0x4000 : 16 << 20};
		struct test_source source = {1, 0x12000};
		struct page_group group = {1, 0};
		struct image_writer *w;
		struct image_info info;
		struct error e = {};
		int fd = memfd_create("image", 0);

		image_info_here(&info);
		assert_int_equal(image_writer_new(&w, fd, &info, &opt, &e), 0);
		assert_int_equal(image_write_state(w, &e), 0);
		assert_int_equal(image_put_pages(w, &group, &run, 1, test_read, &source, &e),
				 -EFAULT);
		assert_int_equal(e.code, E_VMA_READ);
		assert_int_equal(image_finish(w, NULL, NULL), -EINVAL);
		image_writer_free(w);
		close(fd);
	}
}

static void test_bad_runs(void **state)
{
	const struct page_run bad[][2] = {
		{{0x1000, 0x1000}, {0x1000, 0x1000}},
		{{0x2000, 0x1000}, {0x1000, 0x1000}},
		{{0x1000, 0x1000}, {0x2100, 0x1000}},
		{{0x1000, 0x1000}, {0x2000, 0}},
		{{0x1000, 0x1000}, {0x2000, 0x1001}},
		{{0x1000, 0x1000}, {1ull << 63, 0x1000}},
		{{0x1000, 0x1000}, {0x2000, -(uint64_t)0x1000}},
	};
	struct test_source source = {1, 0};
	struct page_group group = {1, 0};
	struct image_writer *w;
	struct image_info info;
	int fd = memfd_create("image", 0);

	image_info_here(&info);
	assert_int_equal(image_writer_new(&w, fd, &info, NULL, NULL), 0);
	assert_int_equal(image_put_pages(w, &group, bad[0], 1, test_read, &source, NULL), -EINVAL);
	assert_int_equal(image_write_state(w, NULL), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(image_put_pages(w, &group, bad[i], 2, test_read, &source, NULL),
				 -EINVAL);
	assert_int_equal(image_put_pages(w, &group, bad[0], 0, test_read, &source, NULL), 0);
	assert_int_equal(image_put_pages(w, &group, bad[0], 1, test_read, &source, NULL), 0);
	/* the same group again, and not behind what was put before */
	assert_int_equal(image_put_pages(w, &group, bad[0], 1, test_read, &source, NULL), -EINVAL);
	assert_int_equal(image_finish(w, NULL, NULL), 0);
	image_writer_free(w);
	close(fd);
}

static int write_to(int fd, uint64_t length, struct error *e)
{
	const struct test_group g = {{1, 0}, {{0, length}}, 1};
	struct image_writer_options opt = {.jobs = 2};
	struct image_totals totals;

	return write_image(fd, &opt, 10, &g, 1, &totals, e);
}

static void test_reader_gone(void **state)
{
	for (int socket = 0; socket < 2; socket++) {
		struct error e = {};
		int fds[2];

		assert_int_equal(socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, fds) : pipe(fds), 0);
		close(fds[0]);
		assert_int_equal(write_to(fds[1], 1 << 20, &e), -EPIPE);
		assert_int_equal(e.code, E_OUTPUT);
		close(fds[1]);
	}
}

static void test_output_full(void **state)
{
	struct rlimit old, small = {1 << 20, 1 << 20};
	struct error e = {};
	int fd = open("/dev/full", O_WRONLY);

	assert_int_equal(write_to(fd, 1 << 20, &e), -ENOSPC);
	assert_int_equal(e.code, E_OUTPUT);
	close(fd);
	/* SIGXFSZ must not arrive */
	fd = memfd_create("image", 0);
	getrlimit(RLIMIT_FSIZE, &old);
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	error_clear(&e);
	assert_int_equal(write_to(fd, 32 << 20, &e), -EFBIG);
	assert_int_equal(e.code, E_OUTPUT);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	close(fd);
	fd = open("/dev/null", O_RDONLY);
	error_clear(&e);
	assert_int_equal(write_to(fd, 1 << 20, &e), -EBADF);
	close(fd);
}

struct calls {
	unsigned int n;
	uint64_t done, total;
	unsigned int stop_at;
};

static int count_calls(void *arg, uint64_t done, uint64_t total)
{
	struct calls *c = arg;

	c->n++;
	assert_true(done >= c->done);
	assert_true(done <= total);
	c->done = done;
	c->total = total;
	return c->n == c->stop_at ? -ECANCELED : 0;
}

static void test_progress(void **state)
{
	const struct test_group g = {{101, 0}, {{0, 64 << 20}}, 1};
	struct test_sink sink = {.object = 101};
	struct calls calls = {};
	struct image_writer_options opt = {
		.jobs = 2, .progress = count_calls, .progress_arg = &calls};
	struct image_totals totals;
	struct image_reader *r;
	struct error e = {};
	int fd = memfd_create("image", 0);

	assert_int_equal(write_image(fd, &opt, 0, &g, 1, &totals, &e), 0);
	assert_in_range(calls.n, 4, 1000);
	assert_int_equal(calls.total, 64 << 20);
	calls = (struct calls){};
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(image_reader_new(&r, fd, 2, &e), 0);
	image_reader_set_progress(r, count_calls, &calls);
	calls.stop_at = 3;
	assert_int_equal(image_read_pages(r, &g.group, test_write, &sink, &e), -ECANCELED);
	assert_int_equal(e.code, E_INTERRUPTED);
	assert_int_equal(calls.n, 3);
	image_reader_free(r);
	calls = (struct calls){.stop_at = 2};
	error_clear(&e);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(write_image(fd, &opt, 0, &g, 1, &totals, &e), -ECANCELED);
	assert_int_equal(calls.n, 2);
	close(fd);
}

static void test_sink_fails(void **state)
{
	const struct test_group g = {{1, 0}, {{0x1000, 16 << 20}}, 1};
	struct test_sink sink = {.object = 1, .fail_at = 0x800000};
	struct image_totals totals;
	struct page_group next;
	struct image_reader *r;
	struct error e = {};
	int fd = memfd_create("image", 0);

	assert_int_equal(write_image(fd, NULL, 0, &g, 1, &totals, &e), 0);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(image_reader_new(&r, fd, 2, &e), 0);
	assert_int_equal(image_read_pages(r, &g.group, test_write, &sink, &e), -EFAULT);
	assert_string_equal(e.text, "cannot fill");
	assert_int_equal(image_next_group(r, &next, NULL), -EFAULT);
	assert_int_equal(image_read_end(r, NULL, NULL), -EFAULT);
	image_reader_free(r);
	close(fd);
}

/* Groups may all be left out (a check of the image), but not one in the middle of a restart. */
static void test_groups_left_out(void **state)
{
	const struct test_group g[] = {
		{{1, 0}, {{0x1000, 5 << 20}}, 1},
		{{2, 0}, {{0x1000, 0x2000}}, 1},
	};
	struct test_sink sink = {.object = 2};
	struct image_totals written, read;
	struct page_group next;
	struct image_reader *r;
	struct error e = {};
	int fd = memfd_create("image", 0);

	assert_int_equal(write_image(fd, NULL, 1, g, 2, &written, &e), 0);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(image_reader_new(&r, fd, 2, &e), 0);
	assert_int_equal(image_read_end(r, &read, &e), 0);
	assert_memory_equal(&read, &written, sizeof(read));
	image_reader_free(r);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(image_reader_new(&r, fd, 2, &e), 0);
	assert_int_equal(image_next_group(r, &next, &e), 1);
	assert_int_equal(next.object, 1);
	assert_int_equal(image_read_pages(r, &g[1].group, test_write, &sink, &e), 0);
	assert_int_equal(sink.pages, 0);
	assert_int_equal(image_read_end(r, &read, &e), -EINVAL);
	assert_int_equal(e.code, E_IMAGE_INVALID);
	image_reader_free(r);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records),		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_same_bytes),	cmocka_unit_test(test_data_aligned),
		cmocka_unit_test(test_source_fails),	cmocka_unit_test(test_bad_runs),
		cmocka_unit_test(test_reader_gone),	cmocka_unit_test(test_output_full),
		cmocka_unit_test(test_progress),	cmocka_unit_test(test_sink_fails),
		cmocka_unit_test(test_groups_left_out), cmocka_unit_test(test_checksum),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
