/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>

#include "cli/keys.h"

enum { OPT_PARENT = OPT_OWN };

static int print_result(struct cli *cli, const char *path, const struct reprise_verified *v)
{
	bool all = v->covers == REPRISE_DIGEST_ALL;
	char digest[2 * sizeof(v->digest) + 1];

	for (size_t i = 0; i < sizeof(v->digest); i++)
		snprintf(digest + 2 * i, 3, "%02x", v->digest[i]);
	if (cli->json)
		return print_json(cli, json_pack("{s:b, s:s, s:s}", "whole", 1, "digest", digest,
						 "digest_covers", all ? "all" : "state"));
	if (!cli->quiet) {
		print_escaped(stdout, path);
		printf(": whole and undamaged\ndigest %s, BLAKE2b-256 of %s\n", digest,
		       all ? "all" : "the state (contents of memory: XXH3 only)");
	}
	return EXIT_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"parent", required_argument, NULL, OPT_PARENT}, OPEN_OPTIONS, COMMON_OPTIONS};
	struct reprise_verified v = {.size = sizeof(v)};
	struct reprise_error e = {};
	struct keys keys = {};
	struct parents parents = {};
	int c, r, fd;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, options, NULL)) != -1)
		if (c == OPT_PARENT ? (r = add_parent(cli, &parents, optarg)) >= 0
				    : (r = key_option(cli, &keys, c)) > 0 ||
					      (r == 0 && (r = common_option(cli, c, argv)) >= 0))
			return r;
	if ((r = common_begin(cli, argv)) >= 0)
		return r;
	if (argc - optind != 1)
		return usage_error(cli, argc == optind ? "no image given" : "one image at a time");
	fd = open_image(cli, argv[optind]);
	if (fd < 0)
		return -fd;
	r = keys_open(cli, &keys, fd, &fd);
	if (r >= 0)
		return r;
	if (strcmp(argv[optind], "-") != 0)
		parents.v[parents.n] = argv[optind]; /* beside it */
	r = reprise_verify_digest(fd, parents.v, &v, &e);
	if (!keys.opening)
		close(fd);
	if (keys_explain(&keys, fd, &e) || r < 0)
		return library_error(cli, &e);
	return print_result(cli, argv[optind], &v);
}

const struct command verify_command = {
	.name = "verify",
	.arguments = "FILE",
	.summary = "Tell whether an image is whole and undamaged",
	.help = "Everything in it is read. FILE may be - for standard input. The exit status is 0 if\n"
		"the image is good and 1 if it is not. Of an incremental image all parents are read too.\n"
		"\n"
		"  --parent PATH       where parents are: a file or a directory. They are found\n"
		"                      beside the image as well\n" OPEN_HELP,
	.run = run,
};
