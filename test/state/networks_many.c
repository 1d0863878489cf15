/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets in more network namespaces than are told of in one question to who looks for those that
 * use them outside.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define MANY 10

static uint64_t network_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0)
		test_skip("the kernel does not tell the network of a socket");
	return cookie;
}

int main(void)
{
	int fds[MANY];

	test_init();
	for (int i = 0; i < MANY; i++) {
		CHECK(!unshare(CLONE_NEWNET));
		CHECK(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC) >= 0);
		fds[i] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		CHECK(fds[i] >= 0);
		network_of(fds[i]);
	}
	test_wait();
	if (test_break(1))
		fds[3] = fds[4];
	for (int i = 0; i < MANY; i++)
		for (int j = 0; j < i; j++)
			CHECK(network_of(fds[i]) != network_of(fds[j]));
	test_pass();
}
