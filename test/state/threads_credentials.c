/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials are a thread's own, however much libc pretends otherwise.
 *
 * needs: root
 */
#include "harness.h"

#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT 4

static volatile int settled;

static void *run(void *arg)
{
	unsigned int i = (unsigned int)(intptr_t)arg, r, e, s;
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct before[2], after[2];
	gid_t groups[3] = {7000 + i, 7100 + i, 7200 + i}, is[8];
	uint32_t drop = 1u << (i + 5);

	/* The raw system calls change this thread alone. */
	CHECK(!syscall(SYS_setgroups, (size_t)i, groups));
	CHECK(!syscall(SYS_setresgid, 2000 + i, 2100 + i, 2200 + i));
	if (i == 3) {
		prctl(PR_SET_KEEPCAPS, 1);
		CHECK(!syscall(SYS_setresuid, 3000 + i, 3000 + i, 3200 + i));
	}
	CHECK(!syscall(SYS_capget, &header, before));
	before[0].permitted &= ~drop;
	before[0].effective = before[0].permitted & ~(drop << 2);
	before[0].inheritable = before[0].permitted & 0xf0;
	CHECK(!syscall(SYS_capset, &header, before));
	if (i == 2)
		CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	__sync_fetch_and_add(&settled, 1);

	test_hold();
	if (test_break(1) && i == 0)
		syscall(SYS_setfsgid, 7);
	if (test_break(2) && i == 2)
		before[0].permitted = 1;
	CHECK(!syscall(SYS_getresgid, &r, &e, &s));
	CHECK(r == 2000 + i && e == 2100 + i && s == 2200 + i);
	CHECK_EQUAL(syscall(SYS_setfsgid, -1), 2100 + i);
	CHECK(!syscall(SYS_getresuid, &r, &e, &s));
	CHECK_EQUAL(r, i == 3 ? 3003 : 0);
	CHECK_EQUAL(e, i == 3 ? 3003 : 0);
	CHECK_EQUAL(s, i == 3 ? 3203 : 0);
	CHECK_EQUAL(syscall(SYS_getgroups, 8, is), i);
	for (unsigned int j = 0; j < i; j++)
		CHECK_EQUAL(is[j], groups[j]);
	CHECK(!syscall(SYS_capget, &header, after));
	for (int j = 0; j < 2; j++) {
		CHECK_EQUAL(after[j].permitted, before[j].permitted);
		CHECK_EQUAL(after[j].effective, before[j].effective);
		CHECK_EQUAL(after[j].inheritable, before[j].inheritable);
	}
	CHECK_EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), i == 2);
	return NULL;
}

int main(void)
{
	pthread_t threads[COUNT];
	unsigned int r, e, s;

	test_init();
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_create(&threads[i], NULL, run, (void *)(intptr_t)i));
	while (settled < COUNT)
		usleep(1000);
	test_wait();
	CHECK(!syscall(SYS_getresuid, &r, &e, &s));
	CHECK(r == 0 && e == 0 && s == 0);
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_pass();
}
