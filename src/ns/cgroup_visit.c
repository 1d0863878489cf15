/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/cgroup_visit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"

static int open_in(int dir, const char *path, const char *name)
{
	_cleanup_(close_fd) int group = -EBADF;
	int fd;

	group = openat(dir, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	fd = group < 0 ? -1 : openat(group, name, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* A thread gets into a threaded group from the nearest one above that is none. */
static int add_door(struct cgroups_restart *cr, int dir, const Reprise__CgroupTree *t, size_t i,
		    struct error *e)
{
	const Reprise__Cgroup *g = t->groups[i], *domain = g;
	struct cgroup_door *door = vec_push(&cr->doors);
	size_t at = i;

	if (!door)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
	*door = (struct cgroup_door){.id = g->id, .procs = -EBADF, .threads = -EBADF};
	while (domain->threaded && (domain = cgroup_above(t, &at)))
		continue;
	if (g->threaded)
		door->threads = open_in(dir, g->path, "cgroup.threads");
	if (domain)
		door->procs = open_in(dir, domain->path, "cgroup.procs");
	return door->procs < 0 || (g->threaded && door->threads < 0)
		       ? error_errno(e, door->procs < 0 ? door->procs : door->threads,
				     E_CONTAINER_CGROUP, "cannot open control group %s", g->path)
		       : 0;
}

int cgroup_visit_begin(struct cgroups_restart *cr, const Reprise__CgroupTree *t, struct error *e)
{
	const struct cgroup_made *made = cgroup_made_find(&cr->made, t->controllers);
	int r = 0;

	if (*t->controllers || !made || made->home < 0)
		return 0;
	for (size_t i = 0; i < t->n_groups && r >= 0; i++)
		r = add_door(cr, made->dir, t, i, e);
	return r;
}

void cgroup_visit_end(struct cgroups_restart *cr)
{
	vec_for_each (d, &cr->doors) {
		close_fd(&d->procs);
		close_fd(&d->threads);
	}
	vec_free(&cr->doors);
}

/* The caller itself is 0. */
static int go(int fd)
{
	return fd < 0 || write(fd, "0", 1) == 1 ? 0 : -errno;
}

static int cannot_return(int r, struct error *e)
{
	return error_errno(e, r, E_CONTAINER_CGROUP,
			   "cannot leave a control group of the container");
}

/* ---- sockets ---- */

int cgroup_visit_for_socket(const struct restart *r, uint64_t id, struct error *e)
{
	const struct cgroups_restart *cr = r->cgroups;
	const struct cgroup_door *door = NULL;
	struct error unused = {};
	int res;

	for (size_t i = 0; cr && i < cr->doors.n && !door; i++)
		if (!id || cr->doors.v[i].id == id)
			door = &cr->doors.v[i];
	if (!door)
		return 0;
	res = go(door->procs);
	if (res >= 0)
		res = go(door->threads);
	if (res >= 0)
		return 1;
	ignore(cgroup_return_with_socket(r, &unused), "the restart fails");
	return error_errno(e, res, E_CONTAINER_CGROUP,
			   "cannot enter its control group to make a socket there");
}

int cgroup_return_with_socket(const struct restart *r, struct error *e)
{
	const struct cgroup_made *made = cgroup_made_find(&r->cgroups->made, "");
	int res = made ? go(made->home) : 0;

	return res < 0 ? cannot_return(res, e) : 0;
}

/* ---- memory ---- */

/* Of version 2: if its group has that controller. */
static bool counts_memory(const struct cgroup_made *made)
{
	return made->home >= 0 &&
	       (*made->controllers ? cgroup_has_controller(made->controllers, "memory")
				   : faccessat(made->dir, "memory.current", F_OK, 0) == 0);
}

int cgroup_visit_for_memory(const struct restart *r, struct error *e)
{
	struct error unused = {};
	int res = 0;

	if (!r->cgroups)
		return 0;
	vec_for_each (made, &r->cgroups->made) {
		res = counts_memory(made) ? go(made->procs) : 0;
		if (res >= 0)
			continue;
		ignore(cgroup_return_from_memory(r, &unused), "the restart fails");
		return error_errno(e, res, E_CONTAINER_CGROUP,
				   "cannot enter control group %s to fill memory there",
				   made->path);
	}
	return 0;
}

int cgroup_return_from_memory(const struct restart *r, struct error *e)
{
	int res = 0;

	if (r->cgroups)
		vec_for_each (made, &r->cgroups->made) {
			int one = counts_memory(made) ? go(made->home) : 0;

			res = res < 0 ? res : one;
		}
	return res < 0 ? cannot_return(res, e) : 0;
}
