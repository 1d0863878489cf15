/* SPDX-License-Identifier: Apache-2.0 */
/* A parent that waits in vfork() comes to no stop. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "freeze_common.h"

/* A child of vfork() that calls exec after a while, or never does. */
static void vfork_long(void)
{
	shared->pid[0] = getpid();
	if (vfork() == 0) {
		/* It is no child of the test, and would outlive it where that fails. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		shared->pid[1] = (pid_t)syscall(SYS_getpid);
		while (!shared->go)
			usleep(100 * MS);
		execl("/bin/sleep", "sleep", "100", NULL);
		_exit(1);
	}
	pause();
}

static void *say_go(void *arg)
{
	usleep(300 * MS);
	shared->go = true;
	return NULL;
}

/* The survey waits for the child to call exec; on a busy machine it may have to be asked again. */
static void freeze_after_exec(struct freezer *f)
{
	struct error e = {};
	int r = -EBUSY;

	for (int i = 0; r < 0 && i < 20; i++) {
		error_clear(&e);
		r = freezer_survey(f, &e);
		no_error(&e, r);
		r = freezer_freeze(f, &e);
		if (r < 0 && e.code != E_TASK_VFORK)
			break;
	}
	no_error(&e, r);
}

/* Where the kernel's memory may not be read. */
static void test_vfork(void **state)
{
	pid_t pid = start(vfork_long), child;
	struct freezer f = make_freezer(pid);
	pthread_t t;

	wait_for(&shared->pid[1]);
	child = shared->pid[1];
	wait_for_state(pid, "D");
	setenv("REPRISE_FAULT", "no-kernel-memory", 1);
	refused(pid, E_TASK_VFORK);
	/* Nothing is left in the way of the child. */
	wait_for_state(child, "S");
	pthread_create(&t, NULL, say_go, NULL);
	freeze_after_exec(&f);
	pthread_join(t, NULL);
	unsetenv("REPRISE_FAULT");
	assert_int_equal(f.processes.n, 2);
	assert_int_equal(f.processes.v[1].pid, child);
	assert_non_null(f.processes.v[0].threads.v[0].cpu);
	assert_false(f.processes.v[0].threads.v[0].in_vfork);
	freezer_free(&f);
	kill(child, SIGKILL);
	end(pid);
}

/* Where it may, the parent is held by its child, and neither traced nor disturbed. */
static void test_vfork_read(void **state)
{
	pid_t pid = start(vfork_long), child;
	struct frozen_thread *t;
	struct error e = {};

	wait_for(&shared->pid[1]);
	child = shared->pid[1];
	wait_for_state(pid, "D");
	for (int i = 0; i < 3; i++) {
		_cleanup_(freezer_free) struct freezer f = make_freezer(pid);
		int r = freezer_freeze(&f, &e);

		if (r < 0 && e.code == E_TASK_VFORK && f.memory_error.err) {
			end(pid);
			skip();
		}
		no_error(&e, r);
		assert_int_equal(f.processes.n, 2);
		t = &f.processes.v[0].threads.v[0];
		assert_true(t->in_vfork);
		assert_int_equal(t->vfork_child, child);
		assert_int_equal(t->cpu->regs.orig_rax, SYS_vfork);
		assert_int_equal(state_of(pid), 'D');
		assert_int_equal(state_of(child), 't');
		freezer_thaw(&f);
		wait_for_state(child, "S");
	}
	shared->go = true;
	wait_for_state(pid, "S");
	kill(child, SIGKILL);
	end(pid);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vfork),
		cmocka_unit_test(test_vfork_read),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	if (!share())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
