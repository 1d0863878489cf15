/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which objects of an older image are those that are being saved now: by pid, by device and inode,
 * by order. Contents are compared page by page, so that a wrong guess makes an image larger, and
 * never wrong.
 */
#include <stdlib.h>

#include "core/cleanup.h"
#include "fs/inode.h"
#include "mm/mm.h"
#include "model/records.h"
#include "ns/container.h"
#include "operation/parents.h"

enum same_kind { SAME_MM, SAME_INODE, SAME_LAYER };

struct same_key {
	enum same_kind kind;
	uint64_t a, b; /* pid, or device and inode, or number */
	uint64_t id;
};

struct same_keys {
	VEC(struct same_key) v;
};

static int by_key(const void *a, const void *b)
{
	const struct same_key *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->a != y->a)
		return x->a < y->a ? -1 : 1;
	return x->b < y->b ? -1 : x->b > y->b;
}

static int add_key(struct same_keys *k, enum same_kind kind, uint64_t a, uint64_t b, uint64_t id)
{
	struct same_key *key = id ? vec_push(&k->v) : NULL;

	if (key)
		*key = (struct same_key){kind, a, b, id};
	return key || !id ? 0 : -ENOMEM;
}

static int list_keys(struct same_keys *k, const struct restart_records *records, struct error *e)
{
	const Reprise__Process *process;
	const Reprise__Inode *inode;
	uint64_t id;
	int r = 0;

	for (size_t i = 0; (process = records_nth(records, RECORD_PROCESS, i, NULL)); i++)
		if (r >= 0)
			r = add_key(k, SAME_MM, (uint64_t)process->pid, 0, process->mm);
	for (size_t i = 0; (inode = records_nth(records, RECORD_INODE, i, &id)); i++)
		if (r >= 0 && inode->contents)
			r = add_key(k, SAME_INODE, inode->dev, inode->ino, id);
	for (size_t i = 0; records_nth(records, RECORD_LAYER, i, &id); i++)
		if (r >= 0)
			r = add_key(k, SAME_LAYER, i, 0, id);
	if (r < 0)
		return error_set(e, r, E_NO_MEMORY, "no memory for the parent");
	if (k->v.n)
		qsort(k->v.v, k->v.n, sizeof(*k->v.v), by_key);
	return 0;
}

static uint64_t find(const struct same_keys *k, enum same_kind kind, uint64_t a, uint64_t b)
{
	const struct same_key key = {kind, a, b}, *found;

	found = k->v.n ? bsearch(&key, k->v.v, k->v.n, sizeof(key), by_key) : NULL;
	return found ? found->id : 0;
}

uint64_t same_mm(const struct same_keys *k, pid_t pid)
{
	return find(k, SAME_MM, (uint64_t)pid, 0);
}

uint64_t same_inode(const struct same_keys *k, uint64_t dev, uint64_t ino)
{
	return find(k, SAME_INODE, dev, ino);
}

static int say(struct checkpoint *c, enum same_kind kind, uint64_t a, uint64_t b, uint64_t id,
	       struct error *e)
{
	uint64_t parent = find(c->same, kind, a, b);

	return parent && id ? image_put_parent_object(c->image, id, parent, e) : 0;
}

int same_put(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;
	const Reprise__Inode *inode;
	uint64_t id;
	int r = 0;

	if (!c->same)
		return 0;
	vec_for_each (cp, &c->processes)
		if (r >= 0 && !cp->frozen->zombie)
			r = say(c, SAME_MM, (uint64_t)cp->frozen->pid, 0, cp->mm, e);
	for (size_t i = 0; r >= 0 && (inode = inodes_at(c, i, &id)); i++)
		if (inode->contents)
			r = say(c, SAME_INODE, inode->dev, inode->ino, id, e);
	for (size_t i = 0; r >= 0 && (id = container_layer(p->container, i)); i++)
		r = say(c, SAME_LAYER, i, 0, id, e);
	return r < 0 ? r : mm_put_parents(c, e);
}

int same_keys_new(const struct page_chain *parents, struct same_keys **ret, struct error *e)
{
	struct restart_records *records = NULL;
	struct same_keys *k = calloc(1, sizeof(*k));
	int r = 0;

	if (!k)
		r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the parent");
	if (r >= 0)
		r = records_load(&records, page_map_reader(page_chain_at(parents, 0)), e);
	if (r >= 0)
		r = list_keys(k, records, e);
	records_free(records);
	if (r < 0)
		same_keys_free(k);
	else
		*ret = k;
	return r;
}

void same_keys_free(struct same_keys *k)
{
	if (k)
		vec_free(&k->v);
	free(k);
}
