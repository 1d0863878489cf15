/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a container, and of what it leaves. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/container.h"

#define PATIENCE_S 10

static int parse_names(struct cli *cli, int argc, char **argv, long *patience)
{
	static const struct option options[] = {
		{"time", required_argument, NULL, 't'},
		COMMON_OPTIONS,
	};
	int c, r;

	while ((c = getopt_long(argc, argv, patience ? SHORT_OPTIONS "t:" : SHORT_OPTIONS,
				patience ? options : options + 1, NULL)) != -1) {
		if (c == 't' && patience) {
			if (parse_number(optarg, 0, 86400, patience) < 0)
				return usage_error(cli, "--time takes seconds, not '%s'", optarg);
		} else if ((r = common_option(cli, c, argv)) >= 0) {
			return r;
		}
	}
	if (argc == optind)
		return usage_error(cli, "no container given");
	return common_begin(cli, argv);
}

/* One document for all of them: so with --json the first that fails is the last. */
static int say(struct cli *cli, const char *what, char **names, int status)
{
	json_t *list;

	if (!cli->json || status != EXIT_OK)
		return status;
	list = json_array();
	for (; *names; names++)
		json_array_append_new(list, json_text(*names));
	return print_json(cli, json_pack("{s:o}", what, list));
}

static bool wait_for_end(int pidfd, long seconds)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, (int)seconds * 1000) > 0;
}

static int busy(struct cli *cli, const char *name)
{
	return own_error(cli, "container-state", -EWOULDBLOCK,
			 "container %s is being started or removed just now", name);
}

static int stop_one(struct cli *cli, const char *name, long patience)
{
	struct container_entry c;
	int r = container_load(name, &c), pidfd;
	bool running = r >= 0 && c.running;

	if (r < 0)
		return container_unread(cli, name, r);
	container_entry_free(&c);
	if (!running)
		return c.starting ? busy(cli, name) : EXIT_OK;
	pidfd = (int)syscall(SYS_pidfd_open, c.init, 0);
	if (pidfd < 0)
		return errno == ESRCH
			       ? EXIT_OK
			       : own_error(cli, "permission", -errno, "cannot stop %s", name);
	/* The first process hands it on to the command. */
	syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
	syscall(SYS_pidfd_send_signal, pidfd, SIGCONT, NULL, 0);
	if (!wait_for_end(pidfd, patience)) {
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
		if (!wait_for_end(pidfd, PATIENCE_S))
			r = own_error(cli, "container-state", -EBUSY,
				      "container %s does not end, not even by SIGKILL", name);
	}
	close(pidfd);
	return r < 0 ? EXIT_FAILED : r;
}

static int stop(struct cli *cli, int argc, char **argv)
{
	long patience = PATIENCE_S;
	int r = parse_names(cli, argc, argv, &patience), status = EXIT_OK;

	if (r >= 0)
		return r;
	for (int i = optind; i < argc && (!cli->json || status == EXIT_OK); i++)
		if (stop_one(cli, argv[i], patience) != EXIT_OK)
			status = EXIT_FAILED;
	return say(cli, "stopped", argv + optind, status);
}

static int remove_one(struct cli *cli, const char *name)
{
	int lock = container_good_name(name) ? container_lock(name, false) : -ENOENT, r = lock;
	struct container_entry c;

	if (lock == -EWOULDBLOCK)
		return busy(cli, name);
	/* It can neither be started nor be removed by others while it is looked at. */
	if (r >= 0)
		r = container_read(name, &c);
	if (r < 0) {
		container_unlock(&lock);
		return container_unread(cli, name, r);
	}
	container_entry_free(&c);
	if (c.running) {
		container_unlock(&lock);
		return own_error(cli, "container-state", -EBUSY,
				 "container %s is running; say reprise stop %s first", name, name);
	}
	r = container_remove(name);
	container_unlock(&lock);
	return r < 0 ? own_error(cli, "output", r, "cannot remove the files of %s: %s", name,
				 strerrordesc_np(-r))
		     : EXIT_OK;
}

static int rm(struct cli *cli, int argc, char **argv)
{
	int r = parse_names(cli, argc, argv, NULL), status = EXIT_OK;

	if (r >= 0)
		return r;
	for (int i = optind; i < argc && (!cli->json || status == EXIT_OK); i++)
		if (remove_one(cli, argv[i]) != EXIT_OK)
			status = EXIT_FAILED;
	return say(cli, "removed", argv + optind, status);
}

const struct command stop_command = {
	.name = "stop",
	.arguments = "NAME...",
	.summary = "End containers",
	.help = "Their commands are asked by SIGTERM, and killed when they do not end. Files stay.\n"
		"\n"
		"  -t, --time SECONDS  how long to wait before SIGKILL; 10 if not given\n",
	.run = stop,
};

const struct command rm_command = {
	.name = "rm",
	.arguments = "NAME...",
	.summary = "Remove what ended containers have left",
	.help = "Their files, such as they differ from those of the host, are removed.\n",
	.run = rm,
};
