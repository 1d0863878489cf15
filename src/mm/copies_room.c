/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that may be needed while a copy of an address space exists. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/state.h"
#include "ns/cgroup.h"

static bool machine_has(const struct checkpoint *c, uint64_t bytes)
{
	_cleanup_(free_ptr) char *text = NULL;
	uint64_t kib = 0;

	return procfs_read(c->proc_fd, &text, NULL, "meminfo") >= 0 &&
	       proc_field_u64(text, "MemAvailable", 10, &kib) >= 0 && kib >= bytes >> 10;
}

/* A number in a file of a group; false: there is none, or no limit. */
static bool value(int dir, const char *name, uint64_t *ret)
{
	char text[64], *end;

	if (cgroup_read(dir, name, text, sizeof(text)) < 0)
		return false;
	*ret = strtoull(text, &end, 10);
	return end != text;
}

/* How much one group can still have; UINT64_MAX: any. What it has no file for is no limit: the root
 * has none. */
static uint64_t left_of(int dir, bool v2)
{
	static const char *const limits[2][2] = {
		{"memory.limit_in_bytes", "memory.limit_in_bytes"},
		{"memory.max", "memory.high"},
	};
	uint64_t used = 0, left = UINT64_MAX;

	if (!value(dir, v2 ? "memory.current" : "memory.usage_in_bytes", &used))
		return left;
	for (int i = 0; i < 2; i++) {
		uint64_t limit, room;

		if (!value(dir, limits[v2][i], &limit))
			continue;
		room = limit > used ? limit - used : 0;
		left = room < left ? room : left;
	}
	return left;
}

/* What is allowed to one task. */
struct allowed {
	uint64_t left;
	bool together; /* if one of its group is ended for want of memory, all are */
};

/* By the group and all above it. false: they cannot be seen. */
static bool look_at(const struct cgroup_hierarchy *h, const char *group, struct allowed *a)
{
	_cleanup_(free_ptr) char *path = cgroup_directory(h, group);
	size_t top = strlen(h->point);
	bool v2 = !*h->controllers;

	while (path && strlen(path) >= top) {
		_cleanup_(close_fd) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		uint64_t left, together;

		if (dir < 0)
			return false;
		left = left_of(dir, v2);
		a->left = left < a->left ? left : a->left;
		a->together |= value(dir, "memory.oom.group", &together) && together;
		if (!strrchr(path, '/'))
			break;
		*strrchr(path, '/') = '\0';
	}
	return path;
}

static bool look_at_groups(const struct checkpoint *c, pid_t tid, struct allowed *a)
{
	_cleanup_(cgroup_hierarchies_free) struct cgroup_hierarchies all = {};
	_cleanup_(free_ptr) char *text = NULL;
	struct error unused = {};

	if (procfs_read(c->proc_fd, &text, NULL, "%d/cgroup", tid) < 0 ||
	    cgroup_hierarchies_read(c->proc_fd, &all, &unused) < 0)
		return false;
	vec_for_each (h, &all) {
		_cleanup_(free_ptr) char *group = NULL;
		int r;

		if (*h->controllers && !cgroup_has_controller(h->controllers, "memory"))
			continue;
		r = cgroup_of(text, h->controllers, &group, &unused);
		if (r < 0 || (r && !look_at(h, group, a)))
			return false;
	}
	return true;
}

bool mm_has_room(struct checkpoint *c, pid_t tid, uint64_t bytes, uint64_t most)
{
	struct allowed a = {UINT64_MAX, false};

	if (!look_at_groups(c, tid, &a))
		return false;
	if (a.together && bytes < most)
		bytes = most;
	return a.left >= bytes && machine_has(c, bytes);
}
