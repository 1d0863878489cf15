/* SPDX-License-Identifier: Apache-2.0 */
/* A process that has registered for expedited memory barriers may still use them. */
#include "harness.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

static int call(int command)
{
	return syscall(SYS_membarrier, command, 0, 0);
}

int main(void)
{
	test_init();
	if (call(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) < 0)
		test_skip("no expedited memory barriers: %s", strerror(errno));
	CHECK(!call(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE) || errno == EINVAL);
	test_wait();
	CHECK(!call(MEMBARRIER_CMD_PRIVATE_EXPEDITED));
	CHECK(call(MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0);
	test_pass();
}
