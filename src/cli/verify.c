/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>

#include "cli/keys.h"

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {OPEN_OPTIONS, COMMON_OPTIONS};
	struct reprise_error e = {};
	struct keys keys = {};
	int c, r, fd;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, options, NULL)) != -1)
		if ((r = key_option(cli, &keys, c)) > 0 ||
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
	r = reprise_verify(fd, &e);
	if (!keys.opening)
		close(fd);
	if (keys_explain(&keys, fd, &e) || r < 0)
		return library_error(cli, &e);
	if (cli->json)
		return print_json(cli, json_pack("{s:b}", "whole", 1));
	if (!cli->quiet) {
		print_escaped(stdout, argv[optind]);
		puts(": whole and undamaged");
	}
	return EXIT_OK;
}

const struct command verify_command = {
	.name = "verify",
	.arguments = "FILE",
	.summary = "Tell whether an image is whole and undamaged",
	.help = "Everything in it is read. FILE may be - for standard input. The exit status is 0 if\n"
		"the image is good and 1 if it is not.\n\n" OPEN_HELP,
	.run = run,
};
