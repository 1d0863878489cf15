/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CLI_VERDICT_H
#define REPRISE_CLI_VERDICT_H

#include "cli/cli.h"

/* Options on which it depends whether something can be saved: checkpoint, check and watch have
 * them. */
enum {
	OPT_TCP = OPT_OWN + 200, /* behind those of the commands, and of keys.h */
	OPT_UNIX,
	OPT_EXTERNAL,
	OPT_DELETED,
	OPT_INOTIFY,
	OPT_ALLOW_LEAK,
	OPT_FS
};

/* clang-format off */
#define VERDICT_OPTIONS                                         \
	{ "tcp", required_argument, NULL, OPT_TCP },            \
	{ "unix", required_argument, NULL, OPT_UNIX },          \
	{ "external", required_argument, NULL, OPT_EXTERNAL },  \
	{ "deleted", required_argument, NULL, OPT_DELETED },    \
	{ "inotify", required_argument, NULL, OPT_INOTIFY },    \
	{ "allow-leak", required_argument, NULL, OPT_ALLOW_LEAK }, \
	{ "fs", required_argument, NULL, OPT_FS }
/* clang-format on */

/* What was named by several options of a kind. */
struct named {
	const char *v[66]; /* NULL at the end */
	size_t n;
};

struct verdict {
	struct named externals, leaks;
};

/* Takes one of them, or else one that every command has: -1 to go on, else the exit status. */
int verdict_option(struct cli *cli, struct verdict *v, int c, char **argv,
		   struct reprise_checkpoint_options *opt);

#endif
