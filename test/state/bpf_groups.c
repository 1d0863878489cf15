/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF maps whose values belong to control groups, of version 2 and of version 1; one has none. And
 * an array of groups, of which only programs are told. Those of a container are its own.
 */
/* container: --cgroups */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "bpf_value.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define OF_GROUPS 32 /* BPF_MAP_TYPE_CGRP_STORAGE, 6.2 */

#define GROUPS_MAX 16

static char groups[GROUPS_MAX][300];
static size_t n_groups;

static int make(int types)
{
	long fd = storage_make(types, OF_GROUPS, 0);

	if (fd < 0 && errno == EINVAL)
		test_skip("no BPF storage of control groups here");
	return made(fd);
}

static void find_group(const char *path)
{
	char file[320];

	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	if (n_groups < GROUPS_MAX && access(file, F_OK) == 0)
		snprintf(groups[n_groups++], sizeof(groups[0]), "%s", path);
}

/* Of each hierarchy the first one; in a container the only one is its own, and some are made. */
static void find_groups(void)
{
	static const char *const made[] = {"/sys/fs/cgroup/one", "/sys/fs/cgroup/one/two"};
	DIR *d = opendir("/sys/fs/cgroup");
	struct dirent *entry;
	char path[300];

	for (size_t i = 0; i < N(made) && test_mode_is("container"); i++)
		CHECK(!mkdir(made[i], 0755));
	find_group("/sys/fs/cgroup");
	find_group(made[1]);
	while (d && (entry = readdir(d))) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", entry->d_name);
		if (*entry->d_name != '.' && entry->d_type == DT_DIR)
			find_group(path);
	}
	if (d)
		CHECK(!closedir(d));
	if (n_groups < 2)
		test_skip("there are no control groups");
}

static int open_group(size_t i)
{
	int fd = open(groups[i], O_RDONLY | O_DIRECTORY);

	CHECKF(fd >= 0, "%s: %s", groups[i], strerror(errno));
	return fd;
}

static void set(int map, size_t i, uint64_t number)
{
	struct value v = {.number = number, .text = "some text"};
	int fd = open_group(i);

	long r;

	/* others may give their first value to the same group */
	do
		r = map_do(BPF_MAP_UPDATE_ELEM, map, &fd, &v, 0);
	while (r < 0 && errno == EAGAIN);
	CHECKF(!r, "%s: %s", groups[i], strerror(errno));
	CHECK(!close(fd));
}

static void has(int map, size_t i, uint64_t number)
{
	struct value v = {};
	int fd = open_group(i);

	CHECKF(!map_do(BPF_MAP_LOOKUP_ELEM, map, &fd, &v, 0), "%s: %s", groups[i], strerror(errno));
	CHECK_EQUAL(v.number, number);
	CHECK(!strcmp(v.text, "some text"));
	CHECK(!close(fd));
}

static void has_none(int map, size_t i)
{
	struct value v = {};
	int fd = open_group(i);

	CHECK(map_do(BPF_MAP_LOOKUP_ELEM, map, &fd, &v, 0) < 0 && errno == ENOENT);
	CHECK(!close(fd));
}

static void put_in(int array, uint32_t place, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY);

	CHECK(fd >= 0);
	CHECKF(!map_do(BPF_MAP_UPDATE_ELEM, array, &place, &fd, 0), "%s", strerror(errno));
	CHECK(!close(fd));
}

/* In the group at that place, or below: 1; else 0; -EAGAIN: there is none. */
static int is_within(int array, int place)
{
	const struct bpf_insn insns[] = {MAP(1, array), SET(2, place),
					 CALL(BPF_FUNC_current_task_under_cgroup), EXIT};
	union bpf_attr attr;
	int program;

	memset(&attr, 0, sizeof(attr));
	program = load_with(&attr, BPF_PROG_TYPE_RAW_TRACEPOINT, insns, N(insns));
	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)program;
	CHECKF(!bpf(BPF_PROG_TEST_RUN, &attr), "%s", strerror(errno));
	CHECK(!close(program));
	return (int)attr.test.retval;
}

static const char *top(void)
{
	static const char *const unified = "/sys/fs/cgroup/unified";

	return access(unified, F_OK) ? "/sys/fs/cgroup" : unified;
}

int main(void)
{
	int types, of_groups, empty, frozen, held, array;
	size_t last;

	test_init();
	types = value_describe();
	of_groups = make(types);
	empty = make(types);
	frozen = make(types);
	find_groups();
	last = n_groups - 1;
	for (size_t i = 0; i < last; i++)
		set(of_groups, i, 40 + i);
	set(frozen, last, 60);
	map_freeze(frozen);
	held = open_group(0);
	array = map_make(BPF_MAP_TYPE_CGROUP_ARRAY, 4, 4, 5);
	put_in(array, 1, top());
	if (test_mode_is("container"))
		put_in(array, 3, "/sys/fs/cgroup/one/two");
	test_wait();
	if (test_break(1))
		set(of_groups, last, 1);
	if (test_break(2))
		set(of_groups, 0, 41);
	if (test_break(3))
		put_in(array, 0, top());
	for (size_t i = 0; i < last; i++) {
		has(of_groups, i, 40 + i);
		has_none(empty, i);
		has_none(frozen, i);
	}
	has_none(of_groups, last);
	CHECK_EQUAL(is_within(array, 0), -EAGAIN);
	CHECK_EQUAL(is_within(array, 1), 1);
	CHECK_EQUAL(is_within(array, 3), test_mode_is("container") ? 0 : -EAGAIN);
	has(frozen, last, 60);
	CHECK(map_do(BPF_MAP_UPDATE_ELEM, frozen, &held, &(struct value){}, 0) < 0 &&
	      errno == EPERM);
	test_pass();
}
