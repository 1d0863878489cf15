/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts that exchange what is mounted on them: peers and slaves within a mount namespace, and
 * between it and that of the root.
 *
 * needs: root
 */
#include "harness.h"

#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is mounted on one is seen below the other. */
static void send(const char *from, const char *to, bool arrives)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "%s/point", from);
	CHECK(!mount("sent", path, "tmpfs", 0, "size=64k"));
	snprintf(path, sizeof(path), "%s/point/here", from);
	CHECK(!mkdir(path, 0755));
	snprintf(path, sizeof(path), "%s/point/here", to);
	CHECKF((stat(path, &st) == 0) == arrives, "what is mounted on %s %s in %s", from,
	       arrives ? "does not arrive" : "arrives", to);
	snprintf(path, sizeof(path), "%s/point", from);
	CHECK(!umount2(path, MNT_DETACH));
}

static void change(const char *point, unsigned long how)
{
	CHECK(!mount(NULL, point, NULL, how, NULL));
}

static void bind(const char *from, const char *to)
{
	CHECK(!mount(from, to, NULL, MS_BIND, NULL));
}

static void set_up(void)
{
	static const char *const points[] = {"a", "b", "c", "d", "e", "f", "g"};

	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++)
		CHECK(!mkdir(points[i], 0755));
	CHECK(!mount("of-root", "a", "tmpfs", 0, "size=1m") && !mkdir("a/point", 0755));
	CHECK(!mkdir("a/part", 0755) && !mkdir("a/part/point", 0755));
	change("a", MS_SHARED);
}

/* a: of the root. b: a slave of it; c: another tmpfs; d: its peer; e: its slave, and shared itself;
 * f: a slave of that; g: bindable by nobody. */
static void set_up_inside(void)
{
	bind("a", "b");
	change("b", MS_SLAVE);
	CHECK(!mount("inside", "c", "tmpfs", 0, "size=1m") && !mkdir("c/point", 0755));
	change("c", MS_SHARED);
	bind("c", "d");
	bind("c", "e");
	change("e", MS_SLAVE);
	change("e", MS_SHARED);
	bind("e", "f");
	change("f", MS_SLAVE);
	CHECK(!mount("alone", "g", "tmpfs", 0, "size=1m"));
	change("g", MS_UNBINDABLE);
}

static void check_inside(void)
{
	send("a", "b", true);
	send("b", "a", false);
	send("c", "d", true);
	send("d", "c", true);
	send("c", "e", true);
	send("e", "d", false);
	send("e", "f", true);
	send("d", "f", true);
	send("f", "e", false);
	send("c", "a", false);
	CHECK(mount("g", "a/point", NULL, MS_BIND, NULL) < 0 && errno == EINVAL);
}

static volatile int *shared;

static int peer(void *arg)
{
	struct stat st;

	CHECK(!unshare(CLONE_NEWNS));
	set_up_inside();
	shared[0] = 1;
	test_hold();
	if (test_break(1))
		change("d", MS_PRIVATE);
	if (test_break(2))
		change("b", MS_PRIVATE);
	check_inside();
	/* of the root, by its path */
	CHECK(!mount("from peer", "a/point", "tmpfs", 0, "size=64k"));
	CHECK(!mkdir("a/point/of-peer", 0755));
	shared[1] = 1;
	while (shared[1] == 1)
		usleep(1000);
	CHECK(stat("a/part/point/of-root", &st) == 0);
	return 3;
}

static int slave(void *arg)
{
	struct stat st;

	CHECK(!unshare(CLONE_NEWNS));
	change("a", MS_SLAVE);
	shared[2] = 1;
	test_hold();
	while (shared[1] < 2)
		usleep(1000);
	CHECK(stat("a/part/point/of-root", &st) == 0);
	CHECK(!umount2("a/part/point", MNT_DETACH));
	return 4;
}

int main(void)
{
	struct stat st;
	pid_t first, second;

	test_init();
	shared = test_shared(4096);
	CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	set_up();
	first = test_fork(peer, NULL);
	second = test_fork(slave, NULL);
	while (!shared[0] || !shared[2])
		usleep(1000);

	test_wait();
	while (!shared[1])
		usleep(1000);
	CHECK(!stat("a/point/of-peer", &st));
	CHECK(!mount("from root", "a/part/point", "tmpfs", 0, "size=64k"));
	CHECK(!mkdir("a/part/point/of-root", 0755));
	shared[1] = 2;
	test_reap(second, 4);
	test_reap(first, 3);
	CHECK(!stat("a/part/point/of-root", &st));
	test_pass();
}
