/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/inode.h"
#include "mm/mm.h"
#include "mm/pagemap.h"
#include "unit.h"

/* The records of an image with two address spaces: a parent, and a child that inherits a page.
 * Stands in for the reader. */
enum { PARENT, CHILD };

static struct image {
	Reprise__Tree tree;
	Reprise__Process process[2];
	Reprise__Mm mm[2];
	Reprise__Vma vma[2][4], *vmas[2][4];
	Reprise__PageRange page[2][2], *pages[2][2];
} image;

static const uint64_t ids[] = {11, 12};

const void *restart_nth(const struct restart *r, enum record_type type, size_t i, uint64_t *ret_id)
{
	if (type == RECORD_TREE)
		return i == 0 ? &image.tree : NULL;
	if (i > 1)
		return NULL;
	if (ret_id)
		*ret_id = ids[i];
	if (type == RECORD_PROCESS)
		return &image.process[i];
	return type == RECORD_MM ? &image.mm[i] : NULL;
}

const void *restart_find(const struct restart *r, enum record_type type, uint64_t id)
{
	for (size_t i = 0; i < 2; i++)
		if (type == RECORD_MM && id == ids[i])
			return &image.mm[i];
	return NULL;
}

int inode_validate(const struct restart *r, uint64_t id, struct error *e)
{
	return id == 7 ? 0 : error_set(e, -EINVAL, E_IMAGE_INVALID, "no inode");
}

static void set_vma(Reprise__Vma *v, uint64_t start, uint64_t end, uint32_t kind, uint64_t inode)
{
	reprise__vma__init(v);
	v->start = start;
	v->end = end;
	v->kind = kind;
	v->inode = inode;
	v->prot = PROT_READ | PROT_WRITE;
}

static void set_page(Reprise__PageRange *p, uint64_t start, uint32_t kind, uint32_t stage)
{
	reprise__page_range__init(p);
	p->start = start;
	p->length = PAGE_BYTES;
	p->kind = kind;
	p->stage = stage;
}

static void set_mm(int i)
{
	Reprise__Mm *mm = &image.mm[i];

	reprise__mm__init(mm);
	set_vma(&image.vma[i][0], 0x10000, 0x20000, VMA_ANON, 0);
	set_vma(&image.vma[i][1], 0x20000, 0x30000, VMA_FILE, 7);
	set_vma(&image.vma[i][2], 0x40000, 0x41000, VMA_VVAR, 0);
	set_vma(&image.vma[i][3], 0x41000, 0x42000, VMA_VDSO, 0);
	for (int j = 0; j < 4; j++)
		image.vmas[i][j] = &image.vma[i][j];
	set_page(&image.page[i][0], 0x10000, i == CHILD ? PAGE_INHERITED : PAGE_OWN, 0);
	set_page(&image.page[i][1], 0x20000, PAGE_OWN, i == PARENT);
	for (int j = 0; j < 2; j++)
		image.pages[i][j] = &image.page[i][j];
	mm->vmas = image.vmas[i];
	mm->n_vmas = 4;
	mm->pages = image.pages[i];
	mm->n_pages = 2;
	mm->vvar = 0x40000;
	mm->vdso = 0x41000;
	mm->exe = 7;
	mm->last_stage = i == PARENT;
	mm->parent = i == CHILD ? ids[PARENT] : 0;
}

static void reset(void)
{
	reprise__tree__init(&image.tree);
	image.tree.vdso.len = 0x1000;
	image.tree.vdso_address_delta = 0x1000;
	for (int i = 0; i < 2; i++) {
		reprise__process__init(&image.process[i]);
		image.process[i].pid = 100 + i;
		image.process[i].ppid = i == CHILD ? 100 : 0;
		image.process[i].mm = ids[i];
		set_mm(i);
	}
}

static int validate(void)
{
	struct restart r = {};
	struct error e = {};
	int n = mm_restart_validate(&r, &e);

	if (n < 0)
		assert_int_equal(e.code, E_IMAGE_INVALID);
	reset();
	return n;
}

static void test_valid(void **state)
{
	reset();
	assert_int_equal(validate(), 0);
	image.mm[CHILD].parent = 0;
	image.page[CHILD][0].kind = PAGE_OWN;
	assert_int_equal(validate(), 0);
	image.page[PARENT][1].kind = PAGE_DROPPED;
	assert_int_equal(validate(), 0);
	image.page[PARENT][1].kind = PAGE_GUARD;
	assert_int_equal(validate(), 0);
}

/* Each of these alone makes the image invalid. */
#define INVALID(change)                              \
	do {                                         \
		change;                              \
		assert_int_not_equal(validate(), 0); \
	} while (0)

static void test_mappings(void **state)
{
	Reprise__Vma *v = image.vma[PARENT];

	reset();
	INVALID(v[0].start = 0x10001);
	INVALID(v[0].end = 0x1f001);
	INVALID(v[0].end = 0x10000);
	INVALID(v[0].end = 0x21000);
	INVALID(v[3].end = USER_SPACE_END + PAGE_BYTES);
	INVALID(v[0].kind = 0);
	INVALID(v[0].kind = VMA_SYSV + 1);
	INVALID(v[0].flags = VMA_FLAGS_ALL + 1);
	INVALID(v[0].flags = VMA_SHARED);
	INVALID(v[0].prot = 8);
	INVALID(v[0].pkey = 16);
	INVALID(v[0].inode = 7);
	INVALID(v[1].inode = 0);
	INVALID(v[1].inode = 8);
	INVALID(v[1].offset = 1);
	INVALID(v[1].offset = INT64_MAX & -PAGE_BYTES);
	INVALID(v[1].kind = VMA_SYSV);
	INVALID(v[0].kind = VMA_HUGE_ANON);
	INVALID(v[0].page_size = PAGE_BYTES);
	INVALID((v[1].page_size = 3 * PAGE_BYTES));
	INVALID((v[1].page_size = 0x100000));
	INVALID(image.mm[PARENT].exe = 8);
	INVALID(image.mm[PARENT].future_lock = 64);
	INVALID(image.mm[PARENT].last_stage = 1000);
}

static void without_code(void)
{
	image.mm[CHILD].parent = 0;
	image.page[CHILD][0].kind = PAGE_OWN;
	image.vma[PARENT][3].kind = VMA_ANON;
	image.mm[PARENT].vdso = 0;
}

static void test_vdso(void **state)
{
	Reprise__Vma *v = image.vma[PARENT];

	reset();
	INVALID(v[3].kind = VMA_VVAR);
	INVALID(v[2].kind = VMA_VDSO);
	INVALID(v[2].kind = VMA_ANON);
	INVALID((v[3].start = 0x42000, v[3].end = 0x43000));
	INVALID(v[3].end = 0x43000);
	INVALID(image.mm[PARENT].vdso = 0x40000);
	INVALID(image.mm[PARENT].vvar = 0);
	INVALID(image.tree.vdso_address_delta = 0x2000);
	without_code();
	assert_int_equal(validate(), 0);
	INVALID((without_code(), image.mm[PARENT].compat = true));
	INVALID((without_code(), image.tree.vdso_address_delta = 0x2000));
	INVALID((without_code(), image.mm[PARENT].vvar = 0));
	INVALID((without_code(), v[3].kind = VMA_VVAR));
}

static void test_pages(void **state)
{
	Reprise__PageRange *p = image.page[PARENT];

	reset();
	INVALID(p[0].start = 0x10001);
	INVALID(p[0].length = 0);
	INVALID(p[0].length = 100);
	INVALID(p[0].length = -PAGE_BYTES);
	INVALID(p[0].start = 0xf000);
	INVALID(p[0].start = 0x40000);
	INVALID(p[0].start = USER_SPACE_END);
	INVALID(p[0].start = -PAGE_BYTES);
	INVALID(p[0].kind = 0);
	INVALID(p[0].kind = PAGE_DROPPED + 1);
	INVALID(p[0].kind = PAGE_INHERITED);
	INVALID(p[0].stage = 2);
	INVALID(p[1].stage = 2);
	INVALID((p[1].stage = 0, p[1].start = 0x10000));
	INVALID(image.vma[PARENT][1].flags = VMA_SHARED);
	INVALID(image.vma[PARENT][0].kind = VMA_DROPPABLE);
}

static void test_relations(void **state)
{
	reset();
	INVALID(image.mm[CHILD].parent = 13);
	INVALID(image.mm[CHILD].parent = ids[CHILD]);
	INVALID(image.mm[PARENT].parent = ids[CHILD]);
	INVALID(image.mm[CHILD].parent_stage = 2);
	INVALID(image.process[CHILD].ppid = 0);
	INVALID(image.process[CHILD].ppid = 101);
	INVALID(image.process[CHILD].zombie = true);
	INVALID(image.process[PARENT].mm = 13);
	INVALID(image.mm[CHILD].exe = 0);
	INVALID(image.vma[PARENT][0].start = 0x11000);
	INVALID(image.vma[CHILD][0].flags = VMA_GROWSDOWN);
	INVALID(image.page[CHILD][0].start = 0x1f000; image.page[CHILD][0].length = 0x12000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_valid),	  cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_vdso),	  cmocka_unit_test(test_pages),
		cmocka_unit_test(test_relations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
