/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in flight of io_uring that wait for children to end: for a certain one, for one of a
 * group, by a pidfd under whose number is something else by now, and for any; for one to stop, and
 * to go on; time-outs that go on.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <linux/time_types.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define OP_WAITID	  50
#define TIMEOUT_MULTISHOT (1u << 6)
#define TIMES		  40

static struct ring ring;
static siginfo_t told[6];
static pid_t children[4];

static void wait_until(uint64_t data, idtype_t which, int id, int what)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, OP_WAITID, data);

	sqe->len = which;
	sqe->fd = id;
	sqe->file_index = (uint32_t)what;
	sqe->addr2 = (uintptr_t)&told[data];
	ring_enter(&ring, 1, 0);
	if (ring_peek(&ring) && ring_peek(&ring)->res == -EINVAL)
		test_skip("no IORING_OP_WAITID");
	CHECK(!ring_peek(&ring));
}

static void wait_for(uint64_t data, idtype_t which, int id)
{
	wait_until(data, which, id, WEXITED);
}

static pid_t child_that_waits(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid)
		return pid;
	CHECK(!prctl(PR_SET_PDEATHSIG, SIGKILL));
	for (;;)
		pause();
}

static void pass_again(uint64_t data, unsigned int times)
{
	struct __kernel_timespec ts = {.tv_nsec = 20000000};
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_TIMEOUT, data);

	sqe->addr = (uintptr_t)&ts;
	sqe->len = 1;
	sqe->off = times;
	sqe->timeout_flags = TIMEOUT_MULTISHOT;
	ring_enter(&ring, 1, 0);
}

/* Completions of the others; of the time-outs it is counted how many come, and whether more will.
 */
static unsigned int passed[2];
static bool more[2] = {true, true};

static void expect(uint64_t data, int32_t result)
{
	for (;;) {
		const struct io_uring_cqe *cqe = ring_peek(&ring);

		if (!cqe) {
			ring_enter(&ring, 0, 1);
			continue;
		}
		if (cqe->user_data < 10)
			break;
		CHECK_EQUAL(cqe->res, -ETIME);
		passed[cqe->user_data - 10]++;
		more[cqe->user_data - 10] = cqe->flags & IORING_CQE_F_MORE;
		ring_taken(&ring);
		if (!data)
			return;
	}
	ring_take(&ring, data, result);
}

static void set_up(void)
{
	int pidfd;

	/* room for what comes while nobody looks: a time-out that finds none ends */
	ring_make(&ring, 4096, 0);
	for (int i = 0; i < 4; i++)
		children[i] = child_that_waits();
	CHECK(!setpgid(children[1], children[1]));
	pidfd = (int)syscall(SYS_pidfd_open, children[2], 0);
	wait_for(1, P_PID, children[0]);
	wait_for(2, P_PGID, children[1]);
	wait_for(3, P_PIDFD, pidfd);
	wait_until(4, P_PID, children[3], WSTOPPED);
	wait_until(5, P_PID, children[3], WCONTINUED);
	CHECK(dup2(0, pidfd) == pidfd);
	ring_nops(&ring, 3, 0);
	pass_again(10, 0);
	pass_again(11, TIMES);
	while (passed[0] < 2 || passed[1] < 2)
		expect(0, 0);
}

static void stop_and_go_on(void)
{
	CHECK(!kill(children[3], SIGSTOP));
	expect(4, 0);
	CHECK_EQUAL(told[4].si_code, CLD_STOPPED);
	CHECK(!kill(children[3], SIGCONT));
	expect(5, 0);
	CHECK_EQUAL(told[5].si_code, CLD_CONTINUED);
	CHECK(!kill(children[3], SIGKILL));
	CHECK_EQUAL(waitpid(children[3], NULL, 0), children[3]);
}

static void end(int i, uint64_t data)
{
	CHECK(!kill(children[i], SIGTERM));
	expect(data, 0);
	CHECK_EQUAL(told[data].si_pid, children[i]);
	CHECK_EQUAL(told[data].si_status, SIGTERM);
	CHECK_EQUAL(waitpid(children[i], NULL, WNOHANG), -1);
}

int main(void)
{
	unsigned int before;

	test_init();
	set_up();
	test_wait();
	if (test_break(1)) {
		ring_sqe(&ring, IORING_OP_ASYNC_CANCEL, 5)->addr = 11;
		ring_enter(&ring, 1, 0);
		expect(5, 0);
	}
	if (test_break(2))
		CHECK_EQUAL(waitpid(children[1], NULL, WNOHANG), 1);
	stop_and_go_on();
	end(2, 3);
	end(0, 1);
	end(1, 2);
	for (before = passed[0]; passed[0] < before + 3 || more[1];)
		expect(0, 0);
	CHECK_EQUAL(passed[1], TIMES);
	CHECK(more[0]);
	test_pass();
}
