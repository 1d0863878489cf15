/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups for a container that is started or restarted. */
#include "ns/cgroup_make.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"

#define PATH_SIZE 8192
#define PERIOD_US 100000ULL

void cgroups_made_free(struct cgroups_made *made)
{
	vec_for_each (m, made) {
		free(m->controllers);
		free(m->path);
		close_fd(&m->dir);
		close_fd(&m->procs);
		close_fd(&m->home);
	}
	vec_free(made);
}

const struct cgroup_made *cgroup_made_find(const struct cgroups_made *made, const char *controllers)
{
	vec_for_each (m, made)
		if (!strcmp(m->controllers, controllers))
			return m;
	return NULL;
}

/* No other container has it: its directory has that number for as long as it exists. */
static int name_group(const char *record, char *name, size_t size, struct error *e)
{
	char path[PATH_SIZE];
	struct stat st;
	char *dir;

	snprintf(path, sizeof(path), "%s", record);
	dir = dirname(path);
	if (stat(dir, &st) < 0)
		return error_errno(e, -errno, E_CONTAINER_CGROUP, "cannot look at %s", dir);
	snprintf(name, size, "reprise-%.60s-%llx-%llx", basename(dir),
		 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	return 0;
}

static int note(const char *record, const char *path, struct error *e)
{
	_cleanup_(close_fd) int fd =
		open(record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || dprintf(fd, "%s\n", path) < 0)
		return error_errno(e, -errno, E_OUTPUT, "cannot write %s", record);
	return 0;
}

static void remove_stale(int above, const char *name)
{
	int fd = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	while (dir && (d = readdir(dir)))
		if (cgroup_is_group(d))
			remove_stale(fd, d->d_name);
	if (dir)
		closedir(dir);
	unlinkat(above, name, AT_REMOVEDIR);
}

/*
 * Members of a group with processes have no controllers below them, but in the topmost one. 1: they
 * have now; 0: they cannot.
 */
static int hands_down(const char *path, const char *controllers)
{
	_cleanup_(close_fd) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(free_ptr) char *copy = strdup(controllers);
	char has[1024], enabled[1024], command[64], *save = NULL;

	if (!copy)
		return -ENOMEM;
	if (dir < 0 || cgroup_read(dir, "cgroup.controllers", has, sizeof(has)) < 0 ||
	    cgroup_read(dir, "cgroup.subtree_control", enabled, sizeof(enabled)) < 0)
		return 0;
	for (char *c = strtok_r(copy, " ", &save); c; c = strtok_r(NULL, " ", &save)) {
		if (cgroup_has_controller(enabled, c))
			continue;
		snprintf(command, sizeof(command), "+%s", c);
		if (!cgroup_has_controller(has, c) ||
		    cgroup_write(dir, "cgroup.subtree_control", command) < 0)
			return 0;
	}
	return 1;
}

/* -EOPNOTSUPP: there is none. */
static int find_parent(const struct cgroup_hierarchy *h, const char *controllers, char **ret)
{
	_cleanup_(free_ptr) char *group = strdup(h->own);
	int r = 0;

	if (!group)
		return -ENOMEM;
	while (*group) {
		_cleanup_(free_ptr) char *path = cgroup_directory(h, group);

		r = !path ? -ENOMEM : *controllers ? hands_down(path, controllers) : 1;
		if (r > 0)
			*ret = take_ptr(&path);
		if (r)
			return r;
		*strrchr(group, '/') = '\0';
	}
	r = hands_down(h->point, controllers);
	if (r > 0)
		*ret = strdup(h->point);
	return r < 0 ? r : !r ? -EOPNOTSUPP : *ret ? 1 : -ENOMEM;
}

/* What is empty in a new group of version 1, which nobody can enter then. */
static int copy_sets(const struct cgroup_made *m, struct error *e)
{
	static const char *const names[] = {"cpuset.cpus", "cpuset.mems"};
	_cleanup_(close_fd) int above = -EBADF;
	char value[4096];
	int r = 0;

	if (!cgroup_has_controller(m->controllers, "cpuset"))
		return 0;
	above = openat(m->dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && r >= 0; i++) {
		r = cgroup_read(above, names[i], value, sizeof(value));
		if (r >= 0)
			r = cgroup_write(m->dir, names[i], value);
	}
	return r < 0 ? error_errno(e, r, E_CONTAINER_CGROUP, "cannot set the processors of %s",
				   m->path)
		     : 0;
}

static int open_home(const struct cgroup_hierarchy *h)
{
	_cleanup_(free_ptr) char *path = cgroup_directory(h, h->own);
	_cleanup_(close_fd) int dir = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	return dir < 0 ? -1 : openat(dir, "cgroup.procs", O_WRONLY | O_CLOEXEC);
}

int cgroup_make(const struct cgroup_hierarchy *h, const char *controllers, const char *record,
		struct cgroups_made *ret, struct error *e)
{
	_cleanup_(free_ptr) char *parent = NULL, *path = NULL;
	struct cgroup_made *m;
	char name[128];
	int r = name_group(record, name, sizeof(name), e);

	if (r < 0)
		return r;
	r = find_parent(h, controllers, &parent);
	if (r == -EOPNOTSUPP)
		return error_set(e, r, E_CONTAINER_CGROUP,
				 "none of the control groups above hands down: %s", controllers);
	if (r < 0)
		return error_set(e, r, E_NO_MEMORY, "no memory for control groups");
	if (asprintf(&path, "%s/%s", parent, name) < 0 || !(m = vec_push(ret)))
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
	*m = (struct cgroup_made){.dir = -EBADF, .procs = -EBADF, .home = -EBADF};
	if (access(parent, W_OK) < 0) {
		ret->n--;
		return errno == EACCES || errno == EROFS || errno == EPERM || errno == ENOENT
			       ? 0
			       : error_errno(e, -errno, E_CONTAINER_CGROUP, "cannot look at %s",
					     parent);
	}
	r = note(record, path, e);
	if (r < 0)
		return r;
	/* One of that name was left by a container whose directory is there no more. */
	remove_stale(AT_FDCWD, path);
	if (mkdir(path, 0755) < 0)
		return error_errno(e, -errno, E_CONTAINER_CGROUP, "cannot make %s", path);
	m->path = take_ptr(&path);
	m->dir = open(m->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (m->dir >= 0)
		m->procs = openat(m->dir, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	if (m->procs < 0)
		return error_errno(e, -errno, E_CONTAINER_CGROUP, "cannot open %s", m->path);
	m->home = open_home(h);
	m->controllers = strdup(h->controllers);
	if (!m->controllers)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
	r = copy_sets(m, e);
	return r < 0 ? r : 1;
}

/* One limit, in whichever version has its controller. */
static int set_limit(const struct cgroups_made *made, const char *controller, const char *v2,
		     const char *v1, const char *value, struct error *e)
{
	vec_for_each (m, made) {
		const char *name = *m->controllers ? v1 : v2;
		int r;

		if (*m->controllers ? !cgroup_has_controller(m->controllers, controller)
				    : faccessat(m->dir, v2, F_OK, 0) < 0)
			continue;
		r = cgroup_write(m->dir, name, value);
		return r < 0 ? error_errno(e, r, E_CONTAINER_CGROUP, "cannot set %s to %s", name,
					   value)
			     : 0;
	}
	return error_set(
		e, -EOPNOTSUPP, E_CONTAINER_CGROUP,
		"a limit of %s takes a control group with that controller, and the right to "
		"make one",
		controller);
}

static int set_limits(const struct cgroups_made *made, const struct cgroup_limits *limits,
		      struct error *e)
{
	char value[64];
	int r = 0;

	snprintf(value, sizeof(value), "%llu", (unsigned long long)limits->memory);
	if (limits->memory)
		r = set_limit(made, "memory", "memory.max", "memory.limit_in_bytes", value, e);
	snprintf(value, sizeof(value), "%llu", (unsigned long long)limits->pids);
	if (r >= 0 && limits->pids)
		r = set_limit(made, "pids", "pids.max", "pids.max", value, e);
	if (r < 0 || !limits->cpu_thousandths)
		return r;
	snprintf(value, sizeof(value), "%llu %llu",
		 (unsigned long long)limits->cpu_thousandths * PERIOD_US / 1000, PERIOD_US);
	if (cgroup_made_find(made, "") &&
	    cgroup_write(cgroup_made_find(made, "")->dir, "cpu.max", value) >= 0)
		return 0;
	*strchr(value, ' ') = '\0';
	return set_limit(made, "cpu", "cpu.max", "cpu.cfs_quota_us", value, e);
}

/*
 * Real-time tasks cannot enter a new group of version 1 with the controller cpu
 * (sched_rt_can_attach()): it is made only if it is needed.
 */
static bool is_of_use(const char *controllers, const struct cgroup_limits *limits)
{
	static const char *const names[] = {"memory", "pids", "freezer", "name=systemd"};

	if (!*controllers || (limits->cpu_thousandths && cgroup_has_controller(controllers, "cpu")))
		return true;
	if (cgroup_has_controller(controllers, "cpu"))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (cgroup_has_controller(controllers, names[i]))
			return true;
	return false;
}

/* Controllers of version 2 that the limits take: those that no hierarchy of version 1 has. */
static void needed_controllers(const struct cgroup_hierarchies *all,
			       const struct cgroup_limits *limits, char text[64])
{
	const struct {
		const char *name;
		bool wanted;
	} kinds[] = {{"memory", limits->memory},
		     {"pids", limits->pids},
		     {"cpu", limits->cpu_thousandths}};

	*text = '\0';
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		bool elsewhere = !kinds[i].wanted;

		vec_for_each (h, all)
			elsewhere |= cgroup_has_controller(h->controllers, kinds[i].name);
		if (elsewhere)
			continue;
		strcat(text, *text ? " " : "");
		strcat(text, kinds[i].name);
	}
}

int cgroups_make(const char *record, const struct cgroup_limits *limits, struct cgroups_made *ret,
		 struct error *e)
{
	_cleanup_(cgroup_hierarchies_free) struct cgroup_hierarchies all = {};
	_cleanup_(close_fd) int proc_fd = -EBADF;
	char needed[64];
	int r = procfs_open_root(&proc_fd, e);

	if (r >= 0)
		r = cgroup_hierarchies_read(proc_fd, &all, e);
	if (r < 0)
		return r;
	needed_controllers(&all, limits, needed);
	vec_for_each (h, &all) {
		if (!is_of_use(h->controllers, limits))
			continue;
		r = cgroup_make(h, *h->controllers ? "" : needed, record, ret, e);
		if (r < 0)
			return r;
	}
	return set_limits(ret, limits, e);
}

int cgroups_join(const struct cgroups_made *made, struct error *e)
{
	vec_for_each (m, made)
		if (write(m->procs, "0", 1) != 1)
			return error_errno(e, -errno, E_CONTAINER_CGROUP,
					   "cannot enter control group %s", m->path);
	return 0;
}

void cgroups_follow(pid_t pid)
{
	_cleanup_(cgroup_hierarchies_free) struct cgroup_hierarchies all = {};
	_cleanup_(free_ptr) char *text = NULL;
	_cleanup_(close_fd) int proc_fd = -EBADF;
	struct error unused = {};

	if (procfs_open_root(&proc_fd, &unused) < 0 ||
	    cgroup_hierarchies_read(proc_fd, &all, &unused) < 0 ||
	    procfs_read(proc_fd, &text, NULL, "%d/cgroup", pid) < 0)
		return;
	vec_for_each (h, &all) {
		_cleanup_(free_ptr) char *group = NULL, *path = NULL;
		_cleanup_(close_fd) int dir = -EBADF;

		if (cgroup_of(text, h->controllers, &group, NULL) <= 0 || !strcmp(group, h->own))
			continue;
		path = cgroup_directory(h, group);
		dir = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
		if (dir >= 0)
			ignore(cgroup_write(dir, "cgroup.procs", "0"), "it is where it was");
	}
}
