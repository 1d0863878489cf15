/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_RING_H
#define REPRISE_FS_BPF_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/scratch.h"
#include "fs.pb-c.h"

/*
 * Rings of messages: from BPF programs to a process (BPF_MAP_TYPE_RINGBUF), and from a process to
 * programs (BPF_MAP_TYPE_USER_RINGBUF).
 */

/* Through a description of our own. While checking only whether it can be. */
int bpf_ring_save(int fd, Reprise__BpfMap *m, bool checking, struct scratch *s,
		  struct error *e) must_check;
/* Of any map: one that is no ring has nothing of it. */
bool bpf_ring_valid(const Reprise__BpfMap *m);
/* Of a new one. A negative errno. */
int bpf_ring_fill(int fd, const Reprise__BpfMap *m) must_check;

/* ---- between the two files of rings ---- */

/*
 * What the kernel shows of one (ringbuf_map_mmap_kern()): how far it has been read and how far
 * written, in bytes since it was made, each at the beginning of a page; then its data, which are a
 * power of two of bytes, and are mapped twice in a row, so that no message is broken. A message
 * begins with a struct bpf_ringbuf_hdr and ends at a multiple of 8.
 */
#define RING_PAGE   4096u
#define RING_HEADER 8u /* length and marks, and a place in the kernel: 32 bits each */
#define RING_DATA   (2 * RING_PAGE)

struct bpf_ring {
	uint8_t *at;
	uint32_t size; /* of its data */
};

static inline uint64_t *ring_consumer(const struct bpf_ring *r)
{
	return (uint64_t *)r->at;
}

static inline uint64_t *ring_producer(const struct bpf_ring *r)
{
	return (uint64_t *)(r->at + RING_PAGE);
}

static inline uint32_t *ring_header(const struct bpf_ring *r, uint64_t at)
{
	return (uint32_t *)(r->at + RING_DATA + (at & (r->size - 1)));
}

/* A program that acts on a ring is run. */
int bpf_ring_run(int program, const void *context, size_t size) must_check;

/* One that programs read: are its positions such as can be reached? */
bool bpf_ring_user_valid(const struct bpf_ring *r);
/* What `from` holds, into a new one. */
int bpf_ring_user_fill(int fd, const struct bpf_ring *from) must_check;

#endif
