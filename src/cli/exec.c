/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli/attach.h"
#include "cli/container.h"

static int parse(struct cli *cli, struct reprise_run_options *opt, int argc, char **argv)
{
	static const struct option options[] = {
		{"workdir", required_argument, NULL, 'w'},
		{"interactive", no_argument, NULL, 'i'},
		{"tty", no_argument, NULL, 't'},
		COMMON_OPTIONS,
	};
	int c, r;

	while ((c = getopt_long(argc, argv, "+" SHORT_OPTIONS "w:it", options, NULL)) != -1) {
		if (c == 'w')
			opt->workdir = optarg;
		else if (c == 't')
			opt->terminal = 1;
		else if (c != 'i' && (r = common_option(cli, c, argv)) >= 0)
			return r;
	}
	if (argc - optind < 2)
		return usage_error(
			cli, "say which container and which command: reprise exec NAME COMMAND...");
	if (opt->terminal && (r = attach_possible(cli)) >= 0)
		return r;
	return common_begin(cli, argv);
}

/* The command may stand behind `--` there, as it may for others. */
static char **command_in(char **after_name)
{
	return strcmp(after_name[0], "--") == 0 && after_name[1] ? after_name + 1 : after_name;
}

/* A terminal of the container takes the place of the standard streams while the command starts. */
static int start_in_terminal(pid_t init, char **command, const struct reprise_run_options *opt,
			     struct reprise_restarted *result, int *ret_master,
			     struct reprise_error *e)
{
	int slave, saved[3], r;

	*ret_master = attach_new(init, &slave);
	if (*ret_master < 0)
		return *ret_master;
	attach_resize(*ret_master);
	for (int i = 0; i < 3; i++) {
		saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 3);
		dup2(slave, i);
	}
	close(slave);
	r = reprise_exec(init, command, opt, result, e);
	for (int i = 0; i < 3; i++) {
		dup2(saved[i], i);
		close(saved[i]);
	}
	return r;
}

static int start(struct cli *cli, pid_t init, char **command, const struct reprise_run_options *opt,
		 struct reprise_restarted *result, int *ret_master)
{
	struct reprise_error e = {};
	int r = opt->terminal ? start_in_terminal(init, command, opt, result, ret_master, &e)
			      : reprise_exec(init, command, opt, result, &e);

	if (r >= 0)
		return -1;
	return e.code[0] ? library_error(cli, &e)
			 : own_error(cli, "container-state", r,
				     "cannot make a terminal in the container: %s",
				     strerrordesc_np(-r));
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct reprise_run_options opt = {.size = sizeof(opt)};
	struct reprise_restarted result = {.size = sizeof(result), .pidfd = -1};
	struct container_entry c;
	struct job job;
	pid_t init;
	int master = -1, r = parse(cli, &opt, argc, argv);

	if (r >= 0)
		return r;
	argv += optind;
	r = container_running(cli, argv[0], &c);
	if (r >= 0)
		return r;
	init = c.init;
	container_entry_free(&c);
	r = start(cli, init, command_in(argv + 1), &opt, &result, &master);
	if (r >= 0)
		return r;
	result.init = 0;
	job_begin(&job, &result);
	if (master >= 0 && attach(master, result.pidfd) == ATTACH_DETACHED) {
		/* With its terminal it loses whoever sits there. */
		job_abandon(&job);
		return EXIT_OK;
	}
	return job_end(job_wait(&job, result.pidfd));
}

const struct command exec_command = {
	.name = "exec",
	.arguments = "NAME COMMAND...",
	.summary = "Run a further command in a container",
	.help = "Waits for the command, and ends with its exit status. While it runs, the container\n"
		"cannot be saved.\n"
		"\n"
		"  -it, --tty          give it a terminal in the container, and attach this one to it\n"
		"  -w, --workdir DIR   working directory of the command\n",
	.run = run,
};
