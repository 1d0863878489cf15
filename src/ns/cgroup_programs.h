/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CGROUP_PROGRAMS_H
#define REPRISE_NS_CGROUP_PROGRAMS_H

#include "core/vec.h"
#include "ns/cgroup.h"

struct kernel_memory;

/*
 * BPF programs that are attached to control groups of version 2: above all the one that decides
 * which devices may be opened, of all containers that others make. They live without any
 * descriptor, and only the group tells of them, to who may attach some (in the first user
 * namespace).
 */
struct cgroup_programs {
	int proc_fd;
	struct kernel_memory *kernel; /* NULL: was not needed yet */
	VEC(struct cgroup_program_seen {
		uint32_t id;
		Reprise__CgroupProgram *msg;
	})
	seen;
	bool optional; /* what cannot be saved is left out */
};

/* `dir`: the directory of a group, `path`: what it is called. */
int cgroup_programs_read(struct cgroup_programs *p, int dir, const char *path, Reprise__Cgroup *msg,
			 struct scratch *s, struct error *e) must_check;
/* What is seen from here on is seen by another process. */
void cgroup_programs_end(struct cgroup_programs *p);
void cgroup_programs_free(struct cgroup_programs *p);

bool cgroup_programs_valid(const Reprise__Cgroup *msg);
int cgroup_programs_attach(int dir, const Reprise__Cgroup *msg, struct error *e) must_check;

#endif
