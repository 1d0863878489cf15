/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program for the tests in Python, with an io_uring in a state that cannot be saved.
 *
 *	waitid		a request waits for a child that stops, while one is stopped
 *	header		one is to receive a message, with a header that is no longer mapped
 *	credentials	one that was asked for by another user than the task is by now
 *	drained		one that waits for all before it, of another user
 *	buffer-changed	one for a registered buffer in whose slot is another one by now
 *	file-changed	one for a registered file in whose slot is another one by now, and that
 *			nobody has as a descriptor
 *	drain		the next request waits for all before it, after a chain that asked for that
 *	sqpoll-shared	a thread of the kernel submits, for another ring too, that is no descriptor
 *	sqpoll-changed	one does that has other credentials by now
 *	own-polled	rings in memory of the application, for which a thread of the kernel submits
 *	own-gone	rings in memory of the application that is not mapped any more
 *	personality-root	those of root are registered, of which the process has nothing left
 *	personality-user	credentials are registered of a user namespace that nobody is in,
 *	personality-key		with a keyring, personality-landlock: confined by rules
 *	provided	a ring of buffers to choose from is no longer mapped
 *	provided-mmap	one is in memory of the kernel, under a number by which nobody maps it
 *	restricted	only some operations are allowed, and there are buffers to choose from
 *	number		a thread knows it by a number of its own, and nobody by a descriptor
 *	slot		a registered file that is no descriptor any more; slot-locked: a regular
 *			one with a lock, slot-removed: without a name, slot-mapped: one that is
 *mapped buffer		a registered buffer that is no longer mapped
 *	mapping		nobody has the descriptor
 *	overflow	large completions that do not fit
 */
#include "harness.h"

#include <grp.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct io_uring_params params;
static int ring;
static char *rings;
static struct io_uring_sqe *sqes;
static uint32_t tail;
static struct msghdr *header;

static void ring_make(unsigned int flags)
{
	params.flags = flags;
	ring = (int)syscall(SYS_io_uring_setup, 4, &params);
	if (ring < 0 && (errno == ENOSYS || errno == EPERM || errno == EINVAL))
		test_skip("no io_uring here");
	CHECK(ring >= 0);
	rings = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	sqes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	CHECK(rings != MAP_FAILED && sqes != MAP_FAILED);
}

static uint32_t *word(uint32_t offset)
{
	return (uint32_t *)(void *)(rings + offset);
}

static struct io_uring_sqe *next(uint8_t op)
{
	struct io_uring_sqe *sqe = &sqes[tail & 3];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = op;
	sqe->fd = -1;
	word(params.sq_off.array)[tail & 3] = tail & 3;
	return sqe;
}

static void submit(void)
{
	*word(params.sq_off.tail) = ++tail;
	CHECK_EQUAL(syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0), 1);
}

static void ring_register(unsigned int op, const void *arg, unsigned int n)
{
	CHECKF(syscall(SYS_io_uring_register, ring, op, arg, n) >= 0, "register %u: %s", op,
	       strerror(errno));
}

static void request(const char *what)
{
	static char buf[8];
	struct io_uring_sqe *sqe;
	int ends[2];

	if (!strcmp(what, "waitid")) {
		pid_t child = fork();

		if (!child) {
			CHECK(!prctl(PR_SET_PDEATHSIG, SIGKILL));
			for (;;)
				raise(SIGSTOP);
		}
		CHECK(!waitid(P_PID, (id_t)child, NULL, WSTOPPED));
		sqe = next(50); /* IORING_OP_WAITID */
		sqe->len = P_ALL;
		sqe->file_index = WSTOPPED;
		submit();
	} else if (!strcmp(what, "header")) {
		struct iovec vec = {buf, sizeof(buf)};

		header = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			      0);
		CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
		*header = (struct msghdr){.msg_iov = &vec, .msg_iovlen = 1};
		sqe = next(IORING_OP_RECVMSG);
		sqe->fd = ends[0];
		sqe->addr = (uintptr_t)header;
		sqe->len = 1;
		submit();
	} else if (!strcmp(what, "credentials")) {
		CHECK(!pipe(ends));
		sqe = next(IORING_OP_READ);
		sqe->flags = IOSQE_ASYNC;
		sqe->fd = ends[0];
		sqe->addr = (uintptr_t)buf;
		sqe->len = 1;
		submit();
		/* when it waits for the pipe the thread of the kernel that has asked is done */
		CHECK(!setresgid(1, 1, 1));
	} else if (!strcmp(what, "drained")) {
		CHECK(!setresgid(1, 1, 1) && !prctl(PR_SET_DUMPABLE, 1));
		CHECK(!pipe(ends));
		sqe = next(IORING_OP_READ);
		sqe->fd = ends[0];
		sqe->addr = (uintptr_t)buf;
		sqe->len = 1;
		submit();
		next(IORING_OP_NOP)->flags = IOSQE_IO_DRAIN;
		submit();
	} else if (!strcmp(what, "drain")) {
		next(IORING_OP_NOP)->flags = IOSQE_IO_LINK;
		*word(params.sq_off.tail) = ++tail;
		next(IORING_OP_NOP)->flags = IOSQE_IO_DRAIN;
		*word(params.sq_off.tail) = ++tail;
		CHECK_EQUAL(
			syscall(SYS_io_uring_enter, ring, 2, 2, IORING_ENTER_GETEVENTS, NULL, 0),
			2);
	} else if (!strncmp(what, "slot", 4)) {
		ends[0] = what[4] ? test_file("file", 10, 1) : eventfd(0, 0);
		if (!strcmp(what, "slot-locked"))
			CHECK(!flock(ends[0], LOCK_SH));
		if (!strcmp(what, "slot-removed"))
			CHECK(!unlink("file"));
		if (!strcmp(what, "slot-mapped"))
			CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, ends[0], 0) != MAP_FAILED);
		ring_register(IORING_REGISTER_FILES, ends, 1);
		close(ends[0]);
	} else if (!strcmp(what, "overflow")) {
		for (int i = 0; i < 10; i++) {
			next(IORING_OP_NOP);
			submit();
		}
	}
}

/* A request waits for what has been in the slot. */
static void changed(const char *what, struct iovec *vec)
{
	struct io_uring_files_update files = {};
	struct io_uring_rsrc_update2 buffers = {.data = (uintptr_t)vec, .nr = 1};
	bool file = !strcmp(what, "file-changed");
	int ends[2], other[2];
	struct io_uring_sqe *sqe;

	CHECK(!pipe(other));
	ends[0] = eventfd(0, 0);
	files.fds = (uintptr_t)other;
	if (file)
		ring_register(IORING_REGISTER_FILES, ends, 1);
	else
		ring_register(IORING_REGISTER_BUFFERS, vec, 1);
	sqe = next(file ? IORING_OP_READ : IORING_OP_READ_FIXED);
	sqe->fd = file ? 0 : ends[0];
	sqe->flags = file ? IOSQE_FIXED_FILE : 0;
	sqe->addr = (uintptr_t)vec->iov_base;
	sqe->len = 8;
	submit();
	if (file) {
		ring_register(IORING_REGISTER_FILES_UPDATE, &files, 1);
		CHECK(!close(ends[0]));
	} else {
		ring_register(IORING_REGISTER_BUFFERS_UPDATE, &buffers, sizeof(buffers));
	}
}

static int register_in_namespace(void)
{
	return unshare(CLONE_NEWUSER) < 0 ||
	       syscall(SYS_io_uring_register, ring, IORING_REGISTER_PERSONALITY, NULL, 0) < 0;
}

/* In a thread, so that its process remains as it is. */
static void *personality(void *what)
{
	const struct landlock_ruleset_attr rules = {.handled_access_fs =
							    LANDLOCK_ACCESS_FS_EXECUTE};
	const char *kind = (const char *)what + strlen("personality-");
	int status = 0, fd;

	if (!strcmp(kind, "user")) {
		pid_t pid = fork();

		if (!pid)
			_exit(register_in_namespace());
		CHECK(waitpid(pid, &status, 0) == pid);
		if (status)
			test_skip("no user namespaces here");
		return NULL;
	}
	if (!strcmp(kind, "key") &&
	    syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 1) < 0)
		test_skip("no keyrings here");
	if (!strcmp(kind, "landlock")) {
		fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(uint64_t), 0);
		if (fd < 0)
			test_skip("no Landlock here");
		CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		CHECK(!syscall(SYS_landlock_restrict_self, fd, 0) && !close(fd));
	}
	ring_register(IORING_REGISTER_PERSONALITY, NULL, 0);
	return NULL;
}

static void become_nobody(void)
{
	CHECK(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534));
	CHECK(!setresuid(65534, 65534, 65534) && !prctl(PR_SET_DUMPABLE, 1));
}

static void registered(const char *what)
{
	struct io_uring_restriction only = {.opcode = IORING_RESTRICTION_SQE_OP,
					    .sqe_op = IORING_OP_NOP};
	struct io_uring_rsrc_update self = {.offset = -1U, .data = (uint64_t)ring};
	struct iovec vec = {.iov_len = 4096};
	struct io_uring_buf_reg reg = {.ring_entries = 8};

	vec.iov_base = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.ring_addr = (uintptr_t)vec.iov_base;
	if (strstr(what, "-changed") && strncmp(what, "sqpoll", 6))
		changed(what, &vec);
	else if (!strncmp(what, "personality", 11)) {
		pthread_t thread;

		CHECK(!pthread_create(&thread, NULL, personality, (void *)(uintptr_t)what));
		CHECK(!pthread_join(thread, NULL));
		if (!strcmp(what, "personality-root"))
			become_nobody();
	} else if (!strcmp(what, "restricted")) {
		*(char *)vec.iov_base = 1;
		ring_register(IORING_REGISTER_PBUF_RING, &reg, 1);
		ring_register(IORING_REGISTER_RESTRICTIONS, &only, 1);
		ring_register(IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	} else if (!strcmp(what, "number")) {
		ring_register(IORING_REGISTER_RING_FDS, &self, 1);
		CHECK(!close(ring) && !munmap(sqes, 4096) && !munmap(rings, 4096));
	} else if (!strcmp(what, "provided")) {
		ring_register(IORING_REGISTER_PBUF_RING, &reg, 1);
		CHECK(!madvise(vec.iov_base, 4096, MADV_DONTNEED));
		*(char *)vec.iov_base = 1;
	} else if (!strcmp(what, "provided-mmap")) {
		reg.ring_addr = 0;
		reg.pad = 1; /* IOU_PBUF_RING_MMAP */
		reg.bgid = 5000;
		ring_register(IORING_REGISTER_PBUF_RING, &reg, 1);
	} else if (!strcmp(what, "buffer")) {
		ring_register(IORING_REGISTER_BUFFERS, &vec, 1);
		CHECK(!madvise(vec.iov_base, 4096, MADV_DONTNEED));
		*(char *)vec.iov_base = 1;
	}
}

static void polled(const char *what)
{
	params.sq_thread_idle = 10;
	ring_make(IORING_SETUP_SQPOLL);
	if (!strcmp(what, "sqpoll-shared")) {
		struct io_uring_rsrc_update self = {.offset = -1U, .data = (uint64_t)ring};
		int first = ring;

		ring_register(IORING_REGISTER_RING_FDS, &self, 1);
		CHECK(!munmap(sqes, 4096) && !munmap(rings, 4096));
		params.wq_fd = (uint32_t)ring;
		ring_make(IORING_SETUP_SQPOLL | IORING_SETUP_ATTACH_WQ);
		CHECK(!close(first));
	} else {
		CHECK(!setresgid(1, 1, 1));
	}
}

#define NO_MMAP (1U << 14)

static void make_own(const char *what)
{
	char *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t address = (uintptr_t)at;

	params.flags = NO_MMAP | (strcmp(what, "own-polled") ? 0 : IORING_SETUP_SQPOLL);
	memcpy((char *)(&params.cq_off + 1) - sizeof(address), &address, sizeof(address));
	address += 4096;
	memcpy((char *)(&params.sq_off + 1) - sizeof(address), &address, sizeof(address));
	ring = (int)syscall(SYS_io_uring_setup, 4, &params);
	if (ring < 0)
		test_skip("no io_uring in memory of the application here");
	if (!strcmp(what, "own-gone"))
		CHECK(!munmap(at, 8192));
}

int main(int argc, char **argv)
{
	const char *what = argv[1];

	test_init();
	if (!strncmp(what, "sqpoll", 6))
		polled(what);
	else if (!strncmp(what, "own-", 4))
		make_own(what);
	else if (!strcmp(what, "overflow"))
		ring_make(IORING_SETUP_CQE32);
	else
		ring_make(strcmp(what, "restricted") ? 0 : IORING_SETUP_R_DISABLED);
	request(what);
	registered(what);
	CHECK(!header || !munmap(header, 4096));
	if (!strcmp(what, "mapping"))
		CHECK(!close(ring) && !munmap(sqes, 4096));
	test_wait();
	test_pass();
}
