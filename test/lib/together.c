/* SPDX-License-Identifier: Apache-2.0 */
/*
 * together TURNS IMAGE DIRECTORY PID...: one program uses the library for several things at once,
 * each in a thread of its own: it saves each process PID to DIRECTORY, reads the image, restarts
 * it, and checks the first process, TURNS times. JOBS in the environment: threads of each
 * operation.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "quiet_fork.h"
#include "reprise.h"

#define STACK (8 << 20)

struct job {
	pthread_t thread;
	void (*turn)(struct job *);
	const char *image;
	char path[4096];
	pid_t pid;
	int turns, progress;
};

static atomic_int failed;
static int jobs_each;
static pthread_barrier_t all_sit;

static void note(const char *what, int r, const struct reprise_error *e)
{
	if (r >= 0)
		return;
	failed++;
	fprintf(stderr, "%s: %s\n", what, e->text);
}

static void count(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	((struct job *)arg)->progress++;
}

static void save(struct job *j)
{
	const struct reprise_checkpoint_options opt = {
		.size = sizeof(opt), .jobs = jobs_each, .progress = count, .arg = j};
	struct reprise_error e = {};

	note("checkpoint", reprise_checkpoint_file(j->pid, j->path, 1, &opt, &e), &e);
}

static int open_image(const struct job *j)
{
	int fd = open(j->image, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		perror(j->image);
		exit(2);
	}
	return fd;
}

static void look(struct job *j)
{
	struct reprise_error e = {};
	char *text = NULL;
	int fd = open_image(j), r = reprise_inspect(fd, &text, &e);

	note("inspect", r, &e);
	free(text);
	lseek(fd, 0, SEEK_SET);
	note("verify", reprise_verify(fd, &e), &e);
	lseek(fd, 0, SEEK_SET);
	text = NULL;
	note("plan", reprise_plan(fd, &text, &e), &e);
	free(text);
	close(fd);
}

static void restart(struct job *j)
{
	const struct reprise_restart_options opt = {.size = sizeof(opt),
						    .jobs = jobs_each,
						    .pidns = 1,
						    .privileged = 1,
						    .progress = count,
						    .arg = j};
	struct reprise_restarted result = {.size = sizeof(result)};
	struct reprise_error e = {};
	int fd = open_image(j), r = reprise_restart(fd, &opt, &result, &e);

	close(fd);
	note("restart", r, &e);
	if (r < 0)
		return;
	kill(result.init, SIGKILL);
	if (waitpid(result.init, NULL, 0) != result.init)
		note("wait", -1, &(struct reprise_error){.text = "no such child"});
	close(result.pidfd);
}

static void check(struct job *j)
{
	struct reprise_error e = {};
	char *text = NULL;

	/* It may be being saved; that is a problem, and no failure. */
	note("check", reprise_check(j->pid, NULL, &e), &e);
	note("features", reprise_kernel_features(&text), &e);
	free(text);
}

/*
 * With a stack of its own: the thread sanitizer knows threads by their stacks, and would take a
 * thread of a worker, which is forked, for one of ours if it got ours.
 */
static int begin(struct job *j, void *(*work)(void *))
{
	void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attr;

	if (stack == MAP_FAILED || pthread_attr_init(&attr) ||
	    pthread_attr_setstack(&attr, stack, STACK))
		return -1;
	return pthread_create(&j->thread, &attr, work, j) ? -1 : 0;
}

static void *work(void *arg)
{
	struct job *j = arg;

	quiet_fork_sit();
	pthread_barrier_wait(&all_sit);
	for (int i = 0; i < j->turns; i++)
		j->turn(j);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct job jobs[16];
	int n = 0;

	if (argc < 5 || argc > 12)
		return 2;
	jobs_each = getenv("JOBS") ? atoi(getenv("JOBS")) : 0;
	for (int i = 4; i < argc; i++, n++) {
		jobs[n] = (struct job){.turn = save, .pid = atoi(argv[i])};
		snprintf(jobs[n].path, sizeof(jobs[n].path), "%s/%d.rp", argv[3], n);
	}
	jobs[n++].turn = look;
	jobs[n++].turn = restart;
	jobs[n++] = (struct job){.turn = check, .pid = jobs[0].pid};
	quiet_fork_sit();
	if (pthread_barrier_init(&all_sit, NULL, n))
		return 2;
	for (int i = 0; i < n; i++) {
		jobs[i].image = argv[2];
		jobs[i].turns = atoi(argv[1]);
		if (begin(&jobs[i], work) < 0)
			return 2;
	}
	for (int i = 0; i < n; i++)
		pthread_join(jobs[i].thread, NULL);
	return failed != 0;
}
