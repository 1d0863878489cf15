/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mutate EACH IN           how many images can be made of this one that say something wrong, and
 * what mutate EACH IN OUT N     that with this number
 *
 * Goes through the records and through each field of their messages; of things that stand at the
 * same place in messages of the same kind EACH are changed. Checksums and digests fit.
 */
#include <err.h>
#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "remake.h"

#define IDS_MAX 64
#define MANY	100000
#define HUGE	(1 << 20)

struct mutation {
	size_t n, wanted; /* SIZE_MAX: all are listed */
	int each;
	void *seen;	       /* a tree of struct place */
	uint64_t ids[IDS_MAX]; /* of the first record of each kind */
	const char *kinds[IDS_MAX];
	size_t n_ids;
	uint64_t own, before; /* of the record that is changed, and of the one of its kind before */
	uint32_t type;
};

struct place {
	char name[256];
	int times;
};

static int compare_places(const void *a, const void *b)
{
	return strcmp(((const struct place *)a)->name, ((const struct place *)b)->name);
}

/* Whether enough of these have been changed. */
static bool passed_over(struct mutation *m, const char *name)
{
	struct place *p = calloc(1, sizeof(*p)), **found;

	if (!p)
		err(1, "memory");
	snprintf(p->name, sizeof(p->name), "%s", name);
	found = tsearch(p, &m->seen, compare_places);
	if (*found != p)
		free(p);
	return (*found)->times++ >= m->each;
}

/* Counts one more; true: it is the one to be made. */
static bool now(struct mutation *m, const char *where, const char *how)
{
	bool this = m->n++ == m->wanted;

	if (this || m->wanted == SIZE_MAX)
		printf("%zu %s: %s\n", m->n - 1, where, how);
	return this;
}

static void set_number(const ProtobufCFieldDescriptor *f, void *at, uint64_t n)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)at = n & 1;
		return;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		*(uint32_t *)at = (uint32_t)n;
		return;
	default:
		*(uint64_t *)at = n;
	}
}

static uint64_t get_number(const ProtobufCFieldDescriptor *f, const void *at)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL:
		return *(const protobuf_c_boolean *)at;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return *(const uint32_t *)at;
	default:
		return *(const uint64_t *)at;
	}
}

static bool is_wide(const ProtobufCFieldDescriptor *f)
{
	return f->type == PROTOBUF_C_TYPE_INT64 || f->type == PROTOBUF_C_TYPE_UINT64 ||
	       f->type == PROTOBUF_C_TYPE_SINT64 || f->type == PROTOBUF_C_TYPE_FIXED64;
}

static void other_number(struct mutation *m, const char *where, const ProtobufCFieldDescriptor *f,
			 void *at)
{
	static const uint64_t wide[] = {1ull << 31,
					1ull << 32,
					1ull << 63,
					(1ull << 63) - 1,
					0xffffffffff600000ull,
					0xffffffff80000000,
					0x0000800000000000,
					0x00007fffffffe000,
					0xfffffffffffff000ull};
	uint64_t old = get_number(f, at);
	const uint64_t narrow[] = {0,	1,	    2,		3,     old + 1, old - 1, old ^ 4096,
				   ~0u, 0x7fffffff, 0x80000000, 65534, 65536,	~old};
	char how[64];

	if (f->type == PROTOBUF_C_TYPE_BOOL) {
		if (now(m, where, "the opposite"))
			set_number(f, at, !old);
		return;
	}
	for (size_t i = 0; i < sizeof(narrow) / sizeof(*narrow); i++) {
		snprintf(how, sizeof(how), "%#jx", (uintmax_t)narrow[i]);
		if (narrow[i] != old && now(m, where, how))
			set_number(f, at, narrow[i]);
	}
	for (size_t i = 0; is_wide(f) && i < sizeof(wide) / sizeof(*wide); i++) {
		snprintf(how, sizeof(how), "%#jx", (uintmax_t)wide[i]);
		if (now(m, where, how))
			set_number(f, at, wide[i]);
	}
	if (is_wide(f) && m->own && now(m, where, "its own id"))
		set_number(f, at, m->own);
	if (is_wide(f) && m->before && now(m, where, "the id of the one before"))
		set_number(f, at, m->before);
	for (size_t i = 0; is_wide(f) && i < m->n_ids; i++) {
		snprintf(how, sizeof(how), "the id of a %s", m->kinds[i]);
		if (m->ids[i] != old && now(m, where, how))
			set_number(f, at, m->ids[i]);
	}
}

static void other_text(struct mutation *m, const char *where, char **text)
{
	static const char *const texts[] = {"",
					    "/",
					    ".",
					    "..",
					    "../../../../etc/passwd",
					    "/etc/shadow",
					    "/dev/mem",
					    "/proc/self/mem",
					    "/proc/1/root/etc",
					    "a\nb",
					    "\033[31mred",
					    "%s%n%n",
					    "\xff\xfe",
					    "/dev/null",
					    "/tmp/../etc/passwd",
					    "a/b",
					    "all",
					    "-1"};
	char *longer = malloc(HUGE + 1);

	if (!longer)
		err(1, "memory");
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (now(m, where,
			i == 9	  ? "two lines"
			: i == 10 ? "red"
			: i == 12 ? "no UTF-8"
				  : texts[i]))
			*text = strdup(texts[i]);
	for (int len = 256; len <= HUGE; len *= 64)
		if (now(m, where, len == 256 ? "256 letters" : "many letters")) {
			memset(longer, 'a', (size_t)len);
			longer[len] = 0;
			*text = longer;
			return;
		}
	free(longer);
}

/* A copy with room, since what the message has belongs to it. */
static uint8_t *with_room(ProtobufCBinaryData *b, size_t more)
{
	uint8_t *data = calloc(1, b->len + more + 8);

	if (!data)
		err(1, "memory");
	if (b->len)
		memcpy(data, b->data, b->len);
	b->data = data;
	b->len += more;
	return data;
}

static void other_words(struct mutation *m, const char *where, ProtobufCBinaryData *b)
{
	static const uint64_t words[] = {0, ~0ull, 0xffffffff81000000ull, 0x0000800000000000,
					 0x5a5a5a5a5a5a5a5a};
	size_t step = b->len > 27 * 8 ? b->len / 27 & ~7ul : 8;
	char how[64];

	for (size_t at = 0; at + 8 <= b->len; at += step)
		for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
			snprintf(how, sizeof(how), "word %zu %#jx", at / 8, (uintmax_t)words[i]);
			if (now(m, where, how))
				memcpy(with_room(b, 0) + at, &words[i], 8);
		}
	for (size_t at = 0; at < b->len && at<64; at += b->len> 256 ? 3 : 1) {
		snprintf(how, sizeof(how), "byte %zu", at);
		if (now(m, where, how))
			with_room(b, 0)[at] ^= 0x81;
	}
}

static void other_bytes(struct mutation *m, const char *where, ProtobufCBinaryData *b)
{
	size_t len = b->len;

	if (len && now(m, where, "empty"))
		b->len = 0;
	if (len && now(m, where, "one byte less"))
		b->len--;
	if (now(m, where, "one byte more"))
		with_room(b, 1);
	if (len && now(m, where, "half"))
		b->len /= 2;
	if (now(m, where, "twice and some"))
		with_room(b, len + 8);
	if (len && now(m, where, "ones"))
		memset(with_room(b, 0), 0xff, len);
	if (len && now(m, where, "zeros"))
		memset(with_room(b, 0), 0, len);
	if (now(m, where, "a mebibyte"))
		memset(with_room(b, HUGE), 0x41, HUGE);
	other_words(m, where, b);
}

static size_t element_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return is_wide(f) ? 8 : 4;
	}
}

static void walk(struct mutation *m, const char *where, ProtobufCMessage *msg);

static void other_value(struct mutation *m, const char *where, const ProtobufCFieldDescriptor *f,
			void *at)
{
	if (f->type == PROTOBUF_C_TYPE_MESSAGE)
		walk(m, where, *(ProtobufCMessage **)at);
	else if (f->type == PROTOBUF_C_TYPE_STRING)
		other_text(m, where, at);
	else if (f->type == PROTOBUF_C_TYPE_BYTES)
		other_bytes(m, where, at);
	else
		other_number(m, where, f, at);
}

/* Its first element so often. */
static void repeat(char **list, size_t *n, size_t size, size_t times)
{
	char *more = malloc((*n + times) * size);

	if (!more)
		err(1, "memory");
	memcpy(more, *list, *n * size);
	for (size_t i = 0; i < times; i++)
		memcpy(more + (*n + i) * size, *list, size);
	*list = more;
	*n += times;
}

static void other_list(struct mutation *m, const char *where, const ProtobufCFieldDescriptor *f,
		       ProtobufCMessage *msg)
{
	size_t *n = (size_t *)((char *)msg + f->quantifier_offset), size = element_size(f),
	       was = *n;
	char **list = (char **)((char *)msg + f->offset);

	if (!was)
		return;
	if (now(m, where, "none"))
		*n = 0;
	if (was > 1 && now(m, where, "without the last"))
		(*n)--;
	if (was > 1 && now(m, where, "without the first")) {
		memmove(*list, *list + size, (was - 1) * size);
		(*n)--;
	}
	if (now(m, where, "one twice"))
		repeat(list, n, size, 1);
	if (now(m, where, "one very often"))
		repeat(list, n, size, MANY);
	if (was > 1 && now(m, where, "two exchanged")) {
		char first[sizeof(ProtobufCBinaryData)];

		memcpy(first, *list, size);
		memmove(*list, *list + size, size);
		memcpy(*list + size, first, size);
	}
	for (size_t i = 0; i < was && *n == was; i++)
		other_value(m, where, f, *list + i * size);
}

static void other_message(struct mutation *m, const char *where, const ProtobufCFieldDescriptor *f,
			  ProtobufCMessage **at)
{
	ProtobufCMessage *old = *at;

	if (!old) {
		if (now(m, where, "there, and empty")) {
			const ProtobufCMessageDescriptor *d = f->descriptor;

			*at = calloc(1, d->sizeof_message);
			if (!*at)
				err(1, "memory");
			d->message_init(*at);
		}
		return;
	}
	if (now(m, where, "missing"))
		*at = NULL;
	else
		walk(m, where, old);
}

static void walk(struct mutation *m, const char *where, ProtobufCMessage *msg)
{
	for (unsigned int i = 0; i < msg->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &msg->descriptor->fields[i];
		void *at = (char *)msg + f->offset;
		char name[256];

		snprintf(name, sizeof(name), "%s.%s", where, f->name);
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			if (*(size_t *)((char *)msg + f->quantifier_offset) &&
			    !passed_over(m, name))
				other_list(m, name, f, msg);
		} else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
			snprintf(name, sizeof(name), "%s.%s%s", where, f->name,
				 *(void **)at ? "" : "?");
			if (!passed_over(m, name))
				other_message(m, name, f, at);
		} else if (!passed_over(m, name)) {
			other_value(m, name, f, at);
		}
	}
}

static void change(void *arg, struct remade *r)
{
	struct mutation *m = arg;
	char name[64];

	m->before = m->type == r->type ? m->own : 0;
	m->type = r->type;
	m->own = r->id;
	snprintf(name, sizeof(name), "%s (itself)", r->name);
	if (!passed_over(m, name)) {
		if (now(m, r->name, "left out"))
			r->copies = 0;
		if (now(m, r->name, "twice"))
			r->copies = 2;
		if (now(m, r->name, "once more, by another id")) {
			r->copies = 2;
			r->copy_id = 0x7fffffff;
		}
		if (now(m, r->name, "by the id 0"))
			r->id = 0;
		for (size_t i = 0; i < m->n_ids; i++)
			if (m->ids[i] != r->id && now(m, r->name, "by an id of another"))
				r->id = m->ids[i];
	}
	walk(m, r->name, r->msg);
}

static void take_id(void *arg, struct remade *r)
{
	struct mutation *m = arg;

	for (size_t i = 0; i < m->n_ids; i++)
		if (!strcmp(m->kinds[i], r->name))
			return;
	if (m->n_ids < IDS_MAX) {
		m->kinds[m->n_ids] = r->name;
		m->ids[m->n_ids++] = r->id;
	}
}

int main(int argc, char **argv)
{
	struct mutation m = {.wanted = argc == 5 ? strtoul(argv[4], NULL, 10) : SIZE_MAX};

	if (argc != 3 && argc != 5)
		errx(2, "usage: mutate EACH IN [OUT N]");
	m.each = atoi(argv[1]);
	remake(argv[2], NULL, take_id, &m);
	remake(argv[2], argc == 5 ? argv[3] : NULL, change, &m);
	return 0;
}
