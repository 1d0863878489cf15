/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "examine.h"
#include "patient.h"
#include "remote/batch.h"
#include "remote/freeze.h"
#include "unit.h"

#define ROUNDS 300

static void no_error(const struct error *e, int r)
{
	char text[2048];

	if (r >= 0)
		return;
	error_format(e, text, sizeof(text));
	fail_msg("%s", text);
}

static void repeat(enum patient_size size, int times)
{
	struct patient *p = patient_start(size);
	struct error e = {};
	int proc_fd;

	assert_non_null(p);
	no_error(&e, procfs_open_root(&proc_fd, &e));
	for (int i = 0; i < times; i++) {
		no_error(&e, examine(proc_fd, p->pid, i < 20, &e));
		/* Now and then the threads need time to notice something. */
		usleep((useconds_t)(i % 8) * 700);
		if (i % 32 == 0)
			assert_true(patient_is_well(p));
	}
	close(proc_fd);
	assert_true(patient_end(p));
}

static void test_repeat(void **state)
{
	repeat(PATIENT_FULL, ROUNDS);
}

/* One that is examined for ever, until it is killed. */
static pid_t start_examiner(pid_t patient, bool traced)
{
	pid_t pid = fork();
	struct error e = {};
	int proc_fd;

	if (pid)
		return pid;
	if (traced) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
	}
	if (procfs_open_root(&proc_fd, &e) < 0)
		_exit(1);
	do {
		if (examine(proc_fd, patient, false, &e) < 0) {
			fprintf(stderr, "examiner: %s\n", e.text);
			_exit(1);
		}
	} while (!traced);
	_exit(0);
}

/* Killed at random moments. */
static void test_kill_random(void **state)
{
	struct patient *p = patient_start(PATIENT_SMALL);
	unsigned int seed = 1;
	int status;

	assert_non_null(p);
	for (int i = 0; i < 300; i++) {
		pid_t examiner = start_examiner(p->pid, false);

		usleep((useconds_t)rand_r(&seed) % 6000);
		kill(examiner, SIGKILL);
		assert_int_equal(waitpid(examiner, &status, 0), examiner);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_true(patient_is_well(p));
	}
	assert_true(patient_end(p));
}

/* Lets the examiner make n system calls. Returns false if it ended before. */
static bool make_calls(pid_t pid, int n)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	for (int stops = 0; stops < 2 * n + 1;) {
		int sig = WSTOPSIG(status);

		/* The stops of its tracees are news to it. */
		if (sig == (SIGTRAP | 0x80) || sig == SIGSTOP)
			sig = 0;
		ptrace(PTRACE_SYSCALL, pid, 0, sig);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status)) {
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
			return false;
		}
		stops += WSTOPSIG(status) == (SIGTRAP | 0x80);
	}
	return true;
}

/* Killed before each of its system calls in turn. */
static void test_kill_everywhere(void **state)
{
	struct patient *p = patient_start(PATIENT_SMALL);
	int n;

	assert_non_null(p);
	for (n = 0;; n++) {
		pid_t examiner = start_examiner(p->pid, true);

		if (!make_calls(examiner, n))
			break;
		kill(examiner, SIGKILL);
		assert_int_equal(waitpid(examiner, NULL, 0), examiner);
		assert_true(patient_is_well(p));
	}
	print_message("# killed at %d places\n", n);
	assert_true(n > 100);
	assert_true(patient_end(p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_repeat),
		cmocka_unit_test(test_kill_random),
		cmocka_unit_test(test_kill_everywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
