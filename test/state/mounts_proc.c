/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of /proc that was opened in another mount namespace than that of the first process, where
 * something is mounted over it.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <unistd.h>

static volatile int *ready;

static void check_file(int fd)
{
	struct statfs fs;
	char text[64] = "";

	CHECK(!fstatfs(fd, &fs) && fs.f_type == PROC_SUPER_MAGIC);
	CHECK(pread(fd, text, sizeof(text) - 1, 0) > 0 && text[0] != 'c');
}

static int child(void *arg)
{
	int fd;

	CHECK(!unshare(CLONE_NEWNS) && !umount2("/proc/uptime", MNT_DETACH));
	fd = open("/proc/uptime", O_RDONLY);
	CHECK(fd >= 0);
	check_file(fd);
	ready[0] = 1;
	test_hold();
	check_file(fd);
	close(fd);
	fd = open("/proc/uptime", O_RDONLY);
	check_file(fd);
	return 3;
}

int main(void)
{
	char text[64] = "";
	pid_t pid;
	int fd;

	test_init();
	ready = test_shared(4096);
	CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	test_write("cover", "cover", 5);
	CHECK(!mount("cover", "/proc/uptime", NULL, MS_BIND, NULL));
	pid = test_fork(child, NULL);
	while (!ready[0])
		usleep(1000);
	test_wait();
	if (test_break(1))
		CHECK(!umount2("/proc/uptime", MNT_DETACH));
	fd = open("/proc/uptime", O_RDONLY);
	CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) == 5);
	test_reap(pid, 3);
	test_pass();
}
