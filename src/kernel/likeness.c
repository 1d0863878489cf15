/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/likeness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/first.h"

/* Whose ids it has may look into it, as may the task: so nothing of ours may be left in it, memory,
 * descriptors, keys or groups. */
static _Noreturn void be_like(const struct likeness *like, int parent, int program)
{
	struct pollfd pfd = {.fd = parent, .events = POLLIN};

	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {};

	/* In there its ids may have no names: they are put on before. */
	if (like->user >= 0)
		prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS);
	/* System calls themselves: another thread may hold locks of the C library. */
	ignore(syscall(SYS_setgroups, 0, NULL), "those of an ordinary user are his own");
	ignore(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "a kernel without keys");
	if (syscall(SYS_setresgid, like->gid, like->gid, like->gid) < 0 ||
	    syscall(SYS_setresuid, like->uid, like->uid, like->uid) < 0 ||
	    (like->user >= 0 && syscall(SYS_setns, like->user, CLONE_NEWUSER) < 0) ||
	    syscall(SYS_capset, &head, none) < 0)
		_exit(1);
	/* User 0 would get all capabilities again from the program, see cap_bprm_creds_from_file().
	 */
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (chdir("/") < 0 || poll(&pfd, 1, 0) != 0)
		_exit(1);
	ignore(first_stand(program), "then there is none");
	_exit(1);
}

/*
 * In a pid namespace below ours: who has said that its children are born there may not be able to
 * take it back (from a user namespace that does not own ours), so another does, for a child of
 * ours.
 */
static pid_t fork_below(const struct likeness *like, int self, int program)
{
	pid_t between, pid = -ECHILD;
	int made[2];

	if (pipe2(made, O_CLOEXEC) < 0)
		return -errno;
	between = fork();
	if (between == 0) {
		pid = setns(like->space, CLONE_NEWPID) < 0
			      ? -1
			      : (pid_t)syscall(SYS_clone, CLONE_PARENT, 0, 0, 0, 0);
		if (pid == 0)
			be_like(like, self, program);
		if (pid < 0)
			pid = -errno;
		_exit(write(made[1], &pid, sizeof(pid)) == sizeof(pid) ? 0 : 1);
	}
	close(made[1]);
	if (between < 0)
		pid = -errno;
	else if (TEMP_FAILURE_RETRY(read(made[0], &pid, sizeof(pid))) != sizeof(pid))
		pid = -ECHILD;
	close(made[0]);
	if (between > 0)
		TEMP_FAILURE_RETRY(waitpid(between, NULL, 0));
	return pid;
}

static pid_t fork_in(const struct likeness *like, int self, int program)
{
	pid_t pid;

	if (like->space >= 0)
		return fork_below(like, self, program);
	pid = fork();
	if (pid == 0)
		be_like(like, self, program);
	return pid < 0 ? -errno : pid;
}

pid_t likeness_begin(const struct likeness *like)
{
	_cleanup_(close_fd) int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct error unused = {};
	_cleanup_(close_fd) int program = self < 0 ? -errno : first_open(&unused);
	pid_t pid = program < 0 ? program : fork_in(like, self, program);
	int status;

	if (pid < 0)
		return pid;
	/* It stops when it is what it should be. */
	if (TEMP_FAILURE_RETRY(waitpid(pid, &status, WUNTRACED)) < 0 || !WIFSTOPPED(status))
		return -EPERM;
	return pid;
}

void likeness_end(pid_t pid)
{
	/* Of the same session anybody may say that, not only who has its ids. */
	kill(pid, SIGCONT);
	kill(pid, SIGKILL);
	TEMP_FAILURE_RETRY(waitpid(pid, NULL, 0));
}
