/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memfds of huge pages: held by a descriptor, sealed, mapped and not, with a hole.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE (2UL << 20)

int main(void)
{
	struct stat st;
	char text[64], *map, *again;
	int fd;

	test_init();
	test_read("/proc/sys/vm/nr_hugepages", text, sizeof(text));
	if (atoi(text) < 8)
		test_skip("fewer than 8 huge pages (vm.nr_hugepages)");
	fd = memfd_create("huge", MFD_HUGETLB | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, 3 * HUGE))
		test_skip("huge pages are taken");
	/* The one in the middle alone is there. */
	map = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, HUGE);
	if (map == MAP_FAILED)
		test_skip("huge pages are taken");
	test_fill(map, HUGE, 4);
	CHECK(!fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));

	test_wait();
	if (test_break(1))
		map[5] ^= 1;
	CHECK(!fstat(fd, &st));
	CHECK_EQUAL(st.st_size, 3 * HUGE);
	CHECK_EQUAL(st.st_blksize, HUGE);
	CHECK_EQUAL(st.st_blocks, HUGE / 512);
	CHECK_EQUAL(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	CHECK_FILLED(map, HUGE, 4);
	again = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, HUGE);
	CHECK(again != MAP_FAILED);
	again[7] = map[7] + 1;
	CHECK_EQUAL(map[7], again[7]);
	test_pass();
}
