/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images may come from anywhere. The first byte chooses how the rest is read: as a file or as a
 * stream, by how many threads, by a restart (at once or lazily) or to verify it. Built with its own
 * copy of the image layer, in which checksums are not compared, since no fuzzer guesses one.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/chain.h"
#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define AS_STREAM   1
#define TWO_JOBS    2
#define ONE_SKIPPED 4
#define VERIFY	    8
#define AS_PARENT   16
#define LISTED	    32 /* contents are left for later */

/* Looks at all that it gets, for the address sanitizer. */
static int sink(void *arg, uint64_t address, const void *data, size_t len, struct error *e)
{
	volatile uint8_t *last = arg;
	const uint8_t *bytes = data;

	if (len == 0 || len % 4096 || address % 4096 || address + len < address)
		__builtin_trap();
	for (size_t i = 0; bytes && i < len; i += 512)
		*last = bytes[i];
	if (bytes)
		*last = bytes[len - 1];
	return 0;
}

static int open_input(const uint8_t *data, size_t size, bool stream)
{
	int fds[2];

	if (!stream) {
		fds[0] = memfd_create("image", MFD_CLOEXEC);
		if (fds[0] >= 0 && write(fds[0], data, size) == (ssize_t)size &&
		    lseek(fds[0], 0, SEEK_SET) == 0)
			return fds[0];
		close(fds[0]);
		return -1;
	}
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	if (write(fds[1], data, size) != (ssize_t)size) {
		close(fds[0]);
		fds[0] = -1;
	}
	close(fds[1]);
	return fds[0];
}

static void read_records(const struct image_reader *r)
{
	for (size_t i = 0; i < image_record_count(r); i++) {
		const struct image_record *record = image_record(r, i);
		volatile uint8_t last;

		if (record->type < FRAME_STATE_FIRST)
			__builtin_trap();
		for (size_t j = 0; j < record->len; j++)
			last = record->data[j];
		(void)last;
	}
}

static void read_group(const struct page_chain *chain, struct page_cursor *cursor,
		       const struct page_group *group)
{
	struct page_run *runs = NULL;
	struct error e = {};
	size_t n = 0;
	uint8_t last;

	if (page_map_runs(page_chain_at(chain, 0), group, &runs, &n, &e) < 0)
		__builtin_trap();
	for (size_t i = 0; i < n; i++)
		for (uint64_t at = 0, len, turns = 0; at < runs[i].length && turns < 1000;
		     at += len, turns++) {
			const void *data;
			int r = page_chain_get(chain, cursor, group, runs[i].address + at,
					       runs[i].length - at, &data, &len, &e);

			if (r <= 0)
				break;
			sink(&last, runs[i].address + at, data, len, &e);
		}
	free(runs);
}

/* The image as the parent of itself, which is found out elsewhere. */
static struct page_chain *make_chain(int fd)
{
	struct page_cursor *cursor = NULL;
	struct page_chain *chain = NULL;
	struct page_group group;
	struct error e = {};

	if (page_chain_new(&chain, &e) < 0 || page_cursor_new(&cursor, &e) < 0)
		abort();
	for (int i = 0; i < 2; i++) {
		struct page_map *map = NULL;
		int copy = dup(fd);

		lseek(copy, 0, SEEK_SET);
		if (page_map_open(&map, copy, &e) < 0 || page_chain_add(chain, map, "x", &e) < 0)
			break;
	}
	for (size_t i = 0; i < page_chain_length(chain); i++) {
		struct error wrong = {};

		if ((page_chain_verify(chain, i, &wrong) < 0) != (wrong.code != ERROR_NONE))
			__builtin_trap();
	}
	if (page_chain_length(chain))
		for (size_t i = 0; page_map_group(page_chain_at(chain, 0), i, &group); i++)
			read_group(chain, cursor, &group);
	page_cursor_free(cursor);
	lseek(fd, 0, SEEK_SET);
	return chain;
}

static int later(void *arg, uint64_t first, uint64_t end)
{
	return IMAGE_LATER;
}

static void read_later(struct image_reader *r)
{
	struct image_room *room = image_room_new(r);
	const struct image_later *f;
	uint8_t last;

	for (size_t i = 0; (f = image_later(r, i)); i++) {
		struct error e = {};

		if ((image_read_later(room, f, f->first, f->end, sink, &last, &e) < 0) !=
		    (e.code != ERROR_NONE))
			__builtin_trap();
	}
	image_room_free(room);
}

static void read_image(int fd, int how)
{
	struct page_chain *chain = how & AS_PARENT ? make_chain(fd) : NULL;
	struct image_reader *r = NULL;
	struct page_group group;
	struct error e = {};
	bool lazy = how & LISTED && !(how & AS_STREAM);
	uint8_t last;
	int err;

	err = image_reader_new(&r, fd, how & TWO_JOBS ? 2 : 1, &e);
	if (!err) {
		image_reader_set_parents(r, chain);
		read_records(r);
		if (how & LISTED)
			err = image_use_heads(r, &e);
		while (!err && !(how & VERIFY) && (err = image_next_group(r, &group, &e)) > 0) {
			if (how & ONE_SKIPPED && group.object % 2)
				break;
			err = image_read_some(r, &group, lazy ? later : NULL, sink, &last, &e);
			if (err)
				break;
		}
		if (err >= 0)
			err = image_read_end(r, NULL, &e);
		if (err >= 0 && lazy)
			read_later(r);
	}
	/* Every refusal has its sentence, and success has none. */
	if ((err < 0) != (e.code != ERROR_NONE) || e.code == E_INTERNAL)
		__builtin_trap();
	image_reader_free(r);
	page_chain_free(chain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd;

	if (size < 1)
		return 0;
	fd = open_input(data + 1, size - 1, data[0] & AS_STREAM);
	if (fd < 0)
		return 0;
	read_image(fd, data[0]);
	close(fd);
	return 0;
}
