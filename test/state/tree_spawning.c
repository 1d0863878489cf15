/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that makes a child every moment, each at the other end of a new pipe: whoever looks at
 * the tree while it runs sees pipes that lead to children which it has not seen yet.
 *
 * not-in: cycles: what it has is now more, now less
 */
#include "harness.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
	volatile unsigned long made, right;
	volatile int end;
};

static void spawn(struct shared *s)
{
	int ends[2], status;
	char byte = (char)s->made, back = 0;
	pid_t child;

	CHECK(!pipe(ends));
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		close(ends[0]);
		usleep(500);
		_exit(write(ends[1], &byte, 1) != 1);
	}
	close(ends[1]);
	CHECK(read(ends[0], &back, 1) == 1);
	CHECK(waitpid(child, &status, 0) == child);
	close(ends[0]);
	s->right += back == byte && status == 0;
	s->made++;
}

int main(void)
{
	struct shared *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned long before;
	int status;
	pid_t pid;

	test_init();
	CHECK(s != MAP_FAILED);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (!s->end)
			spawn(s);
		_exit(0);
	}
	while (s->made < 3)
		usleep(1000);
	test_wait();
	if (test_break(1))
		kill(pid, SIGKILL);
	before = s->made;
	while (s->made < before + 3 && !kill(pid, 0) && !waitpid(pid, NULL, WNOHANG))
		usleep(1000);
	CHECK(s->made >= before + 3);
	s->end = 1;
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQUAL(status, 0);
	CHECK_EQUAL(s->made, s->right);
	test_pass();
}
