/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/tree.h"
#include "unit.h"

static void expect_plan(const struct tree_node *nodes, size_t n, const char *want)
{
	struct tree_plan plan = {};
	struct error e = {};
	char *text = NULL;
	size_t size;
	FILE *f;

	if (tree_plan_make(&plan, nodes, n, &e) < 0)
		fail_msg("%s", e.text);
	f = open_memstream(&text, &size);
	tree_plan_print(&plan, nodes, f);
	fclose(f);
	assert_string_equal(text, want);
	free(text);
	tree_plan_free(&plan);
}

static int plan_error(const struct tree_node *nodes, size_t n)
{
	struct tree_plan plan = {};
	struct error e = {};
	int r = tree_plan_make(&plan, nodes, n, &e);

	tree_plan_free(&plan);
	return r;
}

/* A job of a shell: the root leads its group, the session is the shell's. */
static void test_job(void **state)
{
	const struct tree_node nodes[] = {
		{.pid = 10, .pgid = 10, .sid = 5, .parent = -1, .owns_mm = true},
		{.pid = 11, .pgid = 10, .sid = 5, .parent = 0, .owns_mm = true},
	};

	expect_plan(nodes, 2,
		    "10 forks 11\n11 builds its address space\n11 is filled, stage 0\n"
		    "10 builds its address space\n10 is filled, stage 0\n"
		    "10 enters process group 10\n11 enters process group 10\n");
}

/* A group outside of the pid namespace: the parent puts the first process there. */
static void test_foreign_group(void **state)
{
	struct tree_node nodes[] = {
		{.pid = 10, .pgid = 10, .sid = 5, .parent = -1},
		{.pid = 11, .pgid = 11, .sid = 5, .parent = 0},
		{.pid = 12, .pgid = 12, .sid = 5, .parent = 1, .pid_space = 1, .space_init = true},
		{.pid = 13, .pgid = 11, .sid = 5, .parent = 2, .pid_space = 1},
	};

	nodes[3].foreign_group = true;
	expect_plan(nodes, 4,
		    "10 forks 11\n11 forks 12\n11 enters process group 11\n"
		    "11 puts 12 into process group 11\n12 forks 13\n"
		    "10 enters process group 10\n11 enters process group 11\n"
		    "12 enters process group 12\n");
	/* Nobody who can name it has it at hand. */
	nodes[2].pid_space = 0;
	nodes[2].space_init = false;
	nodes[3].pgid = 9;
	assert_int_equal(plan_error(nodes, 4), -EOPNOTSUPP);
}

/* A child that inherits pages is forked when the parent has them. */
static void test_inherits(void **state)
{
	const struct tree_node nodes[] = {
		{.pid = 10, .pgid = 10, .sid = 10, .parent = -1, .owns_mm = true, .last_stage = 1},
		{.pid = 11, .pgid = 10, .sid = 10, .parent = 0, .owns_mm = true, .inherits = true},
	};

	expect_plan(nodes, 2,
		    "10 begins a session\n10 builds its address space\n10 is filled, stage 0\n"
		    "10 forks 11\n11 builds its address space\n11 is filled, stage 0\n"
		    "10 is filled, stage 1\n11 enters process group 10\n");
}

/* The child stayed in the session that its parent has left. */
static void test_old_session(void **state)
{
	const struct tree_node nodes[] = {
		{.pid = 10, .pgid = 10, .sid = 10, .parent = -1},
		{.pid = 20, .pgid = 20, .sid = 20, .parent = 0},
		{.pid = 21, .pgid = 10, .sid = 10, .parent = 1},
		{.pid = 22, .pgid = 20, .sid = 20, .parent = 1},
	};

	expect_plan(
		nodes, 4,
		"10 begins a session\n10 forks 20\n20 forks 21\n20 begins a session\n20 forks 22\n"
		"21 enters process group 10\n22 enters process group 20\n");
}

/* Session 30 and group 40 have lost their leaders: helpers play them. */
static void test_dead_leaders(void **state)
{
	const struct tree_node nodes[] = {
		{.pid = 10, .pgid = 10, .sid = 10, .parent = -1},
		{.pid = 31, .pgid = 30, .sid = 30, .parent = 0},
		{.pid = 32, .pgid = 40, .sid = 30, .parent = 0},
	};

	expect_plan(
		nodes, 3,
		"10 begins a session\n10 forks helper 30\nhelper 30 begins a session\n"
		"helper 30 forks 31 for its parent\nhelper 30 forks 32 for its parent\n"
		"31 enters process group 30\n32 forks helper 40\nhelper 40 enters process group 40\n"
		"32 enters process group 40\n32 reaps helper 40\n10 reaps helper 30\n");
}

/* Parents that wait in vfork() make their children when all others are complete. */
static void test_vfork(void **state)
{
	const struct tree_node nodes[] = {
		{.pid = 10, .pgid = 10, .sid = 5, .parent = -1, .owns_mm = true},
		{.pid = 11, .pgid = 11, .sid = 5, .parent = 0, .vfork = true},
		{.pid = 12, .pgid = 12, .sid = 12, .parent = 1, .vfork = true},
		{.pid = 13, .pgid = 10, .sid = 5, .parent = 0, .owns_mm = true},
	};
	struct tree_node bad[4];

	expect_plan(nodes, 4,
		    "10 forks 13\n13 builds its address space\n13 is filled, stage 0\n"
		    "10 builds its address space\n10 is filled, stage 0\n"
		    "10 enters process group 10\n13 enters process group 10\n"
		    "10 forks 11 and waits for it\n11 enters process group 11\n11 is completed\n"
		    "11 forks 12 and waits for it\n12 begins a session\n12 is completed\n");
	memcpy(bad, nodes, sizeof(bad));
	bad[3].pgid = 11; /* a group that is not there yet */
	assert_int_equal(plan_error(bad, 4), -EBADMSG);
	memcpy(bad, nodes, sizeof(bad));
	bad[3].parent = 1;
	assert_int_equal(plan_error(bad, 4), -EBADMSG);
	memcpy(bad, nodes, sizeof(bad));
	bad[1].owns_mm = true;
	assert_int_equal(plan_error(bad, 4), -EBADMSG);
	memcpy(bad, nodes, sizeof(bad));
	bad[2].sid = bad[2].pgid = 10;
	assert_int_equal(plan_error(bad, 4), -EBADMSG);
}

/* An orphan in a session whose leader is farther down comes to be as it did. */
static void test_orphan(void **state)
{
	const struct tree_node nodes[] = {
		{.pid = 10, .pgid = 10, .sid = 10, .parent = -1, .owns_mm = true},
		{.pid = 11, .pgid = 10, .sid = 10, .parent = 0, .owns_mm = true, .inherits = true},
		{.pid = 12, .pgid = 12, .sid = 12, .parent = 1, .owns_mm = true},
		{.pid = 13, .pgid = 12, .sid = 12, .parent = 0, .owns_mm = true},
	};
	struct tree_node inherits[4];

	expect_plan(nodes, 4,
		    "10 begins a session\n10 builds its address space\n10 is filled, stage 0\n"
		    "10 forks 11\n11 forks 12\n12 begins a session\n"
		    "12 builds its address space\n12 is filled, stage 0\n"
		    "11 builds its address space\n11 is filled, stage 0\n"
		    "10 adopts orphans\n12 forks helper 301\nhelper 301 forks 13\n"
		    "12 reaps helper 301\n10 adopts orphans no more\n"
		    "13 builds its address space\n13 is filled, stage 0\n"
		    "11 enters process group 10\n13 enters process group 12\n");
	/* It is not the parent that forks it: it can have nothing from there. */
	memcpy(inherits, nodes, sizeof(inherits));
	inherits[3].inherits = true;
	assert_int_equal(plan_error(inherits, 4), -EBADMSG);
}

static void test_impossible(void **state)
{
	const struct tree_node orphan[] = {
		{.pid = 10, .pgid = 10, .sid = 10, .parent = -1},
		{.pid = 11, .pgid = 10, .sid = 10, .parent = 2},
		{.pid = 12, .pgid = 10, .sid = 10, .parent = 0},
	};
	const struct tree_node zombie[] = {
		{.pid = 10, .pgid = 10, .sid = 10, .parent = -1, .zombie = true},
		{.pid = 11, .pgid = 10, .sid = 10, .parent = 0},
	};

	assert_int_equal(plan_error(NULL, 0), -EBADMSG);
	assert_int_equal(plan_error(orphan, 3), -EBADMSG);
	assert_int_equal(plan_error(zombie, 2), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_job),	     cmocka_unit_test(test_foreign_group),
		cmocka_unit_test(test_inherits),     cmocka_unit_test(test_old_session),
		cmocka_unit_test(test_dead_leaders), cmocka_unit_test(test_vfork),
		cmocka_unit_test(test_impossible),   cmocka_unit_test(test_orphan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
