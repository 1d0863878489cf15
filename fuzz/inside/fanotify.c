/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/fs/fanotify.c"

#include "../inside.h"

void fuzz_fanotify(char *text)
{
	_cleanup_(scratch_free) struct scratch s = {};
	struct fanotify_seen_group group = {};
	const struct file_seen f = {.fdinfo = text};
	Reprise__Fanotify m = REPRISE__FANOTIFY__INIT;

	ignore(read_marks(&f, &m, &group, &s, NULL), "either will do");
}
