/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli/container.h"
#include "cli/verdict.h"

enum {
	OPT_EVERY = OPT_OWN,
	OPT_KEEP,
	OPT_COMPRESS,
	OPT_NO_TRACK,
};

struct request {
	pid_t pid;
	const char *dir;
	struct reprise_checkpoint_options how;
	struct verdict verdict;
	struct reprise_watch_options opt;
	uint64_t images;
	unsigned long earlier; /* images in the directory */
};

#define STOP_TRIES 10

/* Written to by the handler, which can be told nothing else. */
static int stop_pipe[2] = {-1, -1};

static void on_stop(int sig)
{
	int saved = errno;
	ssize_t n = -1;

	errno = 0;
	(void)sig;
	/* A full one has told already. Nothing else hinders it; but an end that is not told never
	 * comes. */
	for (int tries = 0; n < 0 && errno != EAGAIN && tries < STOP_TRIES; tries++)
		n = write(stop_pipe[1], "", 1);
	errno = saved;
}

static int parse_option(struct cli *cli, struct request *q, int c, char **argv)
{
	long n;

	switch (c) {
	case 'd':
		q->dir = optarg;
		return -1;
	case 'j':
		return parse_jobs(cli, optarg);
	case OPT_EVERY:
		return parse_duration(cli, "--every", optarg, &q->opt.every_ns);
	case OPT_KEEP:
		if (parse_number(optarg, 1, 100, &n) < 0)
			return usage_error(cli, "--keep takes a number from 1 to 100, not '%s'",
					   optarg);
		q->opt.keep = (int)n;
		return -1;
	case OPT_COMPRESS:
		return parse_compress(cli, optarg, &q->how.compress, &q->how.compress_level);
	case OPT_NO_TRACK:
		q->opt.no_track = 1;
		return -1;
	default:
		return verdict_option(cli, &q->verdict, c, argv, &q->how);
	}
}

static int parse(struct cli *cli, struct request *q, int argc, char **argv)
{
	static const struct option options[] = {
		{"directory", required_argument, NULL, 'd'},
		{"jobs", required_argument, NULL, 'j'},
		{"every", required_argument, NULL, OPT_EVERY},
		{"keep", required_argument, NULL, OPT_KEEP},
		{"compress", required_argument, NULL, OPT_COMPRESS},
		{"no-track", no_argument, NULL, OPT_NO_TRACK},
		VERDICT_OPTIONS,
		COMMON_OPTIONS,
	};
	int c, r;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS "d:j:", options, NULL)) != -1)
		if ((r = parse_option(cli, q, c, argv)) >= 0)
			return r;
	if (argc - optind != 1)
		return usage_error(cli, argc == optind ? "no pid given" : "one process at a time");
	if (!q->dir || !*q->dir)
		return usage_error(cli, "no directory given: say -d DIR");
	r = container_target(cli, argv[optind], &q->pid, &q->how);
	return r >= 0 ? r : common_begin(cli, argv);
}

static unsigned long count_earlier(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *d;
	unsigned long number, n = 0;

	while (dir && (d = readdir(dir))) {
		int end = 0;

		n += sscanf(d->d_name, "%8lu.rp%n", &number, &end) == 1 && end && !d->d_name[end];
	}
	if (dir)
		closedir(dir);
	return n;
}

/* Nobody but the user knows whether those of an earlier one are still needed. */
static void tell_of_earlier(const struct cli *cli, const struct request *q)
{
	if (!q->earlier || cli->quiet || cli->json)
		return;
	fputs("reprise: warning: the directory ", stderr);
	print_escaped(stderr, q->dir);
	fprintf(stderr,
		" holds %lu %s of an earlier watch, which --keep does not count and nobody "
		"removes\n",
		q->earlier, q->earlier == 1 ? "image" : "images");
}

static void on_image(void *arg, const char *path, const struct reprise_stats *stats)
{
	struct cli *cli = arg;
	struct request *q = cli->request;
	char size[16], stood[16];

	if (!q->images++)
		tell_of_earlier(cli, q);
	log_line(cli, "image %s", path);
	if (!cli->verbose || cli->json)
		return;
	print_escaped(stdout, path);
	printf("  %s, stood still for %s\n", human_bytes(stats->image_bytes, size, sizeof(size)),
	       human_time(stats->frozen_ns, stood, sizeof(stood)));
	fflush(stdout);
}

static int watch(struct cli *cli, struct request *q)
{
	struct sigaction act = {.sa_handler = on_stop};
	struct reprise_error e = {};
	int r;

	if (pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
		return own_error(cli, "system", -errno, "pipe: %s", strerrordesc_np(errno));
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGHUP, &act, NULL);
	q->earlier = count_earlier(q->dir);
	q->opt.use_stop_fd = 1;
	q->opt.stop_fd = stop_pipe[0];
	r = reprise_watch(q->pid, q->dir, &q->opt, &e);
	if (r < 0)
		return library_error(cli, &e);
	if (cli->json)
		return print_json(cli, json_pack("{s:I, s:O}", "images", (json_int_t)q->images,
						 "warnings", cli->problems));
	return EXIT_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct request q = {
		.how = {.size = sizeof(q.how), .problem = on_problem, .arg = cli},
		.opt = {.size = sizeof(q.opt),
			.every_ns = 1000000000,
			.keep = 10,
			.checkpoint = &q.how,
			.image = on_image,
			.arg = cli},
	};
	int r = parse(cli, &q, argc, argv);

	if (r >= 0)
		return r;
	q.how.jobs = cli->jobs;
	q.how.trace = cli->log ? on_trace : NULL;
	cli->request = &q;
	signal(SIGPIPE, SIG_IGN);
	return watch(cli, &q);
}

const struct command watch_command = {
	.name = "watch",
	.arguments = "PID|CONTAINER -d DIR",
	.summary = "Save a process and its descendants again and again",
	.help = "Each image holds what has changed since the one before. It ends with the application, or\n"
		"by SIGINT, SIGTERM or SIGHUP, and leaves the application as it is.\n"
		"\n"
		"  -d, --directory DIR where images go, as 00000001.rp and so on\n"
		"  --every TIME        from one image to the next: 100ms, 1s (the default), 60s\n"
		"  --keep N            at least the last N images can be restarted (10); older ones are\n"
		"                      merged and removed\n"
		"  --compress HOW      none (the default), lz4[:LEVEL] or zstd[:LEVEL]\n"
		"  --no-track          compare all memory each time, instead of having the kernel take note\n"
		"                      of what is written\n"
		"  --tcp HOW, --unix HOW, --external OBJECT, --deleted HOW, --inotify HOW,\n"
		"  --allow-leak WHAT, --fs HOW\n"
		"                      as for checkpoint\n"
		"  -j, --jobs N        threads that copy memory; one a core is the default\n",
	.run = run,
};
