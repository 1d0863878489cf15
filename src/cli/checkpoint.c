/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/container.h"
#include "cli/verdict.h"
#include "cli/keys.h"

enum {
	OPT_KILL = OPT_OWN,
	OPT_STOP,
	OPT_FORCE,
	OPT_COMPRESS,
	OPT_DIGEST,
	OPT_MAX_FREEZE,
	OPT_PATIENCE,
	OPT_PARENT
};

struct request {
	pid_t pid;
	const char *output;
	bool force;
	struct keys keys;
	struct parents parents;
	struct verdict verdict;
	struct reprise_checkpoint_options opt;
	struct reprise_stats stats;
};

static int parse_digest(struct cli *cli, const char *s, struct reprise_checkpoint_options *opt)
{
	if (!strcmp(s, "state"))
		opt->digest = REPRISE_DIGEST_STATE;
	else if (!strcmp(s, "all"))
		opt->digest = REPRISE_DIGEST_ALL;
	else
		return usage_error(cli, "--digest takes state or all, not '%s'", s);
	return -1;
}

static int parse_after(struct cli *cli, struct request *q, enum reprise_after after)
{
	if (q->opt.after != REPRISE_AFTER_RUN && q->opt.after != after)
		return usage_error(cli, "--kill and --stop exclude each other");
	q->opt.after = after;
	return -1;
}

static int parse_patience(struct cli *cli, const char *s, int *ret_ms)
{
	uint64_t ns;
	int r = parse_duration(cli, "--patience", s, &ns);

	/* Not 0, which stands for the default. */
	if (r < 0)
		*ret_ms = ns < 1000000 ? 1 : ns / 1000000 > INT_MAX ? INT_MAX : (int)(ns / 1000000);
	return r;
}

static int parse_option(struct cli *cli, struct request *q, int c, char **argv)
{
	switch (c) {
	case 'o':
		q->output = optarg;
		return -1;
	case 'j':
		return parse_jobs(cli, optarg);
	case OPT_KILL:
		return parse_after(cli, q, REPRISE_AFTER_KILL);
	case OPT_STOP:
		return parse_after(cli, q, REPRISE_AFTER_STOP);
	case OPT_MAX_FREEZE:
		return parse_duration(cli, "--max-freeze", optarg, &q->opt.max_freeze_ns);
	case OPT_PATIENCE:
		return parse_patience(cli, optarg, &q->opt.freeze_timeout_ms);
	case OPT_FORCE:
		q->force = true;
		return -1;
	case OPT_COMPRESS:
		return parse_compress(cli, optarg, &q->opt.compress, &q->opt.compress_level);
	case OPT_PARENT:
		q->opt.parents = q->parents.v;
		return add_parent(cli, &q->parents, optarg);
	case OPT_DIGEST:
		return parse_digest(cli, optarg, &q->opt);
	default:
		return verdict_option(cli, &q->verdict, c, argv, &q->opt);
	}
}

static int parse(struct cli *cli, struct request *q, int argc, char **argv)
{
	static const struct option options[] = {
		{"output", required_argument, NULL, 'o'},
		{"jobs", required_argument, NULL, 'j'},
		{"kill", no_argument, NULL, OPT_KILL},
		{"stop", no_argument, NULL, OPT_STOP},
		{"force", no_argument, NULL, OPT_FORCE},
		{"max-freeze", required_argument, NULL, OPT_MAX_FREEZE},
		{"patience", required_argument, NULL, OPT_PATIENCE},
		{"parent", required_argument, NULL, OPT_PARENT},
		{"compress", required_argument, NULL, OPT_COMPRESS},
		{"digest", required_argument, NULL, OPT_DIGEST},
		VERDICT_OPTIONS,
		SEAL_OPTIONS,
		COMMON_OPTIONS,
	};
	int c, r;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS "o:j:", options, NULL)) != -1)
		if ((r = key_option(cli, &q->keys, c)) > 0 ||
		    (r == 0 && (r = parse_option(cli, q, c, argv)) >= 0))
			return r;
	q->opt.seal = keys_to_seal(&q->keys);
	if (argc == optind)
		return usage_error(cli, "no pid given");
	if (argc - optind > 1)
		return usage_error(cli, "one process at a time: its descendants come along");
	if ((r = container_target(cli, argv[optind], &q->pid, &q->opt)) >= 0)
		return r;
	if (q->opt.max_freeze_ns && q->opt.after != REPRISE_AFTER_RUN)
		return usage_error(cli, "--max-freeze is for an application that goes on running");
	if (q->opt.parents && q->opt.seal)
		return usage_error(cli, "--parent is for images that are neither signed nor "
					"encrypted");
	r = check_output(cli, q->output);
	if (r >= 0)
		return r;
	keys_warn(cli, &q->keys);
	return common_begin(cli, argv);
}

static int save(struct cli *cli, struct request *q, struct reprise_error *e)
{
	int fd = open_stream(cli, q->output), r;

	if (fd == -ENOENT)
		return reprise_checkpoint_file(q->pid, q->output, q->force, &q->opt, e);
	if (fd < 0)
		return fd;
	r = reprise_checkpoint(q->pid, fd, &q->opt, e);
	close(fd);
	return r;
}

/* For `reprise ps`; the image is there in any case. */
static void note_checkpoint(const struct request *q)
{
	struct container_entry c;

	if (!q->opt.container || !strcmp(q->output, "-") ||
	    container_load(q->opt.container, &c) < 0)
		return;
	free(c.checkpoint);
	c.checkpoint = realpath(q->output, NULL);
	container_save(&c);
	container_entry_free(&c);
}

static void report(struct cli *cli, const struct request *q)
{
	static const char *const after[] = {"run", "stop", "kill"};

	if (cli->json)
		print_json(cli, json_pack("{s:i, s:o, s:s, s:o}", "pid", (int)q->pid, "image",
					  json_text(q->output), "after", after[q->opt.after],
					  "figures", figures_json(&q->stats, FIGURES_CHECKPOINT)));
	else if (cli->verbose)
		print_figures(&q->stats, FIGURES_CHECKPOINT);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct request q = {
		.opt =
			{
				.size = sizeof(q.opt),
				.progress = on_progress,
				.problem = on_problem,
				.arg = cli,
				.stats = &q.stats,
			},
	};
	struct reprise_error e = {};
	int r = parse(cli, &q, argc, argv);

	if (r >= 0)
		return r;
	q.opt.jobs = cli->jobs;
	q.opt.trace = cli->log ? on_trace : NULL;
	/* A reader that goes away is an error with a name, not our death. */
	signal(SIGPIPE, SIG_IGN);
	progress_begin(cli);
	r = save(cli, &q, &e);
	progress_end(cli);
	if (r < 0)
		return e.code[0] ? library_error(cli, &e) : EXIT_FAILED;
	note_checkpoint(&q);
	report(cli, &q);
	return EXIT_OK;
}

const struct command checkpoint_command = {
	.name = "checkpoint",
	.arguments = "PID|CONTAINER -o FILE",
	.summary = "Save a process and its descendants as an image",
	.help = "The application goes on running, unless --kill or --stop is given.\n"
		"\n"
		"  -o, --output FILE   the image; - is standard output\n"
		"  --kill              kill the application once the image is complete\n"
		"  --stop              leave the application stopped (SIGCONT makes it go on)\n"
		"  --max-freeze TIME   copy memory while the application runs, and fail rather than let it\n"
		"                      stand still for longer than that (5ms, 500us)\n"
		"  --patience TIME     how long to wait for a task that does not come to a stop (10s)\n"
		"  --force             replace FILE if it exists\n"
		"  --parent IMAGE      store only what is not in this image; given again, where its own\n"
		"                      parents are (files or directories)\n"
		"  --compress HOW      none (the default), lz4[:LEVEL] or zstd[:LEVEL]\n"
		"  --digest WHAT       what the digest covers by BLAKE2b: the state (the default; contents of\n"
		"                      memory by checksums, against accidents), or all (the default of an image\n"
		"                      that is signed or encrypted)\n"
		"  --deleted=HOW       a removed file with another name that is not found:\n"
		"                      refuse (the default), save its contents, or link a new name\n"
		"  --inotify HOW       unread events that cannot be saved: refuse (the default), or tell\n"
		"                      the application that they were lost (overflow)\n"
		"  --tcp HOW           TCP connections: refuse (the default), or have them come back\n"
		"                      closed\n"
		"  --fs HOW            of a container: the files that it wrote go into the image (the default),\n"
		"                      or stay where they are (none), and the restart goes on with them\n"
		"  --allow-leak WHAT   of a container: what processes outside may use of it, pipe, socket, file,\n"
		"                      memory, namespace, all, or an object such as pipe:[123]; program:\n"
		"                      BPF programs of its control groups need not come back\n"
		"  --unix HOW          Unix sockets connected to processes outside: refuse (the default),\n"
		"                      have them come back disconnected, or reconnect them by name\n"
		"  --external OBJECT   leave out an open file, which is outside: /dev/fuse, 'pipe:[123]',\n"
		"                      unix:/run/db.sock, tcp:192.0.2.1:80, pid:1234/fd:5; the restart is given\n"
		"                      something in its place\n"
		"  --sign KEY          sign the image with this secret key (see `reprise help keygen`)\n"
		"  --encrypt KEY       for the owner of this public key; may be given several times\n"
		"  --passphrase-file F for those who know the pass phrase: the first line of F\n"
		"  -j, --jobs N        threads that copy memory; one a core is the default\n",
	.run = run,
};
