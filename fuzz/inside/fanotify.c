/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/fs/fanotify.c"

#include "../inside.h"

void fuzz_fanotify(char *text)
{
	_cleanup_(scratch_free) struct scratch s = {};
	struct file_entry entry = {};
	const struct file_seen f = {.fdinfo = text, .entry = &entry};
	Reprise__Fanotify m = REPRISE__FANOTIFY__INIT;

	ignore(read_marks(&f, &m, &s, NULL), "either will do");
}
