/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory whose faults another process resolves: pages that are missing, resolved, zero and
 * protected; a thread that waits in a fault; one that nobody has begun with.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES 16
#define SIZE  (PAGES * 4096ul)

static int fd, unused;
static char *missing, *protected, *of_memfd;
static volatile char waiting;

struct shared {
	volatile int missing, protected;
};
static struct shared *seen;

static void resolve(uint64_t address)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct uffdio_copy copy = {.dst = address & ~4095ul, .src = (uintptr_t)page, .len = 4096};

	memset(page, 'r', sizeof(page));
	CHECK(!ioctl(fd, UFFDIO_COPY, &copy));
}

/* In another process: faults are told to whoever holds the descriptor. */
static int monitor(void *arg)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		struct uffd_msg msg;
		uint64_t at;

		if (!test_going()) {
			test_sleep(0.01);
			continue;
		}
		CHECK(poll(&p, 1, -1) == 1);
		if (read(fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		CHECK_EQUAL(msg.event, UFFD_EVENT_PAGEFAULT);
		at = msg.arg.pagefault.address;
		if (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
			struct uffdio_writeprotect undo = {.range = {at & ~4095ul, 4096}};

			seen->protected ++;
			CHECK(!ioctl(fd, UFFDIO_WRITEPROTECT, &undo));
			continue;
		}
		seen->missing++;
		resolve(at);
	}
	return 0;
}

static bool polls_in(int of)
{
	struct pollfd p = {.fd = of, .events = POLLIN};

	return poll(&p, 1, 0) == 1 && p.revents & POLLIN;
}

static void *touch(void *arg)
{
	waiting = missing[5 * 4096 + 7];
	return NULL;
}

static void registered(void *at, uint64_t mode)
{
	struct uffdio_register reg = {.range = {(uintptr_t)at, SIZE}, .mode = mode};

	CHECK(!ioctl(fd, UFFDIO_REGISTER, &reg));
}

static void set_up(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
	struct uffdio_zeropage zero;
	struct uffdio_writeprotect protect;
	int memfd = memfd_create("watched", MFD_CLOEXEC);

	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		test_skip("no userfaultfd");
	unused = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	CHECK(unused >= 0);
	CHECK(!ioctl(fd, UFFDIO_API, &api));
	missing = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	protected = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memfd >= 0 && !ftruncate(memfd, SIZE));
	of_memfd = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	missing[0] = 'a';
	memset(missing + 4096, 0, 4096);
	of_memfd[0] = 'm';
	memset(protected, 'p', SIZE);
	memset(protected + 3 * 4096, 0, 4096);
	registered(missing, UFFDIO_REGISTER_MODE_MISSING);
	registered(of_memfd, UFFDIO_REGISTER_MODE_MISSING);
	registered(protected, UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING);
	resolve((uintptr_t)missing + 2 * 4096);
	zero = (struct uffdio_zeropage){.range = {(uintptr_t)missing + 3 * 4096, 4096}};
	CHECK(!ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	protect = (struct uffdio_writeprotect){.range = {(uintptr_t) protected + 4096, 3 * 4096},
					       .mode = UFFDIO_WRITEPROTECT_MODE_WP};
	CHECK(!ioctl(fd, UFFDIO_WRITEPROTECT, &protect));
}

static void check_missing(pthread_t thread)
{
	struct uffdio_api api = {.api = UFFD_API};

	CHECK(!pthread_join(thread, NULL));
	CHECK_EQUAL(waiting, 'r');
	CHECK_EQUAL(seen->missing, 1);
	CHECK_EQUAL(missing[0], 'a');
	CHECK_EQUAL(missing[4096], 0);
	CHECK_EQUAL(missing[2 * 4096 + 1], 'r');
	CHECK_EQUAL(missing[3 * 4096], 0);
	CHECK_EQUAL(of_memfd[0], 'm');
	CHECK_EQUAL(seen->missing, 1);
	CHECK_EQUAL(missing[6 * 4096], 'r');
	CHECK_EQUAL(seen->missing, 2);
	CHECK_EQUAL(of_memfd[4096], 'r');
	CHECK_EQUAL(seen->missing, 3);
	CHECK(!ioctl(unused, UFFDIO_API, &api));
	CHECK(ioctl(fd, UFFDIO_API, &api) < 0);
}

static void check_protected(void)
{
	CHECK_EQUAL(protected[4096], 'p');
	CHECK_EQUAL(protected[3 * 4096], 0);
	CHECK_EQUAL(seen->protected, 0);
	protected[0] = 'w';
	CHECK_EQUAL(seen->protected, 0);
	protected[4096] = 'w';
	CHECK_EQUAL(seen->protected, 1);
	protected[3 * 4096] = 'w';
	CHECK_EQUAL(seen->protected, 2);
	protected[4 * 4096] = 'w';
	CHECK_EQUAL(seen->protected, 2);
	CHECK_EQUAL(seen->missing, 3);
}

int main(void)
{
	pthread_t thread;
	pid_t pid;

	test_init();
	seen = test_shared(4096);
	set_up();
	pid = test_fork(monitor, NULL);
	CHECK(!pthread_create(&thread, NULL, touch, NULL));
	while (!polls_in(fd))
		usleep(1000);

	test_wait();
	if (test_break(1)) {
		struct uffdio_range range = {(uintptr_t) protected, SIZE};

		CHECK(!ioctl(fd, UFFDIO_UNREGISTER, &range));
	}
	if (test_break(2))
		resolve((uintptr_t)missing + 6 * 4096);
	check_missing(thread);
	check_protected();
	kill(pid, SIGKILL);
	test_pass();
}
