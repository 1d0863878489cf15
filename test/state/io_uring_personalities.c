/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials that are registered with an io_uring (IORING_REGISTER_PERSONALITY): of several users,
 * with fewer capabilities, with gaps between their numbers, after these have begun anew; with a
 * ring that only one task may use, with one that may do nothing else; and a request in flight with
 * some.
 */
/* needs: root */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { USER = 1001, GROUP = 1002, OTHER = 77, STRANGER = 555 };

static struct ring plain, alone, round_trip, limited, disabled;
static int of_user, of_group, of_stranger; /* files that only these may open */
static int ends[2], user, weak, strong;

static int add(const struct ring *r)
{
	long id = syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_PERSONALITY, NULL, 0);

	CHECKF(id > 0, "a personality: %s", strerror(errno));
	return (int)id;
}

static void skip(const struct ring *r, int n)
{
	while (n--)
		ring_register(r, IORING_UNREGISTER_PERSONALITY, NULL, (unsigned int)add(r));
}

static void set_capabilities(uint32_t but)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];

	CHECK(!syscall(SYS_capget, &head, caps));
	caps[0].effective = caps[0].permitted & ~but;
	CHECK(!syscall(SYS_capset, &head, caps));
}

/* What has been given up does not come back: in a thread. */
static void *register_user(void *unused)
{
	const gid_t groups[] = {3, OTHER};

	(void)unused;
	CHECK(!syscall(SYS_setgroups, 2, groups));
	CHECK(!syscall(SYS_setresgid, GROUP, GROUP, GROUP));
	CHECK(!syscall(SYS_setresuid, USER, USER, USER));
	user = add(&plain);
	return NULL;
}

static int make_file(uid_t uid, gid_t gid, mode_t mode)
{
	int fd = (int)syscall(SYS_memfd_create, "a file", 0);

	CHECK(fd >= 0 && !fchown(fd, uid, gid) && !fchmod(fd, mode));
	return fd;
}

/* Opens it with these credentials. */
static int try_file(struct ring *r, int personality, int file)
{
	const struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe = ring_sqe(r, IORING_OP_OPENAT, 5);
	char path[64];
	int result;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	sqe->addr = (uintptr_t)path;
	sqe->open_flags = O_RDONLY;
	sqe->personality = (uint16_t)personality;
	ring_enter(r, 1, 1);
	cqe = ring_peek(r);
	CHECK(cqe);
	result = cqe->res;
	ring_taken(r);
	if (result >= 0)
		CHECK(!close(result));
	return result < 0 ? result : 0;
}

static void check_personality(struct ring *r, int personality, int its, int groups, int others)
{
	CHECK_EQUAL(try_file(r, personality, of_user), its);
	CHECK_EQUAL(try_file(r, personality, of_group), groups);
	CHECK_EQUAL(try_file(r, personality, of_stranger), others);
}

/* A message that waits for room says who has sent it, when it is sent. */
static void fill_socket(void)
{
	static char much[4096];
	struct io_uring_sqe *sqe;

	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
	CHECK(!setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
	while (send(ends[0], much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	sqe = ring_sqe(&plain, IORING_OP_SEND, 50);
	sqe->fd = ends[0];
	sqe->addr = (uintptr_t) "who";
	sqe->len = 3;
	sqe->personality = (uint16_t)user;
	ring_enter(&plain, 1, 0);
	CHECK(!ring_peek(&plain));
}

static void check_sender(void)
{
	char into[4096], control[64];
	struct iovec vec = {into, sizeof(into)};
	struct msghdr msg = {.msg_iov = &vec, .msg_iovlen = 1};
	struct ucred cred;

	do {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		if (recvmsg(ends[1], &msg, MSG_DONTWAIT) < 0)
			ring_enter(&plain, 0, 0);
	} while (memcmp(into, "who", 3));
	memcpy(&cred, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(cred));
	CHECK_EQUAL(cred.uid, USER);
	CHECK_EQUAL(cred.gid, GROUP);
	ring_enter(&plain, 0, 1);
	ring_take(&plain, 50, 3);
}

static void plain_set_up(void)
{
	pthread_t thread;

	ring_make(&plain, 8, 0);
	ring_nops(&plain, 11, 0);
	skip(&plain, 1);
	CHECK(!pthread_create(&thread, NULL, register_user, NULL));
	CHECK(!pthread_join(thread, NULL));
	set_capabilities(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
	weak = add(&plain);
	set_capabilities(0);
	skip(&plain, 1);
	strong = add(&plain);
	skip(&plain, 2);
	CHECK(user == 2 && weak == 3 && strong == 5);
	fill_socket();
}

static void set_up(void)
{
	const struct io_uring_restriction only[] = {
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_OPENAT}};

	of_user = make_file(USER, 0, 0400);
	of_group = make_file(0, OTHER, 0040);
	of_stranger = make_file(STRANGER, STRANGER, 0400);
	plain_set_up();

	/* the real and the saved user id stay */
	ring_make(&alone, 4, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	ring_nops(&alone, 7, 0);
	CHECK(!setresuid(-1, USER, -1));
	CHECK_EQUAL(add(&alone), 1);
	CHECK(!setresuid(-1, 0, -1));

	ring_make(&round_trip, 4, 0);
	skip(&round_trip, 65533);
	CHECK_EQUAL(add(&round_trip), 65534);
	skip(&round_trip, 1 + 2);
	CHECK_EQUAL(add(&round_trip), 3);
	skip(&round_trip, 1);

	ring_make(&limited, 4, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER);
	CHECK_EQUAL(add(&limited), 1);
	ring_register(&limited, IORING_REGISTER_RESTRICTIONS, only, 1);
	ring_register(&limited, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	ring_make(&disabled, 4, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER);
	CHECK_EQUAL(add(&disabled), 1);
}

int main(void)
{
	test_init();
	set_up();
	test_wait();
	if (test_break(1))
		ring_register(&plain, IORING_UNREGISTER_PERSONALITY, NULL, (unsigned int)weak);
	if (test_break(2))
		skip(&plain, 1);
	if (test_break(3))
		CHECK(!fchown(of_group, 0, 0));
	check_personality(&plain, user, 0, 0, -EACCES);
	check_personality(&plain, weak, -EACCES, -EACCES, -EACCES);
	check_personality(&plain, strong, 0, 0, 0);
	CHECK_EQUAL(try_file(&plain, 1, of_user), -EINVAL);
	CHECK_EQUAL(try_file(&plain, 4, of_user), -EINVAL);
	check_sender();
	CHECK_EQUAL(add(&plain), 8);

	check_personality(&alone, 1, 0, -EACCES, -EACCES);
	ring_nops(&alone, 3, 0);
	ring_empty(&alone);

	check_personality(&round_trip, 65534, 0, 0, 0);
	check_personality(&round_trip, 3, 0, 0, 0);
	CHECK_EQUAL(try_file(&round_trip, 4, of_user), -EINVAL);
	CHECK_EQUAL(add(&round_trip), 5);

	check_personality(&limited, 1, 0, 0, 0);
	CHECK(syscall(SYS_io_uring_register, limited.fd, IORING_REGISTER_PERSONALITY, NULL, 0) <
		      0 &&
	      errno == EACCES);
	ring_register(&disabled, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	check_personality(&disabled, 1, 0, 0, 0);
	test_pass();
}
