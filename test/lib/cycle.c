/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cycle REPRISE IMAGE PID OPTION...: saves process PID, which is killed by that, and restarts it,
 * as often as the number says that comes by standard input, again and again; writes a byte when it
 * has done so. There is nothing else between: runs of 1,000 cycles, 24 at a time, are for the tool
 * and not for a script. The options are for the checkpoint. To be run where there is no other
 * process but pid 1.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Restarted programs become our children. */
static void reap(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static int run(const char **argv)
{
	int status;
	pid_t pid, ended;

	if (posix_spawn(&pid, argv[0], NULL, NULL, (char **)argv, environ)) {
		fprintf(stderr, "cycle: cannot execute %s\n", argv[0]);
		return -1;
	}
	do
		ended = waitpid(-1, &status, 0);
	while (ended != pid && (ended >= 0 || errno == EINTR));
	if (ended == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	fprintf(stderr, "cycle: %s: %s %d\n", argv[1],
		WIFEXITED(status) ? "exit status" : "killed by signal",
		WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	return -1;
}

static bool alone(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;
	bool others = !dir;

	while (dir && (d = readdir(dir)))
		if (isdigit((unsigned char)d->d_name[0]) && atoi(d->d_name) != 1 &&
		    atoi(d->d_name) != getpid())
			others = true;
	if (dir)
		closedir(dir);
	return !others;
}

/* Out of the way of the programs that are restarted, which have /dev/null. */
static int set_aside(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, 100), null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (high < 0 || null < 0 || dup2(null, fd) < 0)
		exit(2);
	close(null);
	return high;
}

static int cycle(const char **save, const char **restart, bool first)
{
	/* Who was the parent until now may be late to hear of it. */
	int tries = first ? 20 : 1, r = run(save);

	if (r < 0)
		return r;
	for (reap(); !alone(); reap())
		usleep(1000);
	while ((r = run(restart)) < 0 && --tries)
		usleep(100000);
	return r;
}

int main(int argc, char **argv)
{
	const char *save[64], *restart[] = {NULL, "restart", "-i", NULL, "-d", "-q", NULL};
	int n = 0, asked = set_aside(0), told = set_aside(1);
	bool first = true;
	uint32_t number;

	if (argc < 4 || argc > 40)
		return 2;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	save[n++] = restart[0] = argv[1];
	save[n++] = "checkpoint";
	save[n++] = argv[3];
	save[n++] = "-o";
	save[n++] = restart[3] = argv[2];
	save[n++] = "--kill";
	save[n++] = "--force";
	save[n++] = "-q";
	for (int i = 4; i < argc; i++)
		save[n++] = argv[i];
	save[n] = NULL;
	while (read(asked, &number, sizeof(number)) == sizeof(number)) {
		for (uint32_t i = 0; i < number; i++, first = false)
			if (cycle(save, restart, first) < 0)
				return 1;
		if (write(told, "", 1) != 1)
			return 1;
	}
	return 0;
}
