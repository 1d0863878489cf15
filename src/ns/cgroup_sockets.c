/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/cgroup_sockets.h"

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

int cgroup_sockets_begin(struct cgroups_restart *cr, const struct cgroup_hierarchies *all,
			 const Reprise__CgroupTree *t, struct error *e)
{
	const struct cgroup_hierarchy *h = cgroup_hierarchy_find(all, t->controllers);
	const struct cgroup_made *made = cgroup_made_find(&cr->made, t->controllers);
	_cleanup_(free_ptr) char *home = NULL;
	int r = 0;

	if (*t->controllers || !h || !made)
		return 0;
	home = cgroup_directory(h, h->own);
	if (home)
		cr->home = open_in(AT_FDCWD, home, "cgroup.procs");
	/* Who may not come back does not leave: sockets belong to the group of the restart. */
	for (size_t i = 0; i < t->n_groups && cr->home >= 0 && r >= 0; i++)
		r = add_door(cr, made->dir, t, i, e);
	return r;
}

void cgroup_sockets_end(struct cgroups_restart *cr)
{
	vec_for_each (d, &cr->doors) {
		close_fd(&d->procs);
		close_fd(&d->threads);
	}
	if (cr->doors.n)
		close_fd(&cr->home);
	vec_free(&cr->doors);
}

/* The caller itself is 0. */
static int go(int fd)
{
	return fd < 0 || write(fd, "0", 1) == 1 ? 0 : -errno;
}

int cgroup_sockets_enter(const struct restart *r, uint64_t id, struct error *e)
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
	ignore(cgroup_sockets_leave(r, &unused), "the restart fails");
	return error_errno(e, res, E_CONTAINER_CGROUP,
			   "cannot enter its control group to make a socket there");
}

int cgroup_sockets_leave(const struct restart *r, struct error *e)
{
	int res = go(r->cgroups->home);

	return res < 0 ? error_errno(e, res, E_CONTAINER_CGROUP,
				     "cannot leave the control group of a socket")
		       : 0;
}
