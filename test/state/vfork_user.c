/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parent in vfork() with the credentials of an ordinary user, and with a seccomp filter: it may
 * not choose the pid of its child. The child has put on another user since.
 *
 * needs: root
 */
#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER  4711
#define OTHER 4712

static volatile pid_t pids[2];

/* getpriority() fails with ENOTTY, and clone3() with ENOSYS, as in many a container. */
static void install_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpriority, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(*code), code};

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

static void check_user(uid_t effective)
{
	uid_t real, saved, now;

	CHECK(!getresuid(&real, &now, &saved));
	CHECK_EQUAL(real, USER);
	CHECK_EQUAL(now, effective);
	CHECK_EQUAL(syscall(SYS_getpriority, 0, 0), -1);
	CHECK_EQUAL(errno, ENOTTY);
}

static void caught(int sig)
{
	test_fail(__FILE__, __LINE__, "signal %d that nobody sent", sig);
}

int main(void)
{
	pid_t pid;

	test_init();
	install_filter();
	/* The one of a child that was made on the way to the right one would come here. */
	signal(SIGCHLD, caught);
	CHECK(!setresuid(USER, USER, OTHER));
	pid = vfork();
	CHECK(pid >= 0);
	if (pid == 0) {
		/* Not by the C library, which would change the threads of the parent as well. */
		CHECK(!syscall(SYS_setresuid, -1, OTHER, -1));
		pids[0] = syscall(SYS_getpid);
		test_wait();
		check_user(OTHER);
		pids[1] = getppid();
		signal(SIGCHLD, SIG_DFL);
		execl("/bin/sh", "sh", "-c", "exec sleep 1000", NULL);
		_exit(1);
	}
	check_user(test_break(1) ? OTHER : USER);
	CHECK_EQUAL(pid, pids[0]);
	CHECK_EQUAL(getpid(), pids[1]);
	CHECK_EQUAL(waitpid(-1, NULL, WNOHANG), 0);
	signal(SIGCHLD, SIG_DFL);
	/* sent by its real user */
	CHECK(!kill(pid, SIGKILL));
	CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
	CHECK_EQUAL(waitpid(-1, NULL, 0), -1);
	CHECK(!setresuid(-1, OTHER, -1));
	test_pass();
}
