/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in an image, as a JSON document (doc/inspect.md); and whether an
 * image is whole. Nothing is made, opened or traced: only the image is read.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "fs/file.h"
#include "mm/vma.h"
#include "ipc.pb-c.h"
#include "model/records.h"
#include "operation/operation.h"
#include "operation/parents.h"

struct document {
	struct image_reader *image;
	struct restart_records *records;
	json_t *root;
	bool incomplete; /* for want of memory */
};

static void document_end(struct document *d)
{
	json_decref(d->root);
	records_free(d->records);
	image_reader_free(d->image);
}

/* Names in an image are bytes; JSON strings are UTF-8. NULL if there is no memory. */
static json_t *json_bytes(const char *s)
{
	json_t *j = json_string(s ? s : "");
	char *copy;

	if (j)
		return j;
	copy = s ? strdup(s) : NULL;
	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	j = copy ? json_string(copy) : NULL;
	free(copy);
	return j;
}

/* Takes the value. */
static void put(struct document *d, json_t *o, const char *key, json_t *value)
{
	if (json_object_set_new(o, key, value) < 0)
		d->incomplete = true;
}

static void append(struct document *d, json_t *list, json_t *value)
{
	if (json_array_append_new(list, value) < 0)
		d->incomplete = true;
}

static void set_number(struct document *d, json_t *o, const char *key, uint64_t v)
{
	put(d, o, key, json_integer((json_int_t)v));
}

static void set_hex(struct document *d, json_t *o, const char *key, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIx64, v);
	put(d, o, key, json_string(text));
}

static void describe_image(struct document *d, const Reprise__Tree *tree)
{
	const struct image_info *info = image_reader_info(d->image);
	json_t *o = json_object();
	char uuid[40];

	for (int i = 0; i < 16; i++)
		snprintf(uuid + 2 * i, 3, "%02x", info->uuid[i]);
	set_number(d, o, "version", info->version);
	put(d, o, "arch", json_bytes(info->arch));
	put(d, o, "sysname", json_bytes(info->sysname));
	put(d, o, "release", json_bytes(info->release));
	put(d, o, "cpu", json_bytes(info->cpu));
	put(d, o, "hostname", json_bytes(tree->hostname));
	set_number(d, o, "created_ns", info->created_ns);
	put(d, o, "uuid", json_string(uuid));
	put(d, d->root, "image", o);
	set_number(d, d->root, "root_pid", (uint64_t)tree->root_pid);
}

static void set_bytes_hex(struct document *d, json_t *o, const char *key, const uint8_t *bytes,
			  size_t n)
{
	char text[80];

	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	put(d, o, key, json_string(text));
}

/* null: the image is complete in itself. */
static void describe_parent(struct document *d)
{
	const struct image_parent *parent = image_reader_parent(d->image);
	json_t *o = parent ? json_object() : json_null();

	if (parent) {
		put(d, o, "name", json_bytes(parent->name));
		set_bytes_hex(d, o, "uuid", parent->uuid, sizeof(parent->uuid));
		set_bytes_hex(d, o, "digest", parent->digest, sizeof(parent->digest));
	}
	put(d, d->root, "parent", o);
}

static const char *inode_path(const struct document *d, uint64_t id)
{
	const Reprise__Inode *in = records_find(d->records, RECORD_INODE, id);

	return in ? in->path : "";
}

static const char *state_of(const Reprise__Process *p)
{
	if (p->zombie)
		return "zombie";
	return p->job_stopped ? "stopped" : "running";
}

/* Threads stand behind their process or before it; all are found by pid. */
static json_t *threads_of(struct document *d, const Reprise__Process *p, json_t *o)
{
	json_t *list = json_array();
	const Reprise__Task *t;

	for (size_t i = 0; (t = records_nth(d->records, RECORD_TASK, i, NULL)); i++) {
		json_t *one;

		if (t->pid != p->pid)
			continue;
		one = json_object();
		set_number(d, one, "tid", (uint64_t)t->tid);
		put(d, one, "comm", json_bytes(t->comm));
		append(d, list, one);
		if (t->tid == p->pid || !json_object_get(o, "files")) {
			set_number(d, o, "files", t->files);
			set_number(d, o, "fs", t->fs);
			put(d, o, "comm", json_bytes(t->comm));
		}
	}
	return list;
}

static void describe_processes(struct document *d)
{
	json_t *list = json_array();
	const Reprise__Process *p;

	for (size_t i = 0; (p = records_nth(d->records, RECORD_PROCESS, i, NULL)); i++) {
		const Reprise__Mm *mm = records_find(d->records, RECORD_MM, p->mm);
		json_t *o = json_object();

		set_number(d, o, "pid", (uint64_t)p->pid);
		set_number(d, o, "ppid", (uint64_t)p->ppid);
		set_number(d, o, "pgid", (uint64_t)p->pgid);
		set_number(d, o, "sid", (uint64_t)p->sid);
		put(d, o, "comm", json_bytes(p->comm));
		put(d, o, "state", json_string(state_of(p)));
		put(d, o, "exe", json_bytes(mm ? inode_path(d, mm->exe) : ""));
		if (!p->zombie)
			set_number(d, o, "mm", p->mm);
		put(d, o, "threads", threads_of(d, p, o));
		append(d, list, o);
	}
	put(d, d->root, "processes", list);
}

static json_t *describe_vma(struct document *d, const Reprise__Vma *v)
{
	json_t *o = json_object();
	char prot[5] = "----";

	if (v->prot & 1)
		prot[0] = 'r';
	if (v->prot & 2)
		prot[1] = 'w';
	if (v->prot & 4)
		prot[2] = 'x';
	prot[3] = v->flags & VMA_SHARED ? 's' : 'p';
	set_hex(d, o, "start", v->start);
	set_hex(d, o, "end", v->end);
	put(d, o, "prot", json_string(prot));
	set_number(d, o, "offset", v->offset);
	put(d, o, "kind", json_string(vma_kind_name(v->kind)));
	put(d, o, "path", json_bytes(v->inode ? inode_path(d, v->inode) : v->name));
	return o;
}

static void describe_memory(struct document *d)
{
	json_t *list = json_array();
	const Reprise__Mm *mm;
	uint64_t id;

	for (size_t i = 0; (mm = records_nth(d->records, RECORD_MM, i, &id)); i++) {
		json_t *o = json_object(), *vmas = json_array();

		set_number(d, o, "id", id);
		set_number(d, o, "memory_bytes", mm->page_bytes);
		for (size_t j = 0; j < mm->n_vmas; j++)
			append(d, vmas, describe_vma(d, mm->vmas[j]));
		put(d, o, "vmas", vmas);
		append(d, list, o);
	}
	put(d, d->root, "address_spaces", list);
}

static void describe_tables(struct document *d)
{
	json_t *list = json_array();
	const Reprise__Files *table;
	uint64_t id;

	for (size_t i = 0; (table = records_nth(d->records, RECORD_FILES, i, &id)); i++) {
		json_t *o = json_object(), *fds = json_array();

		set_number(d, o, "id", id);
		for (size_t j = 0; j < table->n_fds; j++) {
			json_t *fd = json_object();

			set_number(d, fd, "fd", (uint64_t)table->fds[j]->fd);
			set_number(d, fd, "file", table->fds[j]->file);
			put(d, fd, "cloexec", json_boolean(table->fds[j]->cloexec));
			append(d, fds, fd);
		}
		put(d, o, "fds", fds);
		append(d, list, o);
	}
	put(d, d->root, "descriptor_tables", list);
}

static const struct file_ops *kind_of(uint32_t kind)
{
	for (size_t i = 0; file_kinds[i]; i++)
		if ((uint32_t)file_kinds[i]->kind == kind)
			return file_kinds[i];
	return NULL;
}

/* Of the kinds that have a name in the file system. */
static const char *file_path(const struct document *d, const Reprise__File *f)
{
	if (f->external)
		return f->external->name;
	if (f->regular)
		return inode_path(d, f->regular->inode);
	if (f->device)
		return inode_path(d, f->device->inode);
	if (f->pipe)
		return inode_path(d, f->pipe->inode);
	return f->tty ? inode_path(d, f->tty->inode) : "";
}

static void describe_files(struct document *d)
{
	json_t *list = json_array();
	const Reprise__File *f;
	uint64_t id;

	for (size_t i = 0; (f = records_nth(d->records, RECORD_FILE, i, &id)); i++) {
		const struct file_ops *ops = kind_of(f->kind);
		char text[512] = "";
		json_t *o = json_object();

		if (ops && ops->describe)
			ops->describe(f, text, sizeof(text));
		set_number(d, o, "id", id);
		put(d, o, "kind", json_string(ops ? ops->name : "unknown"));
		set_number(d, o, "flags", f->flags);
		set_number(d, o, "pos", f->pos);
		put(d, o, "path", json_bytes(file_path(d, f)));
		put(d, o, "detail", json_bytes(text));
		append(d, list, o);
	}
	put(d, d->root, "open_files", list);
}

static void describe_object(struct document *d, json_t *list, const char *kind,
			    const Reprise__IpcPerm *perm, const char *unit, uint64_t n)
{
	static const char *const relations[] = {"unknown", "own", "shared", "perhaps"};
	char text[64] = "";
	json_t *o;

	if (!perm)
		return;
	o = json_object();
	if (unit)
		snprintf(text, sizeof(text), "%llu %s", (unsigned long long)n, unit);
	put(d, o, "kind", json_string(kind));
	put(d, o, "id", json_integer(perm->id));
	set_hex(d, o, "key", (uint32_t)perm->key);
	put(d, o, "relation", json_string(relations[perm->relation < 4 ? perm->relation : 0]));
	put(d, o, "detail", json_string(text));
	append(d, list, o);
}

static void describe_ipc(struct document *d)
{
	json_t *list = json_array();
	const Reprise__ShmSegment *segment;
	const Reprise__MsgQueue *queue;
	const Reprise__SemSet *set;

	for (size_t i = 0; (set = records_nth(d->records, RECORD_SEM_SET, i, NULL)); i++)
		describe_object(d, list, "semaphore set", set->perm, "semaphores", set->nsems);
	for (size_t i = 0; (queue = records_nth(d->records, RECORD_MSG_QUEUE, i, NULL)); i++)
		describe_object(d, list, "message queue", queue->perm, "messages",
				queue->n_messages);
	for (size_t i = 0; (segment = records_nth(d->records, RECORD_SHM_SEGMENT, i, NULL)); i++)
		describe_object(d, list, "shared memory", segment->perm, NULL, 0);
	put(d, d->root, "ipc_objects", list);
}

static int describe_sizes(struct document *d, struct error *e)
{
	struct image_totals t = {};
	json_t *o = json_object();
	int r = image_read_end(d->image, &t, e);

	if (r < 0) {
		json_decref(o);
		return r;
	}
	set_number(d, o, "pages", t.pages - t.zero_pages);
	set_number(d, o, "zero_pages", t.zero_pages);
	set_number(d, o, "parent_pages", t.parent_pages);
	set_number(d, o, "memory_bytes", (t.pages - t.zero_pages) * 4096);
	set_number(d, o, "state_bytes", t.state_bytes);
	set_number(d, o, "page_bytes", t.page_bytes);
	set_number(d, o, "total_bytes", t.total_bytes);
	put(d, d->root, "sizes", o);
	set_bytes_hex(d, d->root, "digest", t.digest, sizeof(t.digest));
	put(d, d->root, "digest_covers", json_string(t.strong ? "all" : "state"));
	return 0;
}

int operation_inspect(int fd, char **json, struct error *e)
{
	_cleanup_(document_end) struct document d = {};
	const Reprise__Tree *tree;
	int r = image_reader_new(&d.image, fd, 0, e);

	if (r >= 0)
		r = records_load(&d.records, d.image, e);
	if (r < 0)
		return r;
	tree = records_nth(d.records, RECORD_TREE, 0, NULL);
	if (!tree)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "there is no tree record");
	d.root = json_object();
	describe_image(&d, tree);
	describe_parent(&d);
	describe_processes(&d);
	describe_memory(&d);
	describe_tables(&d);
	describe_files(&d);
	describe_ipc(&d);
	r = describe_sizes(&d, e);
	if (r < 0)
		return r;
	*json = d.incomplete ? NULL : json_dumps(d.root, JSON_INDENT(1));
	return *json ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the document");
}

/* From the oldest one on, so that it can be said which are good. */
static int verify_parents(const struct page_chain *parents, struct error *e)
{
	for (size_t i = page_chain_length(parents); i-- > 0;) {
		const char *good = page_chain_name(parents, i + 1);
		int r = page_chain_verify(parents, i, e);
		size_t n = strlen(e->text);

		if (r < 0 && good)
			snprintf(e->text + n, sizeof(e->text) - n, "; %s is still good", good);
		if (r < 0)
			return r;
	}
	return 0;
}

static int ignore_pages(void *arg, uint64_t address, const void *data, size_t len, struct error *e)
{
	return 0;
}

/* Also what is in the parents. */
static int verify_groups(struct image_reader *image, struct error *e)
{
	struct page_group group;
	int r = image_next_group(image, &group, e);

	while (r > 0) {
		r = image_read_pages(image, &group, ignore_pages, NULL, e);
		if (r >= 0)
			r = image_next_group(image, &group, e);
	}
	return r;
}

int operation_verify(int fd, const char *const *where, struct image_totals *totals, struct error *e)
{
	struct image_reader *image = NULL;
	struct restart_records *records = NULL;
	struct page_chain *parents = NULL;
	int r = image_reader_new(&image, fd, 0, e);

	if (r >= 0)
		r = records_load(&records, image, e);
	if (r >= 0 && where)
		r = parents_find(image, where, &parents, e);
	if (r >= 0 && parents) {
		r = verify_parents(parents, e);
		image_reader_set_parents(image, parents);
		if (r >= 0)
			r = verify_groups(image, e);
		if (r >= 0)
			r = image_check_unused(image, e);
	}
	if (r >= 0)
		r = image_read_end(image, totals, e);
	records_free(records);
	image_reader_free(image);
	page_chain_free(parents);
	return r;
}
