/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_TEST_UNIT_FREEZE_COMMON_H
#define REPRISE_TEST_UNIT_FREEZE_COMMON_H

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/freeze.h"
#include "unit.h"

#define MS 1000

/* What the tree and the test tell each other. */
struct shared {
	_Atomic unsigned long count;
	_Atomic unsigned long signals;
	_Atomic pid_t pid[4];
	_Atomic bool go;
};

static struct shared *shared;
static int proc_fd;

static inline void no_error(const struct error *e, int r)
{
	char text[2048];

	if (r >= 0)
		return;
	error_format(e, text, sizeof(text));
	fail_msg("%s", text);
}

/* The process that a function makes, and its descendants, end with the test. */
static inline pid_t start(void (*body)(void))
{
	pid_t pid;

	memset((void *)shared, 0, sizeof(*shared));
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body();
		_exit(0);
	}
	return pid;
}

static inline void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, __WALL);
}

static inline struct freezer make_freezer(pid_t root)
{
	return (struct freezer){
		.proc_fd = proc_fd, .root = root, .self = getpid(), .timeout_ms = 2000};
}

static inline void wait_for(const _Atomic pid_t *what)
{
	for (int i = 0; !*what && i < 2000; i++)
		usleep(MS);
	assert_true(*what);
}

static inline char state_of(pid_t pid)
{
	struct proc_stat st;

	return proc_stat_read(proc_fd, pid, pid, &st, NULL) == 0 ? st.state : '-';
}

static inline void wait_for_state(pid_t pid, const char *states)
{
	for (int i = 0; !strchr(states, state_of(pid)) && i < 20000; i++)
		usleep(MS);
	assert_non_null(strchr(states, state_of(pid)));
}

static inline void refused(pid_t root, enum error_code code)
{
	_cleanup_(freezer_free) struct freezer f = make_freezer(root);
	struct error e = {};

	f.timeout_ms = 300;
	assert_true(freezer_freeze(&f, &e) < 0);
	if (e.code != code)
		fail_msg("%s, not %s: %s", error_code_info(e.code)->name,
			 error_code_info(code)->name, e.text);
	assert_false(f.attached);
}

static inline bool share(void)
{
	struct error e = {};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	return shared != MAP_FAILED && procfs_open_root(&proc_fd, &e) >= 0;
}

#endif
