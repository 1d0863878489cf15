/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc and ps say about the program: arguments, environment, auxv, limits of its parts, exe.
 */
#include "harness.h"

#include <limits.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

struct text {
	const char *path;
	char data[20000];
	size_t size;
};

static struct text texts[] = {
	{"/proc/self/cmdline"}, {"/proc/self/environ"}, {"/proc/self/auxv"}, {"/proc/self/comm"}};

int main(int argc, char **argv)
{
	/* start and end of code, start of stack; data; heap start; arguments; environment */
	static const int fields[] = {26, 27, 28, 45, 46, 47, 48, 49, 50, 51};
	long long values[10];
	char exe[PATH_MAX], now[20000];

	test_init();
	/* As daemons do. */
	snprintf(argv[0], strlen(argv[0]) + 1, "worker: %d clients", 5);
	prctl(PR_SET_NAME, "renamed (by) me");
	environ[0][0] = 'X';
	for (int i = 0; i < 4; i++)
		texts[i].size = test_read(texts[i].path, texts[i].data, sizeof(texts[i].data));
	CHECK(texts[0].size && texts[1].size && texts[2].size > 100);
	for (int i = 0; i < 10; i++)
		values[i] = test_stat(getpid(), fields[i]);
	memset(exe, 0, sizeof(exe));
	CHECK(readlink("/proc/self/exe", exe, sizeof(exe)) > 0);

	test_wait();
	if (test_break(1))
		argv[0][3]++;
	if (test_break(2))
		prctl(PR_SET_NAME, "other");
	for (int i = 0; i < 4; i++) {
		size_t size = test_read(texts[i].path, now, sizeof(now));

		CHECKF(size == texts[i].size && !memcmp(now, texts[i].data, size),
		       "%s: %zu bytes, were %zu: %.40s, was %.40s", texts[i].path, size,
		       texts[i].size, now, texts[i].data);
	}
	for (int i = 0; i < 10; i++)
		CHECKF(test_stat(getpid(), fields[i]) == values[i],
		       "field %d of stat is %llx, was %llx", fields[i],
		       test_stat(getpid(), fields[i]), values[i]);
	memset(now, 0, sizeof(now));
	CHECK(readlink("/proc/self/exe", now, sizeof(now)) > 0);
	CHECKF(!strcmp(now, exe), "exe is %s, was %s", now, exe);
	CHECK(getauxval(AT_SYSINFO_EHDR) != 0);
	test_pass();
}
