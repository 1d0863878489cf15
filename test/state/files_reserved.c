/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room that was reserved for parts of files: removed ones on a disk and in memory, and memfds;
 * between contents, behind the end, in a file without any. In a container also of one with a name.
 *
 * not-in: cycles: what has been in swap is no room any more, and that adds up
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KIB	   1024l
#define CACHESTAT_ 451 /* 6.5 */
#define SWAPPED	   8 /* pages that may have been in swap: they are zeros then (shmem_writeout()) */

enum { DISK, DISK_EMPTY, DISK_NAMED, MEMORY, MEMORY_EMPTY, MEMFD, MEMFD_FULL, FILES };

static struct {
	int fd;
	struct stat before;
} files[FILES];

static void reserve(int fd, long start, long length)
{
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, start, length) < 0)
		test_skip("no room can be reserved here: %m");
}

/* Contents at both ends, room in the middle and behind the end, holes between. */
static void parts(int fd)
{
	CHECK_EQUAL(pwrite(fd, "first", 5, 0), 5);
	CHECK_EQUAL(pwrite(fd, "last", 4, 1024 * KIB - 4), 4);
	reserve(fd, 256 * KIB, 128 * KIB);
	reserve(fd, 1028 * KIB, 64 * KIB);
}

static int removed(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);

	CHECKF(fd >= 0 && !unlink(path), "%s: %s", path, strerror(errno));
	return fd;
}

static void set_up(void)
{
	char path[64];
	struct stat here;

	CHECK(!stat(".", &here)); /* nobody else has its number */
	files[DISK].fd = removed("parts");
	parts(files[DISK].fd);
	files[DISK_EMPTY].fd = removed("empty");
	reserve(files[DISK_EMPTY].fd, 0, 64 * KIB);
	/* in a container it is in the image */
	snprintf(path, sizeof(path), "/var/tmp/reprise-%ju", (uintmax_t)here.st_ino);
	files[DISK_NAMED].fd = test_mode_is("container")
				       ? open(path, O_RDWR | O_CREAT | O_EXCL, 0600)
				       : removed("named");
	CHECK(files[DISK_NAMED].fd >= 0);
	parts(files[DISK_NAMED].fd);
	snprintf(path, sizeof(path), "/dev/shm/reprise-%ju", (uintmax_t)here.st_ino);
	files[MEMORY].fd = removed(path);
	parts(files[MEMORY].fd);
	files[MEMORY_EMPTY].fd = removed(path);
	reserve(files[MEMORY_EMPTY].fd, 128 * KIB, 64 * KIB);
	files[MEMFD].fd = memfd_create("parts", MFD_CLOEXEC);
	parts(files[MEMFD].fd);
	/* as much behind its end as is missing before */
	files[MEMFD_FULL].fd = memfd_create("behind", MFD_CLOEXEC);
	CHECK(!ftruncate(files[MEMFD_FULL].fd, 512 * KIB));
	reserve(files[MEMFD_FULL].fd, 256 * KIB, 512 * KIB);
	for (int i = 0; i < FILES; i++) {
		CHECK(!fsync(files[i].fd) && !fstat(files[i].fd, &files[i].before));
		CHECK(files[i].before.st_blocks);
	}
}

/* Has it all of that? */
static bool has_room(int fd, long start, long length)
{
	union {
		struct fiemap head;
		char space[sizeof(struct fiemap) + 16 * sizeof(struct fiemap_extent)];
	} map = {.head = {.fm_start = (uint64_t)start,
			  .fm_length = (uint64_t)length,
			  .fm_extent_count = 16}};
	uint64_t range[2] = {(uint64_t)start, (uint64_t)length}, found[5] = {}, sum = 0;

	if (!ioctl(fd, FS_IOC_FIEMAP, &map)) {
		for (uint32_t i = 0; i < map.head.fm_mapped_extents; i++)
			if (map.head.fm_extents[i].fe_flags & FIEMAP_EXTENT_UNWRITTEN)
				sum += map.head.fm_extents[i].fe_length;
		return sum >= (uint64_t)length;
	}
	if (syscall(CACHESTAT_, fd, range, found, 0) < 0)
		test_skip("no cachestat() here");
	return found[0] + found[3] + SWAPPED >= (uint64_t)length / 4096;
}

static void check_parts(int i)
{
	int fd = files[i].fd;
	char data[8] = "";

	CHECK(pread(fd, data, 5, 0) == 5 && !memcmp(data, "first", 5));
	CHECK(pread(fd, data, 8, 1024 * KIB - 4) == 4 && !memcmp(data, "last", 4));
	CHECKF(has_room(fd, 256 * KIB, 128 * KIB), "file %d", i);
	CHECKF(has_room(fd, 1028 * KIB, 64 * KIB), "file %d, behind its end", i);
	CHECKF(!has_room(fd, 128 * KIB, 64 * KIB) && !has_room(fd, 512 * KIB, 64 * KIB), "file %d",
	       i);
}

int main(void)
{
	test_init();
	set_up();
	test_wait();
	if (test_break(1))
		CHECK(!fallocate(files[DISK].fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 256 * KIB, 4 * KIB));
	if (test_break(2))
		CHECK(!ftruncate(files[MEMFD].fd, 1024 * KIB));
	if (test_break(3))
		reserve(files[MEMFD_FULL].fd, 0, 4 * KIB);
	for (int i = 0; i < FILES; i++) {
		struct stat now;
		long fewer;

		CHECK(!fsync(files[i].fd) && !fstat(files[i].fd, &now));
		CHECKF(now.st_size == files[i].before.st_size, "file %d has %ld bytes", i,
		       (long)now.st_size);
		fewer = (long)(files[i].before.st_blocks - now.st_blocks);
		CHECKF(fewer >= 0 && fewer <= (i < MEMORY ? 0 : SWAPPED * 8),
		       "file %d has %ld blocks, and had %ld", i, (long)now.st_blocks,
		       (long)files[i].before.st_blocks);
	}
	check_parts(DISK);
	check_parts(DISK_NAMED);
	check_parts(MEMORY);
	check_parts(MEMFD);
	CHECK(has_room(files[DISK_EMPTY].fd, 0, 64 * KIB));
	CHECK(has_room(files[MEMORY_EMPTY].fd, 128 * KIB, 64 * KIB));
	CHECK(has_room(files[MEMFD_FULL].fd, 256 * KIB, 512 * KIB));
	test_pass();
}
