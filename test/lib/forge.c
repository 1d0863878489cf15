/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forge IN OUT EDIT...: a copy of an image that says something else, with lengths, checksums and
 * digests that fit, as anybody can make it.
 *
 *   uid=N  gid=N    of all tasks
 *   caps=HEX        effective, permitted and bounding sets
 *   limit=N         of open files, hard and soft
 *   oom=N  nice=N
 *   path=NEW        instead of the name of the file that is called "target"
 *   securebits=N
 *   inner-pid=N     the number in a pid namespace below the root's, of all in one,
 *   inner-pids=N    how many they have, and
 *   pid-namespace=N the id of it;
 *   children=N      of that of their children,
 *   above=N         of what is above one, of mounts too
 *   proc=N          the pid namespace of a /proc below the root's,
 *   proc-mounts=N   of files in it the mount namespace;
 *   proc-tmpfs      it is none
 *   options=TEXT    of overlays, and
 *   lower=TEXT      their lower directories;
 *   type=TEXT       of file systems that are new;
 *   event-inode=N   of which unread events of fanotify tell by handle, and
 *   event-overflow  they tell of an overflow as well
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/fanotify_events.h"
#include "image/frame.h"
#include "model/records.h"
#include "fs.pb-c.h"
#include "kernel.pb-c.h"
#include "ns.pb-c.h"
#include "ns/mounts.h"

static void edit_credentials(Reprise__Credentials *c, const char *edit)
{
	unsigned int id;
	unsigned long long caps;

	if (sscanf(edit, "uid=%u", &id) == 1)
		c->ruid = c->euid = c->suid = c->fsuid = id;
	else if (sscanf(edit, "gid=%u", &id) == 1)
		c->rgid = c->egid = c->sgid = c->fsgid = id;
	else if (sscanf(edit, "caps=%llx", &caps) == 1 && c->caps)
		c->caps->effective = c->caps->permitted = c->caps->bounding = caps;
	else if (sscanf(edit, "securebits=%u", &id) == 1)
		c->securebits = id;
}

static void edit_process(Reprise__Process *p, const char *edit)
{
	unsigned long long n;

	sscanf(edit, "oom=%d", &p->oom_score_adj);
	if (p->n_inner_pids) {
		sscanf(edit, "inner-pid=%d", &p->inner_pids[p->n_inner_pids - 1]);
		if (sscanf(edit, "inner-pids=%llu", &n) == 1 && n < p->n_inner_pids)
			p->n_inner_pids = n;
		if (sscanf(edit, "pid-namespace=%llu", &n) == 1)
			p->pid_namespace = n;
	}
	for (size_t i = 0; i < p->n_rlimits && sscanf(edit, "limit=%llu", &n) == 1; i++)
		if (p->rlimits[i]->resource == RLIMIT_NOFILE)
			p->rlimits[i]->soft = p->rlimits[i]->hard = n;
}

static void edit_inode(Reprise__Inode *in, const char *edit)
{
	const char *base = in->path ? strrchr(in->path, '/') : NULL;

	if (strncmp(edit, "path=", 5) || !base || strcmp(base, "/target"))
		return;
	free(in->path);
	in->path = strdup(edit + 5);
}

static void edit_namespace(Reprise__Container *c, const char *edit)
{
	unsigned long long id;

	if (sscanf(edit, "above=%llu", &id) == 1)
		c->above = id;
	for (size_t i = 0; i < c->n_mounts; i++)
		if (c->mounts[i]->pid_namespace && sscanf(edit, "proc=%llu", &id) == 1)
			c->mounts[i]->pid_namespace = id;
		else if (c->mounts[i]->pid_namespace && !strcmp(edit, "proc-tmpfs"))
			c->mounts[i]->kind = MOUNT_TMPFS;
}

static void edit_text(const char *edit, const char *what, char **text)
{
	size_t len = strlen(what);

	if (!strncmp(edit, what, len) && edit[len] == '=')
		*text = strdup(edit + len + 1);
}

static void edit_container(Reprise__Container *c, const char *edit)
{
	for (size_t i = 0; i < c->n_mounts; i++) {
		Reprise__Mount *m = c->mounts[i];

		if (m->kind == MOUNT_OVERLAY) {
			edit_text(edit, "options", &m->data);
			edit_text(edit, "lower", &m->lower);
		}
		if (m->kind == MOUNT_FRESH)
			edit_text(edit, "type", &m->type);
	}
}

static void edit_events(Reprise__Fanotify *m, const char *edit)
{
	for (size_t i = 0; i < m->n_events; i++) {
		Reprise__FanotifyEvent *event = m->events[i];

		if (!event->object)
			continue;
		sscanf(edit, "event-inode=%u", &event->object->number);
		if (strcmp(edit, "event-overflow"))
			continue;
		event->type = FANOTIFY_OVERFLOW;
		event->mask = FAN_Q_OVERFLOW;
		event->name.len = 0;
		return;
	}
}

static void edit_record(uint32_t type, ProtobufCMessage *msg, const char *edit)
{
	Reprise__Task *t = (Reprise__Task *)msg;
	unsigned long long id;

	if (type == RECORD_TASK && t->creds)
		edit_credentials(t->creds, edit);
	if (type == RECORD_TASK && t->sched)
		sscanf(edit, "nice=%d", &t->sched->nice);
	if (type == RECORD_PROCESS)
		edit_process((Reprise__Process *)msg, edit);
	if (type == RECORD_TASK && t->n_inner_tids && sscanf(edit, "children=%llu", &id) == 1)
		t->children_namespace = id;
	if (type == RECORD_NAMESPACE)
		edit_namespace((Reprise__Container *)msg, edit);
	if (type == RECORD_CONTAINER)
		edit_container((Reprise__Container *)msg, edit);
	if (type == RECORD_FILE && ((Reprise__File *)msg)->proc &&
	    sscanf(edit, "proc-mounts=%llu", &id) == 1)
		((Reprise__File *)msg)->proc->mounts = id;
	if (type == RECORD_FILE && ((Reprise__File *)msg)->regular &&
	    !strncmp(edit, "pressure=", 9))
		((Reprise__File *)msg)->pressure = strdup(edit + 9);
	if (type == RECORD_FILE && ((Reprise__File *)msg)->fanotify)
		edit_events(((Reprise__File *)msg)->fanotify, edit);
	if (type == RECORD_INODE)
		edit_inode((Reprise__Inode *)msg, edit);
}

/* Takes one frame of the state part from `in`, and appends it to `out`. */
static size_t copy_record(const struct frame *in, uint8_t *out, char **edits)
{
	const struct record_schema *schema = record_schema(in->type);
	struct frame *f = (struct frame *)out;
	ProtobufCMessage *msg;

	*f = *in;
	if (!schema) {
		memcpy(f + 1, in + 1, in->length);
		return frame_seal(out);
	}
	msg = protobuf_c_message_unpack(schema->descriptor, NULL, in->length,
					(const uint8_t *)(in + 1));
	if (!msg)
		errx(1, "a record cannot be decoded");
	for (char **edit = edits; *edit; edit++)
		edit_record(in->type, msg, *edit);
	f->length = protobuf_c_message_pack(msg, (uint8_t *)(f + 1));
	protobuf_c_message_free_unpacked(msg, NULL);
	return frame_seal(out);
}

static size_t copy_state(const uint8_t *in, size_t *ret_end, uint8_t *out, struct digest *d,
			 char **edits)
{
	struct image_header *h = (struct image_header *)out;
	size_t from = ((const struct image_header *)in)->length, to = from;
	struct state_end *end;

	memcpy(out, in, from);
	while (((const struct frame *)(in + from))->type != FRAME_STATE_END) {
		const struct frame *f = (const struct frame *)(in + from);

		to += copy_record(f, out + to, edits);
		from += frame_size(f);
	}
	memcpy(out + to, in + from, sizeof(struct frame) + sizeof(*end));
	h->state_length = to + sizeof(struct frame) + sizeof(*end) - h->length;
	h->checksum = 0;
	h->checksum = checksum_of(h, h->length);
	end = (struct state_end *)(out + to + sizeof(struct frame));
	end->bytes = to;
	digest_update(d, out, to);
	digest_now(d, end->digest);
	frame_seal(out + to);
	digest_update(d, out + to, sizeof(struct frame) + sizeof(*end));
	*ret_end = from + sizeof(struct frame) + sizeof(*end);
	return to + sizeof(struct frame) + sizeof(*end);
}

/* All up to the end record; an index is left out. */
static size_t copy_pages(const uint8_t *in, size_t from, uint8_t *out, size_t to, struct digest *d)
{
	uint64_t state = to;

	for (;;) {
		struct frame *f = (struct frame *)(out + to);
		struct image_end *end = (struct image_end *)(f + 1);
		size_t size = frame_size((const struct frame *)(in + from));

		memcpy(f, in + from, size);
		from += size;
		to += size;
		if (f->type != FRAME_END) {
			digest_update(d, f, sizeof(*f));
			continue;
		}
		end->state_bytes = state;
		end->total_bytes = to;
		end->trailing_bytes = 0;
		digest_update(d, end, offsetof(struct image_end, digest));
		digest_now(d, end->digest);
		frame_seal(f);
		return to;
	}
}

int main(int argc, char **argv)
{
	_cleanup_(close_stream) FILE *in = argc > 3 ? fopen(argv[1], "re") : NULL;
	_cleanup_(close_stream) FILE *out = argc > 3 ? fopen(argv[2], "we") : NULL;
	_cleanup_(free_ptr) uint8_t *from = NULL;
	_cleanup_(free_ptr) uint8_t *to = NULL;
	struct digest *d = digest_new();
	size_t len, end, n;

	if (!in || !out || !d)
		errx(2, "usage: forge IN OUT EDIT...");
	fseek(in, 0, SEEK_END);
	len = (size_t)ftell(in);
	rewind(in);
	from = malloc(len);
	to = calloc(1, 2 * len + 65536);
	if (!from || !to || fread(from, 1, len, in) != len)
		err(1, "%s", argv[1]);
	n = copy_state(from, &end, to, d, argv + 3);
	n = copy_pages(from, end, to, n, d);
	digest_free(d);
	return fwrite(to, 1, n, out) == n ? 0 : 1;
}
