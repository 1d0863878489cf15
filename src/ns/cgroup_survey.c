/* SPDX-License-Identifier: Apache-2.0 */
/* Which control groups a container has for itself. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/cgroups.h"
#include "ns/mount_table.h"

#define DEPTH_MAX 64
#define PIDS_MAX  (1 << 20)

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
}

void cgroups_free(struct cgroups *cg)
{
	close_fd(&cg->guard);
	vec_for_each (t, &cg->trees) {
		close_fd(&(*t)->dir);
		free((*t)->path);
		free((*t)->group);
		free(*t);
	}
	vec_free(&cg->trees);
	vec_for_each (f, &cg->frozen)
		close_fd(&f->fd);
	vec_free(&cg->frozen);
	cgroup_programs_free(&cg->programs);
}

static bool is_below(const char *group, const char *top, const char **rest)
{
	size_t len = strcmp(top, "/") ? strlen(top) : 0;

	if (strncmp(group, top, len) || (group[len] && group[len] != '/'))
		return false;
	if (rest)
		*rest = group + len + strspn(group + len, "/");
	return true;
}

/*
 * /proc/PID/cgroup as it is seen in the task's own namespace of groups, whose root is "/" there.
 * NULL where we may not enter it.
 */
static char *read_from_inside(int proc_fd, pid_t pid)
{
	_cleanup_(close_fd) int ours = -EBADF, theirs = -EBADF;
	_cleanup_(free_ptr) char *text = NULL;

	ours = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%d/ns/cgroup", getpid());
	theirs = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%d/ns/cgroup", pid);
	if (ours < 0 || theirs < 0 || setns(theirs, CLONE_NEWCGROUP) < 0)
		return NULL;
	if (procfs_read(proc_fd, &text, NULL, "%d/cgroup", pid) < 0)
		text = NULL;
	return setns(ours, CLONE_NEWCGROUP) < 0 ? NULL : take_ptr(&text);
}

static bool descends(int proc_fd, pid_t pid, pid_t root)
{
	for (int depth = 0; pid > 1 && depth < 4096; depth++) {
		struct error unused = {};
		struct proc_stat st;

		if (pid == root)
			return true;
		/* It has ended: then it is no matter. */
		if (proc_stat_read(proc_fd, pid, pid, &st, &unused) < 0)
			return true;
		pid = st.ppid;
	}
	return false;
}

/* Somebody who was put into the namespaces of the container is told of elsewhere. */
static bool in_container(int proc_fd, pid_t pid, pid_t root)
{
	_cleanup_(free_ptr) char *theirs = NULL, *ours = NULL;

	if (descends(proc_fd, pid, root))
		return true;
	return procfs_readlink(proc_fd, &theirs, NULL, "%d/ns/pid", pid) < 0 ||
	       procfs_readlink(proc_fd, &ours, NULL, "%d/ns/pid", root) < 0 ||
	       !strcmp(theirs, ours);
}

static int check_members(int dir, int proc_fd, pid_t root, const char *path, struct error *e)
{
	_cleanup_(free_ptr) char *text = malloc(PIDS_MAX);

	/* The members of a threaded group are listed above it. */
	if (!text || cgroup_read(dir, "cgroup.procs", text, PIDS_MAX) <= 0)
		return 0;
	for (char *s = text; *s; s += strspn(s, "\n")) {
		pid_t pid = (pid_t)strtol(s, &s, 10);
		struct error unused = {};
		struct proc_stat st;

		if (in_container(proc_fd, pid, root) ||
		    proc_stat_read(proc_fd, pid, pid, &st, &unused) < 0)
			continue;
		return error_set(
			e, -EBUSY, E_CONTAINER_CGROUP,
			"process %d (%s), outside, is in the container's control group %s; "
			"move it elsewhere",
			pid, st.comm, path);
	}
	return 0;
}

/* Does the group hold reprise, or whoever made the container? Then it is not the container's. */
static int is_shared(const struct cgroup_hierarchy *h, int proc_fd, pid_t pid, const char *group,
		     struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL, *theirs = NULL;
	struct error unused = {};
	struct proc_stat st;
	int r;

	if (!strcmp(group, "/") || is_below(h->own, group, NULL))
		return 1;
	if (proc_stat_read(proc_fd, pid, pid, &st, &unused) < 0 || st.ppid <= 0)
		return 0;
	if (procfs_read(proc_fd, &text, NULL, "%d/cgroup", st.ppid) < 0)
		return 1;
	r = cgroup_of(text, h->controllers, &theirs, e);
	return r > 0 ? is_below(theirs, group, NULL) : r;
}

/* The root of its namespace of groups, or the group that it is in. */
static char *find_top(const struct cgroups *cg, const char *outside, const char *inside)
{
	size_t len = strlen(outside), rest;

	if (!cg->own_namespace)
		return strdup(outside);
	if (!inside || !is_below(inside, "/", NULL) || !strncmp(inside, "/..", 3))
		return NULL;
	rest = strcmp(inside, "/") ? strlen(inside) : 0;
	if (rest > len || strcmp(outside + len - rest, rest ? inside : ""))
		return NULL;
	return rest == len ? strdup("/") : strndup(outside, len - rest);
}

static int note_frozen(struct cgroups *cg, int dir, bool v2, Reprise__Cgroup *msg, struct error *e)
{
	struct cgroup_frozen *f;
	char text[16];

	if (cgroup_read(dir, v2 ? "cgroup.freeze" : "freezer.self_freezing", text, sizeof(text)) <
		    0 ||
	    strcmp(text, "1"))
		return 0;
	msg->frozen = true;
	f = vec_push(&cg->frozen);
	if (!f)
		return no_memory(e);
	f->v2 = v2;
	f->fd = openat(dir, v2 ? "cgroup.freeze" : "freezer.state", O_WRONLY | O_CLOEXEC);
	return f->fd < 0 ? error_errno(e, -errno, E_CONTAINER_CGROUP,
				       "cannot let go a frozen control group")
			 : 0;
}

static int add_group(struct cgroups *cg, struct cgroup_tree *t, int dir, const char *below,
		     bool first, Reprise__Cgroup ***list, size_t *cap, struct error *e)
{
	Reprise__Cgroup *msg = scratch_message(cg->s, Reprise__Cgroup, reprise__cgroup__init);
	bool v2 = !*t->msg.controllers;
	struct stat st;
	char type[64];
	int r;

	if (t->msg.n_groups == *cap) {
		Reprise__Cgroup **more = scratch_alloc(cg->s, (*cap * 2 + 16) * sizeof(*more));

		if (more && t->msg.n_groups)
			memcpy(more, *list, t->msg.n_groups * sizeof(*more));
		*cap = *cap * 2 + 16;
		*list = t->msg.groups = more;
	}
	if (msg)
		msg->path = scratch_string(cg->s, below);
	if (!msg || !msg->path || !*list || fstat(dir, &st) < 0)
		return no_memory(e);
	msg->mode = st.st_mode & 07777;
	msg->uid = st.st_uid;
	msg->gid = st.st_gid;
	msg->id = v2 ? st.st_ino : 0; /* kernfs_ino(), cgroup_id() */
	msg->threaded = v2 && cgroup_read(dir, "cgroup.type", type, sizeof(type)) >= 0 &&
			!strcmp(type, "threaded");
	(*list)[t->msg.n_groups++] = msg;
	r = first ? note_frozen(cg, dir, v2, msg, e) : 0;
	if (r >= 0 && v2)
		r = cgroup_programs_read(&cg->programs, dir, *below ? below : t->group, msg, cg->s,
					 e);
	/* Files that can be read by nobody, or have gone with their group, are looked at again. */
	return r < 0 ? r : cgroup_values_read(dir, v2, msg, cg->s, e);
}

struct walk {
	struct cgroups *cg;
	struct cgroup_tree *tree;
	Reprise__Cgroup **list;
	size_t cap;
	int proc_fd; /* -1: members are not looked at */
	pid_t root;
};

static int walk(struct walk *w, int dir, const char *below, int depth, struct error *e)
{
	_cleanup_(close_directory) DIR *d = NULL;
	struct dirent *entry;
	int fd, r, ended = 0;

	r = add_group(w->cg, w->tree, dir, below, w->proc_fd >= 0, &w->list, &w->cap, e);
	if (r >= 0 && w->proc_fd >= 0)
		r = check_members(dir, w->proc_fd, w->root, w->tree->path, e);
	fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d || depth > DEPTH_MAX)
		return r < 0 ? r
			     : error_set(e, -ELOOP, E_CONTAINER_CGROUP,
					 "the control groups below %s cannot be read",
					 w->tree->path);
	while (r >= 0 && (entry = next_entry(d, &ended))) {
		_cleanup_(close_fd) int child = -EBADF;
		_cleanup_(free_ptr) char *path = NULL;

		if (!cgroup_is_group(entry))
			continue;
		child = openat(dir, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (child < 0)
			continue; /* it has gone */
		if (asprintf(&path, "%s%s%s", below, *below ? "/" : "", entry->d_name) < 0)
			return no_memory(e);
		r = walk(w, child, path, depth + 1, e);
	}
	if (r >= 0 && ended < 0)
		return error_errno(e, ended, E_CONTAINER_CGROUP,
				   "the control groups below %s cannot be read", w->tree->path);
	return r;
}

/* One that is frozen by what is above would not be let go by what we do. */
static int check_above(const struct cgroup_tree *t, struct error *e)
{
	bool v2 = !*t->msg.controllers;
	char text[256];

	if (v2 && (cgroup_read(t->dir, "cgroup.events", text, sizeof(text)) < 0 ||
		   !strstr(text, "frozen 1") || t->msg.groups[0]->frozen))
		return 0;
	if (!v2 && (cgroup_read(t->dir, "freezer.parent_freezing", text, sizeof(text)) < 0 ||
		    strcmp(text, "1")))
		return 0;
	return error_set(e, -EBUSY, E_CONTAINER_CGROUP,
			 "is frozen by a control group above %s, which is not the container's; let "
			 "that go first",
			 t->path);
}

static int look_at(struct cgroups *cg, const struct cgroup_hierarchy *h, int proc_fd, pid_t pid,
		   const char *outside, const char *inside, struct error *e)
{
	_cleanup_(free_ptr) char *group = find_top(cg, outside, inside);
	struct walk w = {.cg = cg, .proc_fd = proc_fd, .root = pid};
	struct cgroup_tree *t, **slot;
	int r;

	if (!group)
		return 0;
	r = is_shared(h, proc_fd, pid, group, e);
	if (r)
		return r < 0 ? r : 0;
	slot = vec_push(&cg->trees);
	t = slot ? *slot = calloc(1, sizeof(*t)) : NULL;
	if (!t)
		return no_memory(e);
	reprise__cgroup_tree__init(&t->msg);
	t->dir = -EBADF;
	t->msg.controllers = scratch_string(cg->s, h->controllers);
	t->path = cgroup_directory(h, group);
	t->group = take_ptr(&group);
	t->seen = cg->own_namespace ? "/" : t->group;
	if (!t->path || !t->msg.controllers)
		return no_memory(e);
	t->dir = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dir < 0)
		return error_errno(e, -errno, E_CONTAINER_CGROUP, "cannot open %s", t->path);
	w.tree = t;
	r = walk(&w, t->dir, "", 0, e);
	return r < 0 ? r : check_above(t, e);
}

int cgroups_survey(struct cgroups *cg, int proc_fd, pid_t pid, struct error *e)
{
	_cleanup_(cgroup_hierarchies_free) struct cgroup_hierarchies all = {};
	_cleanup_(free_ptr) char *outside = NULL, *inside = NULL;
	int r = cgroup_hierarchies_read(proc_fd, &all, e);

	if (r < 0 || procfs_read(proc_fd, &outside, NULL, "%d/cgroup", pid) < 0)
		return r;
	if (cg->own_namespace)
		inside = read_from_inside(proc_fd, pid);
	cg->settled = true;
	cg->programs.proc_fd = proc_fd;
	vec_for_each (h, &all) {
		_cleanup_(free_ptr) char *there = NULL, *here = NULL;

		r = cgroup_of(outside, h->controllers, &there, e);
		if (r >= 0 && inside)
			r = cgroup_of(inside, h->controllers, &here, e);
		if (r >= 0)
			r = there ? look_at(cg, h, proc_fd, pid, there, here, e) : 0;
		if (r < 0)
			return r;
	}
	cgroup_programs_end(&cg->programs);
	vec_for_each (t, &cg->trees)
		cg->settled &= (*t)->msg.n_groups == 1;
	return cg->frozen.n ? cgroups_guard(cg, e) : 0;
}

const struct cgroup_tree *cgroups_find(const struct cgroups *cg, const char *type,
				       const char *super, const char *group, const char **below)
{
	vec_for_each (t, &cg->trees)
		if (cgroup_is_mount_of(type, super, (*t)->msg.controllers) &&
		    is_below(group, (*t)->group, below))
			return *t;
	return NULL;
}

/* Where a thread is, of the groups that were listed: its number, a negative errno. */
static int find_group(const struct cgroup_tree *t, const char *text, struct error *e)
{
	_cleanup_(free_ptr) char *group = NULL;
	const char *below;
	int r = cgroup_of(text, t->msg.controllers, &group, e);

	if (r < 0)
		return r;
	if (!group || !is_below(group, t->seen, &below))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_CGROUP,
				 "is in control group %s:%s, which is not below that of the "
				 "container",
				 t->msg.controllers, group ? group : "?");
	for (size_t i = 0; i < t->msg.n_groups; i++)
		if (!strcmp(t->msg.groups[i]->path, below))
			return (int)i;
	return error_set(e, -EAGAIN, E_CONTAINER_CGROUP,
			 "control group %s was made just now; try again", group);
}

static int add_member(struct cgroups *cg, struct cgroup_tree *t, pid_t pid, pid_t tid, int group,
		      size_t most, struct error *e)
{
	Reprise__CgroupMember *m;

	/* In version 2 a process is in one group, with all its threads; but those of threaded
	 * groups. */
	if (!group || (!*t->msg.controllers && pid != tid && !t->msg.groups[group]->threaded))
		return 0;
	if (!t->msg.members)
		t->msg.members = scratch_alloc(cg->s, most * sizeof(*t->msg.members));
	m = scratch_message(cg->s, Reprise__CgroupMember, reprise__cgroup_member__init);
	if (!m || !t->msg.members)
		return no_memory(e);
	m->tid = tid;
	m->group = (uint32_t)group;
	t->msg.members[t->msg.n_members++] = m;
	return 0;
}

static int look_at_thread(struct cgroups *cg, struct checkpoint *c, pid_t pid, pid_t tid,
			  size_t most, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	int r = (int)procfs_read(c->proc_fd, &text, e, "%d/task/%d/cgroup", pid, tid);

	vec_for_each (t, &cg->trees) {
		int group = r < 0 ? r : find_group(*t, text, e);

		r = group < 0 ? group : add_member(cg, *t, pid, tid, group, most, e);
		if (r < 0)
			return error_object(e, r, "task %d", tid);
	}
	return r;
}

static int look_at_members(struct cgroups *cg, struct checkpoint *c, struct error *e)
{
	size_t most = 0;
	int r = 0;

	vec_for_each (p, &c->freezer.processes)
		most += p->threads.n;
	vec_for_each (p, &c->freezer.processes)
		vec_for_each (t, &p->threads)
			if (!t->zombie && r >= 0)
				r = look_at_thread(cg, c, p->pid, t->tid, most, e);
	return r;
}

static bool same_values(const Reprise__Cgroup *a, const Reprise__Cgroup *b)
{
	if (strcmp(a->path, b->path) || a->threaded != b->threaded || a->n_files != b->n_files ||
	    strcmp(a->subtree, b->subtree))
		return false;
	for (size_t i = 0; i < a->n_files; i++)
		if (strcmp(a->files[i]->name, b->files[i]->name) ||
		    strcmp(a->files[i]->value, b->files[i]->value))
			return false;
	return true;
}

/*
 * As it is now that all stand, and nobody inside changes anything. Owners are told by the ids of
 * the container if it has a user namespace: there it must be as it was seen from outside.
 */
static int look_again(struct cgroups *cg, struct cgroup_tree *t, struct error *e)
{
	struct walk w = {.cg = cg, .tree = t, .proc_fd = -EBADF};
	Reprise__CgroupTree before = t->msg;
	int r;

	t->msg.groups = NULL;
	t->msg.n_groups = 0;
	r = walk(&w, t->dir, "", 0, e);
	for (size_t i = 0; i < t->msg.n_groups && r >= 0; i++)
		for (size_t j = 0; j < before.n_groups; j++)
			if (!strcmp(t->msg.groups[i]->path, before.groups[j]->path))
				t->msg.groups[i]->frozen = before.groups[j]->frozen;
	if (r < 0 || !cg->own_user)
		return r;
	for (size_t i = 0; i < before.n_groups; i++)
		if (t->msg.n_groups != before.n_groups ||
		    !same_values(t->msg.groups[i], before.groups[i]))
			return error_set(e, -EAGAIN, E_CONTAINER_CGROUP,
					 "control groups were changed just now; try again");
	t->msg = before;
	return 0;
}

int cgroups_checkpoint(struct cgroups *cg, struct checkpoint *c, Reprise__Container *msg,
		       struct error *e)
{
	msg->cgroups = scratch_alloc(cg->s, (cg->trees.n + 1) * sizeof(*msg->cgroups));
	if (!msg->cgroups)
		return no_memory(e);
	msg->n_cgroups = 0;
	cg->programs.proc_fd = c->proc_fd;
	vec_for_each (t, &cg->trees) {
		int r = cg->settled ? 0 : look_again(cg, *t, e);

		if (r < 0)
			return r;
		(*t)->msg.n_members = 0;
		(*t)->msg.members = NULL;
		msg->cgroups[msg->n_cgroups++] = &(*t)->msg;
	}
	return cg->settled ? 0 : look_at_members(cg, c, e);
}
