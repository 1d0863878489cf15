/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/container.h"
#include "ns/first.h"
#include "ns/network.h"
#include "ns/outside.h"
#include "ns/outsider.h"
#include "ns/settings.h"
#include "ns/spaces.h"
#include "ns/timens.h"
#include "ns/userns.h"

static const struct {
	const char *name;
	int flag;
} kinds[] = {
	{"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS},	      {"pid", CLONE_NEWPID},
	{"net", CLONE_NEWNET},	 {"ipc", CLONE_NEWIPC},	      {"uts", CLONE_NEWUTS},
	{"time", CLONE_NEWTIME}, {"cgroup", CLONE_NEWCGROUP},
};

void container_free(struct container *ct)
{
	if (ct->looking)
		pthread_join(ct->looker, NULL);
	vec_for_each (l, &ct->layers)
		layer_free(*l);
	vec_free(&ct->layers);
	vec_free(&ct->pids);
	vec_free(&ct->seen.ids);
	vec_free(&ct->seen.brought);
	mounts_survey_free(&ct->mounts);
	network_free(&ct->network);
	cgroups_free(&ct->cgroups);
	scratch_free(&ct->s);
	close_fd(&ct->proc_fd);
	close_fd(&ct->host_proc);
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the container");
}

static int compare_namespaces(int proc_fd, pid_t pid, uint64_t *ret, struct error *e)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		_cleanup_(free_ptr) char *theirs = NULL, *ours = NULL;

		/* Not every kernel has every kind. */
		if (procfs_readlink(proc_fd, &ours, NULL, "%d/ns/%s", getpid(), kinds[i].name) < 0)
			continue;
		if (procfs_readlink(proc_fd, &theirs, e, "%d/ns/%s", pid, kinds[i].name) < 0) {
			/* Somebody else's task: the refusal that follows is about that. */
			error_clear(e);
			return 0;
		}
		if (strcmp(theirs, ours))
			*ret |= (uint64_t)kinds[i].flag;
	}
	return 0;
}

/* The innermost of the pids that a task has, one a level. */
static pid_t inner_pid(int proc_fd, pid_t pid)
{
	_cleanup_(free_ptr) char *status = NULL;
	struct error unused = {};
	const char *value;
	pid_t last = 0;
	size_t len;

	if (procfs_read(proc_fd, &status, &unused, "%d/status", pid) < 0)
		return 0;
	value = proc_field(status, "NSpid", &len);
	for (const char *s = value; s && s < value + len;) {
		char *end;

		last = (pid_t)strtol(s, &end, 10);
		if (end == s)
			break;
		s = end;
	}
	return last;
}

static int describe(struct container *ct, struct error *e)
{
	struct utsname uts;

	ct->msg.own = ct->own;
	if (uname(&uts) < 0)
		return error_errno(e, -errno, E_SYSTEM, "uname");
	ct->msg.nodename = scratch_string(&ct->s, uts.nodename);
	ct->msg.domainname = scratch_string(&ct->s, uts.domainname);
	if (!ct->msg.nodename || !ct->msg.domainname)
		return no_memory(e);
	if (ct->name)
		ct->msg.name = scratch_string(&ct->s, ct->name);
	ct->msg.derived_mounts = ct->mounts.derived;
	ct->msg.mounts = ct->mounts.mounts.v;
	ct->msg.n_mounts = ct->mounts.mounts.n;
	ct->msg.unmounted = ct->mounts.unmounted.v;
	ct->msg.n_unmounted = ct->mounts.unmounted.n;
	if (ct->own & CLONE_NEWNET) {
		int r = network_checkpoint(&ct->network, ct->proc_fd, &ct->msg, &ct->s, e);

		if (r < 0)
			return r;
	}
	return settings_checkpoint(ct->proc_fd, &ct->msg, &ct->s, e);
}

static int note_mounts(struct container *ct, struct error *e)
{
	vec_for_each (m, &ct->mounts.theirs) {
		int *id = vec_push(&ct->seen.ids);

		if (!id)
			return no_memory(e);
		*id = m->id;
	}
	/* What an overlay shows of what comes with the image comes with it. */
	vec_for_each (m, &ct->mounts.mounts) {
		dev_t *dev = (*m)->inside ? vec_push(&ct->seen.brought) : NULL;

		if ((*m)->inside && !dev)
			return no_memory(e);
		if (dev)
			*dev = mounts_device(&ct->mounts, (*m)->id);
	}
	vec_for_each (l, &ct->mounts.layers) {
		dev_t *dev = vec_push(&ct->seen.brought);

		if (!dev)
			return no_memory(e);
		*dev = mounts_device(&ct->mounts, l->mount->id);
	}
	ct->seen.overlays = &ct->mounts.overlays;
	return 0;
}

static bool is_allowed(const struct container *ct, const char *kind)
{
	for (const char *const *a = ct->allow_leaks; a && *a; a++)
		if (!strcmp(*a, kind) || !strcmp(*a, "all"))
			return true;
	return false;
}

/* Before its mounts are looked at, of which some may show control groups. */
static int look_at_cgroups(struct container *ct, int proc_fd, pid_t pid, struct error *e)
{
	ct->cgroups.s = &ct->s;
	ct->cgroups.own_namespace = ct->own & CLONE_NEWCGROUP;
	ct->cgroups.own_user = ct->own & CLONE_NEWUSER;
	ct->cgroups.programs.optional = is_allowed(ct, "program");
	ct->mounts.cgroups = &ct->cgroups;
	if (ct->own & CLONE_NEWPID)
		return cgroups_survey(&ct->cgroups, proc_fd, pid, e);
	return cgroups_check_frozen(proc_fd, pid, e);
}

/* Only who sees control groups can change them. */
static bool sees_cgroups(const struct container *ct)
{
	vec_for_each (m, &ct->mounts.theirs)
		if (!strncmp(m->type, "cgroup", 6))
			return true;
	return !(ct->own & CLONE_NEWNS);
}

/* They are made together with the user namespace, and so belong to it. */
static int check_owner(const struct container *ct, pid_t pid, int user, struct error *e)
{
	struct stat is, want;

	if (fstat(user, &want) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		_cleanup_(close_fd) int ns = -EBADF, owner = -EBADF;

		if (kinds[i].flag == CLONE_NEWUSER || !(ct->own & (uint64_t)kinds[i].flag))
			continue;
		ns = procfs_open(ct->host_proc, O_RDONLY | O_CLOEXEC, e, "%d/ns/%s", pid,
				 kinds[i].name);
		if (ns < 0)
			return ns;
		owner = ioctl(ns, NS_GET_USERNS);
		if (owner < 0 || fstat(owner, &is) < 0 || is.st_ino != want.st_ino)
			return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					 "is in a %s namespace that does not belong to the "
					 "user namespace of its container",
					 kinds[i].name);
	}
	return 0;
}

/* *user: that of the container, which may be above that of its tasks. */
static int look_at_user(struct container *ct, pid_t pid, int *user, struct error *e)
{
	int r = *user = userns_open(ct->host_proc, pid, e);

	if (r >= 0)
		r = check_owner(ct, pid, *user, e);
	if (r >= 0)
		r = userns_checkpoint(ct->host_proc, *user, &ct->msg, &ct->s, e);
	return r < 0 ? r : userns_check_names(ct->host_proc, pid, &ct->msg, e);
}

/* What the ids of the host are called in the user namespace to which its mounts belong. */
static int look_at_ids(struct container *ct, struct error *e)
{
	if (ct->own & CLONE_NEWUSER)
		ct->mounts.ids = &ct->msg;
	if (ct->mounts.ids || userns_is_first(ct->host_proc))
		return 0;
	reprise__container__init(&ct->here);
	ct->mounts.ids = &ct->here;
	return userns_read_maps(ct->host_proc, getpid(), &ct->here, &ct->s, e);
}

/* Saved with the one that only cares for it; any other is not the whole of its namespace. */
static int first_process(int proc_fd, pid_t *pid, struct error *e)
{
	pid_t first, inner = inner_pid(proc_fd, *pid);

	if (inner == 1)
		return 0;
	if (!first_cares_for(proc_fd, *pid, inner, &first) || inner_pid(proc_fd, first) != 1)
		return error_set(e, -EXDEV, E_TASK_NAMESPACE,
				 "lives in a container, and is not the first process there");
	*pid = first;
	return 1;
}

/* What /proc tells is about the clocks of its next child, which may be others. */
static int look_at_clocks(struct container *ct, pid_t pid, struct error *e)
{
	_cleanup_(close_fd) int ns =
		procfs_open(ct->host_proc, O_RDONLY | O_CLOEXEC, e, "%d/ns/time", pid);
	uint64_t is, next;

	if (ns < 0)
		return ns;
	is = space_number(ct->host_proc, e, "%d/ns/time", pid);
	next = space_number(ct->host_proc, e, "%d/ns/time_for_children", pid);
	if (!is || !next)
		return e->err;
	return timens_checkpoint(ct->host_proc, is == next ? pid : 0, ns, &ct->msg, &ct->s, e);
}

int container_enter(struct container *ct, pid_t *pid, struct error *e)
{
	_cleanup_(close_fd) int user = -EBADF;
	pid_t inner = 0;
	int r = procfs_open_root(&ct->host_proc, e), proc_fd = ct->host_proc;

	if (r >= 0)
		r = compare_namespaces(proc_fd, *pid, &ct->own, e);
	if (r >= 0 && ct->own & CLONE_NEWPID)
		r = first_process(proc_fd, pid, e);
	if (r > 0)
		r = compare_namespaces(proc_fd, *pid, &ct->own, e);
	if (r >= 0)
		r = look_at_cgroups(ct, proc_fd, *pid, e);
	if (r < 0 || !ct->own)
		return r;
	reprise__container__init(&ct->msg);
	if (ct->own & CLONE_NEWTIME)
		r = look_at_clocks(ct, *pid, e);
	if (r < 0)
		return r;
	if (ct->own & CLONE_NEWUSER)
		r = look_at_user(ct, *pid, &user, e);
	if (r < 0)
		return r;
	ct->mounts.user = ct->own & CLONE_NEWUSER;
	ct->of_root = ct->mounts.user && ct->own & CLONE_NEWPID && userns_is_first(proc_fd);
	ct->powerless = ct->of_root && userns_is_foreign(&ct->msg);
	ct->mounts.marks = ct->powerless;
	r = look_at_ids(ct, e);
	if (r < 0)
		return r;
	/* Whoever has the other end of the terminal goes on having it. */
	ct->mounts.without_consoles = is_allowed(ct, "file");
	if (ct->own & CLONE_NEWPID) {
		inner = 1;
	}
	if (ct->own & CLONE_NEWNS)
		r = mounts_survey(proc_fd, *pid, &ct->mounts, &ct->s, e);
	ct->cgroups.settled &= !sees_cgroups(ct);
	if (r >= 0)
		r = note_mounts(ct, e);
	if (r >= 0 && ct->own & CLONE_NEWNET)
		r = network_begin(&ct->network, proc_fd, e);
	if (r >= 0)
		r = container_enter_all(ct, *pid, user, e);
	if (r >= 0)
		r = mounts_open_layers(&ct->mounts, mounts_open_here, NULL, e);
	if (r >= 0)
		r = describe(ct, e);
	if (r >= 0 && inner)
		*pid = inner;
	return r;
}

int container_check_tasks(const struct container *ct, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	struct dirent *d;
	int fd, ended = 0;

	if (!(ct->own & CLONE_NEWPID))
		return 0;
	fd = openat(ct->proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir)
		return error_errno(e, -errno, E_SYSTEM, "cannot read /proc");
	while ((d = next_entry(dir, &ended))) {
		pid_t pid = (pid_t)atoi(d->d_name);
		struct error unused = {};
		struct proc_stat st;

		if (pid <= 1 || pid == getpid() ||
		    proc_stat_read(ct->proc_fd, pid, pid, &st, &unused) < 0 || st.ppid)
			continue;
		return error_object(
			e,
			error_set(e, -EBUSY, E_CONTAINER_STATE,
				  "was put into the container from outside; end it first"),
			"task %d (%s)", pid, st.comm);
	}
	return ended < 0 ? error_errno(e, ended, E_SYSTEM, "cannot read /proc") : 0;
}

int container_kill(void *arg, pid_t pid, int sig)
{
	const struct container *ct = arg;

	if (sig == SIGKILL)
		cgroups_let_die(&ct->cgroups);
	if (pid != 1 || !ct->outside)
		return kill(pid, sig) < 0 ? -errno : 0;
	return outsider_kill(ct->outside, sig);
}

void container_hold(void *arg, bool frozen)
{
	const struct container *ct = arg;

	cgroups_hold(&ct->cgroups, frozen);
}

static void *look_at_network(void *arg)
{
	struct container *ct = arg;

	ct->network_result = network_checkpoint(&ct->network, ct->proc_fd, &ct->msg, &ct->network.s,
						&ct->network_error);
	return NULL;
}

int container_add_layers(struct checkpoint *c, struct container *ct, struct mounts_survey *mounts,
			 struct error *e)
{
	vec_for_each (l, &mounts->layers) {
		struct layer **slot = vec_push(&ct->layers);
		int r;

		if (!slot)
			return no_memory(e);
		r = layer_checkpoint(c, l->dir_fd, l->mount->point,
				     ct->powerless && l->mount->kind == MOUNT_OVERLAY ? ct->outside
										      : NULL,
				     slot, &l->mount->layer, e);
		if (r < 0)
			return r;
	}
	return 0;
}

#define SCAN_WORTH 16 /* processes: to ask so many takes as long */

void container_begin_scan(struct container *ct)
{
	ct->scanning = true;
	outsider_begin_scan(ct->outside);
}

void container_end_scan(struct container *ct, struct outside **all)
{
	*all = ct->scanning ? outsider_end_scan(ct->outside) : NULL;
	ct->scanning = false;
}

int container_look(struct checkpoint *c, struct container *ct, struct error *e)
{
	struct outside *unused;

	/* of a checkpoint that is made once more */
	if (ct->looking)
		pthread_join(ct->looker, NULL);
	ct->looking = false;
	if (ct->scanning)
		container_end_scan(ct, &unused);
	if (ct->outside && ct->others >= SCAN_WORTH)
		container_begin_scan(ct);
	if (ct->own & CLONE_NEWNET)
		ct->looking = pthread_create(&ct->looker, NULL, look_at_network, ct) == 0;
	/* Those of an attempt before this one. */
	vec_for_each (l, &ct->layers)
		layer_free(*l);
	ct->layers.n = 0;
	vec_for_each (t, &ct->cgroups.trees)
		c->own_groups |= !*(*t)->msg.controllers;
	return container_add_layers(c, ct, &ct->mounts, e);
}

static int end_network(struct container *ct, struct error *e)
{
	if (ct->looking)
		pthread_join(ct->looker, NULL);
	else
		look_at_network(ct);
	ct->looking = false;
	if (ct->network_result < 0)
		*e = ct->network_error;
	return ct->network_result;
}

int container_checkpoint(struct checkpoint *c, struct container *ct, struct error *e)
{
	if (!ct->own)
		return 0;
	if (ct->own & CLONE_NEWNET) {
		int r = end_network(ct, e);

		if (r >= 0)
			r = spaces_check_network(c, ct, e);
		if (r < 0)
			return r;
	}
	if (ct->own & CLONE_NEWPID) {
		int r = cgroups_checkpoint(&ct->cgroups, c, &ct->msg, e);

		if (r < 0)
			return r;
	}
	return checkpoint_put(c, RECORD_CONTAINER, objects_fresh(c->objects), &ct->msg.base, e);
}

uint64_t container_page_bytes(const struct container *ct)
{
	uint64_t sum = 0;

	vec_for_each (l, &ct->layers)
		sum += layer_page_bytes(*l);
	return sum;
}

uint64_t container_layer(const struct container *ct, size_t i)
{
	return i < ct->layers.n ? layer_id(ct->layers.v[i]) : 0;
}

/* Those of the mounts of tasks stand behind those of the container, and before those of mounts that
 * are attached nowhere, though one may be met when such a mount has been saved. */
static int turn_of(const struct container *ct, size_t i)
{
	const Reprise__Mount *m = i < ct->mounts.layers.n ? ct->mounts.layers.v[i].mount : NULL;

	if (layer_is_last(ct->layers.v[i]))
		return 2;
	return m && (m->kind == MOUNT_OVERLAY || m->early) ? 0 : 1;
}

/* In the order in which a restart needs them: first what lies below an overlay. */
int container_save_pages(struct checkpoint *c, struct container *ct, struct error *e)
{
	int r = 0;

	for (int turn = 0; turn < 3; turn++)
		for (size_t i = 0; i < ct->layers.n && r >= 0; i++)
			if (turn_of(ct, i) == turn)
				r = layer_save_pages(c, ct->layers.v[i], e);
	return r;
}
