/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is queued in pseudo-terminals: output that the master has not read, lines that the slave has
 * not read, a line that is half typed, bytes, more than the line discipline holds, output that is
 * stopped in both ways; slaves never opened, closed again, and hung up; a lock.
 *
 * settle: 0.1
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

struct pair {
	int master, slave;
};

static int new_master(void)
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

	CHECK(fd >= 0);
	CHECK(!unlockpt(fd));
	return fd;
}

static int open_peer(int master)
{
	int fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static struct pair new_pair(void)
{
	struct pair p = {.master = new_master()};

	p.slave = open_peer(p.master);
	return p;
}

static void change(int fd, tcflag_t iflag, tcflag_t lflag)
{
	struct termios t;

	CHECK(!tcgetattr(fd, &t));
	t.c_iflag = iflag;
	t.c_lflag = lflag;
	CHECK(!tcsetattr(fd, TCSANOW, &t));
}

static void put(int fd, const char *text, size_t n)
{
	CHECK_EQUAL(write(fd, text, n), n);
}

static void expect_(int line, int fd, const char *text, size_t n)
{
	static char buf[65536];
	ssize_t got;

	/* nothing is to come any more: what is there must be there after a poll */
	poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0);
	got = read(fd, buf, sizeof(buf));
	if (got != (ssize_t)n || memcmp(buf, text, n))
		test_fail(__FILE__, line, "%zd bytes \"%.*s\" instead of %zu \"%.*s\"", got,
			  (int)(got > 0 ? got : 0), buf, n, (int)n, text);
}
#define EXPECT(fd, text) expect_(__LINE__, fd, text, sizeof(text) - 1)

static void expect_nothing(int fd)
{
	char c;

	CHECK_EQUAL(read(fd, &c, 1), -1);
	CHECK_EQUAL(errno, EAGAIN);
}

static bool polls(int fd, short event)
{
	struct pollfd p = {.fd = fd, .events = event};

	return poll(&p, 1, 0) > 0 && (p.revents & event);
}

static int read_count(int fd)
{
	int n = 0;

	CHECK(!ioctl(fd, FIONREAD, &n));
	return n;
}

/* ---- by lines ---- */

#define LINES (ICANON | ECHO | ECHOE | ISIG | IEXTEN)

static struct pair lines;

static void lines_set(void)
{
	struct termios t;

	lines = new_pair();
	CHECK(!tcgetattr(lines.slave, &t));
	t.c_iflag = ICRNL | IXON;
	t.c_lflag = LINES;
	t.c_cc[VEOL] = ';';
	CHECK(!tcsetattr(lines.slave, TCSANOW, &t));
	put(lines.master, "first\r", 6);
	put(lines.master, "by end;", 7);
	put(lines.master, "quoted \026\r\026\003\026\004 end\n", 18);
	put(lines.master, "no newline\004", 11);
	put(lines.master, "\004", 1);
	put(lines.master, "\n", 1);
	put(lines.master, "hidden\177\177n", 9);
	/* All has been echoed. */
	while (read_count(lines.master) < 55)
		usleep(1000);
	put(lines.slave, "output\n", 7);
}

static void lines_check(void)
{
	struct termios t;

	CHECK(!tcgetattr(lines.slave, &t));
	CHECK_EQUAL(t.c_lflag, LINES);
	CHECK_EQUAL(t.c_iflag, ICRNL | IXON);
	EXPECT(lines.master,
	       "first\r\nby end;quoted \r\003\004 end\r\nno newline\r\nhidden\b \b\b \bn"
	       "output\r\n");
	EXPECT(lines.slave, "first\n");
	EXPECT(lines.slave, "by end;");
	EXPECT(lines.slave, "quoted \r\003\004 end\n");
	EXPECT(lines.slave, "no newline");
	EXPECT(lines.slave, "");
	EXPECT(lines.slave, "\n");
	expect_nothing(lines.slave);
	put(lines.master, "\177en again\n", 10);
	EXPECT(lines.slave, "hidden again\n");
}

/* ---- by bytes ---- */

static struct pair bytes;
static char block[20000];

static void bytes_set(void)
{
	bytes = new_pair();
	change(bytes.slave, 0, 0);
	put(bytes.master, "a\r\n\0\377\021\023\003\004", 9);
	put(bytes.slave, "x\0y", 3);
}

static void bytes_check(void)
{
	expect_(__LINE__, bytes.slave, "a\r\n\0\377\021\023\003\004", 9);
	expect_(__LINE__, bytes.master, "x\0y", 3);
	expect_nothing(bytes.slave);
	expect_nothing(bytes.master);
}

/* More than fits into the line discipline waits outside, where it has not been looked at. */
static struct pair full;
static size_t sent[2];

static size_t fill(int fd)
{
	size_t n = 0;
	ssize_t r;

	for (int tries = 0; tries < 5; tries++)
		while ((r = write(fd, block + n,
				  700 < sizeof(block) - n ? 700 : sizeof(block) - n)) > 0) {
			n += (size_t)r;
			if (n > 10000)
				return n;
		}
	return n;
}

static void full_set(void)
{
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (char)('A' + i * 7 % 53);
	full = new_pair();
	change(full.slave, 0, 0);
	sent[0] = fill(full.master);
	sent[1] = fill(full.slave);
	CHECK(sent[0] > 9000 && sent[1] > 9000);
	/* What comes first is there already; what is behind it, is not. */
	poll(&(struct pollfd){.fd = full.slave, .events = POLLIN}, 1, 50);
	change(full.slave, ICRNL, 0);
	put(full.master, "\r", 1);
}

static void drain(int fd, size_t n, char end)
{
	size_t got = 0;
	char buf[1000];

	while (got < n + (end != 0)) {
		ssize_t r = read(fd, buf, sizeof(buf));

		CHECKF(r > 0, "only %zu of %zu bytes", got, n);
		for (ssize_t i = 0; i < r; i++, got++)
			CHECKF(buf[i] == (got < n ? block[got] : end), "byte %zu is %d", got,
			       buf[i]);
	}
	expect_nothing(fd);
}

static void full_check(void)
{
	drain(full.slave, sent[0], '\n');
	drain(full.master, sent[1], 0);
}

/* ---- stopped ---- */

static struct pair by_char, by_call;

static void stopped_set(void)
{
	by_char = new_pair();
	by_call = new_pair();
	change(by_char.slave, IXON, ICANON);
	put(by_char.slave, "shown", 5);
	put(by_char.master, "\023", 1);
	while (polls(by_char.slave, POLLOUT))
		usleep(1000);
	change(by_call.slave, IXON, 0);
	put(by_call.slave, "shown", 5);
	CHECK(!tcflow(by_call.slave, TCOOFF));
}

static void stopped_check(void)
{
	CHECK(!polls(by_char.slave, POLLOUT));
	CHECK(!polls(by_call.slave, POLLOUT));
	/* A call is not undone by a character. */
	put(by_char.master, "\021", 1);
	put(by_call.master, "\021", 1);
	while (!polls(by_char.slave, POLLOUT))
		usleep(1000);
	usleep(2000);
	CHECK(!polls(by_call.slave, POLLOUT));
	CHECK(!tcflow(by_call.slave, TCOON));
	CHECK(polls(by_call.slave, POLLOUT));
	EXPECT(by_char.master, "shown");
	EXPECT(by_call.master, "shown");
}

/* ---- slaves that are not open ---- */

static int never, closed, closed_slave;
static struct pair dead;
static char dead_name[64];

static void unopened_set(void)
{
	never = new_master();
	put(never, "early\n", 6);
	closed = new_master();
	closed_slave = open_peer(closed);
	put(closed_slave, "last words", 10);
	put(closed, "never read\n", 11);
	close(closed_slave);
	dead = new_pair();
	CHECK(!ptsname_r(dead.master, dead_name, sizeof(dead_name)));
	close(dead.master);
}

static void unopened_check(void)
{
	char c;
	int fd;

	EXPECT(never, "early\r\n");
	expect_nothing(never);
	CHECK(!polls(never, POLLHUP));
	fd = open_peer(never);
	EXPECT(fd, "early\n");
	CHECK(polls(closed, POLLHUP));
	EXPECT(closed, "last wordsnever read\r\n");
	CHECK_EQUAL(read(closed, &c, 1), -1);
	CHECK_EQUAL(errno, EIO);
	fd = open_peer(closed);
	EXPECT(fd, "never read\n");
	CHECK_EQUAL(read(dead.slave, &c, 1), 0);
	CHECK_EQUAL(write(dead.slave, &c, 1), -1);
	CHECK_EQUAL(errno, EIO);
	CHECK(polls(dead.slave, POLLHUP));
}

/* ---- a master in the queue of a socket, a slave with an owner for signals ---- */

static struct pair flying;
static int queue[2];

static void flying_set(void)
{
	char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	flying = new_pair();
	change(flying.slave, 0, ICANON);
	put(flying.master, "to the slave\n", 13);
	put(flying.slave, "to the master", 13);
	CHECK(!fcntl(flying.slave, F_SETOWN, getpid()));
	CHECK(!fcntl(flying.slave, F_SETSIG, SIGUSR1));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, queue));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &flying.master, sizeof(int));
	CHECK_EQUAL(sendmsg(queue[0], &msg, 0), 1);
	close(flying.master);
}

static void flying_check(void)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};

	CHECK_EQUAL(recvmsg(queue[1], &msg, 0), 1);
	CHECK(CMSG_FIRSTHDR(&msg));
	memcpy(&flying.master, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	EXPECT(flying.master, "to the master");
	EXPECT(flying.slave, "to the slave\n");
	CHECK_EQUAL(fcntl(flying.slave, F_GETOWN), getpid());
	CHECK_EQUAL(fcntl(flying.slave, F_GETSIG), SIGUSR1);
}

/* ---- settings ---- */

static struct pair settings;
static int locked;

static void settings_set(void)
{
	int on = 1;

	settings = new_pair();
	CHECK(!ioctl(settings.slave, TIOCEXCL));
	CHECK(!ioctl(settings.master, TIOCPKT, &on));
	put(settings.slave, "data", 4);
	/* nobody opens its slave by name */
	locked = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	CHECK(locked >= 0);
}

static void settings_check(void)
{
	int value = 0;

	CHECK(!ioctl(locked, TIOCGPTLCK, &value) && value);
	CHECK(open(ptsname(locked), O_RDWR | O_NOCTTY) < 0 && errno == EIO);
	CHECK(!ioctl(never, TIOCGPTLCK, &value) && !value);
	CHECK(!ioctl(settings.master, TIOCGEXCL, &value) && !value);
	CHECK(!ioctl(settings.slave, TIOCGEXCL, &value) && value);
	CHECK(!ioctl(settings.master, TIOCGPKT, &value) && value);
	expect_(__LINE__, settings.master, "\0data", 5);
	expect_nothing(settings.master);
}

int main(void)
{
	test_init();
	lines_set();
	bytes_set();
	full_set();
	stopped_set();
	unopened_set();
	settings_set();
	flying_set();

	test_wait();
	if (test_break(1))
		tcflush(lines.slave, TCIFLUSH);
	if (test_break(2))
		tcflow(by_char.slave, TCOOFF), tcflow(by_char.slave, TCOON);
	if (test_break(3))
		put(bytes.slave, "z", 1);
	if (test_break(4))
		close(open_peer(never));
	if (test_break(5))
		CHECK(!unlockpt(locked));
	lines_check();
	bytes_check();
	full_check();
	stopped_check();
	unopened_check();
	settings_check();
	flying_check();
	test_pass();
}
