/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unix_peers HOW DIRECTORY: a program whose Unix sockets are connected to another, which listens on
 * DIRECTORY/server and DIRECTORY/log, and is a client of DIRECTORY/own twice. How they are to come
 * back: disconnect, reconnect, gone (nobody is there any more), or unread (none of these).
 */
#include "harness.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char *directory;

static int to(const char *name, int type, int (*call)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type, 0);

	CHECK((size_t)snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s", directory, name) <
	      sizeof(un.sun_path));
	CHECK(!call(fd, (struct sockaddr *)&un, sizeof(un)));
	return fd;
}

static void expect(int fd, const char *text)
{
	char buf[64] = "";

	CHECK_EQUAL(recv(fd, buf, sizeof(buf), 0), (ssize_t)strlen(text));
	CHECKF(!strcmp(buf, text), "'%s' instead of '%s'", buf, text);
}

static void check_gone(int fd)
{
	char byte;

	CHECK_EQUAL(recv(fd, &byte, 1, 0), 0);
	CHECK(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
}

int main(int argc, char **argv)
{
	int listener, accepted, client, logger;
	bool reconnect;

	CHECK_EQUAL(argc, 3);
	reconnect = !strcmp(argv[1], "reconnect");
	directory = argv[2];
	test_init();
	listener = to("own", SOCK_STREAM | SOCK_NONBLOCK, bind);
	CHECK(!listen(listener, 5));
	client = to("server", SOCK_STREAM, connect);
	if (!strcmp(argv[1], "unread")) {
		char byte;

		CHECK_EQUAL(send(client, "hello", 5, 0), 5);
		CHECK_EQUAL(recv(client, &byte, 1, MSG_PEEK), 1);
		test_wait();
		test_pass();
	}
	logger = to("log", SOCK_DGRAM, connect);
	CHECK_EQUAL(send(client, "hello", 5, 0), 5);
	do
		accepted = accept(listener, NULL, NULL);
	while (accepted < 0 && errno == EAGAIN && (test_sleep(0.01), true));
	CHECK_EQUAL(recv(accepted, (char[1]){}, 1, MSG_PEEK), 1);

	test_wait();
	expect(accepted, "greeting");
	check_gone(accepted);
	CHECK(accept(listener, NULL, NULL) < 0 && errno == EAGAIN);
	if (reconnect)
		CHECK_EQUAL(send(client, "again", 5, 0), 5);
	else
		check_gone(client);
	if (strcmp(argv[1], "gone"))
		CHECK_EQUAL(send(logger, "logged", 6, 0), 6);
	else
		CHECK(send(logger, "x", 1, 0) < 0);
	test_pass();
}
