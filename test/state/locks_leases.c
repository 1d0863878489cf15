/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases for reading and for writing, with their signals; and waiters for flock and OFD locks.
 *
 * not-in: both: the locks are held by the original
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int wait_flock(void *arg)
{
	int fd = open("flocked", O_RDWR);

	test_write("flock-waits", "", 0);
	CHECK(!flock(fd, LOCK_EX));
	return 5;
}

static int wait_ofd(void *arg)
{
	struct flock lock = {.l_type = F_WRLCK};
	int fd = open("locked", O_RDWR);

	test_write("ofd-waits", "", 0);
	CHECK(!fcntl(fd, F_OFD_SETLKW, &lock));
	return 6;
}

static int breaker(void *arg)
{
	CHECK(open(arg, O_RDWR | O_NONBLOCK) < 0 && errno == EWOULDBLOCK);
	return 7;
}

/* Somebody opens it: we are told by the signal that was chosen, with the descriptor. */
static void check_lease(int fd, int type, char *name, int sig)
{
	siginfo_t info;
	sigset_t set;

	CHECK_EQUAL(fcntl(fd, F_GETLEASE), type);
	test_reap(test_fork(breaker, name), 7);
	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK_EQUAL(sigwaitinfo(&set, &info), sig);
	if (sig != SIGIO)
		CHECK_EQUAL(info.si_fd, fd);
	CHECK(!fcntl(fd, F_SETLEASE, F_UNLCK));
}

static char read_name[] = "read", written_name[] = "written";

int main(void)
{
	struct flock lock = {.l_type = F_RDLCK};
	int reader, writer, flocked, locked;
	struct f_owner_ex owner;
	pid_t first, second;
	sigset_t set;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	sigaddset(&set, SIGRTMIN + 3);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	test_write("flocked", "", 0);
	test_write("locked", "", 0);
	test_write("read", "", 0);
	test_write("written", "", 0);
	flocked = open("flocked", O_RDWR);
	locked = open("locked", O_RDWR);
	CHECK(!flock(flocked, LOCK_SH) && !fcntl(locked, F_OFD_SETLK, &lock));
	first = test_fork(wait_flock, NULL);
	second = test_fork(wait_ofd, NULL);
	while (access("flock-waits", F_OK) || access("ofd-waits", F_OK))
		usleep(1000);
	test_until_in(first, SYS_flock);
	test_until_in(second, SYS_fcntl);
	/* After the forks: a lease for writing wants to be the only one. */
	reader = open("read", O_RDONLY | O_CLOEXEC);
	writer = open("written", O_RDWR);
	CHECK(!fcntl(reader, F_SETLEASE, F_RDLCK));
	CHECK(!fcntl(writer, F_SETSIG, SIGRTMIN + 3));
	CHECK(!fcntl(writer, F_SETLEASE, F_WRLCK));

	test_wait();
	if (test_break(1))
		CHECK(!fcntl(reader, F_SETLEASE, F_UNLCK));
	if (test_break(2))
		CHECK(!flock(flocked, LOCK_UN));
	CHECK(!fcntl(writer, F_GETOWN_EX, &owner));
	CHECK_EQUAL(owner.pid, getpid());
	CHECK_EQUAL(fcntl(writer, F_GETSIG), SIGRTMIN + 3);
	check_lease(reader, F_RDLCK, read_name, SIGIO);
	check_lease(writer, F_WRLCK, written_name, SIGRTMIN + 3);
	test_until_in(first, SYS_flock);
	test_until_in(second, SYS_fcntl);
	CHECK_EQUAL(waitpid(-1, NULL, WNOHANG), 0);
	CHECK(!flock(flocked, LOCK_UN));
	test_reap(first, 5);
	lock.l_type = F_UNLCK;
	CHECK(!fcntl(locked, F_OFD_SETLK, &lock));
	test_reap(second, 6);
	test_pass();
}
