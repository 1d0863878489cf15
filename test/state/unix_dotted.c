/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of Unix sockets that climb ("../up", "/dir/../up"), of which the file is there, was renamed
 * or has gone; two that have had the same name one after the other.
 *
 * not-in: both: names of sockets are taken by the original
 */
#include "harness.h"

#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address(const char *name)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	CHECK((size_t)snprintf(un.sun_path, sizeof(un.sun_path), "%s", name) < sizeof(un.sun_path));
	return un;
}

static int bind_to(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	struct sockaddr_un un = address(name);

	CHECKF(!bind(fd, (struct sockaddr *)&un, sizeof(un)), "bind to %s: %s", name,
	       strerror(errno));
	return fd;
}

static int connect_to(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	struct sockaddr_un un = address(name);

	CHECKF(!connect(fd, (struct sockaddr *)&un, sizeof(un)), "connect to %s: %s", name,
	       strerror(errno));
	return fd;
}

static void check_name(int fd, const char *name)
{
	struct sockaddr_un un = {};
	socklen_t len = sizeof(un);

	CHECK(!getsockname(fd, (struct sockaddr *)&un, &len));
	CHECKF(!strcmp(un.sun_path, name), "it is called %s, and not %s", un.sun_path, name);
}

static void check_sent(int from, int to, const char *text)
{
	char got[32] = "";

	CHECK_EQUAL(send(from, text, strlen(text), 0), (ssize_t)strlen(text));
	CHECK_EQUAL(recv(to, got, sizeof(got), MSG_DONTWAIT), (ssize_t)strlen(text));
	CHECK(!strcmp(got, text));
}

static void check_there(int fd, const char *name, const char *path)
{
	int client = connect_to(path);

	check_name(fd, name);
	check_sent(client, fd, path);
	close(client);
}

int main(void)
{
	char absolute[108], odd[] = "x..y/..z";
	int up, was, root, gone, first, second, dots, to[4];
	struct stat st;

	test_init();
	CHECK(!mkdir("a", 0700) && !mkdir("a/b", 0700) && !mkdir("x..y", 0700));
	snprintf(absolute, sizeof(absolute), "%s/a/../absolute", test_dir());
	root = bind_to(absolute);
	to[3] = connect_to(absolute);
	CHECK(!unlink("absolute"));
	dots = bind_to(odd);
	CHECK(!unlink(odd) && !rmdir("x..y"));
	CHECK(!chdir("a/b"));
	up = bind_to("../up");
	was = bind_to("../../a/./was");
	gone = bind_to("../../a/../gone");
	to[0] = connect_to("../../gone");
	CHECK(!unlink("../../gone"));
	first = bind_to("../same");
	to[1] = connect_to("../same");
	CHECK(!unlink("../same"));
	second = bind_to("../same");
	to[2] = connect_to("../same");
	CHECK(!unlink("../same"));
	CHECK(!chdir("../.."));
	CHECK(!rename("a/was", "a/is"));
	test_wait();

	if (test_break(1))
		CHECK(!rename("a/is", "a/was"));
	if (test_break(2))
		to[1] = to[2];
	/* Only root is told where the file is. */
	if (!test_mode_is("user")) {
		check_there(up, "../up", "a/up");
		check_there(was, "../../a/./was", "a/is");
	}
	CHECK(lstat("a/was", &st) < 0 && lstat("a/same", &st) < 0 && lstat("absolute", &st) < 0);
	check_name(gone, "../../a/../gone");
	check_sent(to[0], gone, "gone");
	check_name(first, "../same");
	check_name(second, "../same");
	check_name(root, absolute);
	check_name(dots, odd);
	check_sent(to[1], first, "first");
	check_sent(to[2], second, "second");
	check_sent(to[3], root, "root");
	test_pass();
}
