/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket that was made as another user than its program now is: rules of a firewall that go by
 * the owner still apply to it.
 *
 * needs: root
 * network: own
 * not-in: both: a port that was chosen is taken
 */
#include "harness.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define OWNER 4711
#define GROUP 4712

static int make(uid_t uid, gid_t gid)
{
	int fd;

	setfsgid(gid);
	setfsuid(uid);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	setfsuid(0);
	setfsgid(0);
	CHECK(fd >= 0);
	return fd;
}

/* Whether the firewall lets it send. */
static bool sends(int fd)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons(9)};

	if (sendto(fd, "x", 1, 0, (const struct sockaddr *)&to, sizeof(to)) == 1)
		return true;
	CHECK_EQUAL(errno, EPERM);
	return false;
}

static void check(int fd, uid_t uid, gid_t gid, bool may)
{
	struct stat st;

	CHECK(!fstat(fd, &st));
	CHECK_EQUAL(st.st_uid, uid);
	CHECK_EQUAL(st.st_gid, gid);
	CHECK_EQUAL(sends(fd), may);
}

int main(void)
{
	int user, group, own;

	test_init();
	if (system("nft -f - <<-END\n"
		   "table ip owners {\n"
		   "chain out { type filter hook output priority 0\n"
		   "meta skuid 4711 drop\n"
		   "meta skgid 4712 drop\n"
		   "}\n}\nEND\n") != 0)
		test_skip("no nft, or no rules by owner");
	user = make(OWNER, 0);
	group = make(0, GROUP);
	own = make(0, 0);
	check(user, OWNER, 0, false);

	test_wait();
	if (test_break(1))
		user = socket(AF_INET, SOCK_DGRAM, 0);
	check(user, OWNER, 0, false);
	check(group, 0, GROUP, false);
	check(own, 0, 0, true);
	test_pass();
}
