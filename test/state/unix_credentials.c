/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user and group that Unix sockets show of their peers.
 *
 * needs: root
 * not-in: both: the names are those of the original
 */
#include "harness.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void become(unsigned int uid, unsigned int gid)
{
	CHECK(!seteuid(0));
	CHECK(!setegid(gid));
	CHECK(!seteuid(uid));
}

static void check_peer(int fd, unsigned int uid, unsigned int gid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len));
	CHECK_EQUAL(cred.uid, uid);
	CHECK_EQUAL(cred.gid, gid);
}

static int to(const char *name, int (*call)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", name);
	CHECK(!call(fd, (struct sockaddr *)&un, sizeof(un)));
	return fd;
}

int main(void)
{
	int pair[2], listener, client, accepted, waiting, gone, gone_client, gone_accepted;

	test_init();
	become(1111, 2222);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	become(0, 0);
	listener = to("server", bind);
	gone = to("gone", bind);
	CHECK(!chmod("server", 0777) && !chmod("gone", 0777));
	become(3333, 4444);
	CHECK(!listen(listener, 5) && !listen(gone, 5));
	become(5555, 6666);
	client = to("server", connect);
	accepted = accept(listener, NULL, NULL);
	gone_client = to("gone", connect);
	gone_accepted = accept(gone, NULL, NULL);
	become(7777, 8888);
	waiting = to("server", connect);
	become(0, 0);
	close(gone);
	CHECK(!unlink("gone"));

	test_wait();
	if (test_break(1)) {
		close(pair[0]);
		close(pair[1]);
		CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	}
	check_peer(pair[0], 1111, 2222);
	check_peer(pair[1], 1111, 2222);
	check_peer(client, 3333, 4444);
	check_peer(accepted, 5555, 6666);
	check_peer(gone_client, 3333, 4444);
	check_peer(gone_accepted, 5555, 6666);
	check_peer(waiting, 3333, 4444);
	check_peer(accept(listener, NULL, NULL), 7777, 8888);
	test_pass();
}
