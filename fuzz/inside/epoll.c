/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/fs/epoll.c"

#include "../inside.h"

void fuzz_epoll(char *text)
{
	Reprise__EpollEntry m = REPRISE__EPOLL_ENTRY__INIT;
	struct epoll_seen seen = {};
	const char *at = text;

	(void)count_entries(text);
	for (; fdinfo_find_line(&at, "tfd:"); fdinfo_skip_line(&at))
		(void)parse_entry(at, &m, &seen);
}
