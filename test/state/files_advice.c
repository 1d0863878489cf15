/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Advice on how files will be read (posix_fadvise()): at random, in sequence, both, none. How much
 * comes into memory when a part is read shows it. Removed files of a disk, which leave nothing.
 *
 * needs: root
 * may-refuse: kernel-too-old
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PAGE	   4096ul
#define CACHESTAT_ 451 /* 6.5 */

static const int advice[][2] = {
	{POSIX_FADV_NORMAL, POSIX_FADV_NORMAL},	    {POSIX_FADV_NORMAL, POSIX_FADV_RANDOM},
	{POSIX_FADV_NORMAL, POSIX_FADV_SEQUENTIAL}, {POSIX_FADV_RANDOM, POSIX_FADV_SEQUENTIAL},
	{POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM},
};
#define COUNT (sizeof(advice) / sizeof(advice[0]))

static int fds[COUNT];

static size_t usual; /* pages that are read ahead, at most */

/* Pages in memory, also those that are still on their way. */
static size_t in_memory(int fd)
{
	uint64_t range[2] = {0, 0}, found[5] = {};

	if (syscall(CACHESTAT_, fd, range, found, 0) < 0)
		test_skip("no cachestat() here");
	return found[0];
}

/*
 * How many come with a first read of a sixteenth of what is read ahead: twice as many, and four
 * times as many where twice as much is read ahead (get_init_ra_size()). And how many with that of
 * a byte: one at random.
 */
static size_t brought(int fd, size_t part)
{
	static char buf[1 << 20];

	CHECK(!fsync(fd));
	/* what is still on its way from the disk is not given up (mapping_evict_folio()) */
	for (int i = 0; i < 10000 && in_memory(fd); i++)
		CHECK(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) && !usleep(i ? 1000 : 0));
	CHECK_EQUAL(in_memory(fd), 0);
	CHECK_EQUAL(pread(fd, buf, part, 0), (ssize_t)part);
	return in_memory(fd);
}

struct shown {
	size_t part, byte;
};

static void look(struct shown *ret)
{
	for (size_t i = 0; i < COUNT; i++) {
		ret[i].part = brought(fds[i], usual / 16 * PAGE);
		ret[i].byte = brought(fds[i], 1);
	}
}

static void look_at_device(int fd)
{
	unsigned long kib = 0;
	struct stat st;
	char path[64];
	FILE *f;

	CHECK(!fstat(fd, &st));
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev),
		 minor(st.st_dev));
	f = fopen(path, "r");
	if (!f || fscanf(f, "%lu", &kib) != 1 || kib < 64 || kib > 16384 || (kib & (kib - 1)))
		test_skip("nothing is known of what is read ahead of a file in /var/tmp");
	fclose(f);
	usual = kib * 1024 / PAGE;
}

static int make(void)
{
	char name[] = "/var/tmp/reprise-advice-XXXXXX";
	int made = mkostemp(name, O_CLOEXEC), fd;

	if (made < 0)
		test_skip("no file can be made in /var/tmp");
	fd = open(name, O_RDONLY);
	CHECK(!unlink(name) && fd >= 0);
	if (!usual)
		look_at_device(fd);
	for (size_t i = 0; i < usual; i++)
		CHECK_EQUAL(pwrite(made, &i, sizeof(i), (off_t)(i * PAGE)), sizeof(i));
	close(made);
	return fd;
}

/* Where memory is short pages go as they come: what is seen again is true. */
static void look_until(struct shown *ret, const struct shown *expected)
{
	struct shown before[COUNT];

	for (int tries = 0; tries < 20; tries++) {
		memcpy(before, expected ? expected : ret, sizeof(before));
		look(ret);
		if (!memcmp(before, ret, sizeof(before)))
			return;
	}
}

int main(void)
{
	struct shown was[COUNT] = {}, is[COUNT] = {};

	test_init();
	for (size_t i = 0; i < COUNT; i++) {
		fds[i] = make();
		CHECK(!posix_fadvise(fds[i], 0, 0, advice[i][0]));
		CHECK(!posix_fadvise(fds[i], 0, 0, advice[i][1]));
	}
	look_until(was, NULL);
	if (was[0].byte == was[1].byte || was[0].part == was[2].part)
		test_skip("the kernel does not read ahead as expected");

	test_wait();
	if (test_break(1))
		CHECK(!posix_fadvise(fds[1], 0, 0, POSIX_FADV_NORMAL));
	if (test_break(2))
		CHECK(!posix_fadvise(fds[2], 0, 0, POSIX_FADV_NORMAL));
	look_until(is, was);
	for (size_t i = 0; i < COUNT; i++) {
		CHECKF(is[i].byte == was[i].byte, "%zu: a byte brings %zu pages, not %zu", i,
		       is[i].byte, was[i].byte);
		CHECKF(is[i].part == was[i].part, "%zu: a part brings %zu pages, not %zu", i,
		       is[i].part, was[i].part);
	}
	test_pass();
}
