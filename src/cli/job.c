/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"

/*
 * A restart in the foreground stands between the shell that started it and what
 * it restarted, and must be seen by neither. Two cases:
 *
 * - The root task is in our own process group. What the terminal sends (Ctrl-C,
 *   Ctrl-Z) reaches it by itself, and we only wait.
 * - It leads a process group of its own, because it was the job of a shell when
 *   it was saved. Then we do what a shell does for a job: give the terminal to
 *   the group (before it runs: to read in the background would stop it, or
 *   fail), take it back when the job stops or ends, stop as it did, so that our
 *   shell sees a stopped job, and let it go on when we go on.
 */
/*
 * Two things are told to nobody and must be looked for now and then: that the
 * root has stopped when the init of its namespace stands between us, and that
 * we are in the foreground since the user typed fg for a job that was running.
 */
#define LOOK_NS 100000000L

static bool in_foreground(const struct job *j)
{
	return j->tty >= 0 && tcgetpgrp(j->tty) == getpgrp();
}

static bool has_terminal(const struct job *j)
{
	return j->handed_over && tcgetpgrp(j->tty) == j->pgrp;
}

/* SIGTTOU is blocked, so that a process of the background group may do this too (tcsetpgrp(3)). */
static void give_terminal(struct job *j)
{
	if (!j->pgrp || !in_foreground(j))
		return;
	if (!j->have_ours)
		j->have_ours = tcgetattr(j->tty, &j->ours) == 0;
	if (j->have_theirs)
		tcsetattr(j->tty, TCSADRAIN, &j->theirs);
	/* EPERM if the group is in another session: then it has no business with our terminal. */
	if (tcsetpgrp(j->tty, j->pgrp) == 0)
		j->handed_over = true;
}

static void take_terminal(struct job *j, bool reset)
{
	if (!has_terminal(j))
		return;
	j->have_theirs = tcgetattr(j->tty, &j->theirs) == 0;
	tcsetpgrp(j->tty, getpgrp());
	if (reset && j->have_ours)
		tcsetattr(j->tty, TCSADRAIN, &j->ours);
}

static void continue_job(const struct job *j)
{
	kill(-j->pgrp, SIGCONT);
}

static void stop_ourselves(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	/*
	 * Our whole group, as the terminal does it: a pipeline that we are part of
	 * is one job to its shell. SIGSTOP was meant for one process only. The
	 * kernel discards the others in an orphaned group, which nobody could
	 * continue; then we come back at once, and the job goes on.
	 */
	kill(sig == SIGSTOP ? getpid() : 0, sig);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static void job_stopped(struct job *j, int sig)
{
	if (!j->pgrp || j->tty < 0)
		return;
	/* It wanted the terminal before it was given it. */
	if ((sig == SIGTTIN || sig == SIGTTOU) && (in_foreground(j) || has_terminal(j))) {
		give_terminal(j);
		continue_job(j);
		return;
	}
	take_terminal(j, true);
	stop_ourselves(sig);
	/* fg has put us in the foreground, bg has not. */
	give_terminal(j);
	continue_job(j);
}

/* State letter of the root, for when it is not our child. */
static char root_state(const struct job *j)
{
	char path[64], text[512];
	const char *p;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", j->root);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	p = strrchr(text, ')');
	return p && p[1] ? p[2] : 0;
}

static void forward(const struct job *j, const siginfo_t *info)
{
	int sig = info->si_signo;

	/* The terminal sends to its whole foreground group: a root in ours has had it, a group of
	 * its own has not. */
	if (info->si_code != SI_KERNEL)
		syscall(SYS_pidfd_send_signal, j->pidfd, sig, NULL, 0);
	else if (j->pgrp)
		kill(-j->pgrp, sig);
}

/* True when the job has ended; *ret_status is its wait status then. */
static bool look_at_child(struct job *j, int *ret_status)
{
	int status;
	pid_t r;

	for (;;) {
		r = waitpid(j->wait_for, &status, WNOHANG | WUNTRACED);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			/* Cannot happen: nobody else reaps our child. */
			*ret_status = W_EXITCODE(EXIT_FAILED, 0);
			return true;
		}
		if (r == 0)
			return false;
		if (!WIFSTOPPED(status)) {
			*ret_status = status;
			return true;
		}
		job_stopped(j, WSTOPSIG(status));
	}
}

static void waited_signals(const struct job *j, sigset_t *ret)
{
	static const int signals[] = {SIGCHLD, SIGCONT, SIGINT,	 SIGQUIT,
				      SIGTERM, SIGHUP,	SIGUSR1, SIGUSR2};

	sigemptyset(ret);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaddset(ret, signals[i]);
	/* Ctrl-Z while we hold the terminal is meant for the job, and we stop when it has. */
	if (j->pgrp)
		sigaddset(ret, SIGTSTP);
}

static void block_signals(const struct job *j, int how)
{
	sigset_t set;

	waited_signals(j, &set);
	sigaddset(&set, SIGTTOU);
	sigprocmask(how, &set, NULL);
}

static int next_signal(const struct job *j, const sigset_t *set, siginfo_t *info)
{
	const struct timespec look = {.tv_nsec = LOOK_NS};
	bool unseen_stop = j->wait_for != j->root;

	if (j->pgrp && j->tty >= 0 && (unseen_stop || !has_terminal(j)))
		return sigtimedwait(set, info, &look);
	return sigwaitinfo(set, info);
}

static int wait_for_end(struct job *j)
{
	siginfo_t info;
	sigset_t set;
	int status;

	waited_signals(j, &set);
	while (!look_at_child(j, &status)) {
		int sig = next_signal(j, &set, &info);

		if (sig < 0) {
			give_terminal(j);
			if (j->wait_for != j->root && root_state(j) == 'T')
				job_stopped(j, SIGTSTP);
		} else if (sig == SIGCONT) {
			give_terminal(j);
			if (j->pgrp)
				continue_job(j);
		} else if (sig != SIGCHLD) {
			forward(j, &info);
		}
	}
	return status;
}

void job_begin(struct job *j, const struct reprise_restarted *r)
{
	*j = (struct job){
		.wait_for = r->init ? r->init : r->pid,
		.root = r->pid,
		.pidfd = -1,
		.pgrp = r->pgrp == getpgrp() ? 0 : r->pgrp,
		.tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY),
	};
	block_signals(j, SIG_BLOCK);
	give_terminal(j);
}

void job_abandon(struct job *j)
{
	take_terminal(j, true);
	block_signals(j, SIG_UNBLOCK);
	if (j->tty >= 0)
		close(j->tty);
}

/* ioctl(2) on a pidfd, since 6.13; the exit status stays there after the task was reaped,
 * since 6.15. */
struct pidfd_exit {
	uint64_t mask, cgroup;
	uint32_t ids[11];
	int32_t status;
};
_Static_assert(sizeof(struct pidfd_exit) == 64, "the first version of struct pidfd_info");
#define PIDFD_INFO	 _IOWR(0xff, 11, struct pidfd_exit)
#define PIDFD_HAS_STATUS 8

/*
 * The init of a namespace can exit with a number only: it cannot be killed by a
 * signal from inside. Where the kernel still knows how the root ended, that is it.
 */
static int root_status(const struct job *j, int status)
{
	struct pidfd_exit info = {.mask = PIDFD_HAS_STATUS};

	if (j->wait_for == j->root || ioctl(j->pidfd, PIDFD_INFO, &info) < 0)
		return status;
	return info.mask & PIDFD_HAS_STATUS ? info.status : status;
}

int job_wait(struct job *j, int pidfd)
{
	int status;

	j->pidfd = pidfd;
	status = root_status(j, wait_for_end(j));
	/* What a program that ended by itself did to the terminal was on purpose. */
	take_terminal(j, WIFSIGNALED(status));
	if (j->tty >= 0)
		close(j->tty);
	return status;
}

int job_end(int wait_status)
{
	const struct rlimit none = {};
	sigset_t set;
	int sig;

	if (!WIFSIGNALED(wait_status))
		return WEXITSTATUS(wait_status);
	/* One core is enough, and it is not ours that tells anything. */
	sig = WTERMSIG(wait_status);
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	kill(getpid(), sig);
	return 128 + sig;
}
