/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_STATE_UNIX_NAMED_H
#define TEST_STATE_UNIX_NAMED_H

/* Unix datagram sockets with names. */

#include "harness.h"

#include <sys/socket.h>
#include <sys/un.h>

static inline int bound(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	CHECK(fd >= 0);
	strcpy(un.sun_path, path);
	CHECK(!bind(fd, (struct sockaddr *)&un, sizeof(un)));
	return fd;
}

static inline void send_to(int fd, const char *path, const char *text)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	strcpy(un.sun_path, path);
	CHECK_EQUAL(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&un, sizeof(un)),
		    (ssize_t)strlen(text));
}

#endif
