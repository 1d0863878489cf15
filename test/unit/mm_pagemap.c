/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_portions)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
