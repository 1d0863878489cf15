/* SPDX-License-Identifier: Apache-2.0 */
#include <unistd.h>

#include "cli/container.h"

static int parse(struct cli *cli, struct reprise_run_options *opt, int argc, char **argv)
{
	static const struct option options[] = {
		{"workdir", required_argument, NULL, 'w'},
		COMMON_OPTIONS,
	};
	int c, r;

	while ((c = getopt_long(argc, argv, "+" SHORT_OPTIONS "w:", options, NULL)) != -1) {
		if (c == 'w')
			opt->workdir = optarg;
		else if ((r = common_option(cli, c, argv)) >= 0)
			return r;
	}
	if (argc - optind < 2)
		return usage_error(
			cli, "say which container and which command: reprise exec NAME COMMAND...");
	return common_begin(cli, argv);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct reprise_run_options opt = {.size = sizeof(opt)};
	struct reprise_restarted result = {.size = sizeof(result), .pidfd = -1};
	struct reprise_error e = {};
	struct container_entry c;
	struct job job;
	pid_t init;
	int r = parse(cli, &opt, argc, argv);

	if (r >= 0)
		return r;
	argv += optind;
	r = container_running(cli, argv[0], &c);
	if (r >= 0)
		return r;
	init = c.init;
	container_entry_free(&c);
	if (reprise_exec(init, argv + 1, &opt, &result, &e) < 0)
		return library_error(cli, &e);
	result.init = 0;
	job_begin(&job, &result);
	return job_end(job_wait(&job, result.pidfd));
}

const struct command exec_command = {
	.name = "exec",
	.arguments = "NAME COMMAND...",
	.summary = "Run a further command in a container",
	.help = "Waits for the command, and ends with its exit status. While it runs, the container\n"
		"cannot be saved.\n"
		"\n"
		"  -w, --workdir DIR   working directory of the command\n",
	.run = run,
};
