/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/procfs.h"
#include "mm/pagemap.h"
#include "mm/track.h"
#include "unit.h"

/* A process tracks itself. */

enum { PAGES = 64 };

struct fixture {
	int proc_fd, pagemap;
	struct mm_tracks tracks;
	struct page_store *store;
	char *area;
};

static char *map(void *at, size_t pages)
{
	char *p = mmap(at, pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static char *reserve(size_t pages)
{
	char *p = mmap(NULL, pages * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static void pass(struct fixture *f)
{
	struct mm_track *t = f->tracks.v.v;
	uint64_t bytes = 0;

	assert_int_equal(track_register(t, f->proc_fd, NULL), 0);
	assert_int_equal(track_look(t, f->proc_fd, &bytes, NULL), 0);
	assert_int_equal(track_copy(t, f->proc_fd, &(struct page_seen){}, f->store, NULL), 0);
}

static bool begin(struct fixture *f)
{
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	char *room = reserve(PAGES * 2 + 2);

	memset(f, 0, sizeof(*f));
	assert_int_equal(procfs_open_root(&f->proc_fd, NULL), 0);
	f->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	assert_int_equal(store_new(&f->store, -1, true, NULL), 0);
	if (uffd < 0 || track_begin(&f->tracks, getpid(), 1, uffd, NULL) < 0) {
		store_free(f->store);
		return false;
	}
	f->area = map(room + PAGE_BYTES, PAGES);
	madvise(f->area, PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < PAGES; i++)
		memset(f->area + i * PAGE_BYTES, (int)i + 1, PAGE_BYTES);
	pass(f);
	return true;
}

static void end(struct fixture *f)
{
	tracks_end(&f->tracks);
	store_free(f->store);
	close(f->pagemap);
	close(f->proc_fd);
}

/* The copy of a page that still holds, as its first byte; -1: there is none. */
static int kept(struct fixture *f, const char *page)
{
	uint64_t at = (uint64_t)(uintptr_t)page;
	const struct span span = {at, at + PAGE_BYTES};
	struct page_spans pages = {};
	struct span_vec unwritten = {};
	struct kept_spans found = {};
	char copy[PAGE_BYTES];
	int byte = -1;

	assert_int_equal(pagemap_scan_tracked(f->pagemap, &span, &pages, &unwritten, NULL), 0);
	assert_int_equal(track_kept(f->tracks.v.v, &unwritten, &found), 0);
	if (found.n) {
		assert_int_equal(found.v[0].start, at);
		assert_int_equal(store_get(f->store, found.v[0].position, copy, sizeof(copy), NULL),
				 0);
		byte = copy[0];
		for (size_t i = 1; i < sizeof(copy); i++)
			assert_int_equal(copy[i], byte);
	}
	vec_free(&pages);
	vec_free(&unwritten);
	vec_free(&found);
	return byte;
}

#define BEGIN(f)          \
	struct fixture f; \
	if (!begin(&f))   \
		skip();   \
	(void)state

static void test_written(void **state)
{
	BEGIN(f);

	for (int i = 0; i < PAGES; i++)
		assert_int_equal(kept(&f, f.area + i * PAGE_BYTES), i + 1);
	memset(f.area + 3 * PAGE_BYTES, 99, PAGE_BYTES);
	f.area[5 * PAGE_BYTES] = f.area[5 * PAGE_BYTES + 1];
	assert_int_equal(kept(&f, f.area + 2 * PAGE_BYTES), 3);
	assert_int_equal(kept(&f, f.area + 3 * PAGE_BYTES), -1);
	assert_int_equal(kept(&f, f.area + 5 * PAGE_BYTES), -1);
	pass(&f);
	assert_int_equal(kept(&f, f.area + 2 * PAGE_BYTES), 3);
	assert_int_equal(kept(&f, f.area + 3 * PAGE_BYTES), 99);
	assert_int_equal(kept(&f, f.area + 5 * PAGE_BYTES), 6);
	end(&f);
}

static void test_left_to_the_freeze(void **state)
{
	uint64_t bytes = 0;
	BEGIN(f);

	memset(f.area + 3 * PAGE_BYTES, 99, PAGE_BYTES);
	assert_int_equal(track_look(f.tracks.v.v, f.proc_fd, &bytes, NULL), 0);
	assert_true(bytes >= PAGE_BYTES);
	assert_int_equal(track_leave(f.tracks.v.v, NULL), 0);
	/* protected again, but the copy is old */
	assert_int_equal(kept(&f, f.area + 3 * PAGE_BYTES), -1);
	assert_int_equal(kept(&f, f.area + 4 * PAGE_BYTES), 5);
	end(&f);
}

static void test_given_up(void **state)
{
	BEGIN(f);

	madvise(f.area + 7 * PAGE_BYTES, 2 * PAGE_BYTES, MADV_DONTNEED);
	f.area[8 * PAGE_BYTES] = 0;
	assert_int_equal(kept(&f, f.area + 7 * PAGE_BYTES), -1);
	assert_int_equal(kept(&f, f.area + 8 * PAGE_BYTES), -1);
	map(f.area + 10 * PAGE_BYTES, 1)[0] = 11;
	assert_int_equal(kept(&f, f.area + 10 * PAGE_BYTES), -1);
	end(&f);
}

static void test_moved(void **state)
{
	char *to;
	BEGIN(f);

	to = map(NULL, PAGES);
	assert_true(mremap(f.area, PAGES * PAGE_BYTES, PAGES * PAGE_BYTES,
			   MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	map(f.area, PAGES);
	memset(f.area, 77, PAGES * PAGE_BYTES);
	for (int i = 0; i < PAGES; i++) {
		assert_int_equal(kept(&f, to + i * PAGE_BYTES), -1);
		assert_int_equal(kept(&f, f.area + i * PAGE_BYTES), -1);
	}
	end(&f);
}

/* See the trap in mm/track.h. */
static void merged(void **state, bool lasting)
{
	char *empty, *beside;
	BEGIN(f);

	f.tracks.v.v->lasting = lasting;
	/* alike in all, and never part of another mapping */
	empty = map(reserve(PAGES + 2) + PAGE_BYTES, PAGES);
	madvise(empty, PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
	beside = f.area + PAGES * PAGE_BYTES;
	pass(&f);
	assert_true(mremap(empty, PAGES * PAGE_BYTES, PAGES * PAGE_BYTES,
			   MREMAP_MAYMOVE | MREMAP_FIXED, beside) == beside);
	memset(f.area + 9 * PAGE_BYTES, 99, PAGE_BYTES);
	assert_true(kept(&f, f.area + 9 * PAGE_BYTES) != 10);
	for (int i = 0; i < 2; i++) {
		pass(&f);
		assert_true(kept(&f, f.area + 9 * PAGE_BYTES) != 10);
		memset(f.area + 11 * PAGE_BYTES, 98, PAGE_BYTES);
		assert_true(kept(&f, f.area + 11 * PAGE_BYTES) != 12);
	}
	end(&f);
}

static int give(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	memset(buf, *(int *)arg, len);
	((char *)buf)[0] = (char)(address >> 12);
	return 0;
}

static void test_merged(void **state)
{
	merged(state, false);
}

/* It is registered again then. */
static void test_merged_lasting(void **state)
{
	merged(state, true);
}

static void test_store(void **state)
{
	const size_t piece = 3 * PAGE_BYTES;
	uint64_t positions[4];
	struct page_store *s;
	char buf[3 * PAGE_BYTES];

	assert_int_equal(store_new(&s, -1, true, NULL), 0);
	if (!store_room(s))
		skip();
	for (int i = 0; i < 4; i++)
		assert_int_equal(store_put(s, i % 2, (uint64_t)(i + 1) << 12, piece, give, &i,
					   &positions[i], NULL),
				 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(store_get(s, positions[i], buf, piece, NULL), 0);
		assert_int_equal(buf[0], i + 1);
		assert_int_equal(buf[piece - 1], i);
		assert_int_equal(store_get(s, positions[i] + PAGE_BYTES, buf, PAGE_BYTES, NULL), 0);
		assert_int_equal(buf[0], i);
	}
	store_clear(s);
	/* what was there is not seen where only zeros are put */
	give(&(int){7}, 0, buf, piece, NULL);
	assert_int_equal(store_put(s, false, 0, piece, give, &(int){0}, &positions[0], NULL), 0);
	assert_int_equal(store_get(s, positions[0], buf, piece, NULL), 0);
	assert_int_equal(buf[PAGE_BYTES], 0);
	assert_int_equal(buf[0], 0);
	store_free(s);
	(void)state;
}

/* ---- from one checkpoint to the next ---- */

static char *map_aligned(size_t tables)
{
	char *room = reserve((tables + 1) * PAGEMAP_TABLE / PAGE_BYTES);

	room = (char *)(((uintptr_t)room + PAGEMAP_TABLE - 1) & ~(PAGEMAP_TABLE - 1));
	map(room, tables * PAGEMAP_TABLE / PAGE_BYTES);
	madvise(room, tables * PAGEMAP_TABLE, MADV_NOHUGEPAGE);
	return room;
}

/* What lasting tracks find in the freeze. */
static void freeze(struct fixture *f, char *at, size_t tables, struct page_spans *pages,
		   struct span_vec *unwritten)
{
	uint64_t start = (uint64_t)(uintptr_t)at;
	Reprise__Vma vma = REPRISE__VMA__INIT, *vmas[] = {&vma};
	Reprise__Mm msg = REPRISE__MM__INIT;
	struct mm_state m = {.msg = &msg, .track = f->tracks.v.v};
	struct checkpoint c = {.jobs = 2};

	vma.kind = VMA_ANON;
	vma.prot = PROT_READ | PROT_WRITE;
	vma.start = start;
	vma.end = start + tables * PAGEMAP_TABLE;
	msg.vmas = vmas;
	msg.n_vmas = 1;
	assert_int_equal(mm_scan(&c, f->pagemap, &m, unwritten, NULL), 0);
	*pages = m.pages;
}

static bool in_pages(const struct page_spans *v, const char *page)
{
	for (size_t i = 0; i < v->n; i++)
		if ((uintptr_t)page >= v->v[i].start && (uintptr_t)page < v->v[i].end)
			return true;
	return false;
}

static bool in_spans(const struct span_vec *v, const char *page)
{
	for (size_t i = 0; i < v->n; i++)
		if ((uintptr_t)page >= v->v[i].start && (uintptr_t)page < v->v[i].end)
			return true;
	return false;
}

/* 0: no such page; 1: unwritten since the last freeze; 2: written. */
static int state_of(struct fixture *f, char *at, size_t tables, const char *page)
{
	struct page_spans pages;
	struct span_vec unwritten = {};
	int r;

	freeze(f, at, tables, &pages, &unwritten);
	r = in_spans(&unwritten, page) ? 1 : in_pages(&pages, page) ? 2 : 0;
	if (r == 1)
		assert_true(in_pages(&pages, page));
	vec_free(&pages);
	vec_free(&unwritten);
	return r;
}

/* With a kernel that tells holes in page tables, or as if it did not. */
static void lasting(void **state, bool tells_holes)
{
	enum { TABLES = 80 }; /* several parts */
	const size_t n = TABLES * PAGEMAP_TABLE / PAGE_BYTES;
	struct span_vec unwritten = {};
	struct page_spans pages;
	struct mm_track *t;
	char *at, *to;
	int fd;
	BEGIN(f);

	at = map_aligned(TABLES);
	madvise(at + 60 * PAGEMAP_TABLE, 8 * PAGEMAP_TABLE, MADV_HUGEPAGE);
	for (size_t i = 0; i < n; i++)
		at[i * PAGE_BYTES] = 1;
	pass(&f);
	t = f.tracks.v.v;
	t->tells_holes = tells_holes;
	freeze(&f, at, TABLES, &pages, &unwritten);
	assert_int_equal(track_carry(t, 5, &unwritten), 0);
	vec_free(&pages);
	vec_free(&unwritten);
	/* to another process and back */
	fd = track_pack(t, NULL);
	assert_true(fd >= 0);
	vec_free(&t->sure);
	assert_int_equal(track_unpack(t, fd), 0);
	close(fd);
#define STATE(i) state_of(&f, at, TABLES, at + (i)*PAGE_BYTES)
	assert_int_equal(STATE(0), 1);
	assert_int_equal(STATE(n - 1), 1);
	at[1000 * PAGE_BYTES] = 2;
	madvise(at + 2000 * PAGE_BYTES, 10 * PAGE_BYTES, MADV_DONTNEED);
	madvise(at + n / 4 * PAGE_BYTES, 2 * PAGEMAP_TABLE, MADV_DONTNEED);
	assert_int_equal(STATE(999), 1);
	assert_int_equal(STATE(1000), 2);
	assert_int_equal(STATE(1001), 1);
	assert_int_equal(STATE(1999), 1);
	assert_int_equal(STATE(2000), 0);
	assert_int_equal(STATE(2010), 1);
	assert_int_equal(STATE(n / 4 - 1), 1);
	assert_int_equal(STATE(n / 4), 0);
	assert_int_equal(STATE(n / 4 + 1023), 0);
	assert_int_equal(STATE(n / 4 + 1024), 1);
	/* of huge pages no page table is left */
	assert_int_equal(STATE(62 * 512), 1);
	madvise(at + 62 * PAGEMAP_TABLE, 2 * PAGEMAP_TABLE, MADV_DONTNEED);
	assert_int_equal(STATE(62 * 512 - 1), 1);
	assert_int_equal(STATE(62 * 512), 0);
	assert_int_equal(STATE(63 * 512), 0);
	assert_int_equal(STATE(64 * 512), 1);
	to = map_aligned(4);
	assert_true(mremap(at + 4 * PAGEMAP_TABLE, 4 * PAGEMAP_TABLE, 4 * PAGEMAP_TABLE,
			   MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to);
	assert_int_equal(STATE(4 * 512 - 1), 1);
	assert_int_equal(STATE(4 * 512), 0);
	assert_int_equal(STATE(8 * 512 - 1), 0);
	assert_int_equal(STATE(8 * 512), 1);
	assert_int_equal(state_of(&f, to, 4, to + PAGE_BYTES), 2);
	/* what is not registered any more is registered again, and counts as written */
	map(at + 20 * PAGEMAP_TABLE, 512);
	at[20 * PAGEMAP_TABLE] = 3;
	assert_int_equal(STATE(20 * 512), 2);
	pass(&f);
	assert_int_equal(STATE(20 * 512), 1);
	assert_int_equal(STATE(20 * 512 + 1), 0);
	assert_true(in_spans(&t->sure, at + 20 * PAGEMAP_TABLE));
	munmap(at, TABLES * PAGEMAP_TABLE);
	end(&f);
}

static void test_lasting(void **state)
{
	lasting(state, false);
}

static void test_lasting_holes_told(void **state)
{
	int proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	bool told = pagemap_tells_holes(proc_fd, MAP_PRIVATE);

	close(proc_fd);
	if (!told)
		skip();
	lasting(state, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_written),	 cmocka_unit_test(test_left_to_the_freeze),
		cmocka_unit_test(test_given_up), cmocka_unit_test(test_moved),
		cmocka_unit_test(test_merged),	 cmocka_unit_test(test_merged_lasting),
		cmocka_unit_test(test_lasting),	 cmocka_unit_test(test_lasting_holes_told),
		cmocka_unit_test(test_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
