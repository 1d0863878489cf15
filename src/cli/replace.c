/* SPDX-License-Identifier: Apache-2.0 */
/* --replace OBJECT=WITH: what a restart puts in the place of open files. */
#include "cli/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM (sizeof(((struct replacements *)NULL)->v) / sizeof(struct reprise_replacement) - 1)

/* Names may hold "=": the first that a way to replace follows ends the name. */
static char *find_end(char *arg)
{
	static const char *const ways[] = {"fd:", "file:", "unix:", "exec:"};

	for (char *s = strchr(arg, '='); s; s = strchr(s + 1, '=')) {
		if (!strcmp(s + 1, "null"))
			return s;
		for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
			if (!strncmp(s + 1, ways[i], strlen(ways[i])))
				return s;
	}
	return NULL;
}

static int parse_fd(struct cli *cli, const char *s, int *ret)
{
	long n;

	if (parse_number(s, 0, INT_MAX, &n) < 0)
		return usage_error(cli, "'%s' is not the number of a descriptor", s);
	if (fcntl((int)n, F_GETFD) < 0)
		return usage_error(cli, "there is no descriptor %ld to replace anything with", n);
	*ret = (int)n;
	return -1;
}

int add_replacement(struct cli *cli, struct replacements *all, char *arg)
{
	struct reprise_replacement *x = &all->v[all->n];
	char *end = find_end(arg);
	const char *with = end ? end + 1 : "";
	int r;

	if (!end || end == arg || (strchr(with, ':') && !strchr(with, ':')[1]))
		return usage_error(
			cli,
			"--replace takes OBJECT=fd:N, OBJECT=file:PATH, OBJECT=unix:NAME, "
			"OBJECT=exec:COMMAND or OBJECT=null, not '%s'",
			arg);
	if (all->n >= ROOM)
		return usage_error(cli, "too many --replace");
	*end = '\0';
	x->object = arg;
	x->fd = -1;
	if (!strncmp(with, "fd:", 3)) {
		r = parse_fd(cli, with + 3, &x->fd);
		if (r >= 0)
			return r;
	} else if (!strncmp(with, "exec:", 5)) {
		all->commands[all->n] = with + 5;
	} else {
		x->with = strcmp(with, "null") ? with : "file:/dev/null";
	}
	all->n++;
	return -1;
}

/* Its standard input and output are one socket, whose other end the application gets. */
static int start(struct cli *cli, const char *command, int *ret)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return own_error(cli, "system", -errno, "socketpair: %s", strerrordesc_np(errno));
	pid = fork();
	if (pid == 0) {
		signal(SIGPIPE, SIG_DFL);
		if (dup2(pair[1], STDIN_FILENO) == STDIN_FILENO &&
		    dup2(pair[1], STDOUT_FILENO) == STDOUT_FILENO)
			execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	*ret = pair[0];
	return pid < 0 ? own_error(cli, "system", -errno, "cannot start %s", command) : -1;
}

int start_replacements(struct cli *cli, struct replacements *all)
{
	int r = -1;

	for (size_t i = 0; i < all->n && r < 0; i++)
		if (all->commands[i])
			r = start(cli, all->commands[i], &all->v[i].fd);
	return r;
}

void close_replacements(struct replacements *all)
{
	for (size_t i = 0; i < all->n; i++)
		if (all->v[i].fd > STDERR_FILENO)
			close(all->v[i].fd);
}
