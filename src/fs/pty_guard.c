/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard of what is taken out of pseudo-terminals: a process in a session of its own, to which
 * neither signals of a terminal nor the end of its parent mean anything. What it has taken it puts
 * back at once. Were there none, whoever kills a checkpoint might take bytes from the application.
 */
#include "fs/pty_guard.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_S 20

struct pty_job *pty_jobs_new(size_t n)
{
	void *at = mmap(NULL, n * sizeof(struct pty_job), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

void pty_jobs_free(struct pty_job *jobs, size_t n)
{
	if (jobs)
		munmap(jobs, n * sizeof(*jobs));
}

static void do_job(struct pty_job *job)
{
	int r = pty_sides_open(&job->sides), back;

	if (r >= 0) {
		r = pty_queue_take(&job->sides, &job->queue);
		back = pty_queue_put(&job->sides, &job->queue);
		if (r >= 0)
			r = back;
	}
	pty_sides_close(&job->sides);
	job->result = r;
}

static void interrupt(int sig)
{
}

/* Others may hold a master, and leave nothing to be read by us, who would wait for it. */
static void be_patient(void)
{
	const struct sigaction act = {.sa_handler = interrupt};
	const struct itimerval soon = {{1, 0}, {PATIENCE_S, 0}};
	sigset_t blocked;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGALRM);
	sigaction(SIGALRM, &act, NULL);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
}

int pty_guard_run(struct pty_job *jobs, size_t n)
{
	int status;
	pid_t pid;

	for (size_t i = 0; i < n; i++)
		jobs[i].result = -EINTR;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		be_patient();
		setsid();
		for (size_t i = 0; i < n; i++)
			do_job(&jobs[i]);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}
