/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CGROUPS_H
#define REPRISE_NS_CGROUPS_H

#include "model/checkpoint.h"
#include "model/restart.h"
#include "ns/cgroup.h"
#include "ns/cgroup_make.h"
#include "ns/cgroup_programs.h"

/*
 * The control groups of a container: in each hierarchy one that it has for itself, with all that
 * is below. Where processes of the host are in the same group there is none, and its tasks come
 * back in the group of the restart.
 *
 * Checkpoint: groups are looked at from outside, by descriptors of their directories that are
 * good inside as well.
 */
struct cgroup_tree {
	Reprise__CgroupTree msg;
	int dir;	  /* of the first group */
	char *path;	  /* its directory on the host */
	char *group;	  /* as the host calls it */
	const char *seen; /* as the tasks of the container call it */
};

/* A group that is frozen, and the file by which it is let go. */
struct cgroup_frozen {
	int fd;
	bool v2;
};

struct cgroups {
	VEC(struct cgroup_tree *) trees;
	VEC(struct cgroup_frozen) frozen;
	bool own_namespace, own_user; /* the container has such a namespace */
	struct cgroup_programs programs;
	int guard;    /* to a process that holds what was frozen when we are gone; -1: none */
	bool settled; /* nobody in the container can change anything of it */
	struct scratch *s;
};

/* From outside, before any namespace is entered. */
int cgroups_survey(struct cgroups *cg, int proc_fd, pid_t pid, struct error *e) must_check;
/*
 * Which group is that, by a path of our own namespace of groups? NULL: none of the container's.
 * *below: the path below the first group, "" is that.
 */
const struct cgroup_tree *cgroups_find(const struct cgroups *cg, const char *type,
				       const char *super, const char *group, const char **below);
/* All stand still: what groups there are, and who is where. */
int cgroups_checkpoint(struct cgroups *cg, struct checkpoint *c, Reprise__Container *msg,
		       struct error *e) must_check;
/* Groups that are frozen are let go (false), and frozen again. */
void cgroups_hold(const struct cgroups *cg, bool frozen);
/* Starts the process that holds them again if we are killed. */
int cgroups_guard(struct cgroups *cg, struct error *e) must_check;
/* They are to end, and will never be held again. */
void cgroups_let_die(const struct cgroups *cg);
void cgroups_free(struct cgroups *cg);
/* Refuses a task that stands still since somebody has frozen its group. */
int cgroups_check_frozen(int proc_fd, pid_t pid, struct error *e) must_check;

/* ---- restart ---- */

/* By which a process enters a group of version 2: cgroup.procs, and cgroup.threads if it is
 * threaded (else negative). */
struct cgroup_door {
	uint64_t id;
	int procs, threads;
};

struct cgroups_restart {
	struct cgroups_made made;
	int helper; /* to the process that stays outside, -1: none */
	pid_t pid;
	VEC(struct cgroup_door) doors; /* in the order of the image */
};

/* The group above the *i-th, which becomes that; NULL: none of the container's. */
const Reprise__Cgroup *cgroup_above(const Reprise__CgroupTree *t, size_t *i);

int cgroups_validate(const struct restart *r, const Reprise__Container *msg,
		     struct error *e) must_check;
/* Groups are made, before any namespace is. */
int cgroups_restart_begin(struct cgroups_restart *cr, const Reprise__Container *msg,
			  const char *record, struct error *e) must_check;
/* In the first process: enters them, and a new namespace of groups if there was one. */
int cgroups_restart_enter(const struct cgroups_restart *cr, const Reprise__Container *msg,
			  struct error *e) must_check;
/* All tasks are there: each goes into its group, then groups get their limits. */
int cgroups_restart_place(struct cgroups_restart *cr, struct restart *r,
			  const Reprise__Container *msg, struct error *e) must_check;
/* Those are frozen that were: from then on no task goes on that is let go. */
int cgroups_restart_freeze(struct cgroups_restart *cr, struct error *e) must_check;
void cgroups_restart_end(struct cgroups_restart *cr);

#endif
