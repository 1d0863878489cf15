/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_OUTPUT_H
#define REPRISE_OPERATION_OUTPUT_H

#include <stdbool.h>

#include "core/error.h"

/*
 * An image under its final name is complete or does not exist: it is written to
 * a file without a name (O_TMPFILE, which vanishes with us), or under a temporary one where the
 * file system knows no such files, then synced and linked.
 */
struct output {
	int fd, dir;
	char *path;	 /* as it was given, for messages */
	char *name;	 /* in dir */
	char *temporary; /* NULL: the file has no name yet */
	bool replace;
};
#define OUTPUT_INIT                 \
	{                           \
		.fd = -1, .dir = -1 \
	}

int output_open(struct output *o, const char *path, bool replace, struct error *e) must_check;
int output_commit(struct output *o, struct error *e) must_check; /* closes and frees */
void output_abandon(struct output *o);				 /* removes, closes and frees */

#endif
