/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request in flight of io_uring that was given to a worker of the kernel, of a task with other
 * credentials than its parent: a restart of a restart finds it as one of the task's own.
 */
/* needs: root */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <signal.h>
#include <sys/prctl.h>

static int asked[2];

static int wait_as_user(void *unused)
{
	static struct ring ring;
	static char into[16];
	struct io_uring_sqe *sqe;

	(void)unused;
	CHECK(!setresgid(1, 1, 1) && !setresuid(1, 1, 1));
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	ring_make(&ring, 4, 0);
	sqe = ring_sqe(&ring, IORING_OP_READ, 7);
	sqe->fd = asked[0];
	sqe->addr = (uintptr_t)into;
	sqe->len = sizeof(into);
	sqe->flags = IOSQE_ASYNC;
	ring_enter(&ring, 1, 0);
	while (!ring_peek(&ring))
		ring_enter(&ring, 0, 1);
	ring_take(&ring, 7, 5);
	return memcmp(into, "asked", 5) ? 8 : 7;
}

int main(void)
{
	pid_t pid;

	test_init();
	CHECK(!pipe(asked));
	pid = test_fork(wait_as_user, NULL);
	test_until_in(pid, SYS_io_uring_enter);
	test_wait();
	if (test_break(1))
		CHECK_EQUAL(write(asked[1], "wrong", 5), 5);
	CHECK_EQUAL(write(asked[1], "asked", 5), 5);
	test_reap(pid, 7);
	test_pass();
}
