/* SPDX-License-Identifier: Apache-2.0 */
#include "image/room.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/virtio_balloon.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"

#define HUGE_BYTES  (2ull << 20)
/* Small images are left alone; and of what is cut off again there is never more than was written.
 */
#define WORTH	    (4 * HUGE_BYTES)
/* A call first waits for all processors (lru_add_drain_all()), which takes its time where they are
 * busy: then fewer ones are better. Else small ones are, since nobody writes meanwhile. */
#define PIECE_FIRST HUGE_BYTES
#define PIECE_SMALL (4 * HUGE_BYTES)
#define PIECE_MOST  (32 * HUGE_BYTES)
/* Single pages take some 600 us, and a huge one 120; where memory is scattered it may take longer.
 */
#define SLOW_NS	    250000u
#define TOO_SLOW_NS 1000000u
#define PATIENCE_NS 2000000u

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/*
 * The memory of a guest that gives free memory back to its host (page_reporting.c, in blocks of the
 * size of a huge page) is made by the host when it is used again, page by page, which takes longer
 * than is to be gained. Free memory in smaller pieces stays.
 */
static bool returns_free_memory(void)
{
	_cleanup_(close_fd) int fd = -EBADF;
	DIR *dir = opendir("/sys/bus/virtio/drivers/virtio_balloon");
	char path[300], features[64] = "";
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		if (strncmp(d->d_name, "virtio", 6) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/features", d->d_name);
		close_fd(&fd);
		fd = openat(dirfd(dir), path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, features, sizeof(features)) > VIRTIO_BALLOON_F_REPORTING &&
		    features[VIRTIO_BALLOON_F_REPORTING] == '1')
			break;
		features[VIRTIO_BALLOON_F_REPORTING] = '0';
	}
	if (dir)
		closedir(dir);
	return features[VIRTIO_BALLOON_F_REPORTING] == '1';
}

static bool is_on_tmpfs(int fd)
{
	struct statfs fs;
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & O_ACCMODE) == O_RDWR && fstatfs(fd, &fs) == 0 &&
	       fs.f_type == TMPFS_MAGIC;
}

void room_begin(struct file_room *r, const struct stream *s)
{
	*r = (struct file_room){.piece = PIECE_FIRST};
	r->off = !s->positioned || s->size || s->base || !is_on_tmpfs(s->fd) ||
		 returns_free_memory();
}

bool room_by_pages(int fd)
{
	struct stat st;

	return is_on_tmpfs(fd) && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !st.st_size &&
	       lseek(fd, 0, SEEK_CUR) == 0 && returns_free_memory();
}

static uint64_t next_start(const struct file_room *r, uint64_t at)
{
	uint64_t from = r->end > at ? r->end : at;

	return (from + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
}

bool room_wanted(const struct file_room *r, uint64_t at, uint64_t written, uint64_t most)
{
	return !r->off && written >= WORTH && r->end < at + HUGE_BYTES / 2 &&
	       next_start(r, at) + HUGE_BYTES <= most;
}

/* Huge pages are made around one page that is there, whichever it is: the last one, so that the
 * file reaches so far (collapse_file()). */
static bool touch(const struct stream *s, uint64_t start, uint64_t end)
{
	struct error unused = {};

	for (uint64_t at = start; at < end; at += HUGE_BYTES)
		if (stream_write(s, "", 1, at + HUGE_BYTES - 1, &unused) < 0)
			return false;
	return true;
}

static bool collapse(const struct stream *s, uint64_t start, uint64_t len)
{
	/* where a huge page could be mapped */
	size_t reserved = len + HUGE_BYTES;
	uint8_t *area =
		mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *at;
	bool done;

	if (area == MAP_FAILED)
		return false;
	at = area + (HUGE_BYTES - (uintptr_t)area % HUGE_BYTES) % HUGE_BYTES;
	done = mmap(at, len, PROT_READ, MAP_SHARED | MAP_FIXED, s->fd, (off_t)start) == at &&
	       madvise(at, len, MADV_COLLAPSE) == 0;
	munmap(area, reserved);
	return done;
}

void room_make(struct file_room *r, const struct stream *s, uint64_t at, uint64_t most)
{
	uint64_t start = next_start(r, at), len = (most - start) / HUGE_BYTES * HUGE_BYTES;
	uint64_t begun = now_ns(), took;

	if (len > r->piece)
		len = r->piece;
	r->end = start + len;
	if (!touch(s, start, start + len) || !collapse(s, start, len))
		r->off = true;
	took = now_ns() - begun;
	r->ns += took;
	r->made += len;
	if (r->ns > PATIENCE_NS + r->made / HUGE_BYTES * TOO_SLOW_NS)
		r->off = true;
	else if (r->piece < PIECE_SMALL ||
		 (took / (len / HUGE_BYTES) > SLOW_NS && r->piece < PIECE_MOST))
		r->piece *= 2;
}

int room_end(const struct file_room *r, const struct stream *s, uint64_t len, struct error *e)
{
	if (r->end > len && ftruncate(s->fd, (off_t)len) < 0)
		return error_errno(e, -errno, E_OUTPUT, "cannot cut the image file");
	return 0;
}
