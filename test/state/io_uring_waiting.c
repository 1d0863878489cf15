/* SPDX-License-Identifier: Apache-2.0 */
/* Requests in flight of io_uring that wait for a file to become ready, or for time to pass. */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
/* not-in: both: the original has the names of the sockets */
#include "ring.h"

#include <fcntl.h>
#include <linux/time_types.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct ring ring, deferred;
static char read_into[16], received[16], fixed_into[16], threads_into[16], deferred_into[16],
	late_into[16];
static int plain[2], unnamed[2], fixed[2], of_thread[2], of_deferred[2], counter, watched[2],
	of_late[2];
static int listener, many;

static void wait_for_bytes(struct ring *r, uint8_t op, int fd, char *into, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_sqe(r, op, data);

	sqe->fd = fd;
	sqe->addr = (uintptr_t)into;
	sqe->len = 16;
	ring_enter(r, 1, 0);
}

static void wait_for_events(int fd, uint32_t flags, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_POLL_ADD, data);

	sqe->fd = fd;
	sqe->poll32_events = POLLIN;
	sqe->len = flags;
	ring_enter(&ring, 1, 0);
}

static void wait_for_client(int fd, uint16_t flags, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_ACCEPT, data);

	sqe->fd = fd;
	sqe->ioprio = flags;
	ring_enter(&ring, 1, 0);
}

static void wait_for_time(double seconds, uint64_t data)
{
	struct __kernel_timespec ts = {(int64_t)seconds,
				       (long long)((seconds - (double)(int64_t)seconds) * 1e9)};
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_TIMEOUT, data);

	sqe->addr = (uintptr_t)&ts;
	sqe->len = 1;
	ring_enter(&ring, 1, 0);
}

/* Completions come in the order of the events, one by one. */
static int expect(struct ring *r, uint64_t data)
{
	const struct io_uring_cqe *cqe;
	int result;

	do
		ring_enter(r, 0, 1);
	while (!(cqe = ring_peek(r)));
	CHECK_EQUAL(cqe->user_data, data);
	result = cqe->res;
	ring_taken(r);
	return result;
}

static int listen_at(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(a.sun_path, name);
	CHECK(fd >= 0 && !bind(fd, (void *)&a, sizeof(a)) && !listen(fd, 5));
	return fd;
}

static int connect_to(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(a.sun_path, name);
	CHECK(fd >= 0 && !connect(fd, (void *)&a, sizeof(a)));
	return fd;
}

static void *submit_in_thread(void *arg)
{
	wait_for_bytes(&ring, IORING_OP_READ, of_thread[0], threads_into, 60);
	test_ready();
	test_hold();
	for (;;)
		pause();
	return NULL;
}

static void set_up(void)
{
	struct rlimit limit;
	int moved;

	ring_make(&ring, 32, 0);
	ring_make(&deferred, 4, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	ring_nops(&ring, 50, 0);
	CHECK(!pipe(plain) && !pipe(fixed) && !pipe(watched) && !pipe(of_thread));
	CHECK(!pipe(of_deferred) && !socketpair(AF_UNIX, SOCK_STREAM, 0, unnamed));
	counter = eventfd(0, 0);
	listener = listen_at("one");
	many = listen_at("many");
	ring_register(&ring, IORING_REGISTER_FILES, fixed, 2);
	/* asked under a number that means something else by now */
	moved = dup(plain[0]);
	wait_for_bytes(&ring, IORING_OP_READ, moved, read_into, 10);
	CHECK(dup2(counter, moved) == moved);
	wait_for_bytes(&ring, IORING_OP_RECV, unnamed[0], received, 20);
	ring_sqe(&ring, IORING_OP_READ, 30)->flags = IOSQE_FIXED_FILE;
	{
		struct io_uring_sqe *sqe = (void *)(ring.sqes + ((ring.tail - 1) & 31) * 64);

		sqe->fd = 0;
		sqe->addr = (uintptr_t)fixed_into;
		sqe->len = 16;
		ring_enter(&ring, 1, 0);
	}
	wait_for_events(counter, 0, 40);
	wait_for_events(watched[0], IORING_POLL_ADD_MULTI, 41);
	wait_for_client(listener, 0, 50);
	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	wait_for_client(many, IORING_ACCEPT_MULTISHOT, 51);
	close(connect_to("many"));
	close(expect(&ring, 51));
	wait_for_time(0.6, 70);
	wait_for_time(1000, 71);
	wait_for_bytes(&deferred, IORING_OP_READ, of_deferred[0], deferred_into, 80);
	/* what it waits for has come, but nobody has asked */
	CHECK(!pipe(of_late));
	wait_for_bytes(&deferred, IORING_OP_READ, of_late[0], late_into, 85);
	CHECK_EQUAL(write(of_late[1], "late", 4), 4);
}

static void check_files(void)
{
	CHECK_EQUAL(write(plain[1], "plain", 5), 5);
	CHECK_EQUAL(expect(&ring, 10), 5);
	CHECK(!memcmp(read_into, "plain", 5));
	CHECK_EQUAL(write(unnamed[1], "socket", 6), 6);
	CHECK_EQUAL(expect(&ring, 20), 6);
	CHECK(!memcmp(received, "socket", 6));
	CHECK_EQUAL(write(fixed[1], "fixed", 5), 5);
	CHECK_EQUAL(expect(&ring, 30), 5);
	CHECK(!memcmp(fixed_into, "fixed", 5));
	CHECK(!eventfd_write(counter, 3));
	CHECK_EQUAL(expect(&ring, 40), POLLIN);
	for (int i = 0; i < 3; i++) {
		CHECK_EQUAL(write(watched[1], "x", 1), 1);
		CHECK(expect(&ring, 41) & POLLIN);
	}
}

static void check_others(void)
{
	int fd, client = connect_to("one");

	fd = expect(&ring, 50);
	CHECK(fd >= 0);
	CHECK_EQUAL(write(client, "hello", 5), 5);
	CHECK_EQUAL(read(fd, read_into, 16), 5);
	for (int i = 0; i < 2; i++) {
		client = connect_to("many");
		fd = expect(&ring, 51);
		CHECK(fd >= 0);
		CHECK_EQUAL(write(client, "many", 4), 4);
		CHECK_EQUAL(read(fd, read_into, 16), 4);
	}
	CHECK_EQUAL(write(of_thread[1], "thread", 6), 6);
	CHECK_EQUAL(expect(&ring, 60), 6);
	CHECK(!memcmp(threads_into, "thread", 6));
	CHECK_EQUAL(expect(&deferred, 85), 4);
	CHECK(!memcmp(late_into, "late", 4));
	CHECK_EQUAL(write(of_deferred[1], "deferred", 8), 8);
	CHECK_EQUAL(expect(&deferred, 80), 8);
	CHECK(!memcmp(deferred_into, "deferred", 8));
	CHECK_EQUAL(*word(&ring, ring.p.sq_off.head), ring.tail);
	CHECK_EQUAL(*word(&ring, ring.p.cq_off.tail), ring.head);
	ring_sqe(&ring, IORING_OP_TIMEOUT_REMOVE, 90)->addr = 71;
	ring_enter(&ring, 1, 1);
	CHECK_EQUAL(expect(&ring, 90), 0);
	CHECK_EQUAL(expect(&ring, 71), -ECANCELED);
}

int main(void)
{
	pthread_t thread;

	test_init();
	set_up();
	CHECK(!pthread_create(&thread, NULL, submit_in_thread, NULL));
	test_hold();
	if (test_break(1))
		CHECK_EQUAL(write(of_thread[1], "broken", 6), 6);
	if (test_break(2)) {
		ring_sqe(&ring, IORING_OP_ASYNC_CANCEL, 91)->addr = 50;
		ring_enter(&ring, 1, 1);
	}
	CHECK_EQUAL(expect(&ring, 70), -ETIME);
	check_files();
	check_others();
	test_pass();
}
