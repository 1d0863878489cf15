/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that have left the common working directory, umask or descriptor table. */
/* may-refuse: kernel-too-old */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile int settled;
static char directory[300];

static void *own_fs(void *arg)
{
	char path[300];

	CHECK(!unshare(CLONE_FS));
	CHECK(!mkdir("own", 0755));
	CHECK(!chdir("own"));
	umask(0157);
	settled++;
	test_hold();
	CHECK(getcwd(path, sizeof(path)) && !strcmp(path + strlen(path) - 4, "/own"));
	CHECK_EQUAL(umask(0157), 0157);
	/* Still nobody else's. */
	CHECK(!chdir("/"));
	return NULL;
}

static void *own_files(void *arg)
{
	int fd, common = *(int *)arg;
	char c = 0;

	CHECK(!unshare(CLONE_FILES));
	fd = open("/dev/zero", O_RDONLY);
	CHECK(fd >= 0);
	CHECK_EQUAL(dup2(fd, 77), 77);
	close(common);
	settled++;
	test_hold();
	if (test_break(1))
		close(77);
	CHECK_EQUAL(read(77, &c, 1), 1);
	CHECK(fcntl(common, F_GETFD) < 0 && errno == EBADF);
	CHECK_EQUAL(fcntl(fd, F_GETFD), 0);
	return NULL;
}

int main(void)
{
	pthread_t a, b;
	char path[300];
	int fd;

	test_init();
	umask(0022);
	CHECK(getcwd(directory, sizeof(directory)));
	fd = open("/dev/full", O_RDWR);
	CHECK(!pthread_create(&a, NULL, own_fs, NULL));
	while (settled < 1)
		usleep(1000);
	CHECK(!pthread_create(&b, NULL, own_files, &fd));
	while (settled < 2)
		usleep(1000);
	test_wait();
	CHECK(!pthread_join(a, NULL));
	CHECK(!pthread_join(b, NULL));
	CHECK(getcwd(path, sizeof(path)) && !strcmp(path, directory));
	CHECK_EQUAL(umask(0), 0022);
	CHECK(fcntl(77, F_GETFD) < 0 && errno == EBADF);
	CHECK(fcntl(fd, F_GETFD) == 0 && write(fd, "x", 1) < 0 && errno == ENOSPC);
	test_pass();
}
