/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an image says of other images, in the state part: PARENT, on which an
 * incremental image is based, and SAME, for which a merged one stands.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/chain.h"
#include "image/page_map.h"
#include "image/reader.h"
#include "image/writer.h"

/* ---- writing ---- */

static int by_object(const void *a, const void *b)
{
	const struct parent_object *x = a, *y = b;

	return x->object < y->object ? -1 : x->object > y->object;
}

static struct parent_object *object_place(const struct image_writer *w, uint64_t object)
{
	const struct parent_object key = {.object = object};

	return w->parent_objects.n ? bsearch(&key, w->parent_objects.v, w->parent_objects.n,
					     sizeof(key), by_object)
				   : NULL;
}

uint64_t image_parent_object(const struct image_writer *w, uint64_t object)
{
	const struct parent_object *found = object_place(w, object);

	return found ? found->parent : 0;
}

/* Few come out of order. */
int image_put_parent_object(struct image_writer *w, uint64_t object, uint64_t parent,
			    struct error *e)
{
	struct parent_object *p = object_place(w, object), new = {object, parent};

	if (w->phase != WRITER_STATE || !w->opt.parents || !object || !parent)
		return error_set(e, -EINVAL, E_INTERNAL, "an object of the parent out of place");
	if (p) {
		p->parent = parent;
		return 0;
	}
	if (!vec_push(&w->parent_objects))
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the parent");
	p = w->parent_objects.v + w->parent_objects.n - 1;
	while (p > w->parent_objects.v && p[-1].object > object) {
		*p = p[-1];
		p--;
	}
	*p = new;
	return 0;
}

static int put_parent(struct image_writer *w, struct error *e)
{
	const struct frame f = {
		.type = FRAME_PARENT,
		.length = sizeof(struct parent_frame) +
			  w->parent_objects.n * sizeof(*w->parent_objects.v),
	};
	const struct page_map *parent = page_chain_at(w->opt.parents, 0);
	struct parent_frame *p;
	void *payload;
	int r = writer_put(w, &f, &payload, e);

	if (r < 0)
		return r;
	p = payload;
	memset(p, 0, sizeof(*p));
	memcpy(p->uuid, image_reader_info(page_map_reader(parent))->uuid, sizeof(p->uuid));
	memcpy(p->digest, page_map_totals(parent)->digest, sizeof(p->digest));
	snprintf(p->name, sizeof(p->name), "%s", w->opt.parent_name ? w->opt.parent_name : "");
	p->objects = w->parent_objects.n;
	if (w->parent_objects.n)
		memcpy(p + 1, w->parent_objects.v,
		       w->parent_objects.n * sizeof(*w->parent_objects.v));
	writer_seal(w);
	return 0;
}

int writer_put_parent(struct image_writer *w, struct error *e)
{
	const struct frame f = {
		.type = FRAME_SAME,
		.flags = RECORD_OPTIONAL,
		.length = sizeof(struct same_frame),
	};
	int r = 0;

	for (size_t i = 0; i < w->opt.n_same && r >= 0; i++) {
		struct same_frame *same;
		void *payload;

		r = writer_put(w, &f, &payload, e);
		if (r < 0)
			break;
		same = payload;
		*same = (struct same_frame){.digest_kind = IMAGE_DIGEST_HEADERS};
		memcpy(same->digest, w->opt.same[i], sizeof(same->digest));
		writer_seal(w);
	}
	return r >= 0 && w->opt.parents ? put_parent(w, e) : r;
}

/* ---- reading ---- */

static bool good_name(const char *name, size_t size)
{
	return memchr(name, 0, size) && !strchr(name, '/') && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0;
}

static int read_parent(struct image_reader *r, const struct frame *f, uint64_t offset,
		       struct error *e)
{
	const struct parent_frame *p = (const struct parent_frame *)(f + 1);
	const struct parent_object *objects = (const struct parent_object *)(p + 1);

	if (f->flags || r->parent || f->length < sizeof(*p) ||
	    p->objects > (f->length - sizeof(*p)) / sizeof(*objects) ||
	    f->length != sizeof(*p) + p->objects * sizeof(*objects))
		return reader_damaged(offset, "record of the parent", e);
	if (!good_name(p->name, sizeof(p->name)))
		return reader_damaged(offset, "name of the parent", e);
	for (uint64_t i = 0; i < p->objects; i++)
		if (!objects[i].object || !objects[i].parent ||
		    (i && objects[i].object <= objects[i - 1].object))
			return reader_damaged(offset, "objects of the parent", e);
	r->parent = p;
	memcpy(r->parent_ref.uuid, p->uuid, sizeof(p->uuid));
	memcpy(r->parent_ref.digest, p->digest, sizeof(p->digest));
	memcpy(r->parent_ref.name, p->name, sizeof(p->name));
	return 1;
}

static int read_same(struct image_reader *r, const struct frame *f, uint64_t offset,
		     struct error *e)
{
	const struct same_frame *same = (const struct same_frame *)(f + 1);
	const struct same_frame **place;

	if (f->flags != RECORD_OPTIONAL || f->length != sizeof(*same) || same->reserved)
		return reader_damaged(offset, "record of an image that this one stands for", e);
	if (same->digest_kind != IMAGE_DIGEST_HEADERS)
		return 1;
	place = vec_push(&r->same);
	if (!place)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the image");
	*place = same;
	return 1;
}

int reader_parent_frame(struct image_reader *r, const struct frame *f, uint64_t offset,
			struct error *e)
{
	if (f->type == FRAME_PARENT)
		return read_parent(r, f, offset, e);
	return f->type == FRAME_SAME ? read_same(r, f, offset, e) : 0;
}

const struct image_parent *image_reader_parent(const struct image_reader *r)
{
	return r->parent ? &r->parent_ref : NULL;
}

uint64_t image_reader_parent_object(const struct image_reader *r, uint64_t object)
{
	const struct parent_object key = {.object = object}, *found;

	if (!r->parent)
		return 0;
	found = bsearch(&key, r->parent + 1, r->parent->objects, sizeof(key), by_object);
	return found ? found->parent : 0;
}

void image_reader_set_parents(struct image_reader *r, const struct page_chain *parents)
{
	r->parents = parents;
}

const uint8_t *image_reader_same(const struct image_reader *r, size_t i)
{
	return i < r->same.n ? r->same.v[i]->digest : NULL;
}

void reader_base(const struct image_reader *r, struct pages_codec *c, uint64_t object)
{
	c->parent = image_reader_parent(r);
	c->parents = r->parents;
	c->parent_object = image_reader_parent_object(r, object);
}
