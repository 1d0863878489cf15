/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/frame.h"
#include "operation/operation.h"
#include "operation/origin.h"
#include "operation/parents.h"

/*
 * A chain of images made into one that is complete in itself: the same records, the same groups of
 * pages, and contents from wherever they are. It stands for the image that it was made of, so that
 * others that are based on that one can as well be based on this.
 */
struct merge {
	struct page_chain *chain; /* from the image itself on */
	struct image_writer *out;
	struct page_group group; /* that is being written */
	pthread_mutex_t lock;
	VEC(struct page_cursor *) idle;
};

static int cursor_take(struct merge *m, struct page_cursor **ret, struct error *e)
{
	*ret = NULL;
	pthread_mutex_lock(&m->lock);
	if (m->idle.n)
		*ret = m->idle.v[--m->idle.n];
	pthread_mutex_unlock(&m->lock);
	return *ret ? 0 : page_cursor_new(ret, e);
}

static void cursor_leave(struct merge *m, struct page_cursor *cursor)
{
	struct page_cursor **place;

	pthread_mutex_lock(&m->lock);
	place = vec_push(&m->idle);
	if (place)
		*place = cursor;
	pthread_mutex_unlock(&m->lock);
	if (!place)
		page_cursor_free(cursor);
}

/* From several threads at once. */
static int read_pages(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	struct merge *m = arg;
	struct page_cursor *cursor;
	int r = cursor_take(m, &cursor, e);

	if (r < 0)
		return r;
	while (r >= 0 && len) {
		const void *data;
		uint64_t n;

		r = page_chain_get(m->chain, cursor, &m->group, address, len, &data, &n, e);
		if (r == 0)
			r = error_set(e, -EINVAL, E_IMAGE_INVALID,
				      "the page at %#llx is in none of the images",
				      (unsigned long long)address);
		if (r < 0)
			break;
		if (data)
			memcpy(buf, data, n);
		else
			memset(buf, 0, n);
		buf = (char *)buf + n;
		address += n;
		len -= n;
	}
	cursor_leave(m, cursor);
	return r < 0 ? r : 0;
}

static int merge_groups(struct merge *m, const struct page_map *map, struct error *e)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && page_map_group(map, i, &m->group); i++) {
		_cleanup_(free_ptr) struct page_run *runs = NULL;
		size_t n;

		r = page_map_runs(map, &m->group, &runs, &n, e);
		if (r >= 0)
			r = image_put_pages(m->out, &m->group, runs, n, read_pages, m, e);
	}
	return r;
}

static int merge_records(struct merge *m, const struct image_reader *in, struct error *e)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < image_record_count(in); i++)
		r = image_put_record(m->out, image_record(in, i), e);
	if (r >= 0)
		image_expect(m->out, image_reader_page_bytes(in));
	return r < 0 ? r : image_write_state(m->out, e);
}

/* Its own digest, and those for which it stands already. */
static int list_same(const struct page_map *map, struct image_writer_options *wo, struct error *e)
{
	const struct image_reader *in = page_map_reader(map);
	uint8_t(*list)[IMAGE_DIGEST_SIZE];
	size_t n = 0;

	while (image_reader_same(in, n))
		n++;
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to merge");
	memcpy(list[0], page_map_totals(map)->digest, sizeof(list[0]));
	for (size_t i = 0; i < n; i++)
		memcpy(list[i + 1], image_reader_same(in, i), sizeof(list[0]));
	wo->same = (const uint8_t(*)[32])list;
	wo->n_same = n + 1;
	return 0;
}

static int merge_to(struct merge *m, int out, struct image_writer_options *wo,
		    struct image_totals *totals, struct error *e)
{
	const struct page_map *map = page_chain_at(m->chain, 0);
	const struct image_reader *in = page_map_reader(map);
	struct image_key key;
	int r = list_same(map, wo, e);

	/* What merging gives is to be no weaker. */
	wo->strong = page_map_totals(map)->strong;
	/* It names its parents by their digests: what is known of it is known of the whole. */
	if (origin_key(&key, false) >= 0 && image_made_with(in, &key))
		wo->origin = &key;
	if (r >= 0)
		r = image_writer_new(&m->out, out, image_reader_info(in), wo, e);
	if (r >= 0)
		r = merge_records(m, in, e);
	if (r >= 0)
		r = merge_groups(m, map, e);
	if (r >= 0)
		r = image_finish(m->out, totals, e);
	image_writer_free(m->out);
	free((void *)wo->same);
	return r;
}

int operation_merge(const char *path, int out, const struct reprise_merge_options *opt,
		    struct reprise_stats *stats, struct error *e)
{
	struct merge m = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct image_writer_options wo = {
		.jobs = opt->jobs,
		.compress = (enum image_compress)opt->compress,
		.level = opt->compress_level,
	};
	struct image_totals totals = {};
	const char **where;
	const char *name;
	size_t n = 0;
	int r;

	while (opt->parents && opt->parents[n])
		n++;
	where = calloc(n + 2, sizeof(*where));
	if (!where)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to merge");
	where[0] = path;
	for (size_t i = 0; i < n; i++)
		where[i + 1] = opt->parents[i];
	r = parents_open(where, &m.chain, &name, e);
	/* What no image can be based on cannot be merged either; other advice would be needed. */
	if (e->code == E_PARENT)
		e->code = E_IMAGE_OPEN;
	if (r >= 0)
		r = merge_to(&m, out, &wo, &totals, e);
	stats->pages = totals.pages;
	stats->zero_pages = totals.zero_pages;
	stats->memory_bytes = (totals.pages - totals.zero_pages) * 4096;
	stats->image_bytes = totals.total_bytes;
	vec_for_each (cursor, &m.idle)
		page_cursor_free(*cursor);
	vec_free(&m.idle);
	page_chain_free(m.chain);
	free(where);
	return r;
}
