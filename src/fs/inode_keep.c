/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents of files that have no name, on their way into the image: copied in advance (by
 * src/mm/shared.c), kept while the tasks stand still, or read when they are written.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "fs/inode_private.h"
#include "ipc/ipc.h"
#include "image/store.h"

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to keep pages");
}

static int add(struct page_runs *to, uint64_t address, uint64_t length, uint64_t position)
{
	struct page_run *run = vec_push(to);

	if (!run)
		return -ENOMEM;
	*run = (struct page_run){address, length, position};
	return 0;
}

/* ---- in advance ---- */

void memory_objects_free(struct memory_objects *objects)
{
	vec_for_each (o, &objects->v)
		close_fd(&o->fd);
	vec_free(&objects->v);
}

/* Of other file systems it is not known that all that writes to a file shows in its times at once.
 */
void inode_look_at_memory(struct checkpoint *c, int fd, const struct stat *st,
			  struct inode_entry *entry)
{
	const struct device_seen *fs = inode_device(c, fd, st);
	struct stat own;

	if (!fs || (fs->type != TMPFS_MAGIC && fs->type != HUGETLBFS_MAGIC) || !st->st_blocks)
		return;
	entry->fd = reopen_fd(c->proc_fd, fd, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	/* a copy stands for memory that may not be opened */
	if (entry->fd >= 0 && fstat(entry->fd, &own) == 0 && own.st_ino == st->st_ino)
		entry->bytes = (uint64_t)st->st_blocks * 512;
}

int inodes_take_memory(struct checkpoint *c, uint64_t least, struct memory_objects *ret)
{
	if (!c->files)
		return 0;
	vec_for_each (entry, &c->files->inodes) {
		struct memory_object *o;

		/* Whose mappings are whose is looked up by number. */
		if (entry->msg.kind == INODE_SYSV_SHM && ipc_spaces_nested(c))
			continue;
		o = entry->bytes >= least ? vec_push(&ret->v) : NULL;

		if (o)
			*o = (struct memory_object){.fd = take_fd(&entry->fd),
						    .dev = entry->msg.dev,
						    .ino = entry->msg.ino,
						    .bytes = entry->bytes,
						    .is_segment =
							    entry->msg.kind == INODE_SYSV_SHM};
		else if (entry->bytes >= least)
			return -ENOMEM;
	}
	return 0;
}

bool inode_is_object(const Reprise__Inode *inode, const struct memory_object *o)
{
	return inode->dev == o->dev && inode->ino == o->ino && inode->kind != INODE_NAMED &&
	       (inode->kind == INODE_SYSV_SHM) == o->is_segment;
}

void inodes_forget_copies(struct checkpoint *c)
{
	if (c->files)
		vec_for_each (entry, &c->files->inodes)
			vec_free(&entry->copies);
}

/*
 * Takes a run apart: what there is a copy of goes to `kept`, with its position, the rest to `rest`.
 * *at goes along with the copies.
 */
static int split(const struct page_runs *copies, const struct page_run *run, size_t *at,
		 struct page_runs *kept, struct page_runs *rest)
{
	uint64_t from = run->address, end = run->address + run->length;
	int r = 0;

	while (*at < copies->n && copies->v[*at].address + copies->v[*at].length <= from)
		(*at)++;
	for (size_t i = *at; r >= 0 && i < copies->n && copies->v[i].address < end; i++) {
		const struct page_run *copy = &copies->v[i];
		uint64_t start = copy->address > from ? copy->address : from;
		uint64_t to =
			copy->address + copy->length < end ? copy->address + copy->length : end;

		if (start > from)
			r = add(rest, from, start - from, 0);
		if (r >= 0)
			r = add(kept, start, to - start, copy->position + (start - copy->address));
		from = to;
	}
	return r >= 0 && from < end ? add(rest, from, end - from, 0) : r;
}

static int split_all(const struct inode_entry *entry, struct page_runs *kept,
		     struct page_runs *rest)
{
	size_t at = 0;

	vec_for_each (run, &entry->runs)
		if (split(&entry->copies, run, &at, kept, rest) < 0)
			return -ENOMEM;
	return 0;
}

static uint64_t bytes_of(const struct page_runs *runs)
{
	uint64_t sum = 0;

	vec_for_each (run, runs)
		sum += run->length;
	return sum;
}

uint64_t inodes_uncopied_bytes(struct checkpoint *c)
{
	uint64_t sum = 0;

	vec_for_each (entry, &c->files->inodes) {
		struct page_runs kept = {}, rest = {};

		sum += entry->copies.n && split_all(entry, &kept, &rest) == 0 ? bytes_of(&rest)
									      : entry->msg.contents;
		vec_free(&kept);
		vec_free(&rest);
	}
	return sum;
}

/* ---- while the tasks stand still ---- */

static int keep_run(struct checkpoint *c, struct inode_entry *entry, const struct page_run *run,
		    struct page_runs *kept, struct error *e)
{
	for (uint64_t at = 0; at < run->length; at += STORE_PIECE) {
		uint64_t len = run->length - at < STORE_PIECE ? run->length - at : STORE_PIECE;
		uint64_t position;
		int r = store_put(c->store, true, run->address + at, len, inode_read, entry,
				  &position, e);

		if (r < 0)
			return r;
		if (add(kept, run->address + at, len, position) < 0)
			return no_memory(e);
	}
	return 0;
}

struct placing {
	struct inode_entry *entry;
	struct page_runs *kept;
};

static int read_placing(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct placing *p = arg;

	return inode_read(p->entry, address, buf, len, e);
}

static int placed(void *arg, uint64_t address, uint64_t length, uint64_t position)
{
	const struct placing *p = arg;

	return add(p->kept, address, length, position);
}

static int by_address(const void *a, const void *b)
{
	const struct page_run *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

static int keep_rest(struct checkpoint *c, struct inode_entry *entry, const struct page_runs *rest,
		     struct page_runs *kept, struct error *e)
{
	struct placing p = {entry, kept};
	int r = 0;

	/* what would not fit into memory goes into the image, at once */
	if (bytes_of(rest) > store_memory_left(c->store) && image_has_early(c->image)) {
		image_early_of(c->image, image_parent_object(c->image, entry->id));
		return image_put_early(c->image, rest->v, rest->n, read_placing, placed, &p, e);
	}
	vec_for_each (run, rest)
		if (r >= 0)
			r = keep_run(c, entry, run, kept, e);
	return r;
}

static int keep_pages(struct checkpoint *c, struct inode_entry *entry, struct error *e)
{
	struct page_runs kept = {}, rest = {};
	int r = split_all(entry, &kept, &rest) < 0 ? no_memory(e) : 0;

	if (r >= 0 && rest.n)
		r = keep_rest(c, entry, &rest, &kept, e);
	vec_free(&rest);
	if (r < 0) {
		vec_free(&kept);
		return r;
	}
	if (kept.n)
		qsort(kept.v, kept.n, sizeof(*kept.v), by_address);
	vec_free(&entry->runs);
	entry->runs = kept;
	return 0;
}

int inodes_keep_pages(struct checkpoint *c, struct error *e)
{
	vec_for_each (entry, &c->files->inodes) {
		int r = keep_pages(c, entry, e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- into the image ---- */

struct save {
	const struct checkpoint *c;
	struct inode_entry *entry;
};

static const struct page_run *run_at(const struct page_runs *runs, uint64_t address)
{
	size_t low = bisect(runs->n, i, runs->v[i].address + runs->v[i].length > address);

	return low < runs->n && runs->v[low].address <= address ? &runs->v[low] : NULL;
}

/* What is asked for may go from one run into the next. */
static int read_saved(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct save *save = arg;

	while (len) {
		const struct page_run *run = run_at(&save->entry->runs, address);
		uint64_t in, n;
		int r;

		if (!run)
			return error_set(e, -EINVAL, E_INTERNAL, "contents that were not kept");
		in = address - run->address;
		n = run->length - in < len ? run->length - in : len;
		r = run->position ? store_get(save->c->store, run->position + in, buf, n, e)
				  : inode_read(save->entry, address, buf, n, e);
		if (r < 0)
			return r;
		buf = (char *)buf + n;
		address += n;
		len -= n;
	}
	return 0;
}

/* As the image wants them: with a position only where it has them already. */
static int list_runs(const struct inode_entry *entry, struct page_runs *ret)
{
	vec_for_each (run, &entry->runs) {
		uint64_t position = store_in_image(run->position) ? run->position : 0;
		struct page_run *last = ret->n ? &ret->v[ret->n - 1] : NULL;

		if (last && !last->position && !position &&
		    last->address + last->length == run->address)
			last->length += run->length;
		else if (add(ret, run->address, run->length, position) < 0)
			return -ENOMEM;
	}
	return 0;
}

int inodes_save_pages(struct checkpoint *c, struct error *e)
{
	/* Ids grow with the order in which inodes were met. */
	vec_for_each (entry, &c->files->inodes) {
		struct page_group group = {.object = entry->id, .stage = 0};
		struct save save = {c, entry};
		struct page_runs runs = {};
		int r;

		if (!entry->msg.contents)
			continue;
		r = list_runs(entry, &runs) < 0 ? no_memory(e) : 0;
		if (r >= 0)
			r = image_put_pages(c->image, &group, runs.v, runs.n, read_saved, &save, e);
		vec_free(&runs);
		if (r < 0)
			return r;
		close_fd(&entry->fd);
	}
	return 0;
}
