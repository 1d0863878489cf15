/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/kabi.h"
#include "mm/pagemap.h"
#include "unit.h"

/*
 * Every other page of a mapping is touched. The number of them matters: the kernel collects
 * regions in portions of its own, and we ask for them in portions of ours.
 */
static void scan_alternate(size_t pages)
{
	size_t size = 2 * pages * PAGE_BYTES;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct span span = {(uint64_t)(uintptr_t)memory, (uint64_t)(uintptr_t)memory + size};
	struct span_vec where = {.v = &span, .n = 1};
	struct page_spans scanned = {}, read = {};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	assert_true(memory != MAP_FAILED && fd >= 0);
	assert_int_equal(madvise(memory, size, MADV_NOHUGEPAGE), 0);
	for (size_t i = 0; i < pages; i++)
		memory[(2 * i + 1) * PAGE_BYTES] = 1;
	assert_int_equal(pagemap_scan(fd, &where, &scanned, NULL), 0);
	assert_int_equal(pagemap_read(fd, &where, &read, NULL), 0);
	assert_int_equal(scanned.n, pages);
	assert_int_equal(read.n, pages);
	for (size_t i = 0; i < pages; i++) {
		assert_int_equal(scanned.v[i].start, span.start + (2 * i + 1) * PAGE_BYTES);
		assert_int_equal(scanned.v[i].end, scanned.v[i].start + PAGE_BYTES);
		assert_int_equal(read.v[i].start, scanned.v[i].start);
		assert_int_equal(read.v[i].end, scanned.v[i].end);
	}
	vec_free(&scanned);
	vec_free(&read);
	close(fd);
	munmap(memory, size);
}

static void test_portions(void **state)
{
	static const size_t pages[] = {1,    511,  512,	 513,  1023, 1024, 1025, 1535,
				       1536, 1537, 1600, 2047, 2048, 2049, 2560, 5000};

	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		scan_alternate(pages[i]);
}

/* Of four tables the second one is there, and protected but for one page: all else may have been
 * written. */
static void holes(int sharing)
{
	const size_t table = PAGEMAP_TABLE, len = 5 * table;
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC};
	int proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct uffdio_writeprotect protect = {.mode = UFFDIO_WRITEPROTECT_MODE_WP};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_WP};
	bool told = pagemap_tells_holes(proc_fd, sharing);
	struct span_vec found = {};
	uint64_t at, page;
	char *memory;
	int uffd;

	close(proc_fd);
	if (!told) {
		close(fd);
		skip();
	}
	memory = mmap(NULL, len, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
	assert_true(memory != MAP_FAILED && fd >= 0);
	assert_int_equal(madvise(memory, len, MADV_NOHUGEPAGE), 0);
	at = ((uint64_t)(uintptr_t)memory + table - 1) / table * table;
	page = at + table + 7 * PAGE_BYTES;
	memset((void *)(uintptr_t)(at + table), 1, table);
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	reg.range = (struct uffdio_range){at, 4 * table};
	protect.range = (struct uffdio_range){at + table, table};
	assert_int_equal(ioctl(uffd, UFFDIO_API, &api), 0);
	assert_int_equal(ioctl(uffd, UFFDIO_REGISTER, &reg), 0);
	assert_int_equal(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect), 0);
	*(char *)(uintptr_t)page = 2;
	assert_int_equal(pagemap_find_written(fd, &(struct span){at, at + 4 * table}, &found), 0);
	assert_int_equal(found.n, 3);
	assert_int_equal(found.v[0].start, at);
	assert_int_equal(found.v[0].end, at + table);
	assert_int_equal(found.v[1].start, page);
	assert_int_equal(found.v[1].end, page + PAGE_BYTES);
	assert_int_equal(found.v[2].start, at + 2 * table);
	assert_int_equal(found.v[2].end, at + 4 * table);
	vec_free(&found);
	close(uffd);
	close(fd);
	munmap(memory, len);
}

static void test_holes(void **state)
{
	holes(MAP_PRIVATE);
}

static void test_holes_shared(void **state)
{
	holes(MAP_SHARED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_portions),
		cmocka_unit_test(test_holes),
		cmocka_unit_test(test_holes_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
