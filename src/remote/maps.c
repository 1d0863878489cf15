/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/maps.h"

#include <stdlib.h>
#include <errno.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/batch.h"

#define USER_END (1ULL << 47)

/* Skips n fields. */
static const char *skip(const char *at, int n)
{
	while (n-- > 0) {
		at += strcspn(at, " \n");
		at += strspn(at, " ");
	}
	return at;
}

/* "start-end perms offset dev inode   name". */
static bool parse_line(const char *line, const char *eol, struct map_entry *m)
{
	const char *perms, *name;
	char *at;
	size_t len;

	*m = (struct map_entry){};
	m->start = strtoull(line, &at, 16);
	if (*at != '-')
		return false;
	m->end = strtoull(at + 1, &at, 16);
	perms = at + 1;
	if (*at != ' ' || eol - perms < 4)
		return false;
	m->perms = (perms[0] == 'r' ? MAP_READ : 0) | (perms[1] == 'w' ? MAP_WRITE : 0) |
		   (perms[2] == 'x' ? MAP_EXEC : 0) | (perms[3] == 's' ? MAP_IS_SHARED : 0);
	m->inode = strtoull(skip(perms, 3), &at, 10);
	name = at + strspn(at, " ");
	if (name > eol) /* a number was missing, and looked for in the next line */
		return false;
	len = (size_t)(eol - name);
	if (len >= sizeof(m->name)) {
		name = eol - (sizeof(m->name) - 1);
		len = sizeof(m->name) - 1;
	}
	memcpy(m->name, name, len);
	return true;
}

static bool is_wanted(const struct map_entry *m, uint64_t sp)
{
	return (m->perms & MAP_EXEC) || !strcmp(m->name, "[stack]") ||
	       (m->start <= sp && sp < m->end);
}

/*
 * The highest gap, but for the one into which the main stack grows. What is mapped there for the
 * moment must not be merged with its neighbours: hence the pages beside it.
 */
static void note_hole(struct maps *maps, uint64_t end, const struct map_entry *m)
{
	const uint64_t page = 4096, needed = AGENT_SIZE + 2 * page;

	if (end && m->start < USER_END && m->start >= end && m->start - end >= needed &&
	    strcmp(m->name, "[stack]"))
		maps->hole = m->start - page - AGENT_SIZE;
}

static int parse(const char *text, uint64_t sp, struct maps *ret)
{
	uint64_t end = 0;

	for (const char *line = text; *line;) {
		const char *eol = strchrnul(line, '\n');
		struct map_entry m, *keep;
		bool parsed = parse_line(line, eol, &m);

		line = *eol ? eol + 1 : eol;
		if (!parsed)
			continue;
		note_hole(ret, end, &m);
		end = m.end;
		if (!is_wanted(&m, sp))
			continue;
		keep = vec_push(&ret->entries);
		if (!keep)
			return -ENOMEM;
		*keep = m;
	}
	return 0;
}

int maps_read(int proc_fd, pid_t tid, uint64_t sp, struct maps *ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t len = procfs_read(proc_fd, &text, e, "%d/maps", tid);
	int r = len < 0 ? 0 : parse(text, sp, ret);

	if (len < 0)
		return (int)len;
	return r < 0 ? error_set(e, r, E_NO_MEMORY, "cannot list the mappings of task %d", tid) : 0;
}

void maps_free(struct maps *m)
{
	vec_free(&m->entries);
}
