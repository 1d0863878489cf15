/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in flight of io_uring of all kinds: with vectors and headers whose memory the program
 * has used for something else since, for futexes whose words have changed, with time-outs that
 * count, and chains.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
/* not-in: both: the original has the names of the sockets */
#include "ring.h"

#include <fcntl.h>
#include <linux/time_types.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#define OP_READ_MULTISHOT 49
#define OP_FUTEX_WAIT	  51
#define OP_FUTEX_WAKE	  52
#define OP_FUTEX_WAITV	  53
#define OP_EPOLL_WAIT	  59

#define IDS 100

static struct ring ring, counting;
static int results[IDS];
static bool seen[IDS];

static struct io_uring_sqe *ask(uint8_t op, uint64_t data, int fd, const void *at, uint32_t len)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, op, data);

	sqe->fd = fd;
	sqe->addr = (uintptr_t)at;
	sqe->len = len;
	return sqe;
}

static void go(unsigned int n)
{
	ring_enter(&ring, n, 0);
}

/* What has come of a request; others may end before it. */
static int result_of(uint64_t data)
{
	while (!seen[data]) {
		const struct io_uring_cqe *cqe = ring_peek(&ring);

		if (!cqe) {
			ring_enter(&ring, 0, 1);
			continue;
		}
		CHECK(cqe->user_data < IDS && !seen[cqe->user_data]);
		results[cqe->user_data] = cqe->res;
		seen[cqe->user_data] = true;
		ring_taken(&ring);
	}
	return results[data];
}

static void nothing_else(void)
{
	CHECK(!ring_peek(&ring));
}

/* ---- vectors and plain places ---- */

static char into[12][16], registered[4096] __attribute__((aligned(4096)));
static int vectored[2], fixed[2], full[2], counter, watch;
static struct iovec vec[2];

static void fill_up(int fd, char with)
{
	char block[1000];

	memset(block, with, sizeof(block));
	CHECK(!fcntl(fd, F_SETFL, O_NONBLOCK));
	while (write(fd, block, sizeof(block)) > 0)
		;
	while (write(fd, block, 1) > 0)
		;
	CHECK(!fcntl(fd, F_SETFL, 0));
}

/* Returns what came last. */
static char drain(int fd)
{
	char block[1000], last = 0;
	ssize_t n;

	CHECK(!fcntl(fd, F_SETFL, O_NONBLOCK));
	while ((n = read(fd, block, sizeof(block))) > 0)
		last = block[n - 1];
	CHECK(!fcntl(fd, F_SETFL, 0));
	return last;
}

/* What waited for room is put in as soon as there is some. */
static void drain_until(int fd, uint64_t data, int result, char last)
{
	char is = drain(fd);

	CHECK_EQUAL(result_of(data), result);
	CHECK_EQUAL(is == last ? is : drain(fd), last);
}

static void files_set_up(void)
{
	struct iovec buffer = {registered, sizeof(registered)};

	CHECK(!pipe(vectored) && !pipe(fixed) && !pipe(full));
	vec[0] = (struct iovec){into[0], 3};
	vec[1] = (struct iovec){into[1], 16};
	ask(IORING_OP_READV, 1, vectored[0], vec, 2);
	go(1);
	ring_register(&ring, IORING_REGISTER_BUFFERS, &buffer, 1);
	ask(IORING_OP_READ_FIXED, 2, fixed[0], registered + 100, 50);
	go(1);
	fill_up(full[1], 'a');
	strcpy(into[2], "bc");
	vec[0] = (struct iovec){into[2], 1};
	vec[1] = (struct iovec){into[2] + 1, 1};
	ask(IORING_OP_WRITEV, 3, full[1], vec, 2);
	go(1);
	memset(vec, 0, sizeof(vec));
	counter = eventfd(0, 0);
	ask(IORING_OP_READ, 4, counter, into[3], 8);
	go(1);
	watch = inotify_init1(0);
	CHECK(!mkdir("watched", 0700));
	CHECK(watch >= 0 && inotify_add_watch(watch, "watched", IN_CREATE) > 0);
	ask(IORING_OP_READ, 5, watch, registered + 2000, 1000);
	go(1);
}

static void files_check(void)
{
	const struct inotify_event *event = (void *)(registered + 2000);

	CHECK_EQUAL(write(vectored[1], "vector", 6), 6);
	CHECK_EQUAL(result_of(1), 6);
	CHECK(!memcmp(into[0], "vec", 3) && !memcmp(into[1], "tor", 3));
	CHECK_EQUAL(write(fixed[1], "fixed", 5), 5);
	CHECK_EQUAL(result_of(2), 5);
	CHECK(!memcmp(registered + 100, "fixed", 5));
	drain_until(full[0], 3, 2, 'c');
	CHECK(!eventfd_write(counter, 7));
	CHECK_EQUAL(result_of(4), 8);
	CHECK_EQUAL(into[3][0], 7);
	close(open("watched/created", O_CREAT | O_WRONLY, 0600));
	CHECK_EQUAL(result_of(5), 32);
	CHECK(!strcmp(event->name, "created"));
}

/* ---- sockets ---- */

static int pair[2], letters[2], crowded[2];
static struct sockaddr_un name_of_sender;
static char control[64];
static struct msghdr received, sent;

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	strcpy(a.sun_path, path);
	return a;
}

static int bound_to(const char *path)
{
	struct sockaddr_un a = address(path);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	CHECK(fd >= 0 && !bind(fd, (void *)&a, sizeof(a)));
	return fd;
}

static void sockets_set_up(void)
{
	static struct iovec places[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, crowded));
	letters[0] = bound_to("letters");
	letters[1] = bound_to("sender");
	places[0] = (struct iovec){into[4], 2};
	places[1] = (struct iovec){into[5], 16};
	received = (struct msghdr){.msg_name = &name_of_sender,
				   .msg_namelen = sizeof(name_of_sender),
				   .msg_iov = places,
				   .msg_iovlen = 2,
				   .msg_control = control,
				   .msg_controllen = sizeof(control)};
	ask(IORING_OP_RECVMSG, 10, letters[0], &received, 1);
	go(1);
	/* the header serves something else meanwhile */
	received.msg_name = NULL;
	received.msg_iov = NULL;
	received.msg_iovlen = 77;
	memset(places, 0, sizeof(places));
	fill_up(pair[0], 'x');
	strcpy(into[6], "send");
	ask(IORING_OP_SEND, 11, pair[0], into[6], 4);
	go(1);
	fill_up(crowded[0], 'y');
	strcpy(into[7], "letter");
	places[0] = (struct iovec){into[7], 6};
	sent = (struct msghdr){.msg_iov = places, .msg_iovlen = 1};
	ask(IORING_OP_SENDMSG, 12, crowded[0], &sent, 1);
	go(1);
	memset(&sent, 0, sizeof(sent));
	memset(places, 0, sizeof(places));
}

static void send_with_descriptor(int fd, const char *to, int given)
{
	struct sockaddr_un a = address(to);
	struct iovec text = {(char *)"hello", 5};
	char space[CMSG_SPACE(sizeof(int))] = {};
	struct msghdr m = {.msg_name = &a,
			   .msg_namelen = sizeof(a),
			   .msg_iov = &text,
			   .msg_iovlen = 1,
			   .msg_control = space,
			   .msg_controllen = sizeof(space)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &given, sizeof(int));
	CHECK_EQUAL(sendmsg(fd, &m, 0), 5);
}

static void sockets_check(void)
{
	CHECK(!received.msg_name && !received.msg_iov && received.msg_iovlen == 77);
	send_with_descriptor(letters[1], "letters", counter);
	CHECK_EQUAL(result_of(10), 5);
	CHECK(!memcmp(into[4], "he", 2) && !memcmp(into[5], "llo", 3));
	CHECK(!strcmp(name_of_sender.sun_path, "sender"));
	CHECK_EQUAL(received.msg_controllen, CMSG_SPACE(sizeof(int)));
	CHECK_EQUAL(((struct cmsghdr *)(void *)control)->cmsg_type, SCM_RIGHTS);
	drain_until(pair[1], 11, 4, 'd');
	drain_until(crowded[1], 12, 6, 'r');
}

/* ---- buffers to choose from ---- */

static char choices[4][64], ring_of_buffers[4096] __attribute__((aligned(4096)));
static int streamed[2];

static void chosen_set_up(void)
{
	struct io_uring_buf_reg reg = {
		.ring_addr = (uintptr_t)ring_of_buffers, .ring_entries = 4, .bgid = 3};
	struct io_uring_buf_ring *b = (void *)ring_of_buffers;
	struct io_uring_sqe *sqe;

	ring_register(&ring, IORING_REGISTER_PBUF_RING, &reg, 1);
	for (uint16_t i = 0; i < 4; i++)
		b->bufs[i] = (struct io_uring_buf){(uintptr_t)choices[i], 64, i, 0};
	b->tail = 4;
	CHECK(!pipe(streamed));
	sqe = ask(OP_READ_MULTISHOT, 20, streamed[0], NULL, 0);
	sqe->flags = IOSQE_BUFFER_SELECT;
	sqe->buf_group = 3;
	go(1);
	CHECK_EQUAL(write(streamed[1], "first", 5), 5);
	if (result_of(20) == -EINVAL)
		test_skip("no IORING_OP_READ_MULTISHOT");
	CHECK_EQUAL(result_of(20), 5);
	CHECK(!memcmp(choices[0], "first", 5));
	seen[20] = false;
}

static void chosen_check(void)
{
	CHECK_EQUAL(write(streamed[1], "second", 6), 6);
	CHECK_EQUAL(result_of(20), 6);
	CHECK(!memcmp(choices[1], "second", 6));
	seen[20] = false;
	CHECK_EQUAL(write(streamed[1], "third", 5), 5);
	CHECK_EQUAL(result_of(20), 5);
	CHECK(!memcmp(choices[2], "third", 5));
}

/* ---- events and futexes ---- */

static int set, event;
static struct epoll_event events[2];
static uint32_t words[3];

struct waiter {
	uint64_t value, address;
	uint32_t flags, unused;
};

static struct io_uring_sqe *futex(uint8_t op, uint64_t data, const uint32_t *word, uint64_t value)
{
	struct io_uring_sqe *sqe = ask(op, data, 2 | 128, word, 0);

	sqe->addr2 = value;
	sqe->addr3 = UINT32_MAX;
	return sqe;
}

static void waits_set_up(void)
{
	struct waiter both[2] = {{5, (uintptr_t)&words[1], 2 | 128, 0},
				 {6, (uintptr_t)&words[2], 2 | 128, 0}};
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 4711};

	set = epoll_create1(0);
	event = eventfd(0, 0);
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, event, &e));
	ask(OP_EPOLL_WAIT, 30, set, events, 2);
	go(1);
	words[0] = 4;
	words[1] = 5;
	words[2] = 6;
	futex(OP_FUTEX_WAIT, 31, &words[0], 4);
	go(1);
	ask(OP_FUTEX_WAITV, 32, 0, both, 2);
	go(1);
	/* changed, and nobody has been woken yet */
	words[0] = 40;
	words[2] = 60;
	memset(both, 0, sizeof(both));
}

static void waits_check(void)
{
	/* one more thread of the kernel: it makes no difference to those that wait */
	ask(IORING_OP_NOP, 35, -1, NULL, 0)->flags = IOSQE_ASYNC;
	go(1);
	CHECK_EQUAL(result_of(35), 0);
	CHECK(words[0] == 40 && words[1] == 5 && words[2] == 60);
	CHECK(!eventfd_write(event, 1));
	CHECK_EQUAL(result_of(30), 1);
	CHECK_EQUAL(events[0].data.u64, 4711);
	nothing_else();
	futex(OP_FUTEX_WAKE, 33, &words[0], 10);
	futex(OP_FUTEX_WAKE, 34, &words[2], 10);
	go(2);
	CHECK_EQUAL(result_of(33), 1);
	CHECK_EQUAL(result_of(34), 1);
	CHECK_EQUAL(result_of(31), 0);
	CHECK_EQUAL(result_of(32), 1);
}

/* ---- chains ---- */

static int head[2], tail[2], timed[2], late[2];

static void chain_set_up(uint64_t data, const int *ends, int64_t seconds, long long ns, char *to)
{
	struct __kernel_timespec ts = {seconds, ns};

	ask(IORING_OP_READ, data, ends[0], to, 5)->flags = IOSQE_IO_LINK;
	ask(IORING_OP_LINK_TIMEOUT, data + 1, -1, &ts, 1);
	go(2);
}

static void chains_set_up(void)
{
	CHECK(!pipe(head) && !pipe(tail) && !pipe(timed) && !pipe(late));
	vec[0] = (struct iovec){into[8], 4};
	ask(IORING_OP_READ, 40, head[0], into[8], 4)->flags = IOSQE_IO_LINK;
	ask(IORING_OP_NOP, 41, -1, NULL, 0)->flags = IOSQE_IO_HARDLINK;
	ask(IORING_OP_WRITEV, 42, tail[1], vec, 1)->flags = IOSQE_IO_LINK;
	ask(IORING_OP_READ, 43, tail[0], into[9], 4);
	go(4);
	memset(vec, 0, sizeof(vec));
	chain_set_up(50, timed, 1000, 0, into[10]);
	chain_set_up(60, late, 0, 400000000, into[11]);
}

static void chains_check(void)
{
	CHECK_EQUAL(result_of(60), -ECANCELED);
	CHECK_EQUAL(result_of(61), -ETIME);
	CHECK_EQUAL(write(timed[1], "timed", 5), 5);
	CHECK_EQUAL(result_of(50), 5);
	CHECK_EQUAL(result_of(51), -ECANCELED);
	nothing_else();
	CHECK_EQUAL(write(head[1], "link", 4), 4);
	CHECK_EQUAL(result_of(40), 4);
	CHECK_EQUAL(result_of(41), 0);
	CHECK_EQUAL(result_of(42), 4);
	CHECK_EQUAL(result_of(43), 4);
	CHECK(!memcmp(into[9], "link", 4));
}

/* ---- time-outs that count ---- */

static void count_set_up(void)
{
	struct __kernel_timespec ts = {.tv_sec = 1000};
	struct io_uring_sqe *sqe;

	ring_make(&counting, 8, 0);
	ring_nops(&counting, 9, 0);
	sqe = ring_sqe(&counting, IORING_OP_TIMEOUT, 5);
	sqe->addr = (uintptr_t)&ts;
	sqe->len = 1;
	sqe->off = 4;
	ring_enter(&counting, 1, 0);
	ring_nops(&counting, 2, 0);
}

static void count_check(void)
{
	ring_nops(&counting, 1, 0);
	CHECK(!ring_peek(&counting));
	ring_sqe(&counting, IORING_OP_NOP, 6);
	ring_enter(&counting, 1, 2);
	ring_take(&counting, 6, 0);
	ring_take(&counting, 5, 0);
	ring_empty(&counting);
}

int main(void)
{
	test_init();
	ring_make(&ring, 32, 0);
	ring_nops(&ring, 5, IOSQE_ASYNC);
	files_set_up();
	sockets_set_up();
	chosen_set_up();
	waits_set_up();
	count_set_up();
	chains_set_up();
	nothing_else();
	test_wait();
	if (test_break(1)) {
		ask(IORING_OP_ASYNC_CANCEL, 90, -1, NULL, 0)->addr = 10;
		go(1);
	}
	if (test_break(2))
		words[0] = 41;
	if (test_break(3))
		CHECK_EQUAL(write(vectored[1], "broken", 6), 6);
	if (test_break(4)) {
		ask(IORING_OP_ASYNC_CANCEL, 90, -1, NULL, 0)->addr = 42;
		ask(IORING_OP_ASYNC_CANCEL, 91, -1, NULL, 0)->addr = 40;
		go(2);
	}
	if (test_break(5))
		ring_nops(&counting, 1, 0);
	files_check();
	sockets_check();
	chosen_check();
	waits_check();
	count_check();
	chains_check();
	nothing_else();
	test_pass();
}
