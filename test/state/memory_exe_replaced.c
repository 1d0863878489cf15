/* SPDX-License-Identifier: Apache-2.0 */
/* A program whose file was replaced by another one while it runs, as an upgrade does. */
#include "harness.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char name[] = "./copy", *args[] = {name, name, NULL}, now[PATH_MAX] = "";
	struct stat before, after;
	int in, out;

	test_init();
	if (argc == 1) {
		in = open("/proc/self/exe", O_RDONLY);
		out = open(name, O_WRONLY | O_CREAT | O_EXCL, 0755);
		CHECK(in >= 0 && out >= 0);
		while (sendfile(out, in, NULL, 1 << 20) > 0)
			;
		close(in);
		close(out);
		execv(name, args);
		test_fail(__FILE__, __LINE__, "exec: %s", strerror(errno));
	}
	CHECK(!stat("/proc/self/exe", &before));
	test_write("new", "something else", 14);
	CHECK(!rename("new", name));
	test_wait();
	/* What it is called is open, since another file has the name. */
	CHECK(readlink("/proc/self/exe", now, sizeof(now) - 1) > 0);
	CHECKF(strstr(now, " (deleted)"), "exe is %s", now);
	CHECK(!stat("/proc/self/exe", &after));
	CHECK_EQUAL(after.st_size, before.st_size - !!test_break(1));
	CHECK_EQUAL(after.st_mode, before.st_mode);
	CHECK(!stat(name, &after) && after.st_size == 14);
	test_pass();
}
