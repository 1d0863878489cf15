/* SPDX-License-Identifier: Apache-2.0 */
/* A user that may have no more processes.
 *
 * needs: root
 */
#include "harness.h"

#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int *shared;

static int limited(void *arg)
{
	struct rlimit limit = {3, 3};
	pid_t pids[8];
	unsigned int uid;
	int count = 0;

	CHECK(!setrlimit(RLIMIT_NPROC, &limit));
	/* Nobody else's, for all processes of a user count, whichever namespace they are in. */
	CHECK_EQUAL(getrandom(&uid, sizeof(uid), 0), (int)sizeof(uid));
	uid = 100000 + uid % 1000000;
	CHECK(!setresuid(uid, uid, uid));
	for (;;) {
		pid_t pid = fork();

		if (pid < 0)
			break;
		if (pid == 0) {
			test_hold();
			_exit(3);
		}
		pids[count++] = pid;
	}
	CHECK(errno == EAGAIN && count >= 1);
	shared[0] = 1;
	test_hold();
	for (int i = 0; i < count; i++)
		test_reap(pids[i], 3 + test_break(1));
	return 4;
}

int main(void)
{
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	pid = test_fork(limited, NULL);
	while (!shared[0])
		usleep(1000);
	test_wait();
	test_reap(pid, 4);
	test_pass();
}
