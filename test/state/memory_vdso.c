/* SPDX-License-Identifier: Apache-2.0 */
/* The vDSO: at its old place, and it tells the time. */
#include "harness.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef int (*gettime_fn)(clockid_t, struct timespec *);

static double seconds(struct timespec at)
{
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void check(gettime_fn gettime)
{
	static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
					   CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE};
	struct timespec before, in, after;
	struct timeval value;
	unsigned int cpu;

	for (int i = 0; i < 5; i++) {
		CHECK(!syscall(SYS_clock_gettime, clocks[i], &before));
		CHECK(!gettime(clocks[i], &in));
		CHECK(!syscall(SYS_clock_gettime, clocks[i], &after));
		CHECKF(seconds(before) <= seconds(in) && seconds(in) <= seconds(after),
		       "clock %d: %f is not between %f and %f", clocks[i], seconds(in),
		       seconds(before), seconds(after));
	}
	CHECK(!gettimeofday(&value, NULL));
	CHECK(time(NULL) - value.tv_sec < 5);
	CHECK(!getcpu(&cpu, NULL));
}

int main(void)
{
	char line[256], now[256];
	void *vdso = (void *)getauxval(AT_SYSINFO_EHDR);
	gettime_fn gettime;

	test_init();
	if (!vdso)
		test_skip("no vDSO");
	gettime = (gettime_fn)dlsym(dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD),
				    "__vdso_clock_gettime");
	CHECK(gettime);
	test_map(vdso, line, sizeof(line));
	CHECK(strstr(line, "[vdso]"));
	check(gettime);
	test_wait();
	test_map(vdso, now, sizeof(now));
	CHECKF(strcmp(now, line) == !!test_break(1), "%s was %s", now, line);
	CHECK(!memcmp(vdso, "\177ELF", 4));
	check(gettime);
	test_pass();
}
