/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control groups of a container are made anew, under another name. What is done when its tasks
 * are there is done by a process that stays outside: in a user namespace we have no power over
 * groups any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/cgroup_visit.h"

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

static bool good_path(const char *path)
{
	for (const char *name = path; *name;) {
		size_t len = strcspn(name, "/");
		bool dots = len <= 2 && !strncmp(name, "..", len);

		if (!len || len > 255 || dots || strlen(path) > 3000)
			return false;
		name += len;
		if (*name == '/' && !*++name)
			return false;
	}
	return true;
}

const Reprise__Cgroup *cgroup_above(const Reprise__CgroupTree *t, size_t *i)
{
	const char *path = t->groups[*i]->path, *end = strrchr(path, '/');
	size_t len = end ? (size_t)(end - path) : 0;

	for (size_t j = 0; j < *i; j++)
		if (strlen(t->groups[j]->path) == len && !strncmp(t->groups[j]->path, path, len)) {
			*i = j;
			return t->groups[j];
		}
	return NULL;
}

static int validate_tree(const struct restart *r, const Reprise__CgroupTree *t, struct error *e)
{
	if (!t->n_groups || *t->groups[0]->path || t->groups[0]->threaded ||
	    strchr(t->controllers, '\n') || strlen(t->controllers) > 200)
		return invalid(e, "control groups without a first one");
	for (size_t i = 0; i < t->n_groups; i++) {
		if (!good_path(t->groups[i]->path) || (i && !cgroup_above(t, &(size_t){i})))
			return invalid(e, "a control group has an impossible path");
		if (!cgroup_values_valid(t->groups[i]))
			return invalid(e, "a control group has an impossible file");
		if ((*t->controllers && t->groups[i]->n_programs) ||
		    !cgroup_programs_valid(t->groups[i]))
			return invalid(e, "a control group has an impossible BPF program");
	}
	for (size_t i = 0; i < t->n_members; i++)
		if (t->members[i]->group >= t->n_groups ||
		    !restart_task_by_vtid((struct restart *)r, t->members[i]->tid))
			return invalid(e, "a member of no control group");
	return 0;
}

int cgroups_validate(const struct restart *r, const Reprise__Container *msg, struct error *e)
{
	const uint64_t needed = CLONE_NEWPID;

	if (msg->n_cgroups && (msg->own & needed) != needed)
		return invalid(e, "control groups of no container");
	for (size_t i = 0; i < msg->n_cgroups; i++) {
		int res = validate_tree(r, msg->cgroups[i], e);

		if (res < 0)
			return res;
		for (size_t j = 0; j < i; j++)
			if (!strcmp(msg->cgroups[i]->controllers, msg->cgroups[j]->controllers))
				return invalid(e, "two trees of control groups in one hierarchy");
	}
	return 0;
}

/* Nothing is lost with it but an empty group. */
static bool says_nothing(const Reprise__CgroupTree *t)
{
	if (t->n_groups > 1 || t->groups[0]->frozen || t->groups[0]->n_xattrs ||
	    t->groups[0]->n_programs)
		return false;
	for (size_t i = 0; i < t->groups[0]->n_files; i++)
		if (!cgroup_value_is_default(t->groups[0]->files[i]))
			return false;
	return true;
}

static int make_below(const struct cgroup_made *made, const Reprise__CgroupTree *t, struct error *e)
{
	for (size_t i = 0; i < t->n_groups; i++) {
		const Reprise__Cgroup *g = t->groups[i];
		_cleanup_(close_fd) int dir = -EBADF;

		if (i && mkdirat(made->dir, g->path, 0755) < 0)
			return error_errno(e, -errno, E_CONTAINER_CGROUP,
					   "cannot make control group %s/%s", made->path, g->path);
		dir = openat(made->dir, *g->path ? g->path : ".",
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (dir < 0 || fchown(dir, g->uid, g->gid) < 0 || fchmod(dir, g->mode & 07777) < 0)
			return error_errno(e, -errno, E_CONTAINER_CGROUP,
					   "cannot set the owner of control group %s/%s",
					   made->path, g->path);
		if (g->threaded && cgroup_write(dir, "cgroup.type", "threaded") < 0)
			return error_errno(e, -errno, E_CONTAINER_CGROUP,
					   "control group %s/%s cannot be threaded", made->path,
					   g->path);
	}
	return 0;
}

/* Controllers that the first group must have: it handed them down, or has limits by them. */
static void needed_controllers(const Reprise__CgroupTree *t, char *text, size_t size)
{
	const Reprise__Cgroup *g = t->groups[0];

	snprintf(text, size, "%s", g->subtree);
	for (size_t i = 0; i < g->n_files; i++) {
		char name[64];
		size_t len = strcspn(g->files[i]->name, ".");

		if (cgroup_value_is_default(g->files[i]) || len >= sizeof(name))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)len, g->files[i]->name);
		if (strcmp(name, "cgroup") && !cgroup_has_controller(text, name) &&
		    strlen(text) + len + 2 < size) {
			strcat(text, *text ? " " : "");
			strcat(text, name);
		}
	}
}

static int make_tree(struct cgroups_restart *cr, const struct cgroup_hierarchies *all,
		     const Reprise__CgroupTree *t, const char *record, struct error *e)
{
	const struct cgroup_hierarchy *h = cgroup_hierarchy_find(all, t->controllers);
	char needed[1024] = "";
	int r = 0;

	if (h && !*h->controllers)
		needed_controllers(t, needed, sizeof(needed));
	if (h)
		r = cgroup_make(h, needed, record, &cr->made, e);
	if (r < 0)
		return r;
	if (r > 0)
		return make_below(&cr->made.v[cr->made.n - 1], t, e);
	if (says_nothing(t))
		return 0;
	return error_set(
		e, -EOPNOTSUPP, E_CONTAINER_CGROUP,
		h ? "the container has limits or groups in hierarchy '%s', in which no group "
		    "may be made"
		  : "the container has limits or groups in hierarchy '%s', which is not there",
		*t->controllers ? t->controllers : "version 2");
}

/* ---- the process that stays outside ---- */

struct request {
	enum { PLACE, LIMITS, FREEZE } what;
	size_t tree;
	uint32_t group;
	pid_t tid, pid;
};

struct answer {
	int ret;
	struct error error;
};

static const Reprise__CgroupTree *tree_of(const Reprise__Container *msg, const char *controllers)
{
	for (size_t i = 0; i < msg->n_cgroups; i++)
		if (!strcmp(msg->cgroups[i]->controllers, controllers))
			return msg->cgroups[i];
	return NULL;
}

static int write_id(const struct cgroup_made *made, const Reprise__Cgroup *g, const char *file,
		    pid_t id, struct error *e)
{
	_cleanup_(close_fd) int dir = openat(made->dir, *g->path ? g->path : ".",
					     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char text[16];
	int r;

	snprintf(text, sizeof(text), "%d", id);
	r = dir < 0 ? -errno : cgroup_write(dir, file, text);
	return r < 0 ? error_errno(e, r, E_CONTAINER_CGROUP,
				   "task %d cannot be put into control group %s/%s", id, made->path,
				   g->path)
		     : 0;
}

/* The threads of a threaded group belong to processes of the group above that is none. */
static int place(const struct cgroup_made *made, const Reprise__CgroupTree *t,
		 const struct request *q, pid_t *last, struct error *e)
{
	const Reprise__Cgroup *g = t->groups[q->group], *domain = g;
	int r = 0;

	if (*t->controllers)
		return write_id(made, g, "tasks", q->tid, e);
	if (!g->threaded)
		return write_id(made, g, "cgroup.procs", q->pid, e);
	for (size_t i = q->group; domain && domain->threaded;)
		domain = cgroup_above(t, &i);
	if (*last != q->pid && domain)
		r = write_id(made, domain, "cgroup.procs", q->pid, e);
	*last = q->pid;
	return r < 0 ? r : write_id(made, g, "cgroup.threads", q->tid, e);
}

/* Those above first: what they hand down makes the files of those below. */
static int set_limits(const struct cgroup_made *made, const Reprise__CgroupTree *t, struct error *e)
{
	for (size_t i = 0; i < t->n_groups; i++) {
		const Reprise__Cgroup *g = t->groups[i];
		_cleanup_(free_ptr) char *names = strdup(g->subtree);
		_cleanup_(close_fd) int dir =
			openat(made->dir, *g->path ? g->path : ".",
			       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		char *save = NULL, command[256];
		int r = dir < 0 || !names ? -errno : 0;

		if (r < 0)
			return error_errno(e, r, E_CONTAINER_CGROUP, "cannot open control group %s",
					   g->path);
		for (char *c = strtok_r(names, " ", &save); c; c = strtok_r(NULL, " ", &save)) {
			snprintf(command, sizeof(command), "+%s", c);
			r = cgroup_write(dir, "cgroup.subtree_control", command);
			if (r < 0)
				return error_errno(e, r, E_CONTAINER_CGROUP,
						   "controller %s cannot be handed down", c);
		}
		r = cgroup_values_write(dir, g, e);
		if (r >= 0)
			r = cgroup_programs_attach(dir, g, e);
		if (r < 0)
			return error_object(e, r, "control group %s/%s", made->path, g->path);
	}
	return 0;
}

static int freeze(const struct cgroup_made *made, const Reprise__CgroupTree *t, struct error *e)
{
	bool v2 = !*t->controllers;

	for (size_t i = 0; i < t->n_groups; i++) {
		const Reprise__Cgroup *g = t->groups[i];
		_cleanup_(close_fd) int dir = -EBADF;
		int r;

		if (!g->frozen)
			continue;
		dir = openat(made->dir, *g->path ? g->path : ".",
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		r = dir < 0 ? -errno
			    : cgroup_write(dir, v2 ? "cgroup.freeze" : "freezer.state",
					   v2 ? "1" : "FROZEN");
		if (r < 0)
			return error_errno(e, r, E_CONTAINER_CGROUP,
					   "cannot freeze control group %s/%s", made->path,
					   g->path);
	}
	return 0;
}

static int serve(const struct cgroups_restart *cr, const Reprise__Container *msg,
		 const struct request *q, pid_t *last, struct error *e)
{
	int r = 0;

	vec_for_each (made, &cr->made) {
		const Reprise__CgroupTree *t = tree_of(msg, made->controllers);

		if (q->what == LIMITS && r >= 0)
			r = set_limits(made, t, e);
		else if (q->what == FREEZE && r >= 0)
			r = freeze(made, t, e);
		else if (q->what == PLACE && msg->cgroups[q->tree] == t)
			r = place(made, t, q, last, e);
	}
	return r;
}

static void __attribute__((noreturn))
helper(const struct cgroups_restart *cr, const Reprise__Container *msg, int socket)
{
	struct request q;
	pid_t last = 0;

	while (recv(socket, &q, sizeof(q), 0) == sizeof(q)) {
		struct answer a = {};

		a.ret = serve(cr, msg, &q, &last, &a.error);
		if (send(socket, &a, sizeof(a), MSG_NOSIGNAL) != sizeof(a))
			break;
	}
	_exit(0);
}

static int start_helper(struct cgroups_restart *cr, const Reprise__Container *msg, struct error *e)
{
	pid_t parent = getpid();
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	cr->pid = fork();
	if (cr->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		close(pair[0]);
		helper(cr, msg, pair[1]);
	}
	close(pair[1]);
	cr->helper = pair[0];
	return cr->pid < 0 ? error_errno(e, -errno, E_SYSTEM, "fork") : 0;
}

static int ask(const struct cgroups_restart *cr, const struct request *q, struct error *e)
{
	struct answer a;

	if (send(cr->helper, q, sizeof(*q), MSG_NOSIGNAL) != sizeof(*q) ||
	    recv(cr->helper, &a, sizeof(a), 0) != sizeof(a))
		return error_set(e, -EPIPE, E_CONTAINER_CGROUP,
				 "the process that sets control groups has ended");
	if (a.ret < 0)
		*e = a.error;
	return a.ret;
}

/* ---- the restart ---- */

int cgroups_restart_begin(struct cgroups_restart *cr, const Reprise__Container *msg,
			  const char *record, struct error *e)
{
	_cleanup_(cgroup_hierarchies_free) struct cgroup_hierarchies all = {};
	_cleanup_(close_fd) int proc_fd = -EBADF;
	int r;

	cr->helper = -EBADF;
	if (!msg->n_cgroups)
		return 0;
	r = procfs_open_root(&proc_fd, e);
	if (r >= 0 && record)
		r = cgroup_hierarchies_read(proc_fd, &all, e);
	for (size_t i = 0; i < msg->n_cgroups && r >= 0; i++)
		r = make_tree(cr, &all, msg->cgroups[i], record, e);
	for (size_t i = 0; i < msg->n_cgroups && r >= 0; i++)
		r = cgroup_visit_begin(cr, msg->cgroups[i], e);
	return r < 0 || !cr->made.n ? r : start_helper(cr, msg, e);
}

int cgroups_restart_enter(const struct cgroups_restart *cr, const Reprise__Container *msg,
			  struct error *e)
{
	int r = cgroups_join(&cr->made, e);

	if (r >= 0 && cr->made.n && msg->own & CLONE_NEWCGROUP && unshare(CLONE_NEWCGROUP) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a cgroup namespace");
	return r;
}

int cgroups_restart_place(struct cgroups_restart *cr, struct restart *r,
			  const Reprise__Container *msg, struct error *e)
{
	struct request q = {.what = PLACE};
	int res = 0;

	if (cr->helper < 0)
		return 0;
	for (q.tree = 0; q.tree < msg->n_cgroups; q.tree++) {
		const Reprise__CgroupTree *t = msg->cgroups[q.tree];

		for (size_t i = 0; i < t->n_members && res >= 0; i++) {
			const struct restart_task *task =
				restart_task_by_vtid(r, t->members[i]->tid);

			q.group = t->members[i]->group;
			q.tid = task->tid;
			q.pid = task->process->pid;
			res = ask(cr, &q, e);
		}
	}
	q.what = LIMITS;
	return res < 0 ? res : ask(cr, &q, e);
}

int cgroups_restart_freeze(struct cgroups_restart *cr, struct error *e)
{
	const struct request q = {.what = FREEZE};

	return cr->helper < 0 ? 0 : ask(cr, &q, e);
}

void cgroups_restart_end(struct cgroups_restart *cr)
{
	if (cr->helper >= 0) {
		/* Others may hold it as well. */
		shutdown(cr->helper, SHUT_RDWR);
		close_fd(&cr->helper);
		while (waitpid(cr->pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	cgroup_visit_end(cr);
	cgroups_made_free(&cr->made);
}
