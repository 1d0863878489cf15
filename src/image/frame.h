/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_FRAME_H
#define REPRISE_IMAGE_FRAME_H

#include <assert.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"
#include "image/image.h"

/*
 * The layout of an image, byte for byte as it stands in doc/image-format.md:
 * little-endian, everything at a multiple of 8.
 */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "images are little-endian");

/* A byte above 127, both kinds of line end and a control-Z: a transfer as text shows at once. */
#define IMAGE_MAGIC	    "\x8fREP\r\n\x1a\n"
#define IMAGE_TRAILER_MAGIC "\x8fRET\r\n\x1a\n"
#define IMAGE_MAGIC_SIZE    8

#define IMAGE_HEADER_MAX 4096
#define IMAGE_STATE_MAX	 (1ull << 30)
#define IMAGE_PAGE	 4096u

struct image_header {
	/* These four stay as they are in every version. */
	uint8_t magic[IMAGE_MAGIC_SIZE];
	uint32_t version;
	uint32_t length;   /* of the header, a multiple of 8 */
	uint64_t checksum; /* XXH3-64 of the header with 0 in this place */
	char arch[16];
	uint64_t created_ns;
	uint8_t uuid[16];
	uint64_t xfeatures;
	uint32_t xstate_size;
	uint32_t flags;	       /* 0 */
	uint64_t state_length; /* from the end of the header to the end of STATE_END */
	char sysname[72], release[72], kernel_version[72];
	char cpu[128];
};
static_assert(sizeof(struct image_header) == 432, "image header");

struct frame {
	uint32_t type;
	uint32_t flags;
	uint64_t length; /* of the payload, without the zero bytes up to a multiple of 8 */
	uint64_t id;
	uint64_t checksum; /* XXH3-64 of this header, with 0 in this place, and the payload */
};
static_assert(sizeof(struct frame) == 32, "frame header");

#define IMAGE_DIGEST_SIZE    32
/* BLAKE2b-256 of the state part and of the headers of the frames after it, which hold checksums of
 * the rest. */
#define IMAGE_DIGEST_HEADERS 1
/* Likewise, with the strong digest of each frame with pages behind its header. */
#define IMAGE_DIGEST_ALL     2

struct state_end {
	uint64_t records;    /* of types from FRAME_STATE_FIRST up */
	uint64_t bytes;	     /* of the stream before this frame */
	uint64_t page_bytes; /* that are to come, for progress */
	uint32_t digest_kind;
	uint32_t reserved;
	uint8_t digest[IMAGE_DIGEST_SIZE]; /* of these bytes */
};
static_assert(sizeof(struct state_end) == 64, "state end");

/* Directly before STATE_END: a MAC of the header and all frames before this one. Optional. */
struct origin {
	uint32_t kind;
	uint32_t reserved;
	uint8_t mac[IMAGE_DIGEST_SIZE];
};
static_assert(sizeof(struct origin) == 40, "origin");

#define ORIGIN_BLAKE2B 1 /* keyed BLAKE2b-256 */

/* The object is the id of the frame. Runs follow, then zero bytes, then the strong digest if there
 * is one, then data. */
struct pages_header {
	uint32_t stage;
	uint32_t nruns;
	uint32_t compression;
	uint32_t data_offset;	/* from the start of the frame, a multiple of 8 */
	uint64_t raw_length;	/* of the data, unpacked */
	uint64_t stored_length; /* of the data, as they stand here */
	uint64_t first, end;	/* addresses: of the first page, and behind the last one */
};
static_assert(sizeof(struct pages_header) == 48, "pages header");

struct pages_run {
	uint64_t address;
	uint32_t pages;
	uint32_t flags;
};
static_assert(sizeof(struct pages_run) == 16, "pages run");

#define PAGES_RUN_ZERO	 1u /* all zero, and without data */
#define PAGES_RUN_PARENT 2u /* without data: the contents are in the parent */
#define PAGES_RUN_PLACED 4u /* contents stand in an EARLY frame, whose offset follows the runs */

/* What an incremental image is based on: `objects` entries follow, ascending. */
struct parent_frame {
	uint8_t uuid[16];
	uint8_t digest[IMAGE_DIGEST_SIZE];
	char name[256]; /* of its file, without a directory */
	uint64_t objects;
};
static_assert(sizeof(struct parent_frame) == 312, "parent");

struct parent_object {
	uint64_t object, parent; /* ids: here, and of the same thing in the parent */
};
static_assert(sizeof(struct parent_object) == 16, "object of the parent");

/* The image says what another one says: the digest of that. */
struct same_frame {
	uint32_t digest_kind;
	uint32_t reserved;
	uint8_t digest[IMAGE_DIGEST_SIZE];
};
static_assert(sizeof(struct same_frame) == 40, "same");

#define PAGES_RUNS_MAX	      4096u
#define PAGES_DATA_MAX	      (1u << 20)
#define PAGES_DATA_OFFSET_MAX (80u << 10)
#define PAGES_COMPRESS_MAX    COMPRESS_ZSTD
#define PAGES_HEAD	      (sizeof(struct frame) + sizeof(struct pages_header))
#define PAGES_FRAME_MAX	      (PAGES_DATA_OFFSET_MAX + PAGES_DATA_MAX)
/* No object, memory or file, reaches further. */
#define PAGES_ADDRESS_MAX     (1ull << 63)

struct image_end {
	uint64_t state_records, state_bytes;
	uint64_t page_frames, pages, zero_pages, page_bytes;
	uint64_t total_bytes;	 /* of the stream, with what follows this frame */
	uint64_t trailing_bytes; /* that follow this frame: INDEX and trailer, or 0 */
	uint32_t digest_kind;
	uint32_t reserved;
	uint8_t digest[IMAGE_DIGEST_SIZE]; /* the fields above are its last input */
};
static_assert(sizeof(struct image_end) == 104, "image end");

struct index_entry {
	uint64_t object;
	uint32_t stage;
	uint32_t reserved;
	uint64_t offset; /* of the group's first frame */
};
static_assert(sizeof(struct index_entry) == 24, "index entry");

struct image_trailer {
	uint64_t end_offset, index_offset; /* of the frames */
	uint64_t checksum;		   /* XXH3-64 of the trailer with 0 in this place */
	uint8_t magic[IMAGE_MAGIC_SIZE];
};
static_assert(sizeof(struct image_trailer) == 32, "trailer");

static inline uint64_t align_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

/* All of a frame in the stream. Lengths have been checked against a limit before. */
static inline uint64_t frame_size(const struct frame *f)
{
	return sizeof(*f) + align_up(f->length, 8);
}

/* Fills in the checksum of the frame in buf, whose payload follows, and zeroes its padding. Returns
 * its size. */
size_t frame_seal(void *buf);
/* Header and payload stand together in buf, as they were read; looks at the padding as well. */
bool frame_intact(void *buf);
uint64_t checksum_of(const void *data, size_t len);
/* BLAKE2b-256 of a frame with pages, without its header and the place of this digest, which is
 * directly before the data. Headers have been checked. */
void frame_strong(const void *frame, uint8_t ret[IMAGE_DIGEST_SIZE]);
uint64_t frame_strong_at(const struct pages_header *p);
/* Does it hold this strong digest, rightly? */
bool frame_is(const void *frame, const uint8_t strong[IMAGE_DIGEST_SIZE]);
/* The comparisons of checksums and of digests, in one place for the fuzzer to disarm. */
bool checksum_equal(uint64_t a, uint64_t b);
bool digest_equal(const uint8_t *a, const uint8_t *b);

/* The digest of the stream, as it grows. */
struct digest;
struct digest *digest_new(void);
void digest_free(struct digest *d); /* accepts NULL */
void digest_update(struct digest *d, const void *data, size_t len);
/* The digest so far; more may follow. */
void digest_now(const struct digest *d, uint8_t ret[IMAGE_DIGEST_SIZE]);

/* Counts a PAGES frame. */
void totals_add(struct image_totals *t, const struct pages_header *p);

#endif
