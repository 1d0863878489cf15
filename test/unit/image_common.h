/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_TEST_UNIT_IMAGE_COMMON_H
#define REPRISE_TEST_UNIT_IMAGE_COMMON_H

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs.pb-c.h"
#include "image/frame.h"
#include "image/image.h"
#include "unit.h"

/* Made-up applications, whose memory is a function of object and address. */

#define PAGE	  4096ull
#define TEST_TYPE (FRAME_STATE_FIRST + 7)

struct test_group {
	struct page_group group;
	struct page_run runs[8];
	size_t nruns;
};

static inline uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x7fb5d329728ea185;
	x ^= x >> 27;
	x *= 0x81dadef4bc2dd44d;
	return x ^ x >> 33;
}

/* A third of the pages is zero, a third compresses, a third does not; objects from 100 up are zero.
 */
static inline bool test_page(uint64_t object, uint64_t address, uint64_t *page)
{
	uint64_t seed = mix(object * 0x9e3779b97f4a7c15 + address / PAGE);

	for (size_t i = 0; i < PAGE / 8; i++) {
		if (seed % 3 == 0 || object >= 100)
			page[i] = 0;
		else if (seed % 3 == 1)
			page[i] = i < 200 ? 0 : seed + i / 50;
		else
			page[i] = mix(seed + i);
	}
	return seed % 3 == 0 || object >= 100;
}

struct test_source {
	uint64_t object;
	uint64_t fail_at; /* address, or 0 */
};

static inline int test_read(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct test_source *s = arg;

	for (size_t at = 0; at < len; at += PAGE) {
		if (s->fail_at && address + at == s->fail_at)
			return error_set(e, -EFAULT, E_VMA_READ, "page %llx is bad",
					 (unsigned long long)s->fail_at);
		test_page(s->object, address + at, (uint64_t *)((char *)buf + at));
	}
	return 0;
}

struct test_sink {
	uint64_t object;
	atomic_ulong pages, zero, wrong;
	uint64_t fail_at;
};

static inline int test_write(void *arg, uint64_t address, const void *data, size_t len,
			     struct error *e)
{
	struct test_sink *s = arg;
	uint64_t page[PAGE / 8];

	for (size_t at = 0; at < len; at += PAGE) {
		bool zero = test_page(s->object, address + at, page);

		s->pages++;
		s->zero += data == NULL;
		if (zero != (data == NULL) || (data && memcmp((char *)data + at, page, PAGE) != 0))
			s->wrong++;
		if (s->fail_at && address + at == s->fail_at)
			return error_set(e, -EFAULT, E_SYSTEM, "cannot fill");
	}
	return 0;
}

static inline uint64_t group_bytes(const struct test_group *g)
{
	uint64_t n = 0;

	for (size_t i = 0; i < g->nruns; i++)
		n += g->runs[i].length;
	return n;
}

static inline int put_record(struct image_writer *w, uint64_t id, const char *path, struct error *e)
{
	Reprise__Inode inode = REPRISE__INODE__INIT;

	inode.path = (char *)path;
	inode.ino = id;
	return image_put(w, TEST_TYPE, id % 2 ? RECORD_OPTIONAL : 0, id, &inode.base, e);
}

/* Returns the error of whichever step fails. */
static inline int write_image(int fd, const struct image_writer_options *opt, unsigned int records,
			      const struct test_group *groups, size_t ngroups,
			      struct image_totals *totals, struct error *e)
{
	struct image_writer *w = NULL;
	struct image_info info;
	uint64_t expect = 0;
	char path[64];
	int r;

	image_info_here(&info);
	r = image_writer_new(&w, fd, &info, opt, e);
	for (unsigned int i = 1; !r && i <= records; i++) {
		snprintf(path, sizeof(path), "/some/where/%u%.*s", i, (int)(i % 9), "abcdefghi");
		r = put_record(w, i, path, e);
	}
	for (size_t i = 0; i < ngroups; i++)
		expect += group_bytes(&groups[i]);
	if (!r) {
		image_expect(w, expect);
		r = image_write_state(w, e);
	}
	for (size_t i = 0; !r && i < ngroups; i++) {
		struct test_source source = {groups[i].group.object, 0};

		r = image_put_pages(w, &groups[i].group, groups[i].runs, groups[i].nruns, test_read,
				    &source, e);
	}
	if (!r)
		r = image_finish(w, totals, e);
	image_writer_free(w);
	return r;
}

/* Reads all, as a restart would. */
static inline int read_image(int fd, int jobs, unsigned int records,
			     const struct test_group *groups, size_t ngroups,
			     struct image_totals *totals, struct error *e)
{
	struct image_reader *reader = NULL;
	struct page_group next;
	int r;

	r = image_reader_new(&reader, fd, jobs, e);
	if (r)
		return r;
	if (image_record_count(reader) != records)
		r = -ENOMSG;
	for (size_t i = 0; !r && i < ngroups; i++) {
		struct test_sink sink = {.object = groups[i].group.object};

		r = image_read_pages(reader, &groups[i].group, test_write, &sink, e);
		if (!r && (sink.wrong || sink.pages != group_bytes(&groups[i]) / PAGE))
			r = -ENOMSG;
	}
	if (!r) {
		r = image_next_group(reader, &next, e);
		if (r > 0)
			r = -ENOMSG;
	}
	if (!r)
		r = image_read_end(reader, totals, e);
	image_reader_free(reader);
	return r;
}

/* All of a file in memory, to be freed. */
static inline uint8_t *file_bytes(int fd, size_t *len)
{
	off_t end = lseek(fd, 0, SEEK_END);
	uint8_t *buf = malloc(end + 1);

	assert_non_null(buf);
	assert_int_equal(pread(fd, buf, end, 0), end);
	*len = end;
	return buf;
}

static inline int bytes_file(const void *buf, size_t len)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, buf, len, 0), len);
	return fd;
}

#endif
