/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <string.h>

#include "image/image.h"
#include "mm/lazy_missing.h"
#include "mm/lazy_order.h"
#include "unit.h"

enum { PAGES = 200, STEPS = 20000 };
#define PAGE 4096ull

/* The same by one number a page: where in the image it is. */
static uint64_t model[PAGES];

static void model_set(uint64_t from, uint64_t n, uint64_t source)
{
	for (uint64_t i = 0; i < n; i++)
		model[from + i] = source == MISSING_NOTHING ? source : source + i * PAGE;
}

static void model_move(uint64_t from, uint64_t to, uint64_t n)
{
	uint64_t moved[PAGES];

	memcpy(moved, model + from, n * sizeof(*moved));
	model_set(from, n, MISSING_NOTHING);
	memcpy(model + to, moved, n * sizeof(*moved));
}

static void compare(const struct missing_vec *m)
{
	for (uint64_t i = 0; i < PAGES; i++)
		assert_true(missing_source(m, i * PAGE) == model[i]);
	for (size_t i = 1; i < m->n; i++)
		assert_true(m->v[i - 1].end <= m->v[i].start);
}

static uint32_t next(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

/* What may be asked for by where it is in the image is what there is, each page once. */
static void compare_sources(const struct missing_vec *m, bool moved, uint64_t from, uint64_t n)
{
	uint64_t found = 0, expected = 0;
	struct missing part;
	size_t i = missing_from(m, moved, from * PAGE);

	while (missing_next(m, &i, from * PAGE, (from + n) * PAGE, &part))
		for (uint64_t at = part.start; at < part.end; at += PAGE, found++)
			assert_true(model[at / PAGE] == part.source + (at - part.start));
	for (uint64_t k = 0; k < PAGES; k++)
		expected += model[k] != MISSING_NOTHING && model[k] >= from * PAGE &&
			    model[k] < (from + n) * PAGE;
	assert_true(found == expected);
}

static void test_random(void **state)
{
	struct missing_vec m = {};
	uint32_t seed = 1;

	model_set(0, PAGES, MISSING_NOTHING);
	for (int step = 0; step < STEPS; step++) {
		uint64_t n = 1 + next(&seed) % 20, from = next(&seed) % (PAGES / 2 - n);
		uint64_t to = PAGES / 2 + next(&seed) % (PAGES / 2 - n);

		switch (next(&seed) % 4) {
		case 0:
		case 1:
			assert_int_equal(
				missing_add(&m, from * PAGE, (from + n) * PAGE, from * PAGE), 0);
			model_set(from, n, from * PAGE);
			break;
		case 2:
			assert_int_equal(missing_drop(&m, from * PAGE, (from + n) * PAGE), 0);
			model_set(from, n, MISSING_NOTHING);
			break;
		default:
			assert_int_equal(missing_move(&m, from * PAGE, to * PAGE, n * PAGE), 0);
			model_move(from, to, n);
		}
		compare(&m);
		compare_sources(&m, true, from, n);
	}
	missing_free(&m);
}

static void test_in_place(void **state)
{
	struct missing_vec m = {}, copy = {};

	model_set(0, PAGES, MISSING_NOTHING);
	for (uint64_t i = 0; i < PAGES; i += 10) {
		assert_int_equal(missing_add(&m, i * PAGE, (i + 7) * PAGE, i * PAGE), 0);
		model_set(i, 7, i * PAGE);
	}
	assert_int_equal(missing_copy(&copy, &m), 0);
	compare(&copy);
	for (uint64_t i = 0; i + 25 < PAGES; i += 3)
		compare_sources(&copy, false, i, 25);
	missing_free(&m);
	missing_free(&copy);
}

/* Two objects, copied in three passes; pages in the frame itself, and such that are nowhere. */
static void test_ranks(void **state)
{
	static const struct {
		struct lazy_part part;
		uint32_t rank;
	} all[] = {
		{{1, 0x800, 950}, 3},  {{1, 0x1000, 100}, 1}, {{1, 0x2000, IMAGE_PLACE_NONE}, 0},
		{{1, 0x3000, 600}, 2}, {{1, 0x4000, 200}, 1}, {{1, 0x5000, IMAGE_PLACE_HERE}, 4},
		{{1, 0x6000, 900}, 2}, {{1, 0x7000, 300}, 1}, {{2, 0x1000, 400}, 1},
		{{2, 0x2000, 700}, 2}, {{2, 0x3000, 500}, 1}, {{2, 0x4000, IMAGE_PLACE_HERE}, 4},
	};
	enum { N = sizeof(all) / sizeof(all[0]) };
	struct lazy_part parts[N];
	uint32_t ranks[N];

	for (size_t i = 0; i < N; i++)
		parts[i] = all[i].part;
	assert_int_equal(lazy_ranks(parts, N, ranks), 0);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(ranks[i], all[i].rank);
	/* All alike: none comes first. */
	for (size_t i = 0; i < N; i++)
		parts[i].place = IMAGE_PLACE_HERE;
	assert_int_equal(lazy_ranks(parts, N, ranks), 0);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(ranks[i], 0);
	assert_int_equal(lazy_ranks(NULL, 0, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_in_place),
		cmocka_unit_test(test_ranks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
