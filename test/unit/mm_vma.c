/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "mm/layout.h"
#include "mm/state.h"
#include "mm/vma.h"
#include "unit.h"

/* The lines of /proc/PID/smaps that matter, with some that do not. */
#define FIELDS(letters)                                                                           \
	"Size:                  8 kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n" \
	"Rss:                   8 kB\nAnonymous:             8 kB\nAnonHugePages:         0 kB\n" \
	"Swap:                  4 kB\nTHPeligible:           0\nProtectionKey:         0\n"       \
	"VmFlags: " letters " \n"

#define HEAP                                                                                        \
	"556e00000000-556e00021000 rw-p 00000000 00:00 0                          [heap]\n" FIELDS( \
		"rd wr mr mw me ac")

static int parse(const char *text, struct vma_list *list)
{
	list->text = strdup(text);
	assert_non_null(list->text);
	return vma_parse(list->text, list);
}

static void test_parse(void **state)
{
	struct vma_list list = {};
	const struct vma *v;

	assert_int_equal(
		parse(HEAP
		      "7f6b4cbc6000-7f6b4cbc8000 r-xs 00031000 fe:10 332383      /a b\\012c (deleted)\n" FIELDS(
			      "rd ex mr me ms") "7f6b4cbc8000-7f6b4cbca000 ---p 00000000 00:00 0 \n" FIELDS("mr mw me nr"),
		      &list),
		0);
	assert_int_equal(list.vmas.n, 3);
	v = &list.vmas.v[0];
	assert_int_equal(v->start, 0x556e00000000);
	assert_int_equal(v->end, 0x556e00021000);
	assert_int_equal(v->prot, PROT_READ | PROT_WRITE);
	assert_string_equal(v->name, "[heap]");
	assert_int_equal(v->page_size, 4);
	assert_int_equal(v->anonymous_kb, 8);
	assert_int_equal(v->swap_kb, 4);
	assert_true(vma_has(v, "ac"));
	assert_false(vma_has(v, "sh"));
	v = &list.vmas.v[1];
	assert_true(v->shared);
	assert_int_equal(v->prot, PROT_READ | PROT_EXEC);
	assert_int_equal(v->offset, 0x31000);
	assert_int_equal(v->dev_major, 0xfe);
	assert_int_equal(v->dev_minor, 0x10);
	assert_int_equal(v->ino, 332383);
	assert_string_equal(v->name, "/a b\\012c (deleted)");
	v = &list.vmas.v[2];
	assert_int_equal(v->prot, PROT_NONE);
	assert_string_equal(v->name, "");
	vma_list_free(&list);
}

static void test_nonsense(void **state)
{
	static const char *const texts[] = {
		"x",
		"Size: 4 kB\n",
		"1000-2000 rw-p 0 00:00 0",
		"1000-1000 rw-p 0 00:00 0\n",
		"2000-1000 rw-p 0 00:00 0\n",
		"1000-2000 rwxp 0 00:00\n",
		"1000-2000 rw-q 0 00:00 0\n",
		"1000-2000 rw-p 0 00:00 0x\n",
		"10000000000000000-20000000000000000 rw-p 0 00:00 0\n",
		"1000-3000 rw-p 0 00:00 0\n2000-4000 rw-p 0 00:00 0\n",
		"1000-3000 rw-p 0 00:00 0\nVmFlags: r\n",
		"1000-3000 rw-p 0 00:00 0\nSwap: \n",
		"1000-3000 rw-p 0 00:00 0\nSwap\n",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct vma_list list = {};

		assert_int_equal(parse(texts[i], &list), -EINVAL);
		vma_list_free(&list);
	}
}

/* Classifies one mapping; returns its kind, or 0 if it is refused. */
static uint32_t kind_of(const char *header, const char *letters, uint32_t *ret_flags)
{
	struct vma_list list = {};
	struct error e = {};
	char text[512];
	uint32_t kind;
	int r;

	snprintf(text, sizeof(text),
		 "7f0000000000-7f0000200000 %s\nProtectionKey: 0\nVmFlags: %s\n", header, letters);
	assert_int_equal(parse(text, &list), 0);
	r = vma_classify(&list.vmas.v[0], &e);
	if (r < 0)
		assert_int_equal(e.code, E_VMA_KIND);
	kind = r < 0 ? 0 : list.vmas.v[0].kind;
	if (ret_flags)
		*ret_flags = list.vmas.v[0].flags;
	vma_list_free(&list);
	return kind;
}

#define KIND(header, letters) kind_of(header, letters, NULL)

static void test_kinds(void **state)
{
	uint32_t flags;

	assert_int_equal(KIND("rw-p 0 00:00 0", "rd wr mr mw me ac"), VMA_ANON);
	assert_int_equal(KIND("rw-p 0 00:00 0 [heap]", "rd wr mr mw me ac sd"), VMA_ANON);
	assert_int_equal(kind_of("rw-p 0 00:00 0 [stack]", "rd wr mr mw me gd ac", &flags),
			 VMA_ANON);
	assert_int_equal(flags, VMA_GROWSDOWN);
	assert_int_equal(KIND("rw-p 0 00:00 0 [anon:a b]", "rd wr"), VMA_ANON);
	assert_int_equal(KIND("rw-s 0 00:01 5 [anon_shmem:x]", "rd wr sh ms"), VMA_FILE);
	assert_int_equal(kind_of("rw-s 0 00:01 5 /dev/zero (deleted)",
				 "rd wr sh mr mw me ms lo lf dc wf dd sr hg nh mg nr sl", &flags),
			 VMA_FILE);
	assert_int_equal(flags, VMA_FLAGS_ALL & ~(VMA_GROWSDOWN | VMA_RANDOM | VMA_ACCOUNTED));
	assert_int_equal(KIND("r--s 0 00:01 7 /SYSV00000000 (deleted)", "rd mr me ms"), VMA_SYSV);
	assert_int_equal(KIND("rw-p 0 00:10 7 /anon_hugepage (deleted)", "rd wr de ht"),
			 VMA_HUGE_ANON);
	assert_int_equal(KIND("rw-s 0 00:10 7 /memfd:x (deleted)", "rd wr ms de ht"), VMA_FILE);
	assert_int_equal(KIND("rw-p 0 00:00 0", "rd wr nr wf dd dp"), VMA_DROPPABLE);
	assert_int_equal(KIND("r-xp 0 00:00 0 [vdso]", "rd ex mr mw me de sl"), VMA_VDSO);
	assert_int_equal(KIND("r--p 0 00:00 0 [vvar]", "rd mr pf io de dd"), VMA_VVAR);
	assert_int_equal(KIND("r--p 0 00:00 0 [vvar_vclock]", "rd mr pf io de dd"), VMA_VVAR);
	assert_int_equal(KIND("--xp 0 00:00 0 [vsyscall]", "ex"), VMA_IGNORED);
}

static void test_refused(void **state)
{
	static const char *const letters[] = {"rd pf", "rd io", "rd mm", "rd ui", "rd ss", "rd sf",
					      "rd de", "rd zz", "rd ??", "rd ht", "rd mt", "rd ar"};
	static const char *const names[] = {
		"rw-s 0 00:0e 9 anon_inode:[perf_event]",
		"rw-s 0 00:0e 9 anon_inode:[unheard-of]",
		"rw-s 0 00:0e 9 /secretmem (deleted)",
		"rw-p 0 00:00 0 [uprobes]",
		"rw-p 0 00:01 9",
		"rw-s 0 00:00 0",
		"rw-p 0 00:01 9 [heap]",
	};

	for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++)
		assert_int_equal(KIND("r--p 0 00:00 0", letters[i]), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(KIND(names[i], "rd wr"), 0);
}

static void test_height(void **state)
{
	struct vma v = {.start = 0x1000, .end = 0x2000, .name = "", .prot = PROT_READ};

	assert_int_equal(vma_classify(&v, NULL), 0);
	v.end = USER_SPACE_END + PAGE_BYTES;
	assert_int_equal(vma_classify(&v, NULL), -EOPNOTSUPP);
}

/* ---- what two address spaces have in common ---- */

static Reprise__Vma record(uint64_t start, uint64_t end, uint32_t kind, uint64_t inode,
			   uint64_t offset, uint64_t flags)
{
	Reprise__Vma v = REPRISE__VMA__INIT;

	v.start = start;
	v.end = end;
	v.kind = kind;
	v.inode = inode;
	v.offset = offset;
	v.flags = flags;
	return v;
}

static void test_alike(void **state)
{
	Reprise__Vma a[] = {
		record(0x1000, 0x5000, VMA_ANON, 0, 0, 0),
		record(0x5000, 0x9000, VMA_FILE, 7, 0x1000, 0),
		record(0xa000, 0xb000, VMA_FILE, 8, 0, VMA_SHARED),
		record(0xb000, 0xc000, VMA_VVAR, 0, 0, 0),
	};
	Reprise__Vma b[] = {
		record(0x2000, 0x3000, VMA_ANON, 0, 0, VMA_DONTFORK),
		record(0x3000, 0x6000, VMA_ANON, 0, 0, 0),
		record(0x6000, 0x7000, VMA_FILE, 7, 0x2000, 0),
		record(0x7000, 0x8000, VMA_FILE, 7, 0x2000, 0), /* another part of the file */
		record(0xa000, 0xb000, VMA_FILE, 8, 0, VMA_SHARED),
		record(0xb000, 0xc000, VMA_VVAR, 0, 0, 0),
	};
	Reprise__Vma *pa[4], *pb[6];
	Reprise__Mm x = REPRISE__MM__INIT, y = REPRISE__MM__INIT;
	struct span_vec alike = {}, keepable = {};

	for (size_t i = 0; i < 4; i++)
		pa[i] = &a[i];
	for (size_t i = 0; i < 6; i++)
		pb[i] = &b[i];
	x.vmas = pa;
	x.n_vmas = 4;
	y.vmas = pb;
	y.n_vmas = 6;
	assert_int_equal(mm_alike(&x, &y, &alike), 0);
	assert_int_equal(alike.n, 3);
	assert_int_equal(alike.v[0].start, 0x2000);
	assert_int_equal(alike.v[0].end, 0x3000);
	assert_int_equal(alike.v[1].start, 0x3000);
	assert_int_equal(alike.v[1].end, 0x5000);
	assert_int_equal(alike.v[2].start, 0x6000);
	assert_int_equal(alike.v[2].end, 0x7000);
	assert_true(spans_hold(&alike, 0x2000, 0x5000));
	assert_true(spans_hold(&alike, 0x6000, 0x7000));
	assert_false(spans_hold(&alike, 0x4000, 0x7000));
	assert_false(spans_hold(&alike, 0x1000, 0x3000));
	assert_int_equal(mm_keepable(&x, &y, &keepable), 0);
	assert_int_equal(keepable.n, 5);
	assert_ptr_equal(mm_vma_at(&x, 0x8fff), &a[1]);
	assert_null(mm_vma_at(&x, 0x9000));
	assert_null(mm_vma_at(&x, 0));
	vec_free(&alike);
	vec_free(&keepable);
}

static void test_gap(void **state)
{
	struct span_vec used = {};
	uint64_t start, end;

	layout_largest_gap(&used, 1ul << 32, USER_SPACE_END, &start, &end);
	assert_int_equal(end, USER_SPACE_END);
	*(struct span *)vec_push(&used) = (struct span){0x7f0000000000, 0x7f1000000000};
	*(struct span *)vec_push(&used) = (struct span){0x100000000000, 0x200000000000};
	*(struct span *)vec_push(&used) = (struct span){0x150000000000, 0x160000000000};
	layout_largest_gap(&used, 1ul << 32, USER_SPACE_END, &start, &end);
	assert_int_equal(start, 0x200000000000);
	assert_int_equal(end, 0x7f0000000000);
	vec_free(&used);
}

/* As many flags of the kernel as letters, but for a protection key. */
static void test_agrees(void **state)
{
	struct vma_list list = {};
	const struct vma *v;

	(void)state;
	assert_int_equal(parse(HEAP "7f6b4cbc6000-7f6b4cbc8000 rw-p 00000000 00:00 0 \n" FIELDS(
				       "rd wr mr mw me lo ?? uw"),
			       &list),
			 0);
	v = &list.vmas.v[0];
	assert_true(vma_agrees(v, 0x100073));
	assert_true(vma_agrees(v, 0x100073 | 3ull << 32));
	assert_false(
		vma_agrees(v, 0x102073));  /* locked before and after, not when smaps was read */
	assert_false(vma_agrees(v, 0x73)); /* the other way round */
	assert_false(vma_agrees(v, 0x1073));
	v = &list.vmas.v[1];
	assert_true(vma_agrees(v, 0x83073));
	assert_false(vma_agrees(v, 0x3073));
	vma_list_free(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse), cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_kinds), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_alike), cmocka_unit_test(test_height),
		cmocka_unit_test(test_gap),   cmocka_unit_test(test_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
