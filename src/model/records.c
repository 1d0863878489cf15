/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/vec.h"
#include "model/records.h"
#include "kernel.pb-c.h"
#include "mm.pb-c.h"
#include "fs.pb-c.h"
#include "ipc.pb-c.h"
#include "ns.pb-c.h"

/* The one list of record types. */
static const struct record_schema schemas[] = {
	{RECORD_TREE, "tree", &reprise__tree__descriptor},
	{RECORD_PROCESS, "process", &reprise__process__descriptor},
	{RECORD_TASK, "task", &reprise__task__descriptor},
	{RECORD_SIGHAND, "sighand", &reprise__sighand__descriptor},
	{RECORD_MM, "mm", &reprise__mm__descriptor},
	{RECORD_FILES, "files", &reprise__files__descriptor},
	{RECORD_FS, "fs", &reprise__fs__descriptor},
	{RECORD_FILE, "file", &reprise__file__descriptor},
	{RECORD_INODE, "inode", &reprise__inode__descriptor},
	{RECORD_PIPE, "pipe", &reprise__pipe__descriptor},
	{RECORD_SEM_SET, "semaphore set", &reprise__sem_set__descriptor},
	{RECORD_SEM_UNDO, "semaphore undo", &reprise__sem_undo__descriptor},
	{RECORD_MSG_QUEUE, "message queue", &reprise__msg_queue__descriptor},
	{RECORD_MQUEUE, "posix message queue", &reprise__mqueue__descriptor},
	{RECORD_SHM_SEGMENT, "shared memory segment", &reprise__shm_segment__descriptor},
	{RECORD_IPC_LIMITS, "ipc limits", &reprise__ipc_limits__descriptor},
	{RECORD_CONTAINER, "container", &reprise__container__descriptor},
	{RECORD_LAYER, "layer", &reprise__layer__descriptor},
	{RECORD_CLOCKS, "clocks", &reprise__clocks__descriptor},
	{RECORD_MOUNT, "mount", &reprise__mount__descriptor},
	{RECORD_NAMESPACE, "namespace", &reprise__container__descriptor},
	{RECORD_COMPAT_VDSO, "32-bit vDSO", &reprise__compat_vdso__descriptor},
};

const struct record_schema *record_schema(uint32_t type)
{
	for (size_t i = 0; i < sizeof(schemas) / sizeof(schemas[0]); i++)
		if (schemas[i].type == type)
			return &schemas[i];
	return NULL;
}

struct entry {
	uint32_t type;
	uint64_t id;
	ProtobufCMessage *msg;
};

struct by_type {
	uint32_t type;
	VEC(struct entry *) list;
};

struct restart_records {
	VEC(struct entry) all; /* in image order; fixed once loaded */
	struct entry **by_id;  /* sorted */
	VEC(struct by_type) types;
};

static int compare_id(const void *a, const void *b)
{
	const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* Tells a lack of memory from a record that is bad. */
static void *decode_alloc(void *arg, size_t size)
{
	void *p = malloc(size);

	if (!p)
		*(bool *)arg = true;
	return p;
}

static void decode_free(void *arg, void *p)
{
	(void)arg;
	free(p);
}

static int load_one(struct restart_records *rs, const struct image_record *rec, struct error *e)
{
	const struct record_schema *schema = record_schema(rec->type);
	bool no_memory = false;
	ProtobufCAllocator memory = {decode_alloc, decode_free, &no_memory};
	struct entry *entry;

	if (!schema) {
		if (rec->flags & RECORD_OPTIONAL)
			return 0;
		return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER,
				 "record type %u at offset %llu is unknown to this version",
				 rec->type, (unsigned long long)rec->offset);
	}
	entry = vec_push(&rs->all);
	if (!entry)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the records of the image");
	entry->type = rec->type;
	entry->id = rec->id;
	entry->msg = protobuf_c_message_unpack(schema->descriptor, &memory, rec->len, rec->data);
	if (!entry->msg && no_memory)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the records of the image");
	if (!entry->msg)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "the %s record at offset %llu cannot be decoded", schema->name,
				 (unsigned long long)rec->offset);
	return 0;
}

static struct by_type *type_list(struct restart_records *rs, uint32_t type)
{
	struct by_type *t;

	vec_for_each (it, &rs->types)
		if (it->type == type)
			return it;
	t = vec_push(&rs->types);
	if (t)
		t->type = type;
	return t;
}

static int index_types(struct restart_records *rs)
{
	vec_for_each (entry, &rs->all) {
		struct by_type *t = type_list(rs, entry->type);
		struct entry **slot = t ? vec_push(&t->list) : NULL;

		if (!slot)
			return -ENOMEM;
		*slot = entry;
	}
	return 0;
}

static int index_ids(struct restart_records *rs, struct error *e)
{
	rs->by_id = calloc(rs->all.n + 1, sizeof(*rs->by_id));
	if (!rs->by_id)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the records of the image");
	for (size_t i = 0; i < rs->all.n; i++)
		rs->by_id[i] = &rs->all.v[i];
	qsort(rs->by_id, rs->all.n, sizeof(*rs->by_id), compare_id);
	for (size_t i = 0; i < rs->all.n; i++) {
		/* Ids are counted up from 1; few objects have no record. */
		if (rs->by_id[i]->id == 0 || rs->by_id[i]->id > rs->all.n * 64 + 4096)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an object has the id %llu",
					 (unsigned long long)rs->by_id[i]->id);
		if (i && rs->by_id[i]->id == rs->by_id[i - 1]->id)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "two objects have the id %llu",
					 (unsigned long long)rs->by_id[i]->id);
	}
	return 0;
}

int records_load(struct restart_records **ret, const struct image_reader *image, struct error *e)
{
	struct restart_records *rs = calloc(1, sizeof(*rs));
	size_t n = image_record_count(image);
	int r = 0;

	if (!rs)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the records of the image");
	for (size_t i = 0; i < n && r >= 0; i++)
		r = load_one(rs, image_record(image, i), e);
	if (r >= 0)
		r = index_ids(rs, e);
	if (r >= 0 && index_types(rs) < 0)
		r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the records of the image");
	if (r < 0) {
		records_free(rs);
		return r;
	}
	*ret = rs;
	return 0;
}

void records_free(struct restart_records *rs)
{
	if (!rs)
		return;
	vec_for_each (entry, &rs->all)
		if (entry->msg)
			protobuf_c_message_free_unpacked(entry->msg, NULL);
	vec_for_each (t, &rs->types)
		vec_free(&t->list);
	vec_free(&rs->types);
	vec_free(&rs->all);
	free(rs->by_id);
	free(rs);
}

const void *records_find(const struct restart_records *rs, uint32_t type, uint64_t id)
{
	struct entry key = {.id = id}, *keyp = &key, **found;

	found = bsearch(&keyp, rs->by_id, rs->all.n, sizeof(*rs->by_id), compare_id);
	return found && (*found)->type == type ? (*found)->msg : NULL;
}

const void *records_nth(const struct restart_records *rs, uint32_t type, size_t i, uint64_t *ret_id)
{
	vec_for_each (t, &rs->types) {
		if (t->type != type)
			continue;
		if (i >= t->list.n)
			return NULL;
		if (ret_id)
			*ret_id = t->list.v[i]->id;
		return t->list.v[i]->msg;
	}
	return NULL;
}
