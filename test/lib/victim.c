/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program for the tests in Python. It says that it is ready, waits, and then does as
 * its arguments say, in their order; those before "wait" are done before.
 *
 *	wait		be ready, and wait until told to go on
 *	exit N		end so
 *	signal N	end by that signal
 *	no-wait N	descriptor N gets O_NONBLOCK
 *	waits-not N	descriptor N has it
 *	open PATH	open the file for reading
 *	update PATH	open the file for reading and writing
 *	map PATH	map it privately
 *	memory N	fill N MiB
 *	orphan		make a process that has no parent, and looks at the memory when we are gone
 *	odd		open descriptors of kinds that cannot be saved: two of them
 *	quiet		not dumpable
 *	parent-death	end when the parent does
 *	confine HOW	itself: landlock, keyring, thread-keyring, notify, dispatch, ldt,
 *			timers, ports, level
 *	thread		start a thread
 *	leave		the SEM_UNDO list to the threads
 *	left-zombie	a child that has ended, of the user that we were; then another user
 *	tree HOW	processes that nobody could make again: files, session
 *	child		fork, and go on in both; the parent's verdict counts
 *	vfork HOW	wait in a child of vfork(), for which the parent waits, with something that
 *hinders talk		lines on standard output, and what comes on standard input; see below pass
 *end with a verdict
 */
#include "harness.h"

#include <asm/ldt.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static char *filled;
static size_t filled_size;

static void *sleep_on(void *arg)
{
	for (;;)
		pause();
	return NULL;
}

/* By what cannot be read, or belongs to another process as well. */
static void confine(const char *how)
{
	struct sock_filter ask[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_swapoff, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {4, ask};
	static char selector = SYSCALL_DISPATCH_FILTER_ALLOW;
	const struct user_desc entry = {.entry_number = 300, .base_addr = 0x1000, .limit = 1};
	struct sigevent event = {.sigev_notify = SIGEV_NONE};
	uint64_t handled[3] = {1};
	timer_t timer;
	long fd = -1;

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (!strcmp(how, "landlock")) {
		fd = syscall(SYS_landlock_create_ruleset, handled, 8, 0);
		if (fd < 0)
			test_skip("no Landlock");
		CHECK(!syscall(SYS_landlock_restrict_self, fd, 0));
	} else if (strstr(how, "keyring")) {
		/* KEYCTL_GET_KEYRING_ID */
		if (syscall(SYS_keyctl, 0, *how == 't' ? -1 : -2, 1) < 0)
			test_skip("no keyrings");
	} else if (!strcmp(how, "ports")) {
		if (ioperm(0x80, 1, 1))
			test_skip("no ports");
	} else if (!strcmp(how, "level")) {
		if (iopl(3))
			test_skip("no ports");
	} else if (!strcmp(how, "timers")) {
		for (int i = 0; i < 300; i++)
			CHECK(!timer_create(CLOCK_MONOTONIC, &event, &timer));
	} else if (!strcmp(how, "dispatch")) {
		CHECK(!prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector));
	} else if (!strcmp(how, "ldt")) {
		if (syscall(SYS_modify_ldt, 0x11, &entry, sizeof(entry)))
			test_skip("no descriptor tables");
	} else {
		fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			     &program);
		CHECK(fd >= 0);
	}
	close((int)fd);
}

static void open_odd(void)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
				       .size = sizeof(attr),
				       .config = PERF_COUNT_SW_TASK_CLOCK};
	int rules[4] = {1};

	/* A performance counter, and the rules of a sandbox. */
	CHECK(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) >= 0);
	CHECK(syscall(SYS_landlock_create_ruleset, rules, 8, 0) >= 0);
}

static void on_interrupt(int sig)
{
	static const char text[] = "talk: interrupted\n";

	(void)!write(1, text, sizeof(text) - 1);
}

/*
 * Like a program at a terminal: echoes lines, tells of interrupts and of the window,
 * ends at "quit".
 */
static int talk(void)
{
	struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
	int terminal = open("/dev/tty", O_RDWR);
	char line[256];
	ssize_t n;

	sigaction(SIGINT, &action, NULL);
	setvbuf(stdout, NULL, _IONBF, 0);
	printf("talk: terminal %d, foreground %d\n", isatty(0) && isatty(1),
	       tcgetpgrp(0) == getpgrp());
	for (int count = 1;; count++) {
		n = read(0, line, sizeof(line) - 1);
		if (n <= 0) {
			printf("talk %d: end, %s\n", count, n ? strerror(errno) : "no input");
			return 3;
		}
		line[strcspn(line, "\n")] = '\0';
		printf("talk %d: <%s>\n", count, line);
		if (!strcmp(line, "tty")) {
			int fd = open("/dev/tty", O_RDWR);

			dprintf(fd, "talk %d: /dev/tty opened\n", count);
			dprintf(terminal, "talk %d: /dev/tty kept\n", count);
			close(fd);
		}
		if (!strcmp(line, "quit"))
			return 42;
	}
}

static void map_file(const char *path)
{
	int fd = open(path, O_RDONLY);

	CHECK(fd >= 0);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED);
	close(fd);
}

static void fill(size_t size)
{
	filled = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(filled != MAP_FAILED);
	test_fill(filled, size, 5);
	filled_size = size;
}

static void orphan(void)
{
	pid_t self = getpid(), child = fork();
	char path[512];

	CHECK(child >= 0);
	if (child > 0) {
		CHECK(waitpid(child, NULL, 0) == child);
		return;
	}
	child = fork();
	if (child)
		_exit(child < 0);
	snprintf(path, sizeof(path), "%s/orphan", getenv("TEST_CONTROL"));
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	while (!kill(self, 0))
		usleep(1000);
	CHECK_FILLED(filled, filled_size, 5);
	test_fail(__FILE__, __LINE__, "an orphan has all the memory");
}

static void leave_zombie(void)
{
	pid_t child = fork();
	siginfo_t info;

	if (child == 0)
		_exit(7);
	CHECK(!waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
	CHECK(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534));
	CHECK(!setresuid(65534, 65534, 65534) && !prctl(PR_SET_DUMPABLE, 1));
}

static int ready_pipe[2];

static _Noreturn void be_relative(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CHECK(write(ready_pipe[1], "", 1) == 1);
	sleep_on(NULL);
	_exit(1);
}

/* Shares descriptors with its grandparent, but not with its parent. */
static int cousin(void *arg)
{
	if (syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) == 0)
		be_relative();
	CHECK(!unshare(CLONE_FILES));
	be_relative();
}

/* A relative ends with its parent: that is to be the one which takes in orphans. */
static _Noreturn void be_orphan(pid_t parent)
{
	while (getppid() == parent)
		usleep(1000);
	be_relative();
}

/* Two members of a session whose leader ends, with different parents. */
static _Noreturn void lead_session(void)
{
	const pid_t self = getpid();

	CHECK(setsid() > 0);
	if (fork() == 0)
		be_orphan(self);
	if (fork() == 0) {
		if (fork() == 0)
			be_relative();
		CHECK(setsid() > 0);
		be_orphan(self);
	}
	_exit(0);
}

static void make_tree(const char *how)
{
	static char stack[65536] __attribute__((aligned(16)));
	int files = !strcmp(how, "files");
	char byte;

	CHECK(!pipe(ready_pipe));
	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	if (files)
		CHECK(clone(cousin, stack + sizeof(stack), CLONE_FILES | SIGCHLD, NULL) > 0);
	else if (fork() == 0)
		lead_session();
	else
		CHECK(wait(NULL) > 0);
	for (int i = 0; i < (files ? 2 : 3); i++)
		CHECK(read(ready_pipe[0], &byte, 1) == 1);
}

/* What of a parent in vfork() cannot be saved. */
static void hinder(const char *how)
{
	const struct itimerval far = {.it_value = {.tv_sec = 1000}};
	struct sigevent event = {.sigev_notify = SIGEV_NONE};
	timer_t timer;
	sigset_t set;

	if (!strcmp(how, "pending")) {
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		sigprocmask(SIG_BLOCK, &set, NULL);
		raise(SIGUSR1);
	} else if (!strcmp(how, "timer")) {
		CHECK(!timer_create(CLOCK_MONOTONIC, &event, &timer));
	} else if (!strcmp(how, "profile")) {
		CHECK(!setitimer(ITIMER_PROF, &far, NULL));
	}
}

/* What of the child cannot, or keeps its parent from being saved. */
static int vfork_child(void *arg)
{
	const char *how = arg;
	struct f_owner_ex owner = {F_OWNER_PID, (int)syscall(SYS_getpid)};

	if (!strcmp(how, "tsc"))
		CHECK(!prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	if (!strcmp(how, "owner"))
		CHECK(!fcntl(50, F_SETOWN_EX, &owner));
	if (!strcmp(how, "children") && fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sleep_on(NULL);
	}
	test_wait();
	_exit(0);
}

static void wait_in_vfork(char *how)
{
	static char stack[65536] __attribute__((aligned(16)));
	int flags = CLONE_VM | CLONE_VFORK | SIGCHLD, pidfd;

	hinder(how);
	if (!strcmp(how, "owner"))
		CHECK_EQUAL(dup2(open("/dev/null", O_RDONLY), 50), 50);
	if (!strcmp(how, "memory"))
		flags &= ~CLONE_VM;
	if (!strcmp(how, "pidfd"))
		flags |= CLONE_PIDFD;
	CHECK(clone(vfork_child, stack + sizeof(stack), flags, how, &pidfd) > 0);
	wait(NULL);
}

static int step(const char *what, const char *value)
{
	pthread_t thread;

	if (!strcmp(what, "wait")) {
		test_wait();
	} else if (!strcmp(what, "exit")) {
		_exit(atoi(value));
	} else if (!strcmp(what, "signal")) {
		raise(atoi(value));
	} else if (!strcmp(what, "no-wait")) {
		CHECK(!fcntl(atoi(value), F_SETFL, fcntl(atoi(value), F_GETFL) | O_NONBLOCK));
	} else if (!strcmp(what, "waits-not")) {
		CHECK(fcntl(atoi(value), F_GETFL) & O_NONBLOCK);
	} else if (!strcmp(what, "open")) {
		CHECK(open(value, O_RDONLY) >= 0);
	} else if (!strcmp(what, "update")) {
		CHECK(open(value, O_RDWR) >= 0);
	} else if (!strcmp(what, "map")) {
		map_file(value);
	} else if (!strcmp(what, "memory")) {
		fill((size_t)atoi(value) << 20);
	} else if (!strcmp(what, "odd")) {
		open_odd();
		return 1;
	} else if (!strcmp(what, "quiet")) {
		CHECK(!prctl(PR_SET_DUMPABLE, 0));
		return 1;
	} else if (!strcmp(what, "parent-death")) {
		CHECK(!prctl(PR_SET_PDEATHSIG, SIGKILL));
		return 1;
	} else if (!strcmp(what, "confine")) {
		confine(value);
	} else if (!strcmp(what, "thread")) {
		CHECK(!pthread_create(&thread, NULL, sleep_on, NULL));
		return 1;
	} else if (!strcmp(what, "leave")) {
		CHECK(!unshare(CLONE_SYSVSEM));
		return 1;
	} else if (!strcmp(what, "child")) {
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			sleep_on(NULL);
		}
		return 1;
	} else if (!strcmp(what, "left-zombie")) {
		leave_zombie();
		return 1;
	} else if (!strcmp(what, "tree")) {
		make_tree(value);
	} else if (!strcmp(what, "vfork")) {
		wait_in_vfork((char *)value);
	} else if (!strcmp(what, "talk")) {
		_exit(talk());
	} else if (!strcmp(what, "orphan")) {
		orphan();
		return 1;
	} else if (!strcmp(what, "pass")) {
		if (filled)
			CHECK_FILLED(filled, filled_size, 5);
		test_pass();
	} else {
		test_fail(__FILE__, __LINE__, "what is '%s'?", what);
	}
	return strcmp(what, "wait") ? 2 : 1;
}

int main(int argc, char **argv)
{
	test_init();
	for (int i = 1; i < argc;)
		i += step(argv[i], i + 1 < argc ? argv[i + 1] : "");
	test_pass();
}
