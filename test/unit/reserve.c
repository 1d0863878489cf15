/* SPDX-License-Identifier: Apache-2.0 */
#include "model/reserve.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/ahead.h"
#include "unit.h"

#define MIB (1ull << 20)

/* A file in memory for an image; on this machine room may be made otherwise. */
static struct reserve begin(void)
{
	struct reserve r;
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	reserve_open(&r, fd);
	assert_true(r.fd == fd || r.fd == -EBADF);
	return (struct reserve){.fd = fd, .next = MIB, .end = MIB};
}

static void check_file(int fd, uint64_t size, uint64_t allocated)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, size);
	assert_int_equal((uint64_t)st.st_blocks * 512, allocated);
}

static void write_at(int fd, uint64_t offset, uint64_t len)
{
	static uint8_t data[MIB];

	memset(data, 7, sizeof(data));
	assert_int_equal(pwrite(fd, data, len, (off_t)offset), len);
}

/* What is not needed goes, what was written stays, and the file is as long as what was written. */
static void test_reserve(void **state)
{
	struct reserve r = begin();
	int fd = r.fd;
	uint8_t byte;

	reserve_begin(&r, 80 * MIB);
	assert_non_null(r.thread);
	ahead_wait(r.thread, 4);
	reserve_end(&r);
	assert_null(r.thread);
	assert_int_equal(r.next, 11 * MIB);
	check_file(fd, 0, 10 * MIB);
	write_at(fd, 2 * MIB, MIB);
	reserve_close(&r);
	assert_int_equal(r.fd, -EBADF);
	check_file(fd, 3 * MIB, 2 * MIB);
	for (uint64_t at = 0; at < 3 * MIB; at += 4096) {
		assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
		assert_int_equal(byte, at < 2 * MIB ? 0 : 7);
	}
	close(fd);
}

/* A part of the memory at most, however often it is asked for; the hole in front stays one. */
static void test_limits(void **state)
{
	struct reserve r = begin();
	int fd = r.fd;

	reserve_begin(&r, 16 * MIB);
	ahead_wait(r.thread, 0);
	reserve_end(&r);
	reserve_begin(&r, 16 * MIB);
	assert_null(r.thread);
	check_file(fd, 0, 2 * MIB);
	reserve_leave(&r, 2 * MIB);
	check_file(fd, 0, MIB);
	reserve_close(&r);
	check_file(fd, 0, 0);
	close(fd);
}

/* Where there is no room, or no such file, nothing happens. */
static void test_nothing(void **state)
{
	struct reserve r = RESERVE_NONE;
	int pipes[2];

	reserve_begin(&r, 80 * MIB);
	assert_null(r.thread);
	reserve_end(&r);
	reserve_leave(&r, 2 * MIB);
	reserve_close(&r);
	reserve_begin(NULL, 80 * MIB);
	reserve_end(NULL);
	reserve_close(NULL);
	assert_int_equal(pipe(pipes), 0);
	reserve_open(&r, pipes[1]);
	assert_int_equal(r.fd, -EBADF);
	/* no fallocate(): it ends at once */
	r = (struct reserve){.fd = pipes[1], .next = MIB, .end = MIB};
	reserve_begin(&r, 80 * MIB);
	ahead_wait(r.thread, 4);
	reserve_end(&r);
	assert_int_equal(r.next, MIB);
	assert_int_equal(r.end, 0);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
