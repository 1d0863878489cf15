/* SPDX-License-Identifier: Apache-2.0 */
/* The deadline policy.
 *
 * needs: root
 */
#include "harness.h"

#include <sys/syscall.h>
#include <unistd.h>

struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

int main(void)
{
	struct attributes set = {.size = sizeof(set),
				 .policy = 6,
				 .runtime = 1000000,
				 .deadline = 30000000,
				 .period = 100000000},
			  now;

	test_init();
	if (syscall(SYS_sched_setattr, 0, &set, 0))
		test_skip("no deadline scheduling here: %s", strerror(errno));
	test_wait();
	if (test_break(1)) {
		set.period *= 2;
		CHECK(!syscall(SYS_sched_setattr, 0, &set, 0));
	}
	CHECK(!syscall(SYS_sched_getattr, 0, &now, sizeof(now), 0));
	CHECK_EQUAL(now.policy, 6);
	CHECK_EQUAL(now.runtime, 1000000);
	CHECK_EQUAL(now.deadline, 30000000);
	CHECK_EQUAL(now.period, 100000000);
	test_pass();
}
