/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_TEST_FULL_PIPE_H
#define REPRISE_TEST_FULL_PIPE_H

/* A pipe or fifo in which nothing more has room, and what ends a wait for that. */
#include "harness.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

static inline void pipe_fill(int fd)
{
	static char page[4096];

	CHECK(!fcntl(fd, F_SETFL, O_NONBLOCK));
	while (write(fd, page, sizeof(page)) > 0)
		;
	CHECK(!fcntl(fd, F_SETFL, 0));
}

/* But for three bytes, which somebody waited to write. */
static inline void pipe_drain(int fd)
{
	char page[4096];
	int left;

	do {
		CHECK(read(fd, page, sizeof(page)) > 0);
		CHECK(!ioctl(fd, FIONREAD, &left));
	} while (left > 3);
}

#endif
