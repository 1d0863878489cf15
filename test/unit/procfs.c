/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "unit.h"

#define STAT_TAIL                                                                   \
	" S 1 22 33 34816 -1 4194560 2117 4 5 6 7 8 9 10 20 -5 3 0 987654 12 13 "   \
	"18446744073709551615 94000 94100 140000 0 0 0 0 0 0 0 0 0 -1 1 0 2 0 0 0 " \
	"5000 6000 7000 8000 8100 8200 8300 256\n"

static void test_stat(void **state)
{
	struct proc_stat st;

	assert_int_equal(proc_stat_parse("4242 (redis-server)" STAT_TAIL, &st), 0);
	assert_int_equal(st.pid, 4242);
	assert_string_equal(st.comm, "redis-server");
	assert_int_equal(st.state, 'S');
	assert_int_equal(st.ppid, 1);
	assert_int_equal(st.pgrp, 22);
	assert_int_equal(st.session, 33);
	assert_int_equal(st.tty_nr, 34816);
	assert_int_equal(st.tpgid, -1);
	assert_int_equal(st.flags, 4194560);
	assert_int_equal(st.priority, 20);
	assert_int_equal(st.nice, -5);
	assert_int_equal(st.num_threads, 3);
	assert_int_equal(st.start_time, 987654);
	assert_int_equal(st.start_code, 94000);
	assert_int_equal(st.end_code, 94100);
	assert_int_equal(st.start_stack, 140000);
	assert_int_equal(st.exit_signal, -1);
	assert_int_equal(st.rt_priority, 0);
	assert_int_equal(st.policy, 2);
	assert_int_equal(st.start_data, 5000);
	assert_int_equal(st.end_data, 6000);
	assert_int_equal(st.start_brk, 7000);
	assert_int_equal(st.arg_start, 8000);
	assert_int_equal(st.env_end, 8300);
	assert_int_equal(st.exit_code, 256);
}

static void test_stat_odd_command(void **state)
{
	struct proc_stat st;

	assert_int_equal(proc_stat_parse("1 (a) S 2 (b)" STAT_TAIL, &st), 0);
	assert_string_equal(st.comm, "a) S 2 (b");
	assert_int_equal(proc_stat_parse("1 ())" STAT_TAIL, &st), 0);
	assert_string_equal(st.comm, ")");
	assert_int_equal(proc_stat_parse("1 ()" STAT_TAIL, &st), 0);
	assert_string_equal(st.comm, "");
	assert_int_equal(proc_stat_parse("1 (new\nline)" STAT_TAIL, &st), 0);
	assert_string_equal(st.comm, "new\nline");
}

static void test_stat_refused(void **state)
{
	const char *whole = "4242 (redis-server)" STAT_TAIL;
	struct proc_stat st;

	/* Cut anywhere it is refused, except inside or behind the last number. */
	for (size_t n = 0; n < strlen(whole) - 4; n++) {
		char *cut = strndup(whole, n);

		assert_int_equal(proc_stat_parse(cut, &st), -EINVAL);
		free(cut);
	}
	assert_int_equal(proc_stat_parse("x (a)" STAT_TAIL, &st), -EINVAL);
	assert_int_equal(proc_stat_parse("(a)" STAT_TAIL, &st), -EINVAL);
	assert_int_equal(proc_stat_parse("1 )a(" STAT_TAIL, &st), -EINVAL);
	assert_int_equal(
		proc_stat_parse("1 (a-command-that-is-longer-than-the-kernel-lets-any-command-be)"
				"-and-some-more)" STAT_TAIL,
				&st),
		-EINVAL);
}

static void test_field(void **state)
{
	const char *text = "Name:\tcat\nPid:\t7\nPidMore:\t8\nSigCgt:\t00000000fe7ffbff\n"
			   "VmSize:\t    12 kB\nEmpty:\t\nNext:\t9";
	uint64_t n;
	size_t len;
	const char *v;

	v = proc_field(text, "Name", &len);
	assert_non_null(v);
	assert_int_equal(len, 3);
	assert_memory_equal(v, "cat", 3);
	assert_null(proc_field(text, "am", &len));
	assert_null(proc_field(text, "Missing", &len));
	assert_int_equal(proc_field_u64(text, "Pid", 10, &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(proc_field_u64(text, "SigCgt", 16, &n), 0);
	assert_int_equal(n, 0xfe7ffbff);
	assert_int_equal(proc_field_u64(text, "VmSize", 10, &n), 0);
	assert_int_equal(n, 12);
	assert_int_equal(proc_field_u64(text, "Next", 10, &n), 0);
	assert_int_equal(n, 9);
	assert_int_equal(proc_field_u64(text, "Name", 10, &n), -EINVAL);
	/* Must not run on into the next line. */
	assert_int_equal(proc_field_u64(text, "Empty", 10, &n), -EINVAL);
	assert_int_equal(proc_field_u64(text, "Missing", 10, &n), -ENOENT);
	assert_int_equal(proc_field_u64("A:\t99999999999999999999\n", "A", 10, &n), -EINVAL);
	assert_int_equal(proc_field_u64("A:\t-1\n", "A", 10, &n), -EINVAL);
	assert_int_equal(proc_field_u64("flags:\t0100002\n", "flags", 8, &n), 0);
	assert_int_equal(n, 0100002);
}

static void test_own(void **state)
{
	_cleanup_(close_fd) int proc_fd = -EBADF;
	_cleanup_(free_ptr) char *exe = NULL;
	_cleanup_(free_ptr) char *status = NULL;
	struct error e = {};
	struct proc_stat st;
	uint64_t pid;

	assert_int_equal(procfs_open_root(&proc_fd, &e), 0);
	assert_int_equal(prctl(PR_SET_NAME, "odd ) (name", 0, 0, 0), 0);
	assert_int_equal(proc_stat_read(proc_fd, getpid(), getpid(), &st, &e), 0);
	assert_string_equal(st.comm, "odd ) (name");
	assert_int_equal(st.ppid, getppid());
	assert_true(procfs_read(proc_fd, &status, &e, "%d/status", getpid()) > 0);
	assert_int_equal(proc_field_u64(status, "Tgid", 10, &pid), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(procfs_readlink(proc_fd, &exe, &e, "%d/exe", getpid()), 0);
	assert_int_equal(exe[0], '/');
	assert_int_equal(e.code, ERROR_NONE);
}

static void test_gone(void **state)
{
	_cleanup_(close_fd) int proc_fd = -EBADF;
	struct proc_stat st;
	struct error e = {};
	char *text = NULL;
	pid_t pid;
	int fd;

	assert_int_equal(procfs_open_root(&proc_fd, &e), 0);
	/* The task is there, the descriptor is not: another answer than a task that has ended. */
	assert_int_equal(procfs_readlink(proc_fd, &text, &e, "%d/fd/4000", getpid()), -ENOENT);
	assert_int_equal(e.code, E_SYSTEM);
	error_clear(&e);

	pid = fork();
	if (pid == 0)
		pause();
	fd = procfs_open(proc_fd, O_RDONLY, &e, "%d/stat", pid);
	assert_true(fd >= 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(fd);
	assert_int_equal(proc_stat_read(proc_fd, pid, pid, &st, &e), -ESRCH);
	assert_int_equal(e.code, E_TASK_GONE);
	error_clear(&e);
	assert_int_equal(procfs_open(proc_fd, O_RDONLY, &e, "%d/maps", pid), -ESRCH);
	assert_int_equal(e.code, E_TASK_GONE);
}

static void test_permission(void **state)
{
	_cleanup_(close_fd) int proc_fd = -EBADF;
	struct error e = {};
	int status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	pid = fork();
	if (pid == 0) {
		if (procfs_open_root(&proc_fd, &e) < 0 || setuid(65534) < 0)
			_exit(2);
		_exit(procfs_open(proc_fd, O_RDONLY, &e, "%d/pagemap", getppid()) == -EACCES &&
				      e.code == E_PERMISSION && strstr(e.text, "of task ")
			      ? 0
			      : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stat),	     cmocka_unit_test(test_stat_odd_command),
		cmocka_unit_test(test_stat_refused), cmocka_unit_test(test_field),
		cmocka_unit_test(test_own),	     cmocka_unit_test(test_gone),
		cmocka_unit_test(test_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
