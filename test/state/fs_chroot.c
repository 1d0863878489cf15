/* SPDX-License-Identifier: Apache-2.0 */
/* Another root directory.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char top[400];
static volatile int *shared;

static int confined(void *arg)
{
	char path[400];
	int fd;

	CHECK(!chroot("jail") && !chdir("/etc"));
	fd = open("/etc/inside", O_RDONLY);
	CHECK(fd >= 0);
	shared[0] = 1;
	while (!shared[1])
		usleep(1000);
	if (test_break(1))
		CHECK(!chroot("/etc"));
	CHECK(getcwd(path, sizeof(path)) && !strcmp(path, "/etc"));
	CHECK(!access("/etc/inside", F_OK));
	CHECK(access("/proc", F_OK) < 0);
	CHECK_EQUAL(read(fd, path, 10), 4);
	return 3;
}

int main(void)
{
	char link[500], path[64];
	ssize_t n;
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	CHECK(getcwd(top, sizeof(top)));
	CHECK(!mkdir("jail", 0755) && !mkdir("jail/etc", 0755));
	test_write("jail/etc/inside", "here", 4);
	pid = test_fork(confined, NULL);
	while (!shared[0])
		usleep(1000);
	test_wait();
	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	n = readlink(path, link, sizeof(link) - 1);
	CHECK(n > 0);
	link[n] = 0;
	CHECKF(!strncmp(link, top, strlen(top)) && !strcmp(link + strlen(top), "/jail"),
	       "the root directory is %s", link);
	shared[1] = 1;
	test_reap(pid, 3);
	test_pass();
}
