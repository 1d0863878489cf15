/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process, user and groups that Unix sockets show of their peers.
 *
 * needs: root
 * not-in: both: the names are those of the original
 */
#include "harness.h"

#include <grp.h>
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

static pid_t maker; /* of the connections that are checked */

static void check_peer(int fd, unsigned int uid, unsigned int gid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len));
	CHECK_EQUAL(cred.uid, uid);
	CHECK_EQUAL(cred.gid, gid);
	CHECK_EQUAL(cred.pid, maker);
}

static int to(const char *name, int (*call)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", name);
	CHECK(!call(fd, (struct sockaddr *)&un, sizeof(un)));
	return fd;
}

static void check_groups(int fd)
{
	gid_t groups[8];
	socklen_t len = sizeof(groups);

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len));
	CHECK_EQUAL(len, 2 * sizeof(gid_t));
	CHECK(groups[0] == 4321 && groups[1] == 5432);
}

static int child(void *arg)
{
	become(0, 0);
	CHECK(!setgroups(0, NULL));
	become(9999, 1010);
	CHECK(to("server", connect) >= 0);
	test_hold();
	return 0;
}

int main(void)
{
	const gid_t groups[2] = {4321, 5432};
	int of_child;
	pid_t pid;
	int pair[2], listener, client, accepted, waiting, gone, gone_client, gone_accepted;

	test_init();
	maker = getpid();
	CHECK(!setgroups(2, groups));
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
	pid = test_fork(child, NULL);
	of_child = accept(listener, NULL, NULL);
	become(7777, 8888);
	waiting = to("server", connect);
	become(0, 0);
	close(gone);
	CHECK(!unlink("gone"));

	test_wait();
	if (test_break(2))
		pair[0] = of_child;
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
	check_groups(pair[0]);
	check_groups(accepted);
	maker = pid;
	check_peer(of_child, 9999, 1010);
	test_reap(pid, 0);
	test_pass();
}
