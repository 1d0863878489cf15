/* SPDX-License-Identifier: Apache-2.0 */
/* What tasks say about themselves by prctl, personality, nice and the like, each thread for itself.
 */
#include "harness.h"

#include <linux/ioprio.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_GET_THP_DISABLE
#define PR_SET_THP_DISABLE 41
#define PR_GET_THP_DISABLE 42
#endif

#ifndef ARCH_GET_CPUID
#define ARCH_GET_CPUID 0x1011
#define ARCH_SET_CPUID 0x1012
#endif
#define RESTORE_IDS 77 /* PR_TIMER_CREATE_RESTORE_IDS */

struct settings {
	long value[20];
};

static void settings_of(struct settings *s)
{
	char text[64];
	unsigned long permitted = 0; /* extended state */
	int n = 0, value = 0;
	cpu_set_t cpus;

	memset(s, 0, sizeof(*s));
	s->value[n++] = getpriority(PRIO_PROCESS, 0) + 100;
	s->value[n++] = prctl(PR_GET_TIMERSLACK);
	s->value[n++] = syscall(SYS_personality, 0xffffffff);
	s->value[n++] = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	s->value[n++] = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
	s->value[n++] = sched_getscheduler(0);
	test_read("/proc/self/oom_score_adj", text, sizeof(text));
	s->value[n++] = atol(text);
	test_read("/proc/self/coredump_filter", text, sizeof(text));
	s->value[n++] = strtol(text, NULL, 16);
	CPU_ZERO(&cpus);
	s->value[n++] = sched_getaffinity(0, sizeof(cpus), &cpus);
	s->value[n++] = *(long *)&cpus;
	s->value[n++] = prctl(PR_GET_TSC, &value) * 10 + value;
	s->value[n++] = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
	s->value[n++] = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
	s->value[n++] = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, 0, 0, 0);
	s->value[n++] = prctl(PR_GET_CHILD_SUBREAPER, &value) * 10 + value;
	s->value[n++] = prctl(PR_GET_DUMPABLE);
	s->value[n++] = prctl(PR_GET_SPECULATION_CTRL, 2, 0, 0, 0); /* L1D flush */
	s->value[n++] = syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0);
	s->value[n++] = prctl(RESTORE_IDS, 2, 0, 0, 0);
	s->value[n++] = syscall(SYS_arch_prctl, 0x1022, &permitted) ? 0 : (long)permitted;
}

static void check(const struct settings *before)
{
	static const char *const names[] = {
		"nice",		"timer slack",	   "personality",   "THP disable",
		"ioprio",	"policy",	   "oom_score_adj", "coredump filter",
		"affinity",	"affinity",	   "TSC",	    "machine check policy",
		"store bypass", "indirect branch", "subreaper",	    "dumpable",
		"L1D flush",	"CPUID",	   "timer ids",	    "permitted state",
	};
	struct settings now;

	settings_of(&now);
	for (int i = 0; i < 20; i++)
		CHECKF(now.value[i] == before->value[i], "%s is %ld, was %ld", names[i],
		       now.value[i], before->value[i]);
}

static volatile int settled;

static void *thread(void *arg)
{
	int i = (int)(intptr_t)arg;
	struct settings before;
	struct sched_param none = {0};
	cpu_set_t cpus;

	CHECK(!setpriority(PRIO_PROCESS, 0, 3 + i));
	CHECK(!prctl(PR_SET_TIMERSLACK, 123456 + i));
	CHECK(!syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
		       IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, i)));
	CHECK(!sched_getaffinity(0, sizeof(cpus), &cpus));
	for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &cpus) && seen++ != i % CPU_COUNT(&cpus))
			CPU_CLR(cpu, &cpus);
	if (CPU_COUNT(&cpus))
		sched_setaffinity(0, sizeof(cpus), &cpus);
	if (i == 1)
		CHECK(!sched_setscheduler(0, SCHED_BATCH, &none));
	if (i == 0) /* where the processor can */
		syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
	if (i == 2)
		CHECK(!sched_setscheduler(0, SCHED_IDLE, &none));
	settings_of(&before);
	__sync_fetch_and_add(&settled, 1);
	test_hold();
	if (test_break(1) && i == 1)
		setpriority(PRIO_PROCESS, 0, 19);
	if (test_break(2) && i == 0)
		prctl(PR_SET_TIMERSLACK, 50000);
	check(&before);
	return NULL;
}

int main(void)
{
	struct settings before;
	pthread_t threads[3];

	test_init();
	CHECK(syscall(SYS_personality, ADDR_NO_RANDOMIZE | SHORT_INODE | 0x0200000) >= 0);
	CHECK(!prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	test_write("/proc/self/oom_score_adj", "321", 3);
	test_write("/proc/self/coredump_filter", "0x3b", 4);
	prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
	prctl(RESTORE_IDS, 1, 0, 0, 0);
	prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0);
	for (int i = 0; i < 3; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread, (void *)(intptr_t)i));
	while (settled < 3)
		usleep(1000);
	settings_of(&before);
	test_wait();
	if (test_break(3))
		test_write("/proc/self/oom_score_adj", "322", 3);
	check(&before);
	for (int i = 0; i < 3; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_pass();
}
