/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/namespaces.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "model/glance.h"

static const char *const kinds[NAMESPACES] = {"user", "pid"};

/*
 * Those in which all tasks have to be. A process with several threads cannot change them
 * (userns_install(), and the namespace in which a task has its pid). The kernel
 * names no pid namespace for children that has no task yet (pidns_for_children_get()).
 */
static const struct {
	const char *file, *kind;
	bool each_thread;
} links[] = {
	{"user", "user", false},
	{"pid", "pid", false},
	{"pid_for_children", "pid", true},
};

int namespaces_read(const struct checkpoint *c, struct namespaces *ret, struct error *e)
{
	for (size_t i = 0; i < NAMESPACES; i++) {
		int r = procfs_readlink(c->proc_fd, &ret->own[i], e, "%d/ns/%s", c->self, kinds[i]);

		/* Not every kernel has every kind. */
		if (r < 0 && procfs_unless_gone(r, e) < 0)
			return r;
	}
	return 0;
}

void namespaces_free(struct namespaces *ns)
{
	for (size_t i = 0; i < NAMESPACES; i++)
		free(ns->own[i]);
}

static const char *own(const struct namespaces *ns, const char *kind)
{
	for (size_t i = 0; i < NAMESPACES; i++)
		if (strcmp(kinds[i], kind) == 0)
			return ns->own[i];
	return NULL;
}

/* One below ours that has been found with the tasks (ns/pid_spaces.c, ns/user_spaces.c). */
static bool is_nested(const struct checkpoint *c, uint64_t flag, const char *link)
{
	const char *number = strchr(link, '[');

	return number && space_by_number(c, flag, strtoull(number + 1, NULL, 10));
}

static int compare_link(const struct checkpoint *c, const struct namespaces *ns, pid_t pid,
			pid_t tid, size_t i, bool *children_apart, struct error *e)
{
	bool pids = !strcmp(links[i].kind, "pid");

	const char *ours = own(ns, links[i].kind);
	bool children = strcmp(links[i].file, links[i].kind) != 0;
	_cleanup_(free_ptr) char *theirs = NULL;
	int r;

	if (!ours)
		return 0;
	r = procfs_readlink(c->proc_fd, &theirs, e, "%d/task/%d/ns/%s", pid, tid, links[i].file);
	if (r == -ENOENT && children) {
		error_clear(e);
		r = 0;
	}
	if (r < 0)
		return r;
	if (theirs && strcmp(theirs, ours) == 0)
		return 0;
	*children_apart |= pids && children;
	if (theirs && is_nested(c, pids ? CLONE_NEWPID : CLONE_NEWUSER, theirs))
		return 0;
	if (pids && children && !theirs)
		return 0;
	if (pids && children)
		return error_set(e, -EXDEV, E_TASK_NAMESPACE,
				 "its next child would be in a pid namespace that has no first "
				 "process in the tree");
	if (children)
		return error_set(e, -EXDEV, E_TASK_NAMESPACE,
				 "its next child would be in another %s namespace than reprise",
				 links[i].kind);
	return error_set(e, -EXDEV, E_TASK_NAMESPACE, "is in another %s namespace than reprise",
			 links[i].kind);
}

int namespaces_compare(const struct checkpoint *c, const struct namespaces *ns,
		       const struct checkpoint_process *p, bool *children_apart, struct error *e)
{
	int r = 0;

	*children_apart = false;

	vec_for_each (t, &p->frozen->threads)
		for (size_t i = 0; i < sizeof(links) / sizeof(*links) && r >= 0; i++) {
			bool first = t->tid == p->tid;

			if (t->zombie || (!first && !links[i].each_thread) ||
			    glance_at_home(c, t->tid))
				continue;
			r = compare_link(c, ns, p->frozen->pid, t->tid, i, children_apart, e);
			if (r < 0 && !first)
				error_object(e, r, "thread %d", t->tid);
		}
	return r;
}
