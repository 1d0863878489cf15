/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/stand_in.h"

#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"

_Noreturn static void end_like(int status)
{
	if (WIFSIGNALED(status)) {
		struct kernel_sigaction {
			uint64_t handler, flags, restorer, mask;
		} act = {};
		uint64_t none = 0;

		/* The caller's handlers are not ours to run. */
		syscall(SYS_rt_sigaction, WTERMSIG(status), &act, NULL, sizeof(uint64_t));
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(uint64_t));
		syscall(SYS_prctl, PR_SET_DUMPABLE, 0); /* no core: it would be ours */
		syscall(SYS_kill, syscall(SYS_getpid), WTERMSIG(status));
	}
	for (;;)
		syscall(SYS_exit_group, WEXITSTATUS(status));
}

struct birth {
	const struct restart *r;
	int status;
	pid_t wanted;
	void (*live)(void *arg); /* may be NULL */
	void *arg;
	long result;
};

/* Without fork handlers, and without a SIGCHLD to the caller. */
static long born(const struct birth *b, pid_t wanted)
{
	struct clone_args args = {
		.set_tid = (uint64_t)(uintptr_t)&wanted,
		.set_tid_size = wanted > 0,
	};
	long pid;

	if (wanted <= 0)
		args.set_tid = 0;
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0 && b->live)
		b->live(b->arg);
	if (pid == 0)
		end_like(b->status);
	return pid < 0 ? -errno : pid;
}

static void give_birth(struct birth *b)
{
	b->result = b->wanted > 0 ? born(b, b->wanted) : -EEXIST;
	if (b->result < 0 && !b->live)
		b->result = born(b, 0);
}

/* Children of this thread alone are born in the namespace of the tree; when it ends they are those
 * of its process still (find_new_reaper()). */
static void *give_birth_there(void *arg)
{
	struct birth *b = arg;
	_cleanup_(close_fd) int tree = (int)syscall(SYS_pidfd_open, b->r->processes.v[0].pid, 0);

	if (tree < 0 || setns(tree, CLONE_NEWPID) < 0)
		b->result = -errno;
	else
		give_birth(b);
	return NULL;
}

static pid_t begin(struct birth *b)
{
	pthread_t thread;
	int res = 0;

	if (b->r->pidns) {
		res = -pthread_create(&thread, NULL, give_birth_there, b);
		if (res == 0)
			pthread_join(thread, NULL);
	} else {
		give_birth(b);
	}
	return res < 0 ? res : (pid_t)b->result;
}

pid_t stand_in_begin(const struct restart *r, int status, pid_t wanted)
{
	struct birth b = {.r = r, .status = status, .wanted = wanted};
	pid_t pid = begin(&b);
	siginfo_t info;

	if (pid < 0)
		return pid;
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | __WALL) < 0 && errno == EINTR)
		;
	return pid;
}

pid_t stand_in_live(const struct restart *r, pid_t wanted, void (*live)(void *arg), void *arg)
{
	struct birth b = {.r = r, .wanted = wanted, .live = live, .arg = arg};

	return begin(&b);
}

void stand_in_end(pid_t pid)
{
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
}
