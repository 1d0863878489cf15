/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Less usual memfds: each kind of seal, executable or not, odd and long names, empty, with holes,
 * of huge pages, opened again for reading only, executed, shared with a child that holds it alone.
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* linux/memfd.h and linux/fcntl.h of 6.3 */
#define NOEXEC_SEAL 0x0008U
#define EXEC	    0x0010U
#define SEAL_EXEC   0x0020

#define KINDS 8
#define SIZE  20000

static struct kind {
	const char *name;
	unsigned int flags;
	int seals;
} kinds[KINDS] = {
	{"plain", MFD_CLOEXEC, 0},
	{"", MFD_ALLOW_SEALING, F_SEAL_SHRINK},
	{"line\nfeed (deleted)", MFD_ALLOW_SEALING, F_SEAL_GROW | F_SEAL_SEAL},
	{"noexec", NOEXEC_SEAL, 0},
	{"exec", EXEC | MFD_ALLOW_SEALING, F_SEAL_WRITE | SEAL_EXEC},
	{"future", MFD_ALLOW_SEALING, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK},
	{"all", MFD_ALLOW_SEALING, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL},
	/* The longest that there is. */
	{"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
	 "8901234567890123456789012345678901234567890123456789012345678901234567890123456789012345"
	 "6789012345678901234567890123456789012345678901234567890123456789012345678",
	 MFD_CLOEXEC, 0},
};

static char data[SIZE];

static void read_link(int fd, char *link, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, size - 1);
	CHECK(n > 0);
	link[n] = 0;
}

static int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags);
}

static int child(void *arg)
{
	char *map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, *(int *)arg, 0);

	CHECK(map != MAP_FAILED);
	test_write("child-ready", "", 0);
	test_hold();
	CHECK_FILLED(map, SIZE, 30);
	return 5;
}

int main(void)
{
	char before[KINDS][600], now[600];
	int fds[KINDS], seals[KINDS], empty, holes, reserved, read_only, of_child;
	struct stat st[KINDS], is;
	int flags = 0, flags_now = 0;
	uint64_t hint;
	pid_t pid;

	test_init();
	of_child = memfd_create("of the child", 0);
	test_fill(data, SIZE, 30);
	CHECK_EQUAL(write(of_child, data, SIZE), SIZE);
	pid = test_fork(child, &of_child);
	close(of_child);
	for (int i = 0; i < KINDS; i++) {
		fds[i] = memfd_create(kinds[i].name, kinds[i].flags);
		if (fds[i] < 0 && errno == EINVAL && kinds[i].flags & (EXEC | NOEXEC_SEAL))
			fds[i] =
				memfd_create(kinds[i].name, kinds[i].flags & ~(EXEC | NOEXEC_SEAL));
		CHECKF(fds[i] >= 0, "memfd_create %d: %s", i, strerror(errno));
		test_fill(data, SIZE, 10 + i);
		CHECK_EQUAL(write(fds[i], data, SIZE), SIZE);
		if (kinds[i].seals && fcntl(fds[i], F_ADD_SEALS, kinds[i].seals))
			CHECK(!fcntl(fds[i], F_ADD_SEALS, kinds[i].seals & ~SEAL_EXEC));
		seals[i] = fcntl(fds[i], F_GET_SEALS);
		read_link(fds[i], before[i], sizeof(before[i]));
		CHECK(!fstat(fds[i], &st[i]));
	}
	empty = memfd_create("empty", 0);
	reserved = memfd_create("reserved", 0);
	CHECK(!fallocate(reserved, 0, 0, 1 << 18));
	CHECK_EQUAL(pwrite(reserved, "x", 1, 1 << 17), 1);
	CHECK(!futimens(empty, (struct timespec[2]){{1000, 1}, {2000, 2}}));
	if (!ioctl(empty, FS_IOC_GETFLAGS, &flags)) { /* 6.0 */
		flags |= FS_NODUMP_FL | (geteuid() ? 0 : FS_APPEND_FL);
		CHECK(!ioctl(empty, FS_IOC_SETFLAGS, &flags));
	}
	holes = memfd_create("holes", 0);
	CHECK(!ftruncate(holes, 1 << 20));
	CHECK_EQUAL(pwrite(holes, "x", 1, 1 << 19), 1);
	CHECK(!fcntl(holes, F_SET_RW_HINT, &(uint64_t){RWH_WRITE_LIFE_LONG}));
	read_only = reopen(fds[0], O_RDONLY);
	CHECK_EQUAL(lseek(read_only, 100, SEEK_SET), 100);
	while (access("child-ready", F_OK))
		usleep(1000);

	test_wait();
	if (test_break(1))
		CHECK(!fcntl(fds[1], F_ADD_SEALS, F_SEAL_SEAL));
	if (test_break(3))
		CHECK(!fcntl(holes, F_SET_RW_HINT, &(uint64_t){RWH_WRITE_LIFE_NOT_SET}));
	if (test_break(2))
		CHECK(!fchmod(fds[0], 0600));
	for (int i = 0; i < KINDS; i++) {
		read_link(fds[i], now, sizeof(now));
		CHECKF(!strcmp(now, before[i]), "the name was %s and is %s", before[i], now);
		CHECK_EQUAL(fcntl(fds[i], F_GET_SEALS), seals[i]);
		CHECK(!fstat(fds[i], &is));
		CHECK_EQUAL(is.st_mode, st[i].st_mode);
		CHECK_EQUAL(is.st_size, SIZE);
		CHECK_EQUAL(pread(fds[i], data, SIZE, 0), SIZE);
		CHECK_FILLED(data, SIZE, 10 + i);
		CHECK_EQUAL(fcntl(fds[i], F_GETFL) & O_ACCMODE, O_RDWR);
		CHECK_EQUAL(lseek(fds[i], 0, SEEK_CUR), SIZE);
	}
	CHECK(!fstat(empty, &is) && is.st_size == 0);
	CHECK_EQUAL(is.st_atim.tv_sec, 1000);
	CHECK_EQUAL(is.st_mtim.tv_nsec, 2);
	ioctl(empty, FS_IOC_GETFLAGS, &flags_now);
	CHECK_EQUAL(flags_now, flags);
	CHECK(!fstat(reserved, &is) && is.st_size == 1 << 18);
	CHECK_EQUAL(is.st_blocks, (1 << 18) / 512);
	CHECK(pread(reserved, data, 1, 1 << 17) == 1 && data[0] == 'x');
	CHECK(!fstat(holes, &is) && is.st_size == 1 << 20 && is.st_blocks < 100);
	CHECK(pread(holes, data, 1, 1 << 19) == 1 && data[0] == 'x');
	CHECK(!fcntl(holes, F_GET_RW_HINT, &hint));
	CHECK_EQUAL(hint, RWH_WRITE_LIFE_LONG);
	CHECK_EQUAL(fcntl(read_only, F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_EQUAL(lseek(read_only, 0, SEEK_CUR), 100);
	CHECK_EQUAL(pwrite(fds[0], "shared", 6, 7), 6);
	CHECK(pread(read_only, data, 6, 7) == 6 && !memcmp(data, "shared", 6));
	test_reap(pid, 5);
	test_pass();
}
