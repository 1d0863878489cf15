/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CLI_REPLACE_H
#define REPRISE_CLI_REPLACE_H

#include "cli/cli.h"

struct replacements {
	struct reprise_replacement v[65]; /* the last has no object */
	const char *commands[65];	  /* to be started; NULL: none */
	size_t n;
};

/* Divides the text that it is given; -1 to go on, else the exit status. */
int add_replacement(struct cli *cli, struct replacements *all, char *arg);
int start_replacements(struct cli *cli, struct replacements *all);
/* Those who restart an application are not at the ends of its pipes. */
void close_replacements(struct replacements *all);

#endif
