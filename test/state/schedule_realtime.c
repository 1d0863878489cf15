/* SPDX-License-Identifier: Apache-2.0 */
/* Real-time policies with their priorities, reset-on-fork, negative nice values.
 *
 * needs: root
 */
#include "harness.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static const struct attributes wanted[] = {
	{.policy = SCHED_FIFO, .priority = 7},
	{.policy = SCHED_RR, .priority = 33, .flags = 1},
	{.policy = SCHED_OTHER, .nice = -11},
	{.policy = SCHED_BATCH, .nice = -5, .flags = 1},
};
#define COUNT 4

static volatile int *ready;

static int child(void *arg)
{
	int i = (int)(intptr_t)arg;
	struct attributes set = wanted[i], before, now;

	set.size = sizeof(set);
	if (syscall(SYS_sched_setattr, 0, &set, 0))
		return errno == EPERM || errno == EBUSY ? 99 : 98;
	CHECK(!syscall(SYS_sched_getattr, 0, &before, sizeof(before), 0));
	__sync_fetch_and_add(ready, 1);
	test_hold();
	if (test_break(1) && i == 1) {
		set.priority++;
		syscall(SYS_sched_setattr, 0, &set, 0);
	}
	CHECK(!syscall(SYS_sched_getattr, 0, &now, sizeof(now), 0));
	CHECK_EQUAL(now.policy, before.policy);
	CHECK_EQUAL(now.flags, before.flags);
	CHECK_EQUAL(now.nice, before.nice);
	CHECK_EQUAL(now.priority, before.priority);
	CHECK_EQUAL(now.runtime, before.runtime);
	CHECK_EQUAL(now.deadline, before.deadline);
	CHECK_EQUAL(now.period, before.period);
	return 5;
}

int main(void)
{
	int count = COUNT;
	pid_t pids[COUNT];

	test_init();
	ready = test_shared(4096);
	for (int i = 0; i < count; i++)
		pids[i] = test_fork(child, (void *)(intptr_t)i);
	for (int i = 0; i < 2000 && *ready < count; i++)
		usleep(1000);
	if (*ready < count)
		test_skip("real-time policies are not allowed here");
	test_wait();
	for (int i = 0; i < count; i++)
		test_reap(pids[i], 5);
	test_pass();
}
