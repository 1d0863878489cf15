/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that have unmapped the code of their vDSO, as valgrind does: what is left of it stays.
 * not-in: narrow: without the code 32-bit programs could not make a system call
 */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t code_len;

/* Nothing here may ask for the time by the vDSO. */
static int forever(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return 0;
}

static int apart(void *arg)
{
	int *pids = arg, child;

	munmap((void *)getauxval(AT_SYSINFO_EHDR), code_len);
	child = (int)syscall(SYS_fork);
	if (child == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	else
		pids[1] = child;
	return forever(NULL);
}

/* The lines of /proc/PID/maps that speak of the vDSO. */
static void parts(pid_t pid, char *ret, size_t size)
{
	char path[64], line[512];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	file = fopen(path, "r");
	CHECK(file);
	ret[0] = '\0';
	while (fgets(line, sizeof(line), file))
		if (strstr(line, "[vvar") || strstr(line, "[vdso]"))
			strncat(ret, line, size - strlen(ret) - 1);
	fclose(file);
}

static size_t own_code_len(void)
{
	unsigned long start, end;
	char line[256];

	test_map((void *)getauxval(AT_SYSINFO_EHDR), line, sizeof(line));
	CHECK(sscanf(line, "%lx-%lx", &start, &end) == 2);
	return end - start;
}

int main(void)
{
	int *pids = test_shared(4096);
	char before[2][1024], after[1024];
	int status;

	test_init();
	if (!getauxval(AT_SYSINFO_EHDR))
		test_skip("no vDSO");
	code_len = own_code_len();
	pids[0] = test_fork(apart, pids);
	while (!*(volatile int *)&pids[1])
		usleep(1000);
	for (int i = 0; i < 2; i++) {
		test_until_in(pids[i], SYS_pause);
		parts(pids[i], before[i], sizeof(before[i]));
		CHECK(strstr(before[i], "[vvar]") && !strstr(before[i], "[vdso]"));
	}
	test_wait();
	for (int i = 0; i < 2; i++) {
		parts(pids[i], after, sizeof(after));
		CHECKF(strcmp(after, before[i]) == !!test_break(1), "process %d has %s, had %s", i,
		       after, before[i]);
	}
	CHECK(!kill(pids[0], SIGKILL));
	CHECK_EQUAL(waitpid(pids[0], &status, 0), pids[0]);
	test_pass();
}
