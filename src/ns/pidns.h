/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_PIDNS_H
#define REPRISE_NS_PIDNS_H

#include "core/error.h"
#include "model/restart.h"

/*
 * A pid namespace of its own for a restarted tree, with a mount namespace in
 * which /proc is that of the new namespace. An ordinary user gets them in a user
 * namespace that maps the user to itself.
 *
 * The first process of a pid namespace is its init: it adopts orphans, and all
 * others die with it. Where the root of the image is not process 1, a small init
 * of ours stands in: it makes the root stub on request, reaps what is left to it, and ends
 * with the status of the root when no process is left.
 */
struct pidns {
	pid_t init;  /* real pid; a child of our parent (CLONE_PARENT) */
	int channel; /* to ask it for the root stub */
};

/* Code that a new stub runs until it is traced: never returns. Async-signal-safe only. */
typedef void (*stub_main)(void *arg) __attribute__((noreturn));

/* Enters new user (if needed) and mount namespaces, and an IPC namespace if that is wanted: this
 * process only sees the change. */
int pidns_enter(bool ipc, struct error *e) must_check;
/* What the first process of the new namespace mounts there, before anything else. */
typedef int (*mounts_fn)(void *arg, struct error *e);
/* The least there can be: a new /proc over the old one. */
int pidns_mount_proc(void *arg, struct error *e);
/*
 * Makes the first process of the new namespace. root_is_init: it becomes the
 * stub itself, after everything has been mounted.
 */
int pidns_make_init(struct pidns *ns, bool root_is_init, mounts_fn mounts, void *mounts_arg,
		    stub_main stub, void *arg, struct error *e) must_check;
/* The root stub, a child of init, with the chosen pid inside; *ret is its real pid. */
int pidns_make_root(struct pidns *ns, struct restart *r, pid_t vpid, pid_t *ret,
		    struct error *e) must_check;
/*
 * The restart is complete: init goes on by itself. Until then the end of the
 * coordinator is the end of init, and with it of everything in the namespace.
 */
/*
 * The last number that our pid namespace has given away, 0 if nobody tells; and in a new one,
 * through its first task: others than those that the image had before are given from now on.
 */
uint32_t pidns_counter(int proc_fd);
int pidns_restart_counter(struct restart *r, struct error *e) must_check;
int pidns_release(struct pidns *ns, struct error *e) must_check;

#endif
