/* SPDX-License-Identifier: Apache-2.0 */
/* Unix stream sockets: pairs, shared and passed on; queued data both ways; half shut down; peer
 * gone; accepted ones with names; a client that waits.
 *
 * not-in: both: names of sockets are taken by the original
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define MANY 100000

static char big[MANY], buf[1024];
static int pair[2];

static struct sockaddr_un address(const char *path, socklen_t *len)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t n = path[0] == '@' ? strlen(path) : strlen(path) + 1;

	memcpy(un.sun_path, path, n);
	if (path[0] == '@')
		un.sun_path[0] = 0;
	*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	return un;
}

static int listener(const char *path, int type, int backlog)
{
	socklen_t len;
	struct sockaddr_un un = address(path, &len);
	int fd = socket(AF_UNIX, type, 0);

	CHECK(fd >= 0);
	CHECK(!bind(fd, (struct sockaddr *)&un, len));
	CHECK(!listen(fd, backlog));
	return fd;
}

static int client(const char *path, int type)
{
	socklen_t len;
	struct sockaddr_un un = address(path, &len);
	int fd = socket(AF_UNIX, type, 0);

	CHECK(fd >= 0);
	CHECK(!connect(fd, (struct sockaddr *)&un, len));
	return fd;
}

static void check_name(int fd, bool peer, const char *path)
{
	struct sockaddr_un un = {}, want;
	socklen_t len = sizeof(un), want_len;

	want = address(path, &want_len);
	CHECK(!(peer ? getpeername : getsockname)(fd, (struct sockaddr *)&un, &len));
	CHECK_EQUAL(len, want_len);
	CHECK(!memcmp(&un, &want, len));
}

static void expect(int fd, const char *text)
{
	char got[64] = "";

	CHECK_EQUAL(recv(fd, got, sizeof(got), 0), (ssize_t)strlen(text));
	CHECK(!strcmp(got, text));
}

static int echo(void *arg)
{
	char c;

	close(pair[0]);
	while (read(pair[1], &c, 1) == 1)
		CHECK_EQUAL(write(pair[1], &c, 1), 1);
	return 4;
}

int main(void)
{
	int quiet[2], full[2], half[2], gone[2], reset[2], named, abstract, removed, c[4], a[4],
		waiting, sequence[2];
	struct timeval timeout = {3, 0}, got_timeout;
	char name[64];
	socklen_t len = sizeof(got_timeout);
	struct stat st;
	pid_t pid;
	int value = 0;

	test_init();
	snprintf(name, sizeof(name), "@reprise-%.*f", 6, test_now());
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	pid = test_fork(echo, NULL);
	close(pair[1]);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, quiet));
	CHECK(!setsockopt(quiet[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, full));
	test_fill(big, MANY, 7);
	CHECK_EQUAL(send(full[0], big, MANY, 0), MANY);
	memset(big, 0, MANY);
	CHECK_EQUAL(send(full[1], "back", 4, 0), 4);
	CHECK_EQUAL(recv(full[1], big, 1000, 0), 1000);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, half));
	CHECK_EQUAL(send(half[0], "last", 4, 0), 4);
	CHECK(!shutdown(half[0], SHUT_WR));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, gone));
	CHECK_EQUAL(send(gone[1], "bye", 3, 0), 3);
	close(gone[1]);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, reset));
	CHECK_EQUAL(send(reset[0], "x", 1, 0), 1);
	close(reset[1]);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sequence));
	CHECK_EQUAL(send(sequence[0], "one", 3, 0), 3);
	CHECK_EQUAL(send(sequence[0], "three", 5, 0), 5);

	named = listener("stream.sock", SOCK_STREAM, 7);
	CHECK(!chmod("stream.sock", 0640));
	c[0] = client("stream.sock", SOCK_STREAM);
	a[0] = accept(named, NULL, NULL);
	CHECK_EQUAL(send(c[0], "to named", 8, 0), 8);
	waiting = client("stream.sock", SOCK_STREAM);
	abstract = listener(name, SOCK_SEQPACKET, 3);
	c[1] = client(name, SOCK_SEQPACKET);
	a[1] = accept(abstract, NULL, NULL);
	removed = listener("removed.sock", SOCK_STREAM, 1);
	c[2] = client("removed.sock", SOCK_STREAM);
	a[2] = accept(removed, NULL, NULL);
	CHECK_EQUAL(send(a[2], "to removed", 10, 0), 10);
	close(removed);
	CHECK(!unlink("removed.sock"));

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(read(c[2], buf, 1), 1);
	CHECK_EQUAL(write(pair[0], "e", 1), 1);
	CHECK_EQUAL(read(pair[0], buf, 1), 1);
	CHECK_EQUAL(fcntl(quiet[0], F_GETFD), FD_CLOEXEC);
	CHECK(recv(quiet[1], buf, 1, 0) < 0 && errno == EAGAIN);
	CHECK(!getsockopt(quiet[0], SOL_SOCKET, SO_RCVTIMEO, &got_timeout, &len));
	CHECK_EQUAL(got_timeout.tv_sec, 3);
	CHECK_EQUAL(recv(full[1], big + 1000, MANY - 1000, MSG_WAITALL), MANY - 1000);
	CHECK_FILLED(big, MANY, 7);
	expect(full[0], "back");
	expect(half[1], "last");
	CHECK_EQUAL(recv(half[1], buf, 1, 0), 0);
	CHECK_EQUAL(send(half[1], "ok", 2, 0), 2);
	expect(half[0], "ok");
	CHECK(send(half[0], "no", 2, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	expect(gone[0], "bye");
	CHECK_EQUAL(recv(gone[0], buf, 1, 0), 0);
	CHECK(recv(reset[0], buf, 1, 0) < 0 && errno == ECONNRESET);
	expect(sequence[1], "one");
	expect(sequence[1], "three");

	check_name(named, false, "stream.sock");
	check_name(a[0], false, "stream.sock");
	check_name(c[0], true, "stream.sock");
	expect(a[0], "to named");
	check_name(a[1], false, name);
	check_name(c[1], true, name);
	CHECK_EQUAL(send(c[1], "packet", 6, 0), 6);
	expect(a[1], "packet");
	check_name(c[2], true, "removed.sock");
	check_name(a[2], false, "removed.sock");
	expect(c[2], "to removed");
	CHECK(stat("removed.sock", &st) < 0 && errno == ENOENT);
	CHECK(!stat("stream.sock", &st));
	CHECK_EQUAL(st.st_mode & 0777, 0640);
	a[3] = accept(named, NULL, NULL);
	CHECK(a[3] >= 0);
	CHECK_EQUAL(send(waiting, "waited", 6, 0), 6);
	expect(a[3], "waited");
	c[3] = client("stream.sock", SOCK_STREAM);
	CHECK_EQUAL(send(c[3], "new", 3, 0), 3);
	a[3] = accept(named, NULL, NULL);
	expect(a[3], "new");
	len = sizeof(value);
	CHECK(!getsockopt(named, SOL_SOCKET, SO_ACCEPTCONN, &value, &len));
	CHECK_EQUAL(value, 1);
	close(pair[0]);
	test_reap(pid, 4);
	test_pass();
}
