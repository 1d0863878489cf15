/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of io_uring that are idle: their counters, completions that nobody has taken yet, requests
 * that have not been submitted, what is registered, and rings that two processes share.
 * may-refuse: permission
 * may-refuse: kernel-too-old
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NO_SQARRAY (1U << 16)

struct ring {
	int fd;
	struct io_uring_params p;
	char *rings, *sqes;
	size_t rings_size, sqes_size;
	uint32_t tail, head; /* as liburing keeps them: never read back */
};

static uint32_t *word(const struct ring *r, uint32_t offset)
{
	return (uint32_t *)(void *)(r->rings + offset);
}

static size_t sqe_size(const struct ring *r)
{
	return r->p.flags & IORING_SETUP_SQE128 ? 128 : 64;
}

static size_t cqe_size(const struct ring *r)
{
	return r->p.flags & IORING_SETUP_CQE32 ? 32 : 16;
}

static void ring_make(struct ring *r, unsigned int entries, unsigned int flags)
{
	memset(r, 0, sizeof(*r));
	r->p.flags = flags;
	r->fd = (int)syscall(SYS_io_uring_setup, entries, &r->p);
	if (r->fd < 0 && (errno == ENOSYS || errno == EPERM || errno == EINVAL))
		test_skip("no io_uring here, or not this one (flags %#x)", flags);
	CHECK(r->fd >= 0);
	r->rings_size = r->p.cq_off.cqes + r->p.cq_entries * cqe_size(r);
	if (!(flags & NO_SQARRAY) && r->p.sq_off.array + r->p.sq_entries * 4 > r->rings_size)
		r->rings_size = r->p.sq_off.array + r->p.sq_entries * 4;
	r->sqes_size = r->p.sq_entries * sqe_size(r);
	r->rings = mmap(NULL, r->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, r->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		       IORING_OFF_SQES);
	CHECK(r->rings != MAP_FAILED && r->sqes != MAP_FAILED);
	for (uint32_t i = 0; !(flags & NO_SQARRAY) && i < r->p.sq_entries; i++)
		word(r, r->p.sq_off.array)[i] = i;
}

static struct io_uring_sqe *ring_sqe(struct ring *r, uint8_t op, uint64_t data)
{
	struct io_uring_sqe *sqe =
		(void *)(r->sqes + (r->tail & (r->p.sq_entries - 1)) * sqe_size(r));

	CHECK(r->tail - *word(r, r->p.sq_off.head) < r->p.sq_entries);
	memset(sqe, 0, sqe_size(r));
	sqe->opcode = op;
	sqe->user_data = data;
	sqe->fd = -1;
	r->tail++;
	__atomic_store_n(word(r, r->p.sq_off.tail), r->tail, __ATOMIC_RELEASE);
	return sqe;
}

static void ring_enter(struct ring *r, unsigned int submit, unsigned int wait)
{
	long n;

	do
		n = syscall(SYS_io_uring_enter, r->fd, submit, wait, IORING_ENTER_GETEVENTS, NULL,
			    0);
	while (n < 0 && errno == EINTR);
	CHECK_EQUAL(n, submit);
}

/* The next completion is this one. */
static void ring_take(struct ring *r, uint64_t data, int32_t result)
{
	const struct io_uring_cqe *cqe;

	CHECKF(__atomic_load_n(word(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE) != r->head,
	       "no completion where %llu should be", (unsigned long long)data);
	cqe = (void *)(r->rings + r->p.cq_off.cqes +
		       (r->head & (r->p.cq_entries - 1)) * cqe_size(r));
	CHECK_EQUAL(cqe->user_data, data);
	CHECK_EQUAL(cqe->res, result);
	r->head++;
	__atomic_store_n(word(r, r->p.cq_off.head), r->head, __ATOMIC_RELEASE);
}

static void ring_nops(struct ring *r, unsigned int n, uint8_t flags)
{
	while (n--) {
		ring_sqe(r, IORING_OP_NOP, 1000 + n)->flags = flags;
		ring_enter(r, 1, flags & IOSQE_CQE_SKIP_SUCCESS ? 0 : 1);
		if (!(flags & IOSQE_CQE_SKIP_SUCCESS))
			ring_take(r, 1000 + n, 0);
	}
}

static void ring_empty(const struct ring *r)
{
	CHECK_EQUAL(*word(r, r->p.cq_off.tail), r->head);
	CHECK_EQUAL(*word(r, r->p.sq_off.head), r->tail);
}

static void ring_register(const struct ring *r, unsigned int op, const void *arg, unsigned int n)
{
	CHECKF(syscall(SYS_io_uring_register, r->fd, op, arg, n) >= 0, "register %u: %s", op,
	       strerror(errno));
}

/* ---- with unread completions and requests that wait to be submitted ---- */

static void plain_set_up(struct ring *r)
{
	ring_make(r, 8, 0);
	ring_nops(r, 23, 0);
	ring_nops(r, 3, IOSQE_CQE_SKIP_SUCCESS);
	ring_nops(r, 1, IOSQE_ASYNC); /* a thread of the kernel comes to be */
	for (uint64_t i = 0; i < 4; i++)
		ring_sqe(r, IORING_OP_NOP, 100 + i);
	ring_enter(r, 4, 4);
	for (uint64_t i = 0; i < 3; i++)
		ring_sqe(r, IORING_OP_NOP, 200 + i);
}

static void plain_check(struct ring *r)
{
	for (uint64_t i = 0; i < 4; i++)
		ring_take(r, 100 + i, 0);
	ring_enter(r, 3, 3);
	for (uint64_t i = 0; i < 3; i++)
		ring_take(r, 200 + i, 0);
	ring_empty(r);
	ring_nops(r, 40, 0);
	ring_empty(r);
}

/* ---- with files, buffers and an eventfd ---- */

#define BUFFERS 5
static char memory[BUFFERS][4096] __attribute__((aligned(4096)));
static int pipe_ends[2], told;

static void busy_set_up(struct ring *r)
{
	struct io_uring_rsrc_register sparse = {.nr = 1000, .flags = IORING_RSRC_REGISTER_SPARSE};
	struct iovec vec[BUFFERS];
	struct io_uring_rsrc_update update = {.offset = 700};
	int fds[2];

	ring_make(r, 16,
		  IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | NO_SQARRAY |
			  IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG);
	CHECK(!pipe(pipe_ends));
	fds[0] = pipe_ends[0];
	fds[1] = pipe_ends[1];
	update.data = (uintptr_t)fds;
	ring_register(r, IORING_REGISTER_FILES2, &sparse, sizeof(sparse));
	ring_register(r, IORING_REGISTER_FILES_UPDATE, &update, 2);
	for (int i = 0; i < BUFFERS; i++) {
		test_fill(memory[i], sizeof(memory[i]), (uint64_t)i);
		vec[i] = (struct iovec){memory[i], sizeof(memory[i])};
	}
	ring_register(r, IORING_REGISTER_BUFFERS, vec, BUFFERS);
	ring_nops(r, 1000, 0);
	told = eventfd(0, EFD_NONBLOCK);
	CHECK(told >= 0);
	ring_register(r, IORING_REGISTER_EVENTFD, &told, 1);
	ring_nops(r, 2, 0);
}

static void fixed(struct ring *r, uint8_t op, int slot, int buffer, uint32_t from)
{
	struct io_uring_sqe *sqe = ring_sqe(r, op, 5);

	sqe->fd = slot;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->buf_index = (uint16_t)buffer;
	sqe->addr = (uintptr_t)memory[buffer] + from;
	sqe->len = 1000;
	ring_enter(r, 1, 1);
	ring_take(r, 5, 1000);
}

static void busy_check(struct ring *r)
{
	uint64_t n;

	CHECK_EQUAL(read(told, &n, 8), 8);
	CHECK_EQUAL(n, 2);
	fixed(r, IORING_OP_WRITE_FIXED, 701, 3, 96);
	fixed(r, IORING_OP_READ_FIXED, 700, 1, 2000);
	CHECK(!memcmp(memory[1] + 2000, memory[3] + 96, 1000));
	CHECK_EQUAL(read(told, &n, 8), 8);
	CHECK_EQUAL(n, 2);
	ring_sqe(r, IORING_OP_READ, 6)->flags = IOSQE_FIXED_FILE;
	ring_enter(r, 1, 1);
	ring_take(r, 6, -EBADF); /* an empty slot */
	ring_empty(r);
}

/* ---- shared with a child, and with large entries ---- */

static struct ring shared;

static int shared_child(void *arg)
{
	int *turn = arg;

	while (!__atomic_load_n(turn, __ATOMIC_ACQUIRE))
		test_sleep(0.01);
	ring_sqe(&shared, IORING_OP_NOP, 77);
	ring_enter(&shared, 1, 1);
	return 5;
}

int main(void)
{
	static struct ring plain, busy, disabled;
	int *turn, copy;
	pid_t pid;

	test_init();
	turn = test_shared(4096);
	plain_set_up(&plain);
	busy_set_up(&busy);
	CHECK(!madvise(plain.rings, plain.rings_size, MADV_DONTFORK));
	ring_make(&shared, 4, IORING_SETUP_SQE128 | IORING_SETUP_CQE32);
	ring_nops(&shared, 9, 0);
	ring_make(&disabled, 4, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER);
	copy = dup(shared.fd);
	pid = test_fork(shared_child, turn);

	test_wait();
	if (test_break(1))
		plain.head++;
	if (test_break(2))
		plain.tail--;
	if (test_break(3))
		ring_register(&busy, IORING_UNREGISTER_EVENTFD, NULL, 0);
	CHECK(test_vm_flag(plain.rings, "dc"));
	plain_check(&plain);
	busy_check(&busy);

	__atomic_store_n(turn, 1, __ATOMIC_RELEASE);
	test_reap(pid, 5);
	shared.tail++;
	ring_take(&shared, 77, 0);
	shared.fd = copy;
	ring_nops(&shared, 3, 0);
	ring_empty(&shared);

	CHECK(syscall(SYS_io_uring_enter, disabled.fd, 0, 0, 0, NULL, 0) < 0 && errno == EBADFD);
	ring_register(&disabled, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	ring_nops(&disabled, 6, 0);
	ring_empty(&disabled);
	test_pass();
}
