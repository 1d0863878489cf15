/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_IMAGE_H
#define REPRISE_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <protobuf-c/protobuf-c.h>

#include "core/error.h"

/*
 * The image: a stream of records, written and read once, front to back; see
 * doc/image-format.md. This layer knows framing, checksums and pages, and
 * nothing of what the records mean.
 *
 *	file header			magic, version, architecture, kernel, processor
 *	state records			protobuf messages, one an object
 *	PARENT, SAME			what the image is based on, or stands for (see chain.h)
 *	STATE_END			counts and digest of the state part
 *	EARLY ...			contents that were written before all that, see below
 *	PAGES ...			contents, grouped (see below)
 *	HEADS				the headers of all these, only on a seekable file
 *	END				totals and digest of the whole stream
 *	INDEX, TRAILER			only on a seekable file
 */
#define IMAGE_VERSION 1

/* Frame types of the image layer itself; state records use 256 and up (proto/types). */
enum image_frame {
	FRAME_PAD = 1,
	FRAME_STATE_END = 2,
	FRAME_PAGES = 3,
	FRAME_END = 4,
	FRAME_INDEX = 5,
	FRAME_EARLY = 6,
	FRAME_HEADS = 7,
	FRAME_PARENT = 8,
	FRAME_SAME = 9,
	FRAME_ORIGIN = 16,
	FRAME_STATE_FIRST = 256,
};

/* Record flag: a reader that does not know the type may skip it. */
#define RECORD_OPTIONAL 1u

struct image_info {
	uint32_t version;
	char arch[16]; /* uname -m */
	char sysname[65], release[65], kernel_version[65];
	uint64_t created_ns; /* CLOCK_REALTIME */
	uint8_t uuid[16];    /* identity of this image */
	uint64_t xfeatures;  /* XCR0 of the processor */
	uint32_t xstate_size;
	char cpu[128]; /* model name, for messages */
};
/* Fills in all that describes this machine. */
void image_info_here(struct image_info *ret);

struct image_totals {
	uint64_t state_records, state_bytes;
	uint64_t page_frames, pages, zero_pages, page_bytes; /* page_bytes as stored */
	uint64_t parent_pages; /* of the pages: those that are in the parent */
	uint64_t total_bytes;  /* of the whole stream */
	uint8_t digest[32];    /* of the whole stream, see the format */
	bool strong;	       /* it covers the contents of pages as well as the rest */
};

/* Another image on which an incremental one is based. */
struct image_parent {
	uint8_t uuid[16], digest[32];
	char name[256]; /* of its file, without a directory */
};
struct page_chain;

/*
 * A run of pages of one object, in units of bytes: an address in an address
 * space (object = mm id), or an offset in a shared-memory object or a saved file.
 */
struct page_run {
	uint64_t address;
	uint64_t length;   /* multiple of 4096 */
	uint64_t position; /* when writing: 0, or where the contents are already */
};

/* Positions go along with addresses. */
#define PAGE_EARLY  (1ull << 63) /* as image_put_early() told */
#define PAGE_ZERO   (1ull << 62) /* they are all zero */
#define PAGE_PARENT (1ull << 59) /* the parent has them, in the object that is that one there */

/*
 * Page contents are written and read in groups. A group is all the pages of one
 * object that are filled at one stage of the restart; the plan of the restart
 * takes groups in the order in which they stand in the image. (Stages above 0 exist for pages that
 * a parent had to hold while it forked, see doc/design.md on copy-on-write.)
 */
struct page_group {
	uint64_t object;
	uint32_t stage;
};

struct image_record {
	uint32_t type, flags;
	uint64_t id;
	const uint8_t *data;
	size_t len;
	uint64_t offset; /* in the stream, for messages */
};

/* ---- writing ---- */
struct image_writer;

enum image_compress { COMPRESS_NONE = 0, COMPRESS_LZ4 = 1, COMPRESS_ZSTD = 2 };

/* Known to root of one machine alone. */
struct image_key {
	uint8_t bytes[32];
};

struct image_writer_options {
	int jobs; /* threads for page contents; 0: one a core */
	enum image_compress compress;
	int level;
	/* Called from the writing thread now and then; a negative return ends the operation with
	 * it. */
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *progress_arg;
	/* Contents that the first image of the chain has are not stored again. NULL: none. */
	const struct page_chain *parents;
	const char *parent_name; /* of its file */
	/* Digests of images that this one stands for. */
	const uint8_t (*same)[32];
	size_t n_same;
	const struct image_key
		*origin; /* proves later where the image was made; NULL: nothing does */
	bool strong;	 /* the digest covers contents of pages by more than checksums */
};

/* fd stays the caller's; any kind of descriptor will do. */
int image_writer_new(struct image_writer **ret, int fd, const struct image_info *info,
		     const struct image_writer_options *opt, struct error *e) must_check;
/* Adds a state record to the buffer; nothing is written to fd before image_write_state(). */
int image_put(struct image_writer *w, uint32_t type, uint32_t flags, uint64_t id,
	      const ProtobufCMessage *msg, struct error *e) must_check;
/* The same for a record as it stands in another image. */
int image_put_record(struct image_writer *w, const struct image_record *record,
		     struct error *e) must_check;
/*
 * The object is the one that has another id in the parent. A wrong guess costs nothing but space:
 * contents are compared. Before its pages are put, and before image_write_state().
 */
int image_put_parent_object(struct image_writer *w, uint64_t object, uint64_t parent,
			    struct error *e) must_check;
/* Writes header, state records and STATE_END. */
int image_write_state(struct image_writer *w, struct error *e) must_check;

/*
 * Reads `len` bytes at `address` of the group's object into buf; called from
 * several threads at once. Returns 0 or a negative errno with its sentence in e (a struct error of
 * the calling thread).
 */
typedef int (*page_source)(void *arg, uint64_t address, void *buf, size_t len, struct error *e);
/*
 * Contents that go to their final place before it is known what will become of them, and before the
 * state part: room is left in front of them for that. Only in a regular file, empty and open for
 * reading as well: else -EOPNOTSUPP, without a sentence.
 */
int image_early_begin(struct image_writer *w, uint64_t room) must_check;
/* Called by one thread at a time, for each part of what is put. */
typedef int (*page_placed)(void *arg, uint64_t address, uint64_t length, uint64_t position);
/* Before image_write_state(), which may find that the room was too small: then all is moved. */
int image_put_early(struct image_writer *w, const struct page_run *runs, size_t nruns,
		    page_source source, page_placed placed, void *arg, struct error *e) must_check;
/* What is put next is compared with this object of the parent; 0: with nothing. */
void image_early_of(struct image_writer *w, uint64_t parent_object);
/* The id that was given by image_put_parent_object(); 0: none. */
uint64_t image_parent_object(const struct image_writer *w, uint64_t object);
bool image_has_early(const struct image_writer *w);
/* Nothing has been written, and image_early_begin() never called; behind image_write_state() the
 * writer is of no use any more. */
int image_early_drop(struct image_writer *w, struct error *e) must_check;
/* Runs that are all zero are stored without data, those with a position without being read. Total
 * announced by image_expect() is for progress only. */
int image_put_pages(struct image_writer *w, const struct page_group *group,
		    const struct page_run *runs, size_t nruns, page_source source, void *arg,
		    struct error *e) must_check;
void image_expect(struct image_writer *w, uint64_t page_bytes);
/* Writes END (and the index). The caller syncs and renames. */
int image_finish(struct image_writer *w, struct image_totals *ret, struct error *e) must_check;
void image_writer_free(struct image_writer *w); /* accepts NULL */

/* ---- reading ---- */
struct image_reader;

/*
 * Reads and checks the header and the whole state part (framing, lengths,
 * checksums, digest, order) before anything else can be asked of it.
 */
int image_reader_new(struct image_reader **ret, int fd, int jobs, struct error *e) must_check;
const struct image_info *image_reader_info(const struct image_reader *r);
/* Was it written with this key as its `origin`? The pages are not covered. */
bool image_made_with(const struct image_reader *r, const struct image_key *key);
size_t image_record_count(const struct image_reader *r);
const struct image_record *image_record(const struct image_reader *r, size_t i);

/*
 * Delivers page contents; called from several threads at once, for different
 * ranges. data == NULL: zero pages.
 */
typedef int (*page_sink)(void *arg, uint64_t address, const void *data, size_t len,
			 struct error *e);
/*
 * Feeds all pages of `group` to the sink; it must be the next group in the
 * image (a group without pages is not in the image, and gives nothing). Checksums are verified
 * before the sink sees a byte.
 */
int image_read_pages(struct image_reader *r, const struct page_group *group, page_sink sink,
		     void *arg, struct error *e) must_check;
/*
 * Of a regular file, contents may be left for later: `when` says for each frame, by the addresses
 * of its first page and of the end of its last one, whether it is delivered now, or kept in mind,
 * or both. The header of every frame counts for the digest; pages are verified when they are read.
 */
enum { IMAGE_NOW = 1, IMAGE_LATER = 2 };
typedef int (*image_when)(void *arg, uint64_t first, uint64_t end);
int image_read_some(struct image_reader *r, const struct page_group *group, image_when when,
		    page_sink sink, void *arg, struct error *e) must_check;
/*
 * Before any pages are looked at: of a file that has a list of its frames, their headers are taken
 * from there. A frame is compared with it when it is read.
 */
int image_use_heads(struct image_reader *r, struct error *e) must_check;
/* A frame that was left for later. */
struct image_later {
	struct page_group group;
	uint64_t first, end; /* addresses */
	uint64_t offset, size, checksum;
	uint64_t data;	    /* bytes of the contents that stand in it, unpacked */
	uint8_t strong[32]; /* digest, if there is one */
};
/* The i-th of them in the order of the image, NULL past the last. Valid until more are read. */
const struct image_later *image_later(const struct image_reader *r, size_t i);
/*
 * One frame may refer to much that stands elsewhere. Into parts of bearable size: calls `part` with
 * ranges of addresses that ascend and make up the whole frame.
 */
typedef int (*image_part)(void *arg, const struct image_later *f, uint64_t from, uint64_t to,
			  uint64_t place);
/* place: the last offset at which contents of the part stand that were copied in advance, or: */
#define IMAGE_PLACE_NONE 0	    /* it has none of its own */
#define IMAGE_PLACE_HERE UINT64_MAX /* some stand in the frame itself */
int image_later_parts(const struct image_reader *r, const struct image_later *f, image_part part,
		      void *arg, struct error *e) must_check;
/* Room for frames, for one thread at a time. */
struct image_room;
struct image_room *image_room_new(struct image_reader *r);
void image_room_free(struct image_room *room); /* accepts NULL */
/* Delivers the runs of a frame that overlap a range. */
int image_read_later(struct image_room *room, const struct image_later *f, uint64_t from,
		     uint64_t to, page_sink sink, void *arg, struct error *e) must_check;
/* Can it be read here and there? */
bool image_is_file(const struct image_reader *r);
/* Those that it is read by: its own, and those of its parents; -EBADF past the last. */
int image_descriptor(const struct image_reader *r, size_t i);
/* Looks at the next group without taking it: 1 and *ret, or 0 at the end record. */
int image_next_group(struct image_reader *r, struct page_group *ret, struct error *e) must_check;
/* Of a file: also the frames that nothing refers to, which a reader of groups leaves alone. */
int image_check_unused(struct image_reader *r, struct error *e) must_check;
/* Reads to the end record (skipping groups, verifying checksums) and checks totals and digest. */
int image_read_end(struct image_reader *r, struct image_totals *ret, struct error *e) must_check;
void image_reader_set_progress(struct image_reader *r,
			       int (*progress)(void *arg, uint64_t done, uint64_t total),
			       void *arg);
/* NULL: the image is complete in itself. */
const struct image_parent *image_reader_parent(const struct image_reader *r);
/* The id that an object has in the parent; 0: it has none. */
uint64_t image_reader_parent_object(const struct image_reader *r, uint64_t object);
/* Where the contents are that an incremental image does not hold; stays the caller's. */
void image_reader_set_parents(struct image_reader *r, const struct page_chain *parents);
/* Digests that the image stands for, besides its own; NULL past the last. */
const uint8_t *image_reader_same(const struct image_reader *r, size_t i);
/* The total is announced in the STATE_END record. */
uint64_t image_reader_page_bytes(const struct image_reader *r);
void image_reader_free(struct image_reader *r); /* accepts NULL */

#endif
