/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places in the log of the kernel: at the beginning, in the middle, at the end; and a writer.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* The number of the record that is read next. */
static unsigned long next(int fd)
{
	unsigned long number;
	char text[8193];
	ssize_t n;

	do
		n = read(fd, text, sizeof(text) - 1);
	while (n < 0 && errno == EPIPE);
	CHECK(n > 0);
	text[n] = '\0';
	CHECK_EQUAL(sscanf(text, "%*u,%lu,", &number), 1);
	return number;
}

static int open_log(int flags)
{
	int fd = open("/dev/kmsg", flags | O_CLOEXEC);

	if (fd < 0)
		test_skip("no /dev/kmsg");
	return fd;
}

int main(void)
{
	int first, middle, end, writer;
	unsigned long begin, place, after;
	char text[8192];

	test_init();
	writer = open_log(O_WRONLY);
	CHECK(write(writer, "<7>test of reprise\n", 19) == 19);
	CHECK(write(writer, "<7>test of reprise\n", 19) == 19);
	first = open_log(O_RDONLY | O_NONBLOCK);
	middle = open_log(O_RDONLY);
	end = open_log(O_RDONLY | O_NONBLOCK);
	begin = next(middle);
	place = next(middle);
	CHECK(place > begin);
	while (read(end, text, sizeof(text)) > 0 || errno == EPIPE)
		continue;
	CHECK_EQUAL(errno, EAGAIN);

	test_wait();
	if (test_break(1))
		next(middle);
	CHECK(next(first) >= begin);
	after = next(middle);
	CHECKF(after == place + 1 || next(first) > place, "record %lu after %lu", after, place);
	CHECK(write(writer, "<7>test of reprise, again\n", 26) == 26);
	CHECK(next(end) > place);
	CHECK(!(fcntl(middle, F_GETFL) & O_NONBLOCK));
	test_pass();
}
