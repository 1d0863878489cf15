/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that change all the time, while they are checkpointed:
 *
 *	turmoil HOW COUNTER
 *
 * HOW: exec (of a process with threads), fork, bomb (forks as often as its limits allow), die
 *(children that are killed, threads that end), credentials, signals, jobs (a child that is stopped
 *and continued). COUNTER is a file: the first number in it grows as they go on, the second one is a
 *line of this file in which something was wrong. "fault FD" is another program: it reads into
 *memory for which nobody cares (userfaultfd).
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct counter {
	_Atomic uint64_t turns, wrong;
} * counter;

static char **own_argv;

#define MUST(x)                                              \
	do {                                                 \
		if (!(x) && !counter->wrong)                 \
			counter->wrong = (uint64_t)__LINE__; \
	} while (0)

static void pause_us(long us)
{
	struct timespec t = {.tv_nsec = us * 1000};

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		continue;
}

static void *sleep_on(void *arg)
{
	(void)arg;
	for (;;)
		pause_us(200);
	return NULL;
}

static void *exec_again(void *arg)
{
	(void)arg;
	pause_us(2000);
	execv("/proc/self/exe", own_argv);
	MUST(!"execv");
	return NULL;
}

/* Now by the leader, now by another thread, which becomes the leader. */
static void turn_exec(void)
{
	pthread_t t;

	counter->turns++;
	MUST(!pthread_create(&t, NULL, sleep_on, NULL));
	if (counter->turns % 2)
		exec_again(NULL);
	MUST(!pthread_create(&t, NULL, exec_again, NULL));
	sleep_on(NULL);
}

static void turn_fork(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		pause_us(300);
		_exit(7);
	}
	MUST(pid > 0);
	MUST(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	counter->turns++;
}

static void turn_bomb(void)
{
	if (fork() >= 0)
		counter->turns++;
	else
		pause_us(1000);
}

static void *end_soon(void *arg)
{
	pause_us((long)(intptr_t)arg);
	return NULL;
}

static void live_shortly(void)
{
	pthread_t t;

	for (intptr_t i = 0; i < 4; i++)
		MUST(!pthread_create(&t, NULL, end_soon, (void *)(i * 150)));
	if (counter->turns % 4 == 0)
		pthread_exit(NULL);
	if (counter->turns % 4 == 1)
		_exit(0);
	sleep_on(NULL);
}

static void turn_die(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		live_shortly();
	MUST(pid > 0);
	pause_us(400);
	MUST(!kill(pid, SIGKILL));
	MUST(waitpid(pid, &status, 0) == pid);
	counter->turns++;
}

static void turn_credentials(void)
{
	gid_t groups[3] = {1, 2, 3 + (gid_t)(counter->turns % 1000)}, now[4];

	MUST(!setgroups(3, groups));
	MUST(!setresuid(0, 65534, 0));
	MUST(geteuid() == 65534);
	MUST(!setresuid(0, 0, 0));
	MUST(getgroups(4, now) == 3 && now[2] == groups[2]);
	MUST(!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
	MUST(!prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	counter->turns++;
}

static _Atomic int signals;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	MUST(info->si_value.sival_int == signals);
	signals++;
}

/* Each is delivered, once, with its value. */
static void turn_signals(void)
{
	const struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
	sigset_t some, before;

	sigaction(SIGRTMIN + 1, &act, NULL);
	sigemptyset(&some);
	sigaddset(&some, SIGRTMIN + 1);
	signals = 0;
	MUST(!sigprocmask(SIG_BLOCK, &some, &before));
	for (int i = 0; i < 8; i++)
		MUST(!sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}));
	MUST(!sigprocmask(SIG_SETMASK, &before, NULL));
	MUST(signals == 8);
	counter->turns++;
}

static void turn_jobs(void)
{
	static pid_t pid;
	int status;

	if (!pid)
		pid = fork();
	if (pid == 0)
		sleep_on(NULL);
	MUST(!kill(pid, SIGSTOP));
	MUST(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
	MUST(!kill(pid, SIGCONT));
	MUST(waitpid(pid, &status, WCONTINUED) == pid && WIFCONTINUED(status));
	counter->turns++;
}

/* The kernel writes to a page that nobody provides. */
static int fault(int from)
{
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	struct uffdio_api api = {.api = UFFD_API};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	reg.range.start = (uintptr_t)p;
	reg.range.len = 4096;
	if (fd < 0 || p == MAP_FAILED || ioctl(fd, UFFDIO_API, &api) < 0 ||
	    ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		return 77;
	return read(from, p, 4096) < 0;
}

static const struct {
	const char *name;
	void (*turn)(void);
} kinds[] = {
	{"exec", turn_exec},
	{"fork", turn_fork},
	{"bomb", turn_bomb},
	{"die", turn_die},
	{"credentials", turn_credentials},
	{"signals", turn_signals},
	{"jobs", turn_jobs},
};

int main(int argc, char **argv)
{
	int fd;

	if (argc != 3)
		return 2;
	if (!strcmp(argv[1], "fault"))
		return fault(atoi(argv[2]));
	own_argv = argv;
	fd = open(argv[2], O_RDWR | O_CLOEXEC);
	counter = mmap(NULL, sizeof(*counter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || counter == MAP_FAILED)
		return 1;
	close(fd);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		while (!strcmp(argv[1], kinds[i].name))
			kinds[i].turn();
	return 2;
}
