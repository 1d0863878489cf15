/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many processes that begin as copies of one: each may have another working or root directory than
 * the one before it, or the same again, and so with its program.
 */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct kind {
	const char *cwd;
	bool confined; /* its root is where it works */
	bool other;    /* program */
} kinds[] = {
	{"", false, false},  {"/a", false, false}, {"/a", true, false},	 {"/a", false, false},
	{"/b", false, true}, {"/b", false, false}, {"/b", false, false}, {"", false, true},
	{"", false, false},  {"/b", true, false},  {"/a", true, false},
};

#define CHILDREN (sizeof(kinds) / sizeof(*kinds))

static char where[400], own[400];
static bool root;
static volatile int *ready;

static int child(void *arg)
{
	const struct kind *k = &kinds[(intptr_t)arg];
	char path[500];

	snprintf(path, sizeof(path), "%s%s", where, k->cwd);
	CHECK(!chdir(path));
	if (k->confined && root)
		CHECK(!chroot("."));
	ready[(intptr_t)arg] = 1;
	if (k->other)
		execl("/bin/sleep", "sleep", "1000000", NULL);
	CHECK(!k->other);
	for (;;)
		pause();
}

static void read_link(pid_t pid, const char *which, char *buf, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, which);
	n = readlink(path, buf, size - 1);
	CHECK(n > 0);
	buf[n] = '\0';
}

static void verify(pid_t pid, const struct kind *k)
{
	char is[500], should_be[500];

	snprintf(should_be, sizeof(should_be), "%s%s", where, k->cwd);
	read_link(pid, "cwd", is, sizeof(is));
	CHECKF(!strcmp(is, should_be), "the working directory is %s, not %s", is, should_be);
	read_link(pid, "root", is, sizeof(is));
	CHECKF(!strcmp(is, k->confined && root ? should_be : "/"), "the root directory is %s", is);
	read_link(pid, "exe", is, sizeof(is));
	CHECKF(!strcmp(is, own) == !k->other, "the program is %s", is);
}

int main(void)
{
	pid_t pids[CHILDREN];
	char exe[400];

	test_init();
	ready = test_shared(4096);
	root = geteuid() == 0;
	CHECK(getcwd(where, sizeof(where)));
	read_link(getpid(), "exe", own, sizeof(own));
	CHECK(!mkdir("a", 0755) && !mkdir("b", 0755));
	for (size_t i = 0; i < CHILDREN; i++) {
		pids[i] = test_fork(child, (void *)(intptr_t)i);
		do {
			usleep(1000);
			read_link(pids[i], "exe", exe, sizeof(exe));
		} while (!ready[i] || !strcmp(exe, own) == kinds[i].other);
	}
	test_wait();
	if (test_break(1))
		CHECK(!rename("a", "c"));
	for (size_t i = 0; i < CHILDREN; i++)
		verify(pids[i], &kinds[i]);
	for (size_t i = 0; i < CHILDREN; i++) {
		CHECK(!kill(pids[i], SIGKILL));
		CHECK_EQUAL(waitpid(pids[i], NULL, 0), pids[i]);
	}
	test_pass();
}
