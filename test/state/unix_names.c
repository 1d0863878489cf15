/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of Unix sockets: autobound, abstract with any bytes, as long as can be, relative to a
 * directory that has been left, renamed, linked to, removed and replaced; connections whose
 * listener lives, and whose client has gone.
 *
 * not-in: both: names of sockets are taken by the original
 */
#include "harness.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define HEAD offsetof(struct sockaddr_un, sun_path)

struct named {
	int fd;
	struct sockaddr_un un;
	socklen_t len;
};

static struct named bind_to(int type, const char *name, size_t len)
{
	struct named x = {.fd = socket(AF_UNIX, type, 0), .un.sun_family = AF_UNIX};

	memcpy(x.un.sun_path, name, len);
	x.len = (socklen_t)(HEAD + len);
	CHECK(!bind(x.fd, (struct sockaddr *)&x.un, x.len));
	x.len = sizeof(x.un);
	CHECK(!getsockname(x.fd, (struct sockaddr *)&x.un, &x.len));
	if (type != SOCK_DGRAM)
		CHECK(!listen(x.fd, 2));
	return x;
}

static void check_name(const struct named *x)
{
	struct sockaddr_un un = {};
	socklen_t len = sizeof(un);

	CHECK(!getsockname(x->fd, (struct sockaddr *)&un, &len));
	CHECK_EQUAL(len, x->len);
	CHECK(!memcmp(&un, &x->un, len < sizeof(un) ? len : sizeof(un)));
}

static int connect_to(int type, const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	CHECK(!connect(fd, (struct sockaddr *)&un, sizeof(un)));
	return fd;
}

/* A listener that answers under this path. */
static void check_listener(const struct named *x, const char *path)
{
	int client = connect_to(SOCK_STREAM, path), server = accept(x->fd, NULL, NULL);
	char byte;

	CHECK(server >= 0);
	CHECK_EQUAL(write(client, "x", 1), 1);
	CHECK_EQUAL(read(server, &byte, 1), 1);
	close(client);
	close(server);
	check_name(x);
}

static void expect(int fd, const char *text)
{
	char got[64] = "";

	CHECK_EQUAL(recv(fd, got, sizeof(got), 0), (ssize_t)strlen(text));
	CHECK(!strcmp(got, text));
}

static void make_long(char *path, size_t size)
{
	snprintf(path, size, "%s/", test_dir());
	for (size_t n = strlen(path); n < size; n++)
		path[n] = 'n';
}

int main(void)
{
	struct named automatic, odd, longest, left, renamed, linked, removed, live, target;
	char byte, path[108], abstract[40] = "\0reprise\0\1\2";
	int client, server, gone, half, self, pair[2], elsewhere[2], other;
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct stat st;

	test_init();
	/* relative to a directory that is left */
	CHECK(!mkdir("sub", 0700) && !chdir("sub"));
	left = bind_to(SOCK_STREAM, "left", 5);
	CHECK(!chdir(".."));
	automatic = bind_to(SOCK_DGRAM, "", 0);
	CHECK_EQUAL(automatic.len, HEAD + 6);
	memcpy(abstract + 20, &(pid_t){getpid()}, sizeof(pid_t));
	snprintf(abstract + 24, 12, "%.0f", test_now() * 1e6);
	odd = bind_to(SOCK_STREAM, abstract, sizeof(abstract));
	make_long(path, sizeof(path));
	longest = bind_to(SOCK_STREAM, path, sizeof(path));
	renamed = bind_to(SOCK_STREAM, "before", 7);
	CHECK(!rename("before", "after"));
	CHECK(!chmod("after", 0604));
	linked = bind_to(SOCK_STREAM, "linked.1", 9);
	CHECK(!link("linked.1", "linked") && !unlink("linked.1"));
	removed = bind_to(SOCK_DGRAM, "removed", 8);
	other = connect_to(SOCK_DGRAM, "removed");
	CHECK(!unlink("removed"));
	test_write("removed", "a file", 6);
	live = bind_to(SOCK_STREAM, "live", 5);
	client = connect_to(SOCK_STREAM, "live");
	server = accept(live.fd, NULL, NULL);
	/* accepted, and the client has gone; with data, and with a client that is half closed */
	half = connect_to(SOCK_STREAM, "live");
	CHECK_EQUAL(write(half, "last", 4), 4);
	close(half);
	gone = accept(live.fd, NULL, NULL);
	half = connect_to(SOCK_STREAM, "live");
	self = accept(live.fd, NULL, NULL);
	close(half);
	half = self;
	/* connected to itself; one of a pair that is not connected any more */
	self = automatic.fd;
	CHECK(!connect(self, (struct sockaddr *)&automatic.un, automatic.len));
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	un.sun_family = AF_UNSPEC;
	CHECK(!connect(pair[1], (struct sockaddr *)&un, sizeof(sa_family_t)));
	CHECK_EQUAL(send(pair[0], "queued", 6, 0), 6);
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, elsewhere));
	target = bind_to(SOCK_DGRAM, "target", 7);
	CHECK(!connect(elsewhere[0], (struct sockaddr *)&target.un, target.len));

	test_wait();
	if (test_break(1))
		CHECK(!unlink("live"));
	if (test_break(2))
		CHECK(!rename("after", "before"));
	/* Only root is told where the file is. */
	if (!test_mode_is("user"))
		check_listener(&left, "sub/left");
	CHECK(lstat("left", &st) < 0);
	check_name(&automatic);
	CHECK_EQUAL(send(self, "mine", 4, 0), 4);
	expect(self, "mine");
	check_name(&odd);
	check_name(&longest);
	check_listener(&linked, "linked");
	CHECK(lstat("linked.1", &st) < 0);
	check_listener(&renamed, "after");
	CHECK(!lstat("after", &st));
	CHECK_EQUAL(st.st_mode & 0777, 0604);
	CHECK(lstat("before", &st) < 0);
	check_name(&removed);
	CHECK(!lstat("removed", &st) && S_ISREG(st.st_mode));
	CHECK_EQUAL(send(other, "to it", 5, 0), 5);
	expect(removed.fd, "to it");
	check_listener(&live, "live");
	CHECK_EQUAL(write(client, "c", 1), 1);
	CHECK_EQUAL(read(server, &byte, 1), 1);
	expect(gone, "last");
	CHECK_EQUAL(read(gone, &byte, 1), 0);
	CHECK_EQUAL(read(half, &byte, 1), 0);
	live.fd = gone;
	check_name(&live);
	live.fd = half;
	check_name(&live);
	CHECK_EQUAL(send(pair[0], "one way", 7, 0), 7);
	expect(pair[1], "queued");
	expect(pair[1], "one way");
	CHECK_EQUAL(send(elsewhere[0], "there", 5, 0), 5);
	expect(target.fd, "there");
	CHECK(send(elsewhere[1], "x", 1, 0) < 0 && errno == EPERM);
	CHECK(send(pair[1], "x", 1, 0) < 0 && errno == ENOTCONN);
	test_pass();
}
