/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pseudo-terminal with both sides inside: settings, size, a session with a foreground group,
 * /proc files.
 * Its number is not compared: tests run side by side.
 *
 * settle: 0.2
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

static int master;
static char name[64];

static int foreground(void *arg)
{
	char line[64] = "";

	setpgid(0, 0);
	signal(SIGTTOU, SIG_IGN);
	CHECK(!tcsetpgrp(0, getpid()));
	signal(SIGTTOU, SIG_DFL);
	test_write("foreground", "", 0);
	CHECK_EQUAL(read(0, line, sizeof(line)), 6);
	CHECK(!strcmp(line, "hello\n"));
	CHECK_EQUAL(test_stat(getpid(), 8), getpid()); /* tpgid */
	CHECK(open("/dev/tty", O_RDWR) >= 0);
	CHECK_EQUAL(write(1, "answer", 6), 6);
	return 2;
}

/* Of the session, and without its terminal: made before there was one, or having given it up. */
static int without(void *arg)
{
	if (arg)
		CHECK(!ioctl(0, TIOCNOTTY));
	test_write(arg ? "given-up" : "before", "", 0);
	test_hold();
	CHECK_EQUAL(getsid(0), getppid());
	CHECK_EQUAL(test_stat(getpid(), 7), 0); /* tty_nr */
	CHECK(open("/dev/tty", O_RDWR) < 0 && errno == ENXIO);
	return 3;
}

static int session(void *arg)
{
	pid_t before, given_up;
	struct stat st;
	int fd, alias;
	pid_t pid;

	close(master);
	CHECK(setsid() > 0);
	before = test_fork(without, NULL);
	fd = open(name, O_RDWR);
	CHECK(fd >= 0);
	dup2(fd, 0);
	dup2(fd, 1);
	close(fd);
	alias = open("/dev/tty", O_RDWR);
	CHECK(alias >= 0);
	given_up = test_fork(without, name);
	while (access("before", F_OK) || access("given-up", F_OK))
		usleep(1000);
	pid = test_fork(foreground, NULL);
	test_reap(pid, 2);
	test_reap(before, 3);
	test_reap(given_up, 3);
	CHECK(!fstat(alias, &st));
	CHECK_EQUAL(st.st_rdev, makedev(5, 0));
	CHECK_EQUAL(tcgetsid(alias), getpid());
	fd = open("/dev/tty", O_RDWR);
	CHECK(fd >= 0);
	CHECK_EQUAL(tcgetsid(fd), getpid());
	return 7;
}

int main(void)
{
	struct winsize size = {33, 77, 0, 0}, got_size = {};
	struct termios termios;
	char buf[64] = "", path[64];
	int stat_file, peer, by_name, flagged;
	pid_t pid;

	test_init();
	master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	CHECK(master >= 0);
	CHECK(!grantpt(master) && !unlockpt(master));
	CHECK(!ptsname_r(master, name, sizeof(name)));
	pid = test_fork(session, NULL);
	while (access("foreground", F_OK))
		usleep(1000);
	peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	by_name = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	CHECK(peer >= 0 && by_name >= 0);
	/* Its description keeps the flag, and two descriptors of it differ. */
	flagged = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	CHECK(flagged >= 0 && dup2(flagged, 200) == 200 && fcntl(flagged, F_GETFD) == FD_CLOEXEC);
	CHECK(!ioctl(master, TIOCSWINSZ, &size));
	CHECK(!tcgetattr(master, &termios));
	termios.c_lflag &= ~(tcflag_t)ECHO;
	termios.c_cc[VINTR] = 24;
	CHECK(!tcsetattr(master, TCSANOW, &termios));
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	stat_file = open(path, O_RDONLY);
	CHECK_EQUAL(read(stat_file, buf, 1), 1);

	test_wait();
	if (test_break(1))
		CHECK(!ioctl(master, TIOCSWINSZ, &got_size));
	CHECK(!ioctl(master, TIOCGWINSZ, &got_size));
	CHECK_EQUAL(fcntl(peer, F_GETFL), O_RDWR);
	CHECK_EQUAL(fcntl(by_name, F_GETFL), O_RDWR | 0100000); /* O_LARGEFILE */
	CHECK_EQUAL(fcntl(peer, F_GETFD), 0);
	CHECK_EQUAL(fcntl(by_name, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(fcntl(flagged, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(fcntl(200, F_GETFD), 0);
	CHECK_EQUAL(got_size.ws_row, 33);
	CHECK_EQUAL(got_size.ws_col, 77);
	CHECK(!tcgetattr(master, &termios));
	CHECK(!(termios.c_lflag & ECHO));
	CHECK_EQUAL(termios.c_cc[VINTR], 24);
	CHECK_EQUAL(read(stat_file, buf, 1), 1);
	CHECK_EQUAL(lseek(stat_file, 0, SEEK_CUR), 2);
	CHECK_EQUAL(lseek(stat_file, 0, SEEK_SET), 0);
	CHECK(read(stat_file, buf, sizeof(buf)) > 0);
	CHECKF(strstr(buf, "pty)"), "/proc says %s", buf);
	CHECK_EQUAL(write(master, "hello\n", 6), 6);
	memset(buf, 0, sizeof(buf));
	CHECK_EQUAL(read(master, buf, sizeof(buf)), 6);
	CHECK(!strcmp(buf, "answer"));
	test_reap(pid, 7);
	test_pass();
}
