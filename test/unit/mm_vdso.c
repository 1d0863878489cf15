/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/procfs.h"
#include "mm/vdso.h"
#include "mm/vma.h"
#include "unit.h"

/*
 * The vDSO of this kernel stands in for that of another: a copy of it, patched, has to
 * lead to the real one.
 */
static int own_vdso(struct mm_vdso *own)
{
	int fd, r;

	assert_int_equal(procfs_open_root(&fd, NULL), 0);
	r = mm_vdso_own(fd, own, NULL);
	close(fd);
	assert_int_equal(r, 0);
	return own->vdso != 0;
}

/* Finds a function by asking the patcher: the first byte that it changed and that leads to this
 * trampoline. */
static void *entry_to(uint8_t *code, const uint8_t *before, size_t len, uint8_t *trampoline)
{
	for (size_t i = 0; i + 5 <= len; i++) {
		int32_t distance;

		if (code[i] != 0xe9 || memcmp(code + i, before + i, 5) == 0)
			continue;
		memcpy(&distance, code + i + 1, sizeof(distance));
		if (code + i + 5 + distance == trampoline)
			return code + i;
	}
	return NULL;
}

static void test_patched(void **state)
{
	struct mm_vdso own;
	uint8_t *map, *page, *code;
	int (*gettime)(clockid_t clock, struct timespec * ts);
	ssize_t (*random)(void *buf, size_t len, unsigned int flags, void *opaque, size_t size);
	struct timespec a, b;
	char buf[16] = "";

	if (!own_vdso(&own))
		skip();
	map = mmap(NULL, PAGE_BYTES + own.len, PROT_READ | PROT_WRITE | PROT_EXEC,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	page = map;
	code = map + PAGE_BYTES;
	memcpy(code, own.code, own.len);
	assert_int_equal(mm_vdso_patch(code, own.len, (uint64_t)code, &own, own.vdso, page,
				       (uint64_t)page, NULL),
			 0);
	*(void **)&gettime = entry_to(code, own.code, own.len, page);
	assert_non_null(gettime);
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(gettime(CLOCK_MONOTONIC, &b), 0);
	assert_true(b.tv_sec - a.tv_sec <= 1);
	assert_int_equal(gettime(12345, &b), -EINVAL);
	*(void **)&random = entry_to(code, own.code, own.len, page + 5 * 16);
	if (random) { /* 6.11 */
		assert_int_equal(random(buf, sizeof(buf), 0, NULL, 0), sizeof(buf));
		assert_int_not_equal(strnlen(buf, sizeof(buf)), 0);
	}
	munmap(map, PAGE_BYTES + own.len);
	mm_vdso_free(&own);
}

static void test_damaged(void **state)
{
	struct mm_vdso own;
	uint8_t page[PAGE_BYTES], *code;

	if (!own_vdso(&own))
		skip();
	code = malloc(own.len);
	assert_non_null(code);
	srand(1);
	/* whatever is in it: refused, or patched within its bounds (seen by the sanitizers) */
	for (int i = 0; i < 20000; i++) {
		size_t len = i % 2 ? own.len : (size_t)rand() % own.len;

		memcpy(code, own.code, own.len);
		for (int j = rand() % 6; j >= 0; j--)
			code[(size_t)rand() % 4096] = (uint8_t)rand();
		ignore(mm_vdso_patch(code, len, 0x10000, &own, own.vdso, page, 0xf000, NULL),
		       "either will do");
	}
	assert_int_equal(mm_vdso_patch(code, 0, 0x10000, &own, own.vdso, page, 0xf000, NULL),
			 -EINVAL);
	free(code);
	mm_vdso_free(&own);
}

static Reprise__Vma part(uint64_t start, uint64_t end, uint32_t kind)
{
	Reprise__Vma v = REPRISE__VMA__INIT;

	v.start = start;
	v.end = end;
	v.kind = kind;
	return v;
}

static int layout(Reprise__Vma *vmas, size_t n, Reprise__Mm *mm)
{
	Reprise__Vma *list[4];
	int proc_fd, r;

	*mm = (Reprise__Mm)REPRISE__MM__INIT;
	for (size_t i = 0; i < n; i++)
		list[i] = &vmas[i];
	mm->vmas = list;
	mm->n_vmas = n;
	assert_int_equal(procfs_open_root(&proc_fd, NULL), 0);
	r = mm_vdso_checkpoint(proc_fd, mm, NULL);
	close(proc_fd);
	return r;
}

static void test_layout(void **state)
{
	Reprise__Vma whole[] = {part(0x1000, 0x5000, VMA_VVAR), part(0x5000, 0x7000, VMA_VVAR),
				part(0x7000, 0x9000, VMA_VDSO)};
	Reprise__Vma moved[] = {part(0x1000, 0x5000, VMA_VVAR), part(0x6000, 0x8000, VMA_VDSO)};
	Reprise__Vma twice[] = {part(0x1000, 0x2000, VMA_VVAR), part(0x2000, 0x3000, VMA_VDSO),
				part(0x3000, 0x4000, VMA_VDSO)};
	Reprise__Mm mm;

	assert_int_equal(layout(whole, 3, &mm), 0);
	assert_int_equal(mm.vvar, 0x1000);
	assert_int_equal(mm.vdso, 0x7000);
	assert_int_equal(layout(whole + 2, 1, &mm), -EOPNOTSUPP);
	assert_int_equal(layout(moved, 2, &mm), -EOPNOTSUPP);
	assert_int_equal(layout(twice, 3, &mm), -EOPNOTSUPP);
	assert_int_equal(layout(NULL, 0, &mm), 0);
	assert_int_equal(mm.vdso, 0);
}

/* Without the code: all of the data, as this kernel has them, or nothing. */
static void test_data(void **state)
{
	struct mm_vdso own = {};
	Reprise__Vma data[2];
	Reprise__Mm mm;
	uint64_t end;

	if (!own_vdso(&own))
		skip();
	end = 0x10000 + (own.vdso - own.vvar);
	data[0] = part(0x10000, end, VMA_VVAR);
	assert_int_equal(layout(data, 1, &mm), 0);
	assert_int_equal(mm.vvar, 0x10000);
	assert_int_equal(mm.vdso, 0);
	data[0].end = end + 0x1000;
	assert_int_equal(layout(data, 1, &mm), -EOPNOTSUPP);
	data[0] = part(0x11000, end, VMA_VVAR);
	assert_int_equal(layout(data, 1, &mm), -EOPNOTSUPP);
	data[0] = part(0x10000, end - 0x1000, VMA_VVAR);
	data[1] = part(end - 0x1000, end, VMA_VVAR);
	assert_int_equal(layout(data, 2, &mm), 0);
	data[1] = part(end, end + 0x1000, VMA_VVAR);
	assert_int_equal(layout(data, 2, &mm), -EOPNOTSUPP);
	mm_vdso_free(&own);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patched),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
