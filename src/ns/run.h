/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_RUN_H
#define REPRISE_NS_RUN_H

#include "core/error.h"
#include "ns/cgroup_make.h"
#include "ns/mounts.h"

/* The descriptor of the first process for the master of the container's terminal, if it has one. */
#define RUN_TERMINAL 9

/*
 * A new container around a command. It is made of nothing that a checkpoint
 * does not find again by looking: namespaces, mounts, and a first process that
 * reaps and hands on signals.
 */
struct run {
	struct mounts_place place; /* root and layers */
	const char *rootfs;	   /* lower directory: "/" for the files of the host */
	const char *hostname, *workdir;
	const char *const *volumes; /* "HOST:INSIDE" or "HOST:INSIDE:ro" */
	bool host_network;
	bool user;	 /* a user namespace, in which the caller is root */
	bool own_user;	 /* in a user namespace; set by run_begin() */
	const char *net; /* "veth", or with addresses; NULL: none */
	/* Everything is made: called before the command begins. */
	int (*ready)(void *arg, pid_t init, struct error *e);
	void *arg;
	bool terminal;		  /* a pseudo-terminal of its own */
	bool is_init;		  /* the command is the first process itself */
	const char *cgroups_file; /* where it is noted which control groups are made; NULL: none */
	struct cgroup_limits limits;
	struct cgroups_made cgroups; /* made by run_begin() */
	bool show_cgroups;	     /* they are mounted on /sys/fs/cgroup, and can be changed */
	char *const *argv;
	char *const *envp;
};

/* Makes the namespaces: this process only sees the change. */
int run_begin(struct run *run, struct error *e) must_check;
/*
 * Makes the first process, as a child of our parent, and the command in it.
 * Returns when the command has been executed. *init is killed on failure.
 */
int run_start(const struct run *run, pid_t *init, struct error *e) must_check;

#endif
