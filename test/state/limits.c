/* SPDX-License-Identifier: Apache-2.0 */
/* All resource limits, soft and hard. */
#include "harness.h"

#include <sys/resource.h>
#include <unistd.h>

int main(void)
{
	struct rlimit before[RLIM_NLIMITS], now;

	test_init();
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		CHECK(!getrlimit(i, &now));
		switch (i) {
		case RLIMIT_CORE:
			now.rlim_cur = 0;
			break;
		case RLIMIT_CPU:
			now.rlim_cur = 100000;
			now.rlim_max = 200000;
			break;
		case RLIMIT_FSIZE:
			now.rlim_cur = 1 << 30;
			break;
		case RLIMIT_NOFILE:
			now.rlim_cur = 200;
			now.rlim_max = 300;
			break;
		case RLIMIT_STACK:
			now.rlim_cur = 4 << 20;
			break;
		case RLIMIT_RTTIME:
			now.rlim_cur = 5000000;
			break;
		case RLIMIT_SIGPENDING:
		case RLIMIT_MSGQUEUE:
			now.rlim_cur /= 2;
			break;
		}
		CHECK(!setrlimit(i, &now));
		CHECK(!getrlimit(i, &before[i]));
	}
	test_wait();
	if (test_break(1)) {
		now = (struct rlimit){1, before[RLIMIT_CORE].rlim_max};
		setrlimit(RLIMIT_FSIZE, &now);
	}
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		CHECK(!getrlimit(i, &now));
		CHECKF(now.rlim_cur == before[i].rlim_cur && now.rlim_max == before[i].rlim_max,
		       "limit %d is %lld/%lld, was %lld/%lld", i, (long long)now.rlim_cur,
		       (long long)now.rlim_max, (long long)before[i].rlim_cur,
		       (long long)before[i].rlim_max);
	}
	test_pass();
}
