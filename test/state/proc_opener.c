/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of /proc and of control groups that were opened by who may do less than the program, or
 * more: page frames are shown to him as before.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OTHER 4711

static char page[4096] __attribute__((aligned(4096)));

static uint64_t frame(int fd)
{
	uint64_t entry;

	page[0] = 1;
	CHECK_EQUAL(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)page / 4096 * 8)),
		    sizeof(entry));
	CHECK(entry >> 63);
	return entry & ((1ULL << 55) - 1);
}

/* Files of /proc/self belong to root while it is undumpable, as any change makes it. */
static void become(uid_t uid)
{
	CHECK(!syscall(SYS_setresuid, -1, uid, -1));
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
}

static int open_as(uid_t uid, const char *path)
{
	int fd;

	become(uid);
	fd = open(path, O_RDONLY);
	become(0);
	CHECKF(fd >= 0, "%s", path);
	return fd;
}

/* Addresses of functions, or zeros. */
static bool shows_addresses(int fd)
{
	char text[64] = "";

	CHECK(pread(fd, text, sizeof(text) - 1, 0) > 0);
	return strncmp(text, "0000000000000000", 16) != 0;
}

int main(void)
{
	int root, other, symbols, all_symbols;
	bool shown;

	test_init();
	root = open_as(0, "/proc/self/pagemap");
	other = open_as(OTHER, "/proc/self/pagemap");
	symbols = open_as(OTHER, "/proc/kallsyms");
	all_symbols = open_as(0, "/proc/kallsyms");
	if (!frame(root))
		test_skip("who is root here does not see page frames");
	CHECK(!frame(other) && !shows_addresses(symbols));
	shown = shows_addresses(all_symbols);

	test_wait();
	if (test_break(1))
		other = root;
	CHECK(frame(root));
	CHECK(!frame(other));
	CHECK(!shows_addresses(symbols));
	CHECK_EQUAL(shows_addresses(all_symbols), shown);
	test_pass();
}
