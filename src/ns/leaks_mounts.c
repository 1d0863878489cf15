/* SPDX-License-Identifier: Apache-2.0 */
/* What is mounted outside of a container, in each mount namespace: its namespaces, and its file
 * systems. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/leaks.h"
#include "ns/spaces.h"

/* A namespace that a file holds. */
static int look_at_bound(struct leak_search *s, const struct outsider *o, const char *root,
			 const char *point, struct error *e)
{
	char how[600];

	vec_for_each (l, &s->links) {
		if (strcmp(root, l->link))
			continue;
		snprintf(how, sizeof(how), ", mounted on %s", point);
		return leak_report(s, o, "namespace", root, NULL, how, e);
	}
	return 0;
}

/* What the host itself has mounted it has given to the container, see mounts_is_given(). */
static bool is_given(const struct leak_search *s, dev_t dev)
{
	vec_for_each (m, &s->ct->mounts.ours)
		if (m->dev == dev)
			return true;
	return false;
}

/* One line of mountinfo: a namespace, or a file system of the container. */
static int look_at_mount(struct leak_search *s, const struct outsider *o, const char *line,
			 struct error *e)
{
	const bool bound = strstr(line, " - nsfs ");
	char root[64], point[512];
	unsigned int major, minor;

	if (sscanf(line, "%*d %*d %u:%u %63s", &major, &minor, root) != 3 ||
	    sscanf(line, "%*d %*d %*s %*s %511s", point) != 1)
		return 0;
	if (bound)
		return look_at_bound(s, o, root, point, e);
	if (!leak_is_own_device(s, makedev(major, minor)) || is_given(s, makedev(major, minor)))
		return 0;
	return leak_report(s, o, "file", point, NULL, ", which has it mounted", e);
}

enum sight { OF_NAMESPACES, OF_FILES };

/* 1: for the first time. */
static int see_first(struct leak_search *s, uint64_t ns, enum sight what, struct error *e)
{
	const uint64_t sight = ns * 2 + what;
	uint64_t *slot;

	vec_for_each (n, &s->seen)
		if (*n == sight)
			return 0;
	slot = vec_push(&s->seen);
	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the search for leaks");
	*slot = sight;
	return 1;
}

/* Once for each mount namespace. Who has made the container has its mounts as he has its
 * namespaces. */
int leak_look_at_mounts(struct leak_search *s, const struct outsider *o, struct error *e)
{
	uint64_t ns = space_number(s->ct->host_proc, e, "%d/ns/mnt", o->pid);
	_cleanup_(free_ptr) char *text = NULL;
	int r, first, files = 0;

	if (!ns) {
		error_clear(e);
		return 0;
	}
	r = first = see_first(s, ns, OF_NAMESPACES, e);
	if (r >= 0 && !leak_made_it(s, o->pid))
		r = files = see_first(s, ns, OF_FILES, e);
	if (r < 0 || (!first && !files))
		return r;
	if (procfs_read(s->ct->host_proc, &text, e, "%d/mountinfo", o->pid) < 0) {
		error_clear(e);
		return 0;
	}
	for (char *line = text, *end; r >= 0 && line && *line; line = end) {
		end = strchr(line, '\n');
		if (end)
			*end++ = '\0';
		if (strstr(line, " - nsfs ") ? first : files)
			r = look_at_mount(s, o, line, e);
	}
	return r;
}
