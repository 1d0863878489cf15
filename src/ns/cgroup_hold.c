/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks that stand still since their control group is frozen. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/cgroups.h"

/* If reprise is killed while they are let go, its descriptor of the pipe is closed. */
int cgroups_guard(struct cgroups *cg, struct error *e)
{
	sigset_t all;
	char byte;
	int pair[2];
	pid_t pid;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return error_errno(e, -errno, E_SYSTEM, "pipe");
	pid = fork();
	if (pid == 0) {
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		close(pair[1]);
		if (read(pair[0], &byte, 1) == 0)
			cgroups_hold(cg, true);
		_exit(0);
	}
	close(pair[0]);
	cg->guard = pair[1];
	return pid < 0 ? error_errno(e, -errno, E_SYSTEM, "fork") : 0;
}

void cgroups_let_die(const struct cgroups *cg)
{
	if (cg->guard >= 0)
		ignore(write(cg->guard, "", 1) == 1 ? 0 : -errno, "it has ended");
}

void cgroups_hold(const struct cgroups *cg, bool frozen)
{
	vec_for_each (f, &cg->frozen) {
		const char *text = f->v2 ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED");

		ignore(write(f->fd, text, strlen(text)) < 0 ? -errno : 0,
		       "tasks that do not stop, or go on, are noticed");
	}
}

/* As it stands in the task's own namespace of groups, or in ours. */
static int check_one(const struct cgroup_hierarchy *h, const char *group, struct error *e)
{
	_cleanup_(free_ptr) char *path = cgroup_directory(h, group);
	_cleanup_(close_fd) int dir = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	bool v2 = !*h->controllers, frozen;
	char text[256];

	if (dir < 0 ||
	    cgroup_read(dir, v2 ? "cgroup.events" : "freezer.state", text, sizeof(text)) < 0)
		return 0;
	frozen = v2 ? strstr(text, "frozen 1") != NULL : strcmp(text, "THAWED") != 0;
	if (!frozen)
		return 0;
	return error_set(e, -EBUSY, E_CONTAINER_CGROUP,
			 "is frozen by control group %s, and no container that could come back so; "
			 "let it go first",
			 path);
}

int cgroups_check_frozen(int proc_fd, pid_t pid, struct error *e)
{
	_cleanup_(cgroup_hierarchies_free) struct cgroup_hierarchies all = {};
	_cleanup_(free_ptr) char *text = NULL;
	int r = cgroup_hierarchies_read(proc_fd, &all, e);

	if (r < 0 || procfs_read(proc_fd, &text, NULL, "%d/cgroup", pid) < 0)
		return r;
	vec_for_each (h, &all) {
		_cleanup_(free_ptr) char *group = NULL;

		r = cgroup_of(text, h->controllers, &group, e);
		if (r < 0)
			return r;
		if (!group ||
		    (*h->controllers && !cgroup_has_controller(h->controllers, "freezer")))
			continue;
		r = check_one(h, group, e);
		if (r < 0)
			return r;
	}
	return 0;
}
