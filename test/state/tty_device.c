/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual console that is neither the terminal of the program nor a standard stream: opened anew,
 * with the settings that it had. In a session without a terminal.
 *
 * needs: root
 * not-in: container: there are no consoles in it
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

/* One that nobody else uses: runs in other modes have others. */
static unsigned int choose(void)
{
	static const char *const modes[] = {"tree", "pidns", "both", "pipe", "socket", "break"};

	for (unsigned int i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (test_mode_is(modes[i]))
			return 61 - i;
	return 62;
}

/* Of two that write at once the one that must not wait is sent away (tty_write_lock()). */
static ssize_t write_one(int fd)
{
	ssize_t n;

	while ((n = write(fd, "x", 1)) < 0 && errno == EAGAIN)
		test_sleep(0.001);
	return n;
}

int main(void)
{
	unsigned int number;
	struct termios before, now;
	int fd, again, quiet;
	struct stat st;
	char path[32];

	test_init();
	number = choose();
	snprintf(path, sizeof(path), "/dev/tty%u", number);
	fd = open(path, O_RDWR | O_NOCTTY);
	if (fd < 0)
		test_skip("%s: %s", path, strerror(errno));
	again = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK);
	quiet = fcntl(again, F_DUPFD_CLOEXEC, 100);
	CHECK(!tcgetattr(fd, &before));
	now = before;
	now.c_lflag ^= ECHO;
	now.c_cc[VINTR] = 5;
	CHECK(!tcsetattr(fd, TCSANOW, &now));

	test_wait();
	if (test_break(1))
		CHECK(!tcsetattr(fd, TCSANOW, &before));
	CHECK(!fstat(fd, &st));
	CHECK_EQUAL(st.st_rdev, makedev(4, number));
	CHECK_EQUAL(fcntl(fd, F_GETFL) & ~0100000, O_RDWR);
	CHECK_EQUAL(fcntl(again, F_GETFL) & ~0100000, O_WRONLY | O_NONBLOCK);
	CHECK_EQUAL(fcntl(quiet, F_GETFD), FD_CLOEXEC);
	CHECK(!tcgetattr(fd, &now));
	CHECK_EQUAL(now.c_lflag, before.c_lflag ^ ECHO);
	CHECK_EQUAL(now.c_cc[VINTR], 5);
	CHECK_EQUAL(write_one(again), 1);
	if (!test_mode_is("both"))
		CHECK(!tcsetattr(fd, TCSANOW, &before));
	test_pass();
}
