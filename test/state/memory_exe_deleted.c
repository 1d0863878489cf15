/* SPDX-License-Identifier: Apache-2.0 */
/* A program whose file was deleted while it runs. */
#include "harness.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static void copy(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0755);
	ssize_t n;

	CHECK(in >= 0 && out >= 0);
	while ((n = sendfile(out, in, NULL, 1 << 20)) > 0)
		;
	CHECK_EQUAL(n, 0);
	close(in);
	close(out);
}

static const char text[] = "constants are read from the file";

int main(int argc, char **argv)
{
	char link[PATH_MAX] = "", now[PATH_MAX] = "", *args[] = {argv[0], argv[0], NULL};
	char name[] = "./copy";

	test_init();
	if (argc == 1) {
		copy("/proc/self/exe", name);
		args[0] = name;
		execv(name, args);
		test_fail(__FILE__, __LINE__, "exec: %s", strerror(errno));
	}
	CHECK(!unlink(name));
	CHECK(readlink("/proc/self/exe", link, sizeof(link) - 1) > 0);
	CHECK(strstr(link, "/copy (deleted)"));
	test_wait();
	if (test_break(1))
		link[3]++;
	CHECK(readlink("/proc/self/exe", now, sizeof(now) - 1) > 0);
	CHECKF(!strcmp(now, link), "exe is %s, was %s", now, link);
	CHECK(!strncmp(text, "constants", 9));
	test_pass();
}
