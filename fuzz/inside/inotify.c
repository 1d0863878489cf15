/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/fs/inotify.c"

#include "../inside.h"

void fuzz_inotify(char *text)
{
	_cleanup_(scratch_free) struct scratch s = {};
	struct file_entry entry = {};
	const struct file_seen f = {.fdinfo = text, .entry = &entry};
	Reprise__Inotify m = REPRISE__INOTIFY__INIT;

	ignore(read_watches(&f, &m, &s, NULL), "either will do");
}
