/* SPDX-License-Identifier: Apache-2.0 */
#include "image/room.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

#define MIB (1ull << 20)

/* A file in memory for an image, of which so much is written. */
static void begin(struct file_room *r, struct stream *s, uint64_t written)
{
	static uint8_t data[MIB];
	struct error e = {};
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(stream_open_output(s, fd, &e), 0);
	memset(data, 7, sizeof(data));
	for (uint64_t at = 0; at < written; at += MIB)
		assert_int_equal(stream_write(s, data, MIB, at, &e), 0);
	room_begin(r, s);
	r->off = false; /* on this machine it may be */
}

static uint64_t size_of(const struct stream *s)
{
	struct stat st;

	assert_int_equal(fstat(s->fd, &st), 0);
	return (uint64_t)st.st_size;
}

/* What was written stays, what is made is zero, and what was not needed goes. */
static void test_make(void **state)
{
	struct file_room r;
	struct error e = {};
	struct stream s;
	uint8_t byte;

	begin(&r, &s, 9 * MIB);
	assert_true(room_wanted(&r, 9 * MIB, 9 * MIB, 20 * MIB));
	room_make(&r, &s, 9 * MIB, 20 * MIB);
	assert_true(r.end >= 12 * MIB && r.end <= 20 * MIB);
	assert_int_equal(r.end % (2 * MIB), 0);
	assert_int_equal(size_of(&s), r.end);
	for (uint64_t at = 0; at < r.end; at += 4096) {
		assert_int_equal(pread(s.fd, &byte, 1, (off_t)at), 1);
		assert_int_equal(byte, at < 9 * MIB ? 7 : 0);
	}
	assert_int_equal(room_end(&r, &s, 10 * MIB + 5, &e), 0);
	assert_int_equal(size_of(&s), 10 * MIB + 5);
	close(s.fd);
}

/* Never beyond what will be written, nor for little, nor where there is room yet. */
static void test_wanted(void **state)
{
	struct file_room r;
	struct stream s;

	begin(&r, &s, MIB);
	assert_false(room_wanted(&r, MIB, MIB, 100 * MIB));
	assert_true(room_wanted(&r, 8 * MIB, 8 * MIB, 10 * MIB));
	assert_false(room_wanted(&r, 8 * MIB + 1, 8 * MIB, 11 * MIB));
	r.end = 20 * MIB;
	assert_false(room_wanted(&r, 10 * MIB, 10 * MIB, 100 * MIB));
	r.off = true;
	assert_false(room_wanted(&r, 30 * MIB, 30 * MIB, 100 * MIB));
	close(s.fd);
}

/* A file with something in it, and one that cannot be read, are left alone. */
static void test_begin(void **state)
{
	struct file_room r;
	struct error e = {};
	struct stream s;
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(stream_open_output(&s, fd, &e), 0);
	room_begin(&r, &s);
	assert_true(r.off);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_make),
		cmocka_unit_test(test_wanted),
		cmocka_unit_test(test_begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
