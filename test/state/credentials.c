/* SPDX-License-Identifier: Apache-2.0 */
/* User and group ids of all kinds, and supplementary groups.
 *
 * needs: root
 */
#include "harness.h"

#include <grp.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GROUPS 300

static int unprivileged(void *arg)
{
	volatile int *ready = arg;
	gid_t groups[GROUPS], is[GROUPS];
	unsigned int r, e, s;

	for (int i = 0; i < GROUPS; i++)
		groups[i] = 4000000000u + i * 3;
	CHECK(!setgroups(GROUPS, groups));
	CHECK(!setresgid(1111, 2222, 3333));
	CHECK(!setresuid(4444, 5555, 6666));
	ready[0] = 1;
	test_hold();
	if (test_break(1))
		CHECK(!setresuid(4444, 4444, 6666));
	CHECK(!getresuid(&r, &e, &s));
	CHECK(r == 4444 && e == 5555 && s == 6666);
	CHECK(!getresgid(&r, &e, &s));
	CHECK(r == 1111 && e == 2222 && s == 3333);
	CHECK_EQUAL(setfsuid(-1), 5555);
	CHECK_EQUAL(setfsgid(-1), 2222);
	CHECK_EQUAL(getgroups(GROUPS, is), GROUPS);
	CHECK(!memcmp(is, groups, sizeof(is)));
	/* And nothing more may be had. */
	CHECK(setuid(0) < 0);
	CHECK(setgroups(0, NULL) < 0);
	return 4;
}

/* Root for others, somebody for files. */
static int split(void *arg)
{
	volatile int *ready = arg;
	unsigned int r, e, s;

	CHECK(!setgroups(0, NULL));
	CHECK(!setresuid(0, 7, 0));
	setfsuid(0);
	setfsgid(9);
	ready[1] = 1;
	test_hold();
	if (test_break(2))
		setfsuid(7);
	CHECK(!getresuid(&r, &e, &s));
	CHECK(r == 0 && e == 7 && s == 0);
	CHECK_EQUAL(setfsuid(-1), 0);
	CHECK_EQUAL(getgroups(0, NULL), 0);
	CHECK(!setuid(0));
	return 5;
}

int main(void)
{
	volatile int *ready;
	pid_t a, b;

	test_init();
	ready = test_shared(4096);
	a = test_fork(unprivileged, (void *)ready);
	b = test_fork(split, (void *)ready);
	while (!ready[0] || !ready[1])
		usleep(1000);
	test_wait();
	test_reap(a, 4);
	test_reap(b, 5);
	CHECK_EQUAL(getuid(), 0);
	test_pass();
}
