/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/objects.h"
#include "unit.h"

static void test_first_sight(void **state)
{
	struct objects *o;
	uint64_t a, b, c;
	bool fresh;

	assert_int_equal(objects_new(&o), 0);
	assert_int_equal(objects_find(o, 1, 2, 3), 0);
	assert_int_equal(objects_get(o, 1, 2, 3, &a, &fresh), 0);
	assert_true(fresh);
	assert_int_equal(a, 1);
	assert_int_equal(objects_get(o, 1, 2, 3, &b, &fresh), 0);
	assert_false(fresh);
	assert_int_equal(a, b);
	assert_int_equal(objects_get(o, 2, 2, 3, &c, &fresh), 0);
	assert_true(fresh);
	assert_int_not_equal(a, c);
	assert_int_equal(objects_users(o, a), 2);
	assert_int_equal(objects_users(o, c), 1);
	assert_int_equal(objects_users(o, 0), 0);
	assert_int_equal(objects_users(o, 99), 0);
	assert_int_equal(objects_fresh(o), 3);
	assert_int_equal(objects_find(o, 0, 0, 0), 0);
	objects_free(o);
}

static void test_many(void **state)
{
	struct objects *o;
	uint64_t id;
	bool fresh;

	assert_int_equal(objects_new(&o), 0);
	for (int round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < 20000; i++) {
			assert_int_equal(objects_get(o, i % 7, i / 7, i & 1, &id, &fresh), 0);
			assert_int_equal(fresh, round == 0);
			assert_int_equal(id, i + 1);
		}
	}
	assert_int_equal(objects_users(o, 20000), 2);
	objects_free(o);
}

static void test_kcmp(void **state)
{
	struct kcmp_index *k;
	uint64_t class, other;
	int fd[64], dups[64];
	pid_t pid = getpid();
	bool fresh;

	assert_int_equal(kcmp_index_new(&k, KCMP_FILE), 0);
	for (int i = 0; i < 64; i++) {
		fd[i] = open("/dev/null", O_RDONLY);
		dups[i] = dup(fd[i]);
		assert_int_equal(kcmp_index_get(k, 1, pid, (unsigned long)fd[i], &class, &fresh),
				 0);
		assert_true(fresh);
		assert_int_equal(class, i + 1);
	}
	for (int i = 0; i < 64; i++) {
		assert_int_equal(kcmp_index_get(k, 1, pid, (unsigned long)dups[i], &class, &fresh),
				 0);
		assert_false(fresh);
		assert_int_equal(class, i + 1);
	}
	/* Another hash is another thing, by the caller's word. */
	assert_int_equal(kcmp_index_get(k, 2, pid, (unsigned long)fd[0], &other, &fresh), 0);
	assert_true(fresh);
	for (uint64_t h = 3; h < 300; h++)
		assert_int_equal(kcmp_index_get(k, h, pid, (unsigned long)fd[0], &other, &fresh),
				 0);
	assert_int_equal(kcmp_index_get(k, 1, pid, (unsigned long)dups[5], &class, &fresh), 0);
	assert_int_equal(class, 6);
	for (int i = 0; i < 64; i++) {
		close(fd[i]);
		close(dups[i]);
	}
	assert_int_equal(kcmp_index_get(k, 1, pid, 1000000, &class, &fresh), -EBADF);
	kcmp_index_free(k);
}

/* What is known to differ is compared when somebody comes of whom it is not known. */
static void test_kcmp_apart(void **state)
{
	struct kcmp_index *k;
	uint64_t class, classes[64];
	pid_t pid = getpid();
	int fd[64];
	bool fresh;

	assert_int_equal(kcmp_index_new(&k, KCMP_FILE), 0);
	for (int i = 0; i < 64; i++) {
		fd[i] = open("/dev/null", O_RDONLY);
		assert_int_equal(
			kcmp_index_get_apart(k, 1, pid, (unsigned long)fd[i], &class, &fresh), 0);
		assert_true(fresh);
		classes[i] = class;
		if (i == 20) { /* one among them is met by somebody who does not know */
			int copy = dup(fd[7]);

			assert_int_equal(
				kcmp_index_get(k, 1, pid, (unsigned long)copy, &class, &fresh), 0);
			assert_false(fresh);
			assert_int_equal(class, classes[7]);
			close(copy);
		}
		if (i == 40) { /* and this one by him first */
			int first = open("/dev/null", O_RDONLY), copy = dup(first);

			assert_int_equal(
				kcmp_index_get(k, 2, pid, (unsigned long)first, &class, &fresh), 0);
			assert_true(fresh);
			assert_int_equal(kcmp_index_get_apart(k, 2, pid, (unsigned long)copy,
							      &class, &fresh),
					 0);
			assert_false(fresh);
			close(first);
			close(copy);
		}
	}
	for (int i = 0; i < 64; i++) {
		int copy = dup(fd[i]);

		assert_int_equal(kcmp_index_get(k, 1, pid, (unsigned long)copy, &class, &fresh), 0);
		assert_false(fresh);
		assert_int_equal(class, classes[i]);
		close(copy);
	}
	for (int i = 0; i < 64; i++)
		close(fd[i]);
	kcmp_index_free(k);
}

static void test_kcmp_task_gone(void **state)
{
	struct kcmp_index *k;
	uint64_t class;
	bool fresh;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	assert_int_equal(kcmp_index_new(&k, KCMP_VM), 0);
	assert_int_equal(kcmp_index_get(k, 0, getpid(), 0, &class, &fresh), 0);
	assert_int_equal(kcmp_index_get(k, 0, pid, 0, &class, &fresh), -ESRCH);
	kcmp_index_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_sight),    cmocka_unit_test(test_many),
		cmocka_unit_test(test_kcmp),	       cmocka_unit_test(test_kcmp_apart),
		cmocka_unit_test(test_kcmp_task_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
