/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name of a socket, held with O_PATH below and above the number of the socket itself.
 *
 * not-in: both: the name is the original's
 */
#include "harness.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int main(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "socket"};
	struct stat st, now;
	int low, s, high;

	test_init();
	low = open("/dev/null", O_RDONLY);
	s = socket(AF_UNIX, SOCK_DGRAM, 0);
	CHECK(!bind(s, (struct sockaddr *)&name, sizeof(name)));
	high = open("socket", O_PATH | O_CLOEXEC);
	CHECK_EQUAL(dup2(high, low), low);

	test_wait();
	if (test_break(1))
		CHECK(!unlink("socket") && !mkfifo("socket", 0600));
	CHECK(!stat("socket", &now) && S_ISSOCK(now.st_mode));
	CHECK(!fstat(low, &st));
	CHECK_EQUAL(st.st_ino, now.st_ino);
	CHECK_EQUAL(st.st_nlink, 1);
	CHECK(!fstat(high, &st) && st.st_ino == now.st_ino);
	test_pass();
}
