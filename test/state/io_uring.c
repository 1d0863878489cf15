/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of io_uring that are idle: their counters, completions that nobody has taken yet, requests
 * that have not been submitted, what is registered, and rings that two processes share.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#define TAKEN 90

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
	ring_nops(r, 20000, 0);
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

/* ---- known by numbers of this thread alone ---- */

static int number_of(const struct ring *r, uint32_t wanted)
{
	struct io_uring_rsrc_update self = {.offset = wanted, .data = (uint64_t)r->fd};

	ring_register(r, IORING_REGISTER_RING_FDS, &self, 1);
	return (int)self.offset;
}

static long by_number(int number, unsigned int submit)
{
	return syscall(SYS_io_uring_enter, number, submit, submit,
		       IORING_ENTER_GETEVENTS | (1u << 4), NULL, 0);
}

static void numbers_check(struct ring *r, int number, int other)
{
	ring_sqe(r, IORING_OP_NOP, 55);
	CHECK_EQUAL(by_number(number, 1), 1);
	ring_take(r, 55, 0);
	CHECK_EQUAL(by_number(other, 0), 0);
	CHECK(by_number(3, 0) < 0 && errno == EBADF);
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

/* Made before there was a ring, which no socket carries: it is taken. */
static int taker(void *arg)
{
	int *turn = arg, parent = (int)syscall(SYS_pidfd_open, getppid(), 0), fd;

	while (!__atomic_load_n(turn + 1, __ATOMIC_ACQUIRE))
		test_sleep(0.01);
	fd = (int)syscall(SYS_pidfd_getfd, parent, turn[1], 0);
	CHECK(fd >= 0 && dup2(fd, TAKEN) == TAKEN);
	close(fd);
	close(parent);
	__atomic_store_n(turn + 2, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(turn, __ATOMIC_ACQUIRE))
		test_sleep(0.01);
	return 6;
}

static void owned_set_up(int fd)
{
	CHECK(!fcntl(fd, F_SETOWN, getpid()) && !fcntl(fd, F_SETSIG, SIGUSR1));
	CHECK(!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
	CHECK(!fcntl(fd, F_SETFD, 0));
}

static void owned_check(int fd, int copy, pid_t taken_by)
{
	CHECK_EQUAL(fcntl(fd, F_GETOWN), getpid());
	CHECK_EQUAL(fcntl(fd, F_GETSIG), SIGUSR1);
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	CHECK_EQUAL(fcntl(fd, F_GETFD), 0);
	CHECK_EQUAL(fcntl(copy, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fd, copy), 0);
	CHECK_EQUAL(syscall(SYS_kcmp, getpid(), taken_by, KCMP_FILE, fd, TAKEN), 0);
}

int main(void)
{
	static struct ring plain, busy, disabled;
	int *turn, copy, number, other;
	pid_t pid, taken_by;

	test_init();
	turn = test_shared(4096);
	taken_by = test_fork(taker, turn);
	plain_set_up(&plain);
	busy_set_up(&busy);
	CHECK(!madvise(plain.rings, plain.rings_size, MADV_DONTFORK));
	ring_make(&shared, 4, IORING_SETUP_SQE128 | IORING_SETUP_CQE32);
	ring_nops(&shared, 9, 0);
	ring_make(&disabled, 4, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER);
	copy = fcntl(shared.fd, F_DUPFD_CLOEXEC, 3);
	owned_set_up(shared.fd);
	__atomic_store_n(turn + 1, shared.fd, __ATOMIC_RELEASE);
	while (!__atomic_load_n(turn + 2, __ATOMIC_ACQUIRE))
		test_sleep(0.01);
	number = number_of(&plain, -1U);
	other = number_of(&shared, 7);
	pid = test_fork(shared_child, turn);

	test_wait();
	if (test_break(1))
		plain.head++;
	if (test_break(2))
		plain.tail--;
	if (test_break(3))
		ring_register(&busy, IORING_UNREGISTER_EVENTFD, NULL, 0);
	if (test_break(4))
		CHECK(!fcntl(shared.fd, F_SETOWN, 0));
	CHECK(test_vm_flag(plain.rings, "dc"));
	owned_check(shared.fd, copy, taken_by);
	plain_check(&plain);
	numbers_check(&plain, number, other);
	busy_check(&busy);

	__atomic_store_n(turn, 1, __ATOMIC_RELEASE);
	test_reap(pid, 5);
	test_reap(taken_by, 6);
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
