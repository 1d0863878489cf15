/* SPDX-License-Identifier: Apache-2.0 */
#include "operation/stall.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/clocks.h"

#define NS_PER_MS 1000000

struct stall_page *stall_page_new(void)
{
	void *at = mmap(NULL, sizeof(struct stall_page), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

void stall_page_free(struct stall_page *page)
{
	if (page)
		munmap(page, sizeof(*page));
}

/* The number behind a name at the beginning of a line; 0: there is none. */
static uint64_t field(const char *status, const char *name)
{
	const char *at = strstr(status, name);

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* Does it sleep? Then how often it has done so is added. */
static bool thread_sleeps(int dir, const char *tid, uint64_t *switches)
{
	_cleanup_(close_fd) int fd = -EBADF;
	char path[64], text[4096];
	const char *state;
	ssize_t n;

	snprintf(path, sizeof(path), "%.20s/status", tid);
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	state = strstr(text, "\nState:\t");
	if (!state || !strchr("SD", state[8]))
		return false;
	*switches += field(text, "\nvoluntary_ctxt_switches:") +
		     field(text, "\nnonvoluntary_ctxt_switches:");
	return true;
}

static bool all_sleep(pid_t pid, uint64_t *switches)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	const struct dirent *d;
	char path[32];
	bool any = false;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		if (!thread_sleeps(dirfd(dir), d->d_name, switches))
			return false;
		any = true;
	}
	return any;
}

bool stall_seen(const struct stall_page *page, struct stall *s)
{
	uint64_t since = atomic_load(&page->since), now = clock_ns(CLOCK_MONOTONIC), switches = 0;
	uint64_t limit = (uint64_t)atomic_load(&page->limit_ms) * NS_PER_MS;

	/* Nothing is looked at before it is late. */
	if (!since || now - since < limit / 4 ||
	    !all_sleep(atomic_load(&page->worker), &switches)) {
		s->since = 0;
		return false;
	}
	if (!s->since || switches != s->switches) {
		s->since = now;
		s->switches = switches;
		return false;
	}
	return now - s->since >= limit;
}
