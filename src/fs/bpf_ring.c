/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings that BPF programs write to. Nobody else can: so a program of ours puts back what was there,
 * message by message, and moves an empty ring to its place by messages that it takes back.
 */
#include "fs/bpf_ring.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "fs/bpf_map.h"
#include "fs/bpf_rewrite.h"
#include "fs/parts.h"

#define MARKS	    (BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT)
#define MESSAGE_MAX ((1u << 24) - 64) /* DYNPTR_MAX_SIZE, and a little less */
#define MOVES_MAX   (2u << 20)	      /* some 2 us each */
#define TRIES	    50

/* ---- what is in one ---- */

/* With its header, and what fills it up to a multiple of 8. */
static uint64_t message_bytes(uint64_t length)
{
	return (length + RING_HEADER + 7) / 8 * 8;
}

static uint32_t length_at(const struct bpf_ring *r, uint64_t at)
{
	return *ring_header(r, at) & ~MARKS;
}

/*
 * Where messages are whole. What has been read is written over sooner or later: until the ring has
 * been full once all are.
 */
static uint64_t first_message(const struct bpf_ring *r)
{
	return *ring_producer(r) <= r->size ? 0 : *ring_consumer(r);
}

/* The most that one message moves a ring; the kernel wants a byte left (__bpf_ringbuf_reserve()) */
static uint32_t longest_move(uint32_t size)
{
	return size - 8 < MESSAGE_MAX ? size - 8 : MESSAGE_MAX;
}

static bool within_reach(const struct bpf_ring *r)
{
	return *ring_producer(r) / longest_move(r->size) <= MOVES_MAX;
}

static bool messages_valid(const struct bpf_ring *r)
{
	uint64_t at = first_message(r), end = *ring_producer(r), n;

	if (end % 8 || at % 8 || at > end || end - at > r->size)
		return false;
	for (; at < end; at += n) {
		n = message_bytes(length_at(r, at));
		if (*ring_header(r, at) & BPF_RINGBUF_BUSY_BIT || n > end - at ||
		    n > longest_move(r->size))
			return false;
	}
	return true;
}

/* ---- checkpoint ---- */

/* Where the producer is comes first: what it writes meanwhile is behind. */
static void copy(const struct bpf_ring *from, const struct bpf_ring *to)
{
	uint64_t producer = __atomic_load_n(ring_producer(from), __ATOMIC_ACQUIRE);

	memcpy(to->at, from->at, RING_DATA + (size_t)from->size);
	*ring_producer(to) = producer;
}

/*
 * A program that a packet has started may be writing a message. While checking, all may go on: then
 * `to` is `from`.
 */
static int copy_whole(const struct bpf_ring *from, const struct bpf_ring *to)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	for (int i = 0; i < TRIES; i++) {
		if (to != from)
			copy(from, to);
		if (messages_valid(to))
			return 0;
		nanosleep(&pause, NULL);
	}
	return -EBUSY;
}

static int refuse_broken(struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "in this BPF map, a ring, a message is being written, or where it is read "
			 "(consumer_pos) no message begins");
}

static int save(const struct bpf_ring *from, Reprise__BpfMap *m, struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) uint8_t *room = malloc(RING_DATA + (size_t)from->size);
	const struct bpf_ring to = {room, from->size};
	int r;

	if (!room)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a ring of BPF");
	if (m->type == BPF_MAP_TYPE_USER_RINGBUF)
		copy(from, &to);
	else if (copy_whole(from, &to) < 0)
		return refuse_broken(e);
	r = parts_save(to.at, RING_DATA + (uint64_t)to.size, &m->n_ring, &m->ring, s);
	return r < 0 ? error_set(e, r, E_NO_MEMORY, "no memory for a ring of BPF") : 0;
}

static int check_state(const struct bpf_ring *r, bool user, struct error *e)
{
	if (user ? !bpf_ring_user_valid(r) : !within_reach(r))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "too much has gone through this BPF map, a ring, for its size, to "
				 "move another one that far");
	return user || copy_whole(r, r) >= 0 ? 0 : refuse_broken(e);
}

int bpf_ring_save(int fd, Reprise__BpfMap *m, bool checking, struct scratch *s, struct error *e)
{
	size_t size = RING_DATA + (size_t)m->max_entries;
	struct bpf_ring from = {.size = m->max_entries};
	int r;

	if (m->max_entries > BPF_CONTENTS_MAX)
		return error_set(e, -EFBIG, E_FILE_STATE,
				 "this BPF map, a ring, is too large (%u bytes)", m->max_entries);
	from.at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (from.at == MAP_FAILED)
		return error_errno(e, -errno, E_SYSTEM, "cannot map this BPF map, a ring");
	r = check_state(&from, m->type == BPF_MAP_TYPE_USER_RINGBUF, e);
	if (r >= 0 && !checking)
		r = save(&from, m, s, e);
	munmap(from.at, size);
	return r;
}

/* ---- restart ---- */

static int unpack(const Reprise__BpfMap *m, struct bpf_ring *ret)
{
	const size_t size = RING_DATA + (size_t)m->max_entries;

	ret->size = m->max_entries;
	ret->at = malloc(size);
	if (!ret->at)
		return -ENOMEM;
	parts_fill(ret->at, size, m->n_ring, m->ring);
	return 0;
}

bool bpf_ring_valid(const Reprise__BpfMap *m)
{
	_cleanup_(free_ptr) uint8_t *room = NULL;
	struct bpf_ring r = {};
	bool valid;

	if (bpf_map_shape(m->type) != SHAPE_RING)
		return !m->n_ring;
	if (m->key_size || m->value_size || m->count || m->max_entries < RING_PAGE ||
	    m->max_entries > BPF_CONTENTS_MAX || m->max_entries & (m->max_entries - 1) ||
	    !parts_fit(m->n_ring, m->ring, RING_DATA + (uint64_t)m->max_entries))
		return false;
	if (unpack(m, &r) < 0)
		return false;
	room = r.at;
	if (m->type == BPF_MAP_TYPE_USER_RINGBUF)
		valid = bpf_ring_user_valid(&r);
	else
		valid = within_reach(&r) && messages_valid(&r);
	return valid;
}

int bpf_ring_run(int program, const void *context, size_t size)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)program;
	attr.test.ctx_in = kernel_bpf_pointer(context);
	attr.test.ctx_size_in = (uint32_t)size;
	return kernel_bpf(BPF_PROG_TEST_RUN, &attr);
}

struct message {
	uint64_t length, written; /* how much of it is written, from the buffer */
	uint64_t discarded;
};

/* What programs do, with what a struct message says. Nobody is woken: nobody waits yet. */
static int load_writer(int ring, int buffer, int room)
{
	const struct bpf_insn insns[] = {
		MOVE(6, 1),
		LOAD(7, 6, offsetof(struct message, length)),
		LOAD(8, 6, offsetof(struct message, written)),
		SET(0, 0),
		IF_ABOVE(7, room, 25),
		IF_ABOVE(8, room, 24),
		INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, ring),
		INSN(0, 0, 0, 0, 0),
		MOVE(2, 7),
		SET(3, 0),
		MOVE(4, 10),
		ADD(4, -16),
		CALL(BPF_FUNC_ringbuf_reserve_dynptr),
		MOVE(1, 10),
		ADD(1, -16),
		SET(2, 0),
		INSN(BPF_LD | BPF_IMM | BPF_DW, 3, BPF_PSEUDO_MAP_VALUE, 0, buffer),
		INSN(0, 0, 0, 0, 0),
		MOVE(4, 8),
		SET(5, 0),
		CALL(BPF_FUNC_dynptr_write),
		LOAD(7, 6, offsetof(struct message, discarded)),
		MOVE(1, 10),
		ADD(1, -16),
		SET(2, BPF_RB_NO_WAKEUP),
		IF_ZERO(7, 2),
		CALL(BPF_FUNC_ringbuf_discard_dynptr),
		INSN(BPF_JMP | BPF_JA, 0, 0, 1, 0),
		CALL(BPF_FUNC_ringbuf_submit_dynptr),
		SET(0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	const struct bpf_source what = {
		.type = BPF_PROG_TYPE_SYSCALL, .flags = BPF_F_SLEEPABLE, .gpl = true};

	return bpf_program_load(&what, insns, sizeof(insns) / sizeof(insns[0]), NULL);
}

struct filling {
	const struct bpf_ring *wanted;
	int program;
	uint64_t at;		  /* where the new one is */
	uint64_t *consumer;	  /* its page */
	const uint64_t *producer; /* as well */
	uint8_t *buffer;
};

/* Everything before it counts as read: what the kernel asks for is room. */
static int put(struct filling *x, uint64_t length, bool contents, bool discarded)
{
	const struct message m = {length, contents ? length : 0, discarded};
	uint64_t start = (x->at + RING_HEADER) & (x->wanted->size - 1);
	uint64_t first = x->wanted->size - start < m.written ? x->wanted->size - start : m.written;
	int r;

	memcpy(x->buffer, x->wanted->at + RING_DATA + start, first);
	memcpy(x->buffer + first, x->wanted->at + RING_DATA, m.written - first);
	__atomic_store_n(x->consumer, x->at, __ATOMIC_RELEASE);
	r = bpf_ring_run(x->program, &m, sizeof(m));
	x->at += message_bytes(length);
	return r >= 0 && __atomic_load_n(x->producer, __ATOMIC_ACQUIRE) != x->at ? -EIO : r;
}

static int move_to(struct filling *x, uint64_t to, bool contents)
{
	int r = 0;

	while (x->at < to && r >= 0) {
		uint64_t n = longest_move(x->wanted->size);

		r = put(x, (to - x->at < n ? to - x->at : n) - RING_HEADER, contents, true);
	}
	return r;
}

/* What has been read already means nothing, but can be seen: it is written in front as it is. */
static int put_all(struct filling *x)
{
	const struct bpf_ring *w = x->wanted;
	uint64_t first = first_message(w), read = w->size - 8;
	int r = move_to(x, first > read ? first - read : 0, false);

	if (r >= 0)
		r = move_to(x, first, true);
	while (x->at < *ring_producer(w) && r >= 0)
		r = put(x, length_at(w, x->at), true,
			*ring_header(w, x->at) & BPF_RINGBUF_DISCARD_BIT);
	if (r >= 0)
		memcpy(x->consumer, w->at, RING_PAGE);
	return r;
}

static int fill_mapped(struct filling *x, int fd, int buffer, size_t room)
{
	void *consumer = mmap(NULL, RING_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *producer = mmap(NULL, RING_PAGE, PROT_READ, MAP_SHARED, fd, RING_PAGE);
	void *at = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, buffer, 0);
	int r = -ENOMEM;

	if (consumer != MAP_FAILED && producer != MAP_FAILED && at != MAP_FAILED) {
		x->consumer = consumer;
		x->producer = producer;
		x->buffer = at;
		r = put_all(x);
	}
	if (consumer != MAP_FAILED)
		munmap(consumer, RING_PAGE);
	if (producer != MAP_FAILED)
		munmap(producer, RING_PAGE);
	if (at != MAP_FAILED)
		munmap(at, room);
	return r;
}

static int fill(int fd, const struct bpf_ring *from)
{
	uint32_t room = longest_move(from->size) + 8;
	const struct bpf_map_make what = {.frame = {.type = BPF_MAP_TYPE_ARRAY,
						    .key_size = sizeof(uint32_t),
						    .value_size = room,
						    .max_entries = 1,
						    .flags = BPF_F_MMAPABLE},
					  .types = -1};
	_cleanup_(close_fd) int buffer = bpf_map_make(&what);
	_cleanup_(close_fd) int program = buffer < 0 ? buffer : load_writer(fd, buffer, (int)room);
	struct filling x = {.wanted = from, .program = program};

	return program < 0 ? program : fill_mapped(&x, fd, buffer, room);
}

int bpf_ring_fill(int fd, const Reprise__BpfMap *m)
{
	_cleanup_(free_ptr) uint8_t *room = NULL;
	struct bpf_ring from;
	int r = unpack(m, &from);

	if (r < 0)
		return r;
	room = from.at;
	return m->type == BPF_MAP_TYPE_USER_RINGBUF ? bpf_ring_user_fill(fd, &from)
						    : fill(fd, &from);
}
