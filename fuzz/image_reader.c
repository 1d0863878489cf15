/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images may come from anywhere. The first byte chooses how the rest is read: as a file or as a
 * stream, by how many threads, by a restart or to verify it. Built with its own copy of the image
 * layer, in which checksums are not compared, since no fuzzer guesses one.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define AS_STREAM   1
#define TWO_JOBS    2
#define ONE_SKIPPED 4
#define VERIFY	    8

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

static void read_image(int fd, int how)
{
	struct image_reader *r = NULL;
	struct page_group group;
	struct error e = {};
	uint8_t last;
	int err;

	err = image_reader_new(&r, fd, how & TWO_JOBS ? 2 : 1, &e);
	if (!err) {
		read_records(r);
		while (!(how & VERIFY) && (err = image_next_group(r, &group, &e)) > 0) {
			if (how & ONE_SKIPPED && group.object % 2)
				break;
			err = image_read_pages(r, &group, sink, &last, &e);
			if (err)
				break;
		}
		if (err >= 0)
			err = image_read_end(r, NULL, &e);
	}
	/* Every refusal has its sentence, and success has none. */
	if ((err < 0) != (e.code != ERROR_NONE) || e.code == E_INTERNAL)
		__builtin_trap();
	image_reader_free(r);
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
