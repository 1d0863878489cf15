/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "image/envelope.h"
#include "image/reader.h"

#define READ_CHUNK (1u << 20)

int reader_damaged(uint64_t offset, const char *what, struct error *e)
{
	return error_set(e, -EBADMSG, E_IMAGE_DAMAGED, "the image is damaged at offset %llu: %s",
			 (unsigned long long)offset, what);
}

static int reader_cut(uint64_t offset, const char *what, struct error *e)
{
	return error_set(e, -EBADMSG, E_IMAGE_CUT, "the image ends at offset %llu, within %s",
			 (unsigned long long)offset, what);
}

int reader_take(struct image_reader *r, void *buf, size_t len, uint64_t offset, const char *what,
		struct error *e)
{
	ssize_t n = stream_read(&r->in, buf, len, offset, e);

	if (n < 0)
		return n;
	if ((size_t)n < len)
		return reader_cut(offset + n, what, e);
	return 0;
}

static const char *compressed_by(const uint8_t *start)
{
	static const struct {
		const char *name;
		uint8_t magic[4], len;
	} programs[] = {
		{"gzip", {0x1f, 0x8b}, 2},
		{"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4},
		{"xz", {0xfd, '7', 'z', 'X'}, 4},
		{"bzip2", {'B', 'Z', 'h'}, 3},
		{"lz4", {0x04, 0x22, 0x4d, 0x18}, 4},
	};

	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
		if (memcmp(start, programs[i].magic, programs[i].len) == 0)
			return programs[i].name;
	return NULL;
}

/* Text mode turns line ends, drops what follows a control-Z or the eighth bit. */
static int check_magic(const struct image_header *h, size_t got, struct error *e)
{
	static const uint8_t magic[] = IMAGE_MAGIC;
	size_t n = got < sizeof(h->magic) ? got : sizeof(h->magic);
	const char *program;

	if (got == 0)
		return error_set(e, -ENODATA, E_IMAGE_EMPTY, "the image is empty");
	if (memcmp(h->magic, magic, n) == 0)
		return 0;
	if (got >= sizeof(h->magic) && memcmp(h->magic, ENVELOPE_MAGIC, sizeof(h->magic)) == 0)
		return error_set(e, -EINVAL, E_IMAGE_SEALED, "the image is signed or encrypted");
	if (got >= 4 && (magic[0] & 0x7f) == (h->magic[0] & 0x7f) &&
	    memcmp(h->magic + 1, magic + 1, 3) == 0)
		return reader_damaged(0, "it was changed on its way, as by a transfer as text", e);
	program = got >= 4 ? compressed_by((const uint8_t *)h->magic) : NULL;
	if (program)
		return error_set(e, -EINVAL, E_IMAGE_FORMAT,
				 "this was compressed by %s, and has to be decompressed first",
				 program);
	return error_set(e, -EINVAL, E_IMAGE_FORMAT, "this is no image of reprise");
}

static bool is_string(const char *s, size_t size)
{
	return memchr(s, 0, size) != NULL;
}

static int check_header(const struct image_header *h, struct error *e)
{
	if (h->version == 0 || h->length < sizeof(*h))
		return reader_damaged(8, "version or length of the file header", e);
	if (h->version > IMAGE_VERSION || h->flags)
		return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER,
				 "the image is of version %u, and this reader knows version %u",
				 h->version, IMAGE_VERSION);
	if (!is_string(h->arch, sizeof(h->arch)) || !is_string(h->sysname, sizeof(h->sysname)) ||
	    !is_string(h->release, sizeof(h->release)) ||
	    !is_string(h->kernel_version, sizeof(h->kernel_version)) ||
	    !is_string(h->cpu, sizeof(h->cpu)))
		return reader_damaged(0, "a string in the file header has no end", e);
	if (h->state_length > IMAGE_STATE_MAX || h->state_length % 8)
		return reader_damaged(0, "length of the state part", e);
	return 0;
}

static void info_fill(struct image_info *ret, const struct image_header *h)
{
	*ret = (struct image_info){
		.version = h->version,
		.created_ns = h->created_ns,
		.xfeatures = h->xfeatures,
		.xstate_size = h->xstate_size,
	};
	memcpy(ret->uuid, h->uuid, sizeof(ret->uuid));
	snprintf(ret->arch, sizeof(ret->arch), "%s", h->arch);
	snprintf(ret->sysname, sizeof(ret->sysname), "%.64s", h->sysname);
	snprintf(ret->release, sizeof(ret->release), "%.64s", h->release);
	snprintf(ret->kernel_version, sizeof(ret->kernel_version), "%.64s", h->kernel_version);
	snprintf(ret->cpu, sizeof(ret->cpu), "%s", h->cpu);
}

static int check_arch(const struct image_info *info, struct error *e)
{
	struct image_info here;

	image_info_here(&here);
	if (strcmp(info->arch, here.arch) != 0)
		return error_set(e, -ENOEXEC, E_IMAGE_ARCH,
				 "the image was made on %s, and this machine is %s", info->arch,
				 here.arch);
	return 0;
}

/* The part of the header that every version has comes first, and tells how long the rest is. */
static int read_header(struct image_reader *r, uint64_t *ret_state_length, struct error *e)
{
	union {
		struct image_header h;
		uint8_t bytes[IMAGE_HEADER_MAX];
	} u;
	const size_t prefix = offsetof(struct image_header, arch);
	uint64_t stored;
	ssize_t n;
	int err;

	n = stream_read(&r->in, &u, prefix, 0, e);
	if (n < 0)
		return n;
	err = check_magic(&u.h, n, e);
	if (err < 0)
		return err;
	if ((size_t)n < prefix)
		return reader_cut(n, "the file header", e);
	if (u.h.length < prefix || u.h.length > sizeof(u) || u.h.length % 8)
		return reader_damaged(12, "length of the file header", e);
	err = reader_take(r, u.bytes + prefix, u.h.length - prefix, prefix, "the file header", e);
	if (err < 0)
		return err;
	stored = u.h.checksum;
	u.h.checksum = 0;
	if (!checksum_equal(checksum_of(&u, u.h.length), stored))
		return reader_damaged(0, "checksum of the file header", e);
	err = check_header(&u.h, e);
	if (err < 0)
		return err;
	info_fill(&r->info, &u.h);
	u.h.checksum = stored;
	digest_update(r->digest, &u, u.h.length);
	memcpy(r->header, &u, u.h.length);
	r->state_offset = u.h.length;
	*ret_state_length = u.h.state_length;
	return check_arch(&r->info, e);
}

/* Memory grows with what has arrived, not with what the header promises. */
static int read_state(struct image_reader *r, uint64_t length, struct error *e)
{
	size_t size = 0;
	int err;

	while (r->state_len < length) {
		size_t want = length - r->state_len;
		uint8_t *p;

		if (r->state_len == size) {
			size = size ? size * 2 : READ_CHUNK;
			if (size > length)
				size = length;
			p = realloc(r->state, size);
			if (!p)
				return error_set(e, -ENOMEM, E_NO_MEMORY,
						 "no memory for the state part");
			r->state = p;
		}
		if (want > size - r->state_len)
			want = size - r->state_len;
		err = reader_take(r, r->state + r->state_len, want, r->state_offset + r->state_len,
				  "the state part", e);
		if (err < 0)
			return err;
		r->state_len += want;
	}
	r->offset = r->state_offset + length;
	return 0;
}

/* STATE_END: `at` is its place in the state part. */
static int check_state_end(struct image_reader *r, size_t at, struct error *e)
{
	const struct frame *f = (const struct frame *)(r->state + at);
	const struct state_end *end = (const struct state_end *)(f + 1);
	uint64_t offset = r->state_offset + at;
	uint8_t digest[IMAGE_DIGEST_SIZE];

	if (f->flags || f->length != sizeof(*end) || at + frame_size(f) != r->state_len)
		return reader_damaged(offset, "end of the state part", e);
	r->strong = end->digest_kind == IMAGE_DIGEST_ALL;
	if ((end->digest_kind != IMAGE_DIGEST_HEADERS && !r->strong) || end->reserved)
		return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER,
				 "the image has a digest of unknown kind %u", end->digest_kind);
	if (end->records != r->records.n || end->bytes != offset)
		return reader_damaged(offset, "number or length of the state records", e);
	/* The proof of the origin is one of all that stands before the end, or of nothing. */
	if (r->has_origin)
		r->has_origin =
			r->origin_at + frame_size((struct frame *)(r->state + r->origin_at)) == at;
	digest_update(r->digest, r->state, at);
	digest_now(r->digest, digest);
	if (!digest_equal(digest, end->digest))
		return reader_damaged(offset, "digest of the state part", e);
	digest_update(r->digest, f, frame_size(f));
	r->progress.total = end->page_bytes;
	r->totals.state_records = end->records;
	r->totals.state_bytes = r->offset;
	return 1;
}

/* Returns 1 at the end of the state part. */
static int state_frame(struct image_reader *r, size_t at, struct error *e)
{
	const struct frame *f = (const struct frame *)(r->state + at);
	uint64_t offset = r->state_offset + at;
	struct image_record *record;

	int err;

	if (f->type == FRAME_STATE_END)
		return check_state_end(r, at, e);
	if (f->flags & ~RECORD_OPTIONAL)
		return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER,
				 "the record at offset %llu has unknown flags %#x",
				 (unsigned long long)offset, f->flags);
	if (f->type >= FRAME_STATE_FIRST) {
		record = vec_push(&r->records);
		if (!record)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the records");
		*record = (struct image_record){
			.type = f->type,
			.flags = f->flags,
			.id = f->id,
			.data = (const uint8_t *)(f + 1),
			.len = f->length,
			.offset = offset,
		};
		return 0;
	}
	err = reader_parent_frame(r, f, offset, e);
	if (err)
		return err < 0 ? err : 0;
	if (f->type == FRAME_ORIGIN) {
		r->has_origin = true;
		r->origin_at = at;
	}
	if (f->type == FRAME_PAD || (f->flags & RECORD_OPTIONAL))
		return 0;
	if (f->type >= FRAME_PAGES && f->type <= FRAME_HEADS)
		return reader_damaged(offset, "a frame that does not belong into the state part",
				      e);
	return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER,
			 "the frame at offset %llu is of unknown type %u",
			 (unsigned long long)offset, f->type);
}

static int parse_state(struct image_reader *r, struct error *e)
{
	size_t at = 0;
	int err;

	while (r->state_len - at >= sizeof(struct frame)) {
		struct frame *f = (struct frame *)(r->state + at);
		size_t left = r->state_len - at - sizeof(*f);

		/* `left` is a multiple of 8, so that the padding fits as well. */
		if (f->length > left)
			return reader_damaged(r->state_offset + at, "length of a record", e);
		if (!frame_intact(f))
			return reader_damaged(r->state_offset + at, "checksum of a record", e);
		err = state_frame(r, at, e);
		if (err)
			return err < 0 ? err : 0;
		at += frame_size(f);
	}
	return reader_damaged(r->state_offset + at, "the state part has no end record", e);
}

static void reader_free(struct image_reader **r)
{
	image_reader_free(*r);
}

int image_reader_new(struct image_reader **ret, int fd, int jobs, struct error *e)
{
	_cleanup_(reader_free) struct image_reader *r = calloc(1, sizeof(*r));
	uint64_t length;
	int err;

	if (!r)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the image");
	r->jobs = jobs;
	r->early.spill = -EBADF;
	r->digest = digest_new();
	if (!r->digest)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the image");
	err = stream_open_input(&r->in, fd, e);
	if (err < 0)
		return err;
	r->in.progress = &r->progress;
	err = read_header(r, &length, e);
	if (err < 0)
		return err;
	err = read_state(r, length, e);
	if (err < 0)
		return err;
	err = parse_state(r, e);
	if (err < 0)
		return err;
	err = pages_reader_new(&r->pages, r, e);
	if (err < 0)
		return err;
	*ret = take_ptr(&r);
	return 0;
}

const struct image_info *image_reader_info(const struct image_reader *r)
{
	return &r->info;
}

size_t image_record_count(const struct image_reader *r)
{
	return r->records.n;
}

const struct image_record *image_record(const struct image_reader *r, size_t i)
{
	return i < r->records.n ? &r->records.v[i] : NULL;
}

uint64_t image_reader_page_bytes(const struct image_reader *r)
{
	return r->progress.total;
}

void image_reader_set_progress(struct image_reader *r,
			       int (*progress)(void *arg, uint64_t done, uint64_t total), void *arg)
{
	r->progress.report = progress;
	r->progress.arg = arg;
}

void image_reader_free(struct image_reader *r)
{
	if (!r)
		return;
	pages_reader_free(r->pages);
	digest_free(r->digest);
	vec_free(&r->records);
	vec_free(&r->index);
	vec_free(&r->early.frames);
	close_fd(&r->early.spill);
	vec_free(&r->same);
	vec_free(&r->later);
	free(r->heads.frame);
	free(r->state);
	free(r);
}
