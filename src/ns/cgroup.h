/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CGROUP_H
#define REPRISE_NS_CGROUP_H

#include <dirent.h>
#include <string.h>

#include "core/error.h"
#include "core/scratch.h"
#include "core/vec.h"
#include "ns.pb-c.h"

/*
 * Hierarchies of control groups, as they are mounted where we are. One goes by the name that
 * /proc/PID/cgroup has for it: "" is version 2, "memory" or "cpu,cpuacct" or "name=systemd" are
 * of version 1.
 */
struct cgroup_hierarchy {
	char *controllers;
	char *point, *root; /* where it is mounted, and which group is seen there */
	char *own;	    /* the group that we are in */
};

struct cgroup_hierarchies {
	VEC(struct cgroup_hierarchy);
};

int cgroup_hierarchies_read(int proc_fd, struct cgroup_hierarchies *ret,
			    struct error *e) must_check;
void cgroup_hierarchies_free(struct cgroup_hierarchies *h);
const struct cgroup_hierarchy *cgroup_hierarchy_find(const struct cgroup_hierarchies *h,
						     const char *controllers);
/* Does a mount of that type, with these options, show that hierarchy? */
bool cgroup_is_mount_of(const char *type, const char *super, const char *controllers);
/* Is that controller one of a list as in /proc/PID/cgroup or cgroup.controllers? */
bool cgroup_has_controller(const char *list, const char *name);
/* In which group a task is, by the text of its /proc/PID/cgroup: 1, and *ret is to be freed; 0:
 * none. */
int cgroup_of(const char *text, const char *controllers, char **ret, struct error *e) must_check;
/* Where that group is to be found, to be freed; NULL: what is mounted does not show it. */
char *cgroup_directory(const struct cgroup_hierarchy *h, const char *group);
/* A group below, by whatever name. */
static inline bool cgroup_is_group(const struct dirent *d)
{
	return d->d_type == DT_DIR && strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

/* Reads a file of a group, without the newline at its end; a negative errno. */
int cgroup_read(int dir, const char *name, char *text, size_t size);
int cgroup_write(int dir, const char *name, const char *text);

/* ---- what can be set (cgroup_values.c) ---- */

/* Files that can be written, with their values and owners. */
int cgroup_values_read(int dir, bool v2, Reprise__Cgroup *msg, struct scratch *s,
		       struct error *e) must_check;
/* A name of a file in this directory, and nothing else? */
bool cgroup_values_valid(const Reprise__Cgroup *msg);
/* Sets what differs; the files are there. */
int cgroup_values_write(int dir, const Reprise__Cgroup *msg, struct error *e) must_check;
/* Does the file have what it has in every new group? Where it cannot be set, nothing is lost. */
bool cgroup_value_is_default(const Reprise__CgroupFile *f);

#endif
