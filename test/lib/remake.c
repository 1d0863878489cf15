/* SPDX-License-Identifier: Apache-2.0 */
/* Images taken apart and put together again, with lengths, checksums and digests that fit. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "image/frame.h"
#include "remake.h"

struct making {
	void (*change)(void *, struct remade *);
	void *arg;
	uint8_t *out;
	size_t room;
};

static uint8_t *room_for(struct making *m, size_t at, size_t len)
{
	if (at + len + 4096 > m->room) {
		m->room = at + len + 4096 + m->room;
		m->out = realloc(m->out, m->room);
		if (!m->out)
			err(1, "memory");
		memset(m->out + at, 0, m->room - at);
	}
	return m->out + at;
}

static size_t put_record(struct making *m, size_t at, const struct frame *in, uint64_t id,
			 const ProtobufCMessage *msg)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	struct frame *f = (struct frame *)room_for(m, at, sizeof(*f) + len);

	*f = *in;
	f->id = id;
	f->length = protobuf_c_message_pack(msg, (uint8_t *)(f + 1));
	return frame_seal((uint8_t *)f);
}

/* Takes one frame of the state part from `in`, and puts it at `at`, as often as is asked for. */
static size_t copy_record(struct making *m, size_t at, const struct frame *in, uint64_t *records)
{
	const struct record_schema *schema = record_schema(in->type);
	struct remade r = {.type = in->type, .id = in->id, .copies = 1, .copy_id = in->id};
	size_t len = 0;

	if (!schema) {
		memcpy(room_for(m, at, frame_size(in)), in, sizeof(*in) + in->length);
		*records += in->type >= FRAME_STATE_FIRST;
		return frame_seal(m->out + at);
	}
	r.name = schema->name;
	r.msg = protobuf_c_message_unpack(schema->descriptor, NULL, in->length,
					  (const uint8_t *)(in + 1));
	if (!r.msg)
		errx(1, "a record cannot be decoded");
	m->change(m->arg, &r);
	for (int i = 0; i < r.copies; i++)
		len += put_record(m, at + len, in, i ? r.copy_id : r.id, r.msg);
	*records += (uint64_t)r.copies;
	return len; /* what was changed cannot be freed by anybody */
}

static size_t copy_state(struct making *m, const uint8_t *in, size_t *ret_end, struct digest *d,
			 struct state_end *end)
{
	size_t from = ((const struct image_header *)in)->length, to = from;
	struct image_header *h;
	struct frame *f;

	memcpy(room_for(m, 0, from), in, from);
	memset(end, 0, sizeof(*end));
	while (((const struct frame *)(in + from))->type != FRAME_STATE_END) {
		const struct frame *record = (const struct frame *)(in + from);

		to += copy_record(m, to, record, &end->records);
		from += frame_size(record);
	}
	f = (struct frame *)room_for(m, to, sizeof(*f) + sizeof(*end));
	memcpy(f, in + from, sizeof(*f) + sizeof(*end));
	h = (struct image_header *)m->out;
	h->state_length = to + sizeof(*f) + sizeof(*end) - h->length;
	h->checksum = 0;
	h->checksum = checksum_of(h, h->length);
	((struct state_end *)(f + 1))->records = end->records;
	((struct state_end *)(f + 1))->bytes = to;
	digest_update(d, m->out, to);
	digest_now(d, ((struct state_end *)(f + 1))->digest);
	frame_seal(m->out + to);
	memcpy(end, f + 1, sizeof(*end));
	digest_update(d, f, sizeof(*f) + sizeof(*end));
	*ret_end = from + sizeof(*f) + sizeof(*end);
	return to + sizeof(*f) + sizeof(*end);
}

/* All up to the end record; an index is left out. */
static size_t copy_pages(struct making *m, const uint8_t *in, size_t from, size_t to,
			 struct digest *d, const struct state_end *state)
{
	uint64_t begin = to;

	for (;;) {
		size_t size = frame_size((const struct frame *)(in + from));
		struct frame *f = (struct frame *)room_for(m, to, size);
		struct image_end *end = (struct image_end *)(f + 1);

		memcpy(f, in + from, size);
		from += size;
		to += size;
		if (f->type != FRAME_END) {
			digest_update(d, f, sizeof(*f));
			continue;
		}
		end->state_records = state->records;
		end->state_bytes = begin;
		end->total_bytes = to;
		end->trailing_bytes = 0;
		digest_update(d, end, offsetof(struct image_end, digest));
		digest_now(d, end->digest);
		frame_seal((uint8_t *)f);
		return to;
	}
}

static uint8_t *read_all(const char *path)
{
	_cleanup_(close_stream) FILE *in = fopen(path, "re");
	uint8_t *data;
	size_t len;

	if (!in || fseek(in, 0, SEEK_END))
		err(1, "%s", path);
	len = (size_t)ftell(in);
	rewind(in);
	data = malloc(len + 1);
	if (!data || fread(data, 1, len, in) != len)
		err(1, "%s", path);
	return data;
}

void remake(const char *in, const char *out, void (*change)(void *, struct remade *), void *arg)
{
	struct making m = {.change = change, .arg = arg};
	_cleanup_(free_ptr) uint8_t *from = read_all(in);
	_cleanup_(close_stream) FILE *file = NULL;
	struct digest *d = digest_new();
	struct state_end state;
	size_t end, n;

	if (!d)
		errx(1, "digest");
	n = copy_state(&m, from, &end, d, &state);
	if (out) {
		n = copy_pages(&m, from, end, n, d, &state);
		file = fopen(out, "we");
		if (!file || fwrite(m.out, 1, n, file) != n)
			err(1, "%s", out);
	}
	digest_free(d);
	free(m.out);
}
