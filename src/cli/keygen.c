/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* Keys are replaced by nobody: what they signed or opened would be lost. */
static int exists(struct cli *cli, const char *path)
{
	struct reprise_error e = {.err = -EEXIST, .code = "output-exists"};

	snprintf(e.text, sizeof(e.text), "%.1000s: exists already; choose another name [%s]", path,
		 e.code);
	return library_error(cli, &e);
}

static int write_new(struct cli *cli, const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, mode), err = 0;

	if (fd < 0 && errno == EEXIST)
		return exists(cli, path);
	if (fd < 0)
		return own_error(cli, "output", -errno, "cannot make %s: %s", path,
				 strerrordesc_np(errno));
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) < 0)
		err = -errno;
	close(fd);
	if (!err)
		return -1;
	unlink(path);
	return own_error(cli, "output", err, "cannot write %s: %s", path, strerrordesc_np(-err));
}

static int make(struct cli *cli, const char *path)
{
	char *secret, *public_keys, name[PATH_MAX];
	struct reprise_error e = {};
	int r;

	if (snprintf(name, sizeof(name), "%s.pub", path) >= (int)sizeof(name))
		return usage_error(cli, "the name is too long");
	if (reprise_new_keys(&secret, &public_keys, &e) < 0)
		return library_error(cli, &e);
	r = write_new(cli, path, secret, 0600);
	if (r < 0) {
		r = write_new(cli, name, public_keys, 0644);
		if (r >= 0)
			unlink(path);
	}
	explicit_bzero(secret, strlen(secret));
	free(secret);
	free(public_keys);
	if (r < 0 && cli->json)
		return print_json(cli, json_pack("{s:o, s:o}", "secret", json_text(path), "public",
						 json_text(name)));
	return r >= 0 ? r : EXIT_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {COMMON_OPTIONS};
	int c, r;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, options, NULL)) != -1)
		if ((r = common_option(cli, c, argv)) >= 0)
			return r;
	if (argc - optind != 1 || !*argv[optind])
		return usage_error(cli, "say where the key is to go: reprise keygen FILE");
	r = common_begin(cli, argv);
	return r >= 0 ? r : make(cli, argv[optind]);
}

const struct command keygen_command = {
	.name = "keygen",
	.arguments = "FILE",
	.summary = "Make keys to sign and to encrypt images",
	.help = "FILE gets the secret keys (mode 0600), FILE.pub the public ones. With the secret keys images\n"
		"are signed, and opened when they are encrypted; with the public ones they are encrypted,\n"
		"and trusted when they are signed.\n\n",
	.run = run,
};
