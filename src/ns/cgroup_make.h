/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CGROUP_MAKE_H
#define REPRISE_NS_CGROUP_MAKE_H

#include "ns/cgroup.h"

/* A group of a container, in one hierarchy, that was made here. */
struct cgroup_made {
	char *controllers, *path; /* of the hierarchy; the directory */
	int dir, procs;		  /* procs: cgroup.procs, for writing */
	int home; /* that of the group in which we are; negative: it may not be written */
};

struct cgroups_made {
	VEC(struct cgroup_made);
};

/* What a new container may use; 0: as much as there is. */
struct cgroup_limits {
	uint64_t memory, pids;
	uint64_t cpu_thousandths; /* 1000: all of one processor */
};

/*
 * Makes a group for a container below ours in that hierarchy. In version 2 it is made further up
 * where ours cannot hand these controllers down (separated by spaces, may be empty), since it has
 * processes. The directory is written into the file `record` before it is made, so that whoever
 * finds that file can remove it. Returns 1, or 0 where we have no right to make groups.
 */
int cgroup_make(const struct cgroup_hierarchy *h, const char *controllers, const char *record,
		struct cgroups_made *ret, struct error *e) must_check;
/* For a new container, in the hierarchies that are of use, with limits. */
int cgroups_make(const char *record, const struct cgroup_limits *limits, struct cgroups_made *ret,
		 struct error *e) must_check;
/* The calling process goes into all of them. */
int cgroups_join(const struct cgroups_made *made, struct error *e) must_check;
/* The calling process goes where another one is; what cannot be done is left. */
void cgroups_follow(pid_t pid);
const struct cgroup_made *cgroup_made_find(const struct cgroups_made *made,
					   const char *controllers);
void cgroups_made_free(struct cgroups_made *made);

#endif
