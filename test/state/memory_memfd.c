/* SPDX-License-Identifier: Apache-2.0 */
/* memfd: shared by descriptor and mapping, sealed, mapped privately, with a position. */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096UL
#define SIZE (PAGE * 20 + 123)

static volatile char *shared;

static int child(void *arg)
{
	test_hold();
	while (shared[0] != 'p')
		usleep(1000);
	shared[1] = 'c';
	return 6;
}

int main(void)
{
	char *private, link[64], path[64], c;
	struct stat before, now;
	int fd, sealed, again, closed, seals;
	volatile char *orphan;
	pid_t pid;

	test_init();
	fd = memfd_create("with a name", MFD_CLOEXEC);
	sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
	closed = memfd_create("closed", 0);
	CHECK(fd >= 0 && sealed >= 0 && closed >= 0);
	CHECK(!ftruncate(fd, SIZE));
	shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(shared != MAP_FAILED && private != MAP_FAILED);
	test_fill((char *)shared, SIZE, 1);
	private[PAGE * 3] ^= 0x55;
	CHECK_EQUAL(lseek(fd, 777, SEEK_SET), 777);
	again = dup(fd);
	CHECK_EQUAL(write(sealed, "sealed contents", 15), 15);
	CHECK(!fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW));
	CHECK(!fchmod(fd, 0600));
	/* Mapped only, and sparse. */
	CHECK(!ftruncate(closed, 1L << 30));
	orphan = mmap(NULL, 1L << 30, PROT_READ | PROT_WRITE, MAP_SHARED, closed, 0);
	CHECK(orphan != MAP_FAILED);
	close(closed);
	orphan[(1L << 29) + 7] = 'o';
	CHECK(!fstat(fd, &before));
	seals = fcntl(fd, F_GET_SEALS);
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
		lseek(again, 0, SEEK_SET);
	if (test_break(2))
		shared = mmap((void *)shared, PAGE, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
	CHECK_FILLED_FROM((char *)shared, 8, SIZE, 1);
	private[PAGE * 3] ^= 0x55;
	CHECK_FILLED_FROM(private, 8, SIZE, 1);
	shared[0] = 'p';
	test_reap(pid, 6);
	CHECK_EQUAL(shared[1], 'c');
	CHECK_EQUAL(pread(fd, &c, 1, 1), 1);
	CHECK_EQUAL(c, 'c');
	CHECK_EQUAL(private[1], 'c');
	CHECK_EQUAL(lseek(again, 0, SEEK_CUR), 777);
	CHECK_EQUAL(lseek(again, 5, SEEK_SET), 5);
	CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), 5);
	CHECK_EQUAL(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK(!fstat(fd, &now));
	CHECK_EQUAL(now.st_size, SIZE);
	CHECK_EQUAL(now.st_mode, before.st_mode);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(readlink(path, link, sizeof(link)) > 0);
	CHECK(!strncmp(link, "/memfd:with a name (deleted)", 28));
	CHECK_EQUAL(fcntl(sealed, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
	CHECK(write(sealed, "x", 1) < 0 && errno == EPERM);
	CHECK_EQUAL(lseek(sealed, 0, SEEK_CUR), 15);
	CHECK_EQUAL(fcntl(fd, F_GET_SEALS), seals);
	CHECK_EQUAL(orphan[(1L << 29) + 7], 'o');
	CHECK_EQUAL(orphan[5], 0);
	CHECK(test_smaps((void *)orphan, "Rss") < 64);
	test_pass();
}
