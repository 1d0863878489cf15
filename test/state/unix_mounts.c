/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets with names in other mounts: through a bind mount, of a file system in memory, over
 * which nothing lies; and connections to them by other paths.
 *
 * needs: root
 * not-in: both: names of sockets are taken by the original
 */
#include "harness.h"

#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un name(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	return un;
}

static int bound(int type, const char *path)
{
	struct sockaddr_un un = name(path);
	int fd = socket(AF_UNIX, type, 0);

	CHECKF(!bind(fd, (struct sockaddr *)&un, sizeof(un)), "%s: %s", path, strerror(errno));
	CHECK(type == SOCK_DGRAM || !listen(fd, 3));
	return fd;
}

static int connected(int type, const char *path)
{
	struct sockaddr_un un = name(path);
	int fd = socket(AF_UNIX, type, 0);

	CHECKF(!connect(fd, (struct sockaddr *)&un, sizeof(un)), "%s: %s", path, strerror(errno));
	return fd;
}

static void check_name(int fd, const char *path)
{
	struct sockaddr_un un = {};
	socklen_t len = sizeof(un);

	CHECK(!getsockname(fd, (struct sockaddr *)&un, &len));
	CHECKF(!strcmp(un.sun_path, path), "the name is %s, not %s", un.sun_path, path);
}

static void check_listener(int fd, const char *path)
{
	int client = connected(SOCK_STREAM, path), server = accept(fd, NULL, NULL);
	char byte;

	CHECK(server >= 0 && write(client, "x", 1) == 1 && read(server, &byte, 1) == 1);
	close(client);
	close(server);
}

int main(void)
{
	int by_bind, by_path, memory, letters, sender, client, server;
	char buf[8] = "";
	struct stat st;

	test_init();
	CHECK(!mkdir("real", 0700) && !mkdir("bound", 0700) && !mkdir("memory", 0700));
	if (mount("real", "bound", NULL, MS_BIND, NULL))
		test_skip("no mounts here: %s", strerror(errno));
	CHECK(!mount("none", "memory", "tmpfs", 0, NULL));
	by_bind = bound(SOCK_STREAM, "bound/one");
	by_path = bound(SOCK_STREAM, "real/two");
	memory = bound(SOCK_STREAM, "memory/three");
	letters = bound(SOCK_DGRAM, "bound/four");
	CHECK(!chmod("memory/three", 0620));
	client = connected(SOCK_STREAM, "real/one");
	server = accept(by_bind, NULL, NULL);
	CHECK(server >= 0);
	sender = connected(SOCK_DGRAM, "real/four");
	CHECK_EQUAL(send(sender, "queued", 6, 0), 6);

	test_wait();
	if (test_break(1))
		CHECK(!unlink("real/one"));
	if (test_break(2))
		CHECK(!chmod("memory/three", 0600));
	check_name(by_bind, "bound/one");
	check_name(by_path, "real/two");
	check_name(memory, "memory/three");
	check_listener(by_bind, "real/one");
	check_listener(by_bind, "bound/one");
	check_listener(by_path, "bound/two");
	check_listener(memory, "memory/three");
	CHECK(!stat("memory/three", &st));
	CHECK_EQUAL(st.st_mode & 0777, 0620);
	CHECK_EQUAL(recv(letters, buf, sizeof(buf), MSG_DONTWAIT), 6);
	CHECK_EQUAL(send(sender, "more", 4, 0), 4);
	CHECK_EQUAL(recv(letters, buf, sizeof(buf), MSG_DONTWAIT), 4);
	check_name(server, "bound/one");
	CHECK_EQUAL(write(client, "y", 1), 1);
	CHECK_EQUAL(read(server, buf, 1), 1);
	test_pass();
}
