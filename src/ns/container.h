/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CONTAINER_H
#define REPRISE_NS_CONTAINER_H

#include <pthread.h>

#include "model/checkpoint.h"
#include "model/restart.h"
#include "ns.pb-c.h"
#include "ns/cgroups.h"
#include "ns/foreign.h"
#include "ns/layer.h"
#include "ns/mounts.h"
#include "ns/mounts_covered.h"
#include "ns/mounts_early.h"
#include "ns/network.h"

/*
 * A container: a tree whose root has namespaces of its own.
 *
 * At a checkpoint this process enters them, all of them, the pid namespace by
 * a child that goes on in its place. From there the tree is one like any other, whose root is
 * process 1: paths, pids, sockets and objects are those that the tasks see.
 *
 * Something of ours stays outside: no signal from inside can end the init of a pid namespace
 * (SIGNAL_UNKILLABLE), and what processes outside use of it is seen from there only.
 */
/* A task in it, or reprise: by its pid there, and outside. */
struct container_pid {
	pid_t in, out;
	uint64_t start_time; /* of whom that was found */
};

struct container {
	uint64_t own;	  /* CLONE_NEW*; 0: it is none */
	const char *name; /* for the image; may be NULL */
	struct scratch s;
	Reprise__Container msg;
	struct mounts_survey mounts;
	struct checkpoint_mounts seen; /* for a checkpoint in a mount namespace of its own */
	VEC(struct layer *) layers;
	struct network network;
	pthread_t looker; /* who looks at it, meanwhile */
	bool looking;
	int network_result;
	struct error network_error;
	struct cgroups cgroups;
	int proc_fd;   /* of the namespace; -1: ours */
	int host_proc; /* of the namespace that we came from */
	bool of_root;  /* who saves it has power over the machine, and none in its user namespace */
	bool powerless;		 /* nor a name there */
	struct outpost *outside; /* what stays there (ns/outsider.h); NULL: nothing does */
	bool scanning;		 /* it looks at all */
	size_t others;		 /* processes outside, when that was checked */
	VEC(struct container_pid) pids;
	Reprise__Container here;	/* of our own user namespace: its maps */
	const char *const *allow_leaks; /* kinds, NULL at the end; may be NULL */
};
#define CONTAINER_INIT                                                           \
	{                                                                        \
		.network = NETWORK_INIT, .proc_fd = -EBADF, .host_proc = -EBADF, \
		.cgroups.guard = -EBADF                                          \
	}

/*
 * Enters the namespaces of *pid that are not ours; *pid becomes its pid there. Nothing happens
 * where it has none. In the end the worker is another process than before: the one before waits for
 * it and ends.
 */
int container_enter(struct container *ct, pid_t *pid, struct error *e) must_check;
/* container_enter.c, when all that is to be seen from outside has been seen. user: that of the
 * container, if it has one. */
int container_enter_all(struct container *ct, pid_t pid, int user, struct error *e) must_check;
/* No task of the pid namespace is without a parent in it but its init. */
int container_check_tasks(const struct container *ct, struct error *e) must_check;
/* Sends a signal to a task of the tree; to init from outside. As kill(2): 0 or a negative errno. */
int container_kill(void *arg, pid_t pid, int sig);

/* Tasks that stand still by a control group are let go (false), and held again. */
void container_hold(void *arg, bool frozen);

/* What runs outside: container_look() begins to look at it if there is much. NULL: each process has
 * to be asked. */
struct outside;
void container_begin_scan(struct container *ct);
void container_end_scan(struct container *ct, struct outside **all);
/*
 * What the container shares with processes outside, each a refusal that names
 * both: files that are open on both sides, its memory, its file systems, its namespaces. Once all
 * its files have been looked at. Nothing is looked for where it has no pid namespace of its own.
 */
int container_check_leaks(struct checkpoint *c, struct container *ct, struct error *e) must_check;

/* The tasks stand still: looks at its layers, and begins to look at its network, beside what is
 * done until the next. */
int container_look(struct checkpoint *c, struct container *ct, struct error *e) must_check;
/* The private files of a mount namespace, behind those of the container itself. */
int container_add_layers(struct checkpoint *c, struct container *ct, struct mounts_survey *mounts,
			 struct error *e) must_check;
/* The record of the container. */
int container_checkpoint(struct checkpoint *c, struct container *ct, struct error *e) must_check;
uint64_t container_page_bytes(const struct container *ct);
int container_save_pages(struct checkpoint *c, struct container *ct, struct error *e) must_check;
void container_free(struct container *ct);

/* ---- restart ---- */

struct container_restart {
	const Reprise__Container *msg; /* NULL: the image is of none */
	struct mounts_place place;
	struct mounts_early early;
	struct mounts_below below;
	struct foreign foreign;
	struct hand
		*hand;	 /* traces, with more rights than we have (remote/tracer.h); NULL: we do */
	int channel[2];	 /* from who mounts to us */
	const char *net; /* --net */
	const char *cgroups_file; /* where it is noted which control groups are made; NULL: none */
	struct cgroups_restart cgroups;
};

/* Does the image hold a container with a pid namespace of its own? */
bool container_has_pidns(const struct restart *r);
/* Does it need directories on the host? Gives its name as well. */
bool container_needs_place(const struct restart *r, char *name, size_t size);
int container_validate(const struct restart *r, struct error *e) must_check;
/* The id of the i-th layer of a container that is being saved, 0 past the last. */
uint64_t container_layer(const struct container *ct, size_t i);
/* Makes the namespaces but that of pids, and the writable layers, which are filled. */
int container_restart_begin(struct restart *r, struct container_restart *cr,
			    struct error *e) must_check;
/*
 * In the first process of the new pid namespace: goes into its control groups, and mounts
 * everything. A step of pidns_make_init().
 */
int container_restart_first(void *arg, struct error *e) must_check;
/* All tasks are made: they go into their control groups, with the limits that these have. */
int container_restart_place(struct restart *r, struct container_restart *cr,
			    struct error *e) must_check;
/* We are where they are. */
int container_restart_mounted(struct restart *r, struct container_restart *cr,
			      struct error *e) must_check;
void container_restart_end(struct container_restart *cr);

#endif
