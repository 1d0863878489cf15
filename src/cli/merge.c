/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { OPT_FORCE = OPT_OWN, OPT_PARENT, OPT_COMPRESS };

struct request {
	const char *output;
	bool force;
	struct parents parents;
	struct reprise_merge_options opt;
	struct reprise_stats stats;
};

static int parse_option(struct cli *cli, struct request *q, int c, char **argv)
{
	switch (c) {
	case 'o':
		q->output = optarg;
		return -1;
	case 'j':
		return parse_jobs(cli, optarg);
	case OPT_FORCE:
		q->force = true;
		return -1;
	case OPT_PARENT:
		return add_parent(cli, &q->parents, optarg);
	case OPT_COMPRESS:
		return parse_compress(cli, optarg, &q->opt.compress, &q->opt.compress_level);
	default:
		return common_option(cli, c, argv);
	}
}

static int parse(struct cli *cli, struct request *q, int argc, char **argv)
{
	static const struct option options[] = {
		{"output", required_argument, NULL, 'o'},
		{"jobs", required_argument, NULL, 'j'},
		{"force", no_argument, NULL, OPT_FORCE},
		{"parent", required_argument, NULL, OPT_PARENT},
		{"compress", required_argument, NULL, OPT_COMPRESS},
		COMMON_OPTIONS,
	};
	int c, r;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS "o:j:", options, NULL)) != -1)
		if ((r = parse_option(cli, q, c, argv)) >= 0)
			return r;
	if (argc - optind != 1)
		return usage_error(cli, argc == optind ? "no image given" : "one image at a time");
	if (!strcmp(argv[optind], "-"))
		return usage_error(cli, "what is merged has to be a file, with its parents beside");
	r = check_output(cli, q->output);
	return r >= 0 ? r : common_begin(cli, argv);
}

static int merge(struct cli *cli, const struct request *q, const char *image,
		 struct reprise_error *e)
{
	int fd = open_stream(cli, q->output), r;

	if (fd == -ENOENT)
		return reprise_merge(image, q->output, q->force, &q->opt, e);
	if (fd < 0)
		return fd;
	r = reprise_merge_fd(image, fd, &q->opt, e);
	close(fd);
	return r;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct request q = {.opt = {.size = sizeof(q.opt), .stats = &q.stats}};
	struct reprise_error e = {};
	int r = parse(cli, &q, argc, argv);

	if (r >= 0)
		return r;
	q.opt.jobs = cli->jobs;
	q.opt.parents = q.parents.v;
	signal(SIGPIPE, SIG_IGN);
	r = merge(cli, &q, argv[optind], &e);
	if (r < 0)
		return e.code[0] ? library_error(cli, &e) : EXIT_FAILED;
	if (cli->json)
		return print_json(cli, json_pack("{s:o, s:I, s:I}", "image", json_text(q.output),
						 "image_bytes", (json_int_t)q.stats.image_bytes,
						 "memory_bytes", (json_int_t)q.stats.memory_bytes));
	return EXIT_OK;
}

const struct command merge_command = {
	.name = "merge",
	.arguments = "IMAGE -o FILE",
	.summary = "Make an incremental image and its parents into one image",
	.help = "The new image is complete in itself, and takes the place of IMAGE also for those that\n"
		"are based on it. All that goes into it is verified.\n"
		"\n"
		"  -o, --output FILE   the new image, - for standard output; IMAGE itself with --force\n"
		"  --force             replace FILE if it exists\n"
		"  --parent PATH       where parents are: a file or a directory. They are found\n"
		"                      beside the image as well\n"
		"  --compress HOW      none (the default), lz4[:LEVEL] or zstd[:LEVEL]\n"
		"  -j, --jobs N        threads; one a core is the default\n",
	.run = run,
};
