/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

const struct command *const commands[] = {
	&checkpoint_command,
	&restart_command,
	&check_command,
	&inspect_command,
	&verify_command,
	&explain_command,
	&run_command,
	&ps_command,
	&exec_command,
	&attach_command,
	&stop_command,
	&rm_command,
	&keygen_command,
	&merge_command,
	&watch_command,
	&help_command,
	NULL,
};

const struct command *command_by_name(const char *name)
{
	for (const struct command *const *c = commands; *c; c++)
		if (!strcmp((*c)->name, name))
			return *c;
	return NULL;
}

/* They give their streams to what they start, and print little. */
static bool hands_over_streams(const char *command)
{
	return command &&
	       (!strcmp(command, "restart") || !strcmp(command, "run") || !strcmp(command, "exec"));
}

/*
 * A descriptor that we open must never become a standard stream by accident. What we print is not
 * lost unseen: to write to a standard output that was closed fails as before.
 */
static void fill_standard_streams(const char *command)
{
	const int mode = hands_over_streams(command) ? O_RDWR : O_RDONLY;
	int fd;

	do
		fd = open("/dev/null", fcntl(STDIN_FILENO, F_GETFD) < 0 ? O_RDWR : mode);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static int run(struct cli *cli, int argc, char **argv)
{
	if (argc < 2)
		return usage_error(cli, "no command given");
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("reprise %s\n", reprise_version());
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return print_overview();
	cli->command = command_by_name(argv[1]);
	if (!cli->command)
		return usage_error(cli, "there is no command '%s'", argv[1]);
	return cli->command->run(cli, argc - 1, argv + 1);
}

/* A document is complete, or it is not printed; what is done ends with us as if we were killed. */
static void *json_memory(size_t size)
{
	static const char text[] =
		"reprise: no memory for the JSON document; free some memory and try again "
		"[no-memory]\n";
	void *p = malloc(size);

	if (!p) {
		if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
			_exit(EXIT_FAILED); /* nobody else can be told */
		_exit(EXIT_FAILED);
	}
	return p;
}

/* What was done is done: a trace that is not complete changes nothing of that. */
static void close_log(struct cli *cli)
{
	int bad = ferror(cli->log);

	if ((fclose(cli->log) || bad) && !cli->json)
		fprintf(stderr, "reprise: warning: the log file is not complete: %s\n",
			bad ? "it could not be written to" : strerrordesc_np(errno));
}

int main(int argc, char **argv)
{
	struct cli cli = {.json_out = stdout, .lock = PTHREAD_MUTEX_INITIALIZER};
	int status;

	fill_standard_streams(argc > 1 ? argv[1] : NULL);
	/* Inherited as ignored, it would make the kernel reap our children unseen. */
	signal(SIGCHLD, SIG_DFL);
	json_set_alloc_funcs(json_memory, free);
	/* Complaints are ours, and in one form. */
	opterr = 0;
	/* An error in the very option before --json is one JSON object as well. */
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--json"))
			cli.json = true;
	status = run(&cli, argc, argv);
	if ((fflush(stdout) || ferror(stdout)) && status == EXIT_OK) {
		cli.json = false;
		status = own_error(&cli, "output", -errno, "cannot write to standard output: %s",
				   strerrordesc_np(errno));
	}
	log_line(&cli, "exit status %d", status);
	if (cli.log)
		close_log(&cli);
	json_decref(cli.problems);
	return status;
}
