/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/container.h"
#include "cli/verdict.h"

/* One line of reprise_kernel_features(): name, tab, "yes" or "no" or the reason why not. */
static void show_feature(const char *name, const char *value, json_t *all)
{
	if (!all)
		printf("%-28s%s\n", name, value);
	else if (!strcmp(value, "yes"))
		json_object_set_new(all, name, json_true());
	else if (!strcmp(value, "no"))
		json_object_set_new(all, name, json_false());
	else
		json_object_set_new(all, name, json_string(value));
}

static int show_features(struct cli *cli, json_t *all)
{
	char *text = NULL, *save = NULL;
	int r = reprise_kernel_features(&text);

	if (r < 0)
		return own_error(cli, "system", r, "cannot find out what the kernel offers: %s",
				 strerrordesc_np(-r));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *tab = strchr(line, '\t');

		if (tab)
			*tab = '\0';
		show_feature(line, tab ? tab + 1 : "", all);
	}
	free(text);
	return -1;
}

static int report(struct cli *cli, pid_t pid, int found)
{
	int status = found ? EXIT_FAILED : EXIT_OK;
	json_t *features = cli->json ? json_object() : NULL;
	int r;

	if (!pid || cli->verbose || cli->json) {
		r = show_features(cli, features);
		if (r >= 0)
			return r;
	}
	if (cli->json) {
		print_json(cli, json_pack("{s:b, s:i, s:O, s:o}", "ok", !found, "pid", (int)pid,
					  "problems", cli->problems, "kernel", features));
		return status;
	}
	if (cli->quiet)
		return status;
	if (found)
		printf("%d %s in the way\n", found, found == 1 ? "thing stands" : "things stand");
	else if (pid)
		printf("%d can be saved\n", pid);
	else
		printf("this kernel has all that is needed\n");
	return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {VERDICT_OPTIONS, COMMON_OPTIONS};
	struct reprise_checkpoint_options opt = {
		.size = sizeof(opt),
		.problem = on_problem,
		.arg = cli,
	};
	struct verdict verdict = {};
	struct reprise_error e = {};
	pid_t pid = 0;
	int c, r;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, options, NULL)) != -1)
		if ((r = verdict_option(cli, &verdict, c, argv, &opt)) >= 0)
			return r;
	if ((r = common_begin(cli, argv)) >= 0)
		return r;
	if (argc - optind > 1)
		return usage_error(cli, "one process at a time");
	if (argc > optind && (r = container_target(cli, argv[optind], &pid, &opt)) >= 0)
		return r;
	opt.trace = cli->log ? on_trace : NULL;
	r = reprise_check(pid, &opt, &e);
	return r < 0 ? library_error(cli, &e) : report(cli, pid, r);
}

const struct command check_command = {
	.name = "check",
	.arguments = "[PID|CONTAINER]",
	.summary = "Say what could not be saved and why, without touching the application",
	.help = "All that stands in the way of a checkpoint of PID and its descendants is listed, one line\n"
		"each. Without a PID, what this kernel offers is listed. The exit status is 1 if\n"
		"something stands in the way.\n"
		"\n"
		"  --tcp HOW           as for a checkpoint: refuse (the default) or closed\n"
		"  --unix HOW          as for a checkpoint: refuse (the default), disconnect or reconnect\n"
		"  --external OBJECT   as for a checkpoint\n"
		"  --deleted HOW       as for a checkpoint: refuse (the default), save or link\n"
		"  --inotify HOW       as for a checkpoint: refuse (the default) or overflow\n"
		"  --allow-leak WHAT   as for a checkpoint\n"
		"  --fs HOW            as for a checkpoint: image (the default) or none\n",
	.run = run,
};
