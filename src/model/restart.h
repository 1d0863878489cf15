/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_RESTART_H
#define REPRISE_MODEL_RESTART_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/clocks.h"
#include "core/error.h"
#include "core/vec.h"
#include "image/image.h"
#include "kernel.pb-c.h"
#include "mm.pb-c.h"
#include "fs.pb-c.h"
#include "ns.pb-c.h"
#include "model/record.h"
#include "model/spaces.h"
#include "remote/batch.h"

/*
 * The context of one restart. Records are unpacked and validated before a
 * single task is made, and are found by their id from then on.
 *
 * Two kinds of pids: those of the image ("virtual", as the tasks see them) and
 * those by which we know the tasks (different in a new pid namespace).
 */
/* An address of IPv4, in network byte order, that a container had and that is another one now. */
struct restart_address {
	uint32_t from, to;
};

/* A mark of a group of fanotify, both as descriptors. */
struct restart_mark {
	int group, target;
	unsigned int flags;
	uint64_t mask;
};

/* The file of a socket that was made, and what was there before: see restart_replaced(). */
struct restart_made {
	int dir;
	char *name;
	struct stat is, was; /* st_ino 0: none */
};

/* What takes the place of an open file: see struct reprise_replacement. */
struct restart_replacement {
	const char *object, *with;
	int fd;
};

/* See restart_task_clock_ns(). */
struct restart_clocks {
	struct clock_offsets own;  /* our clocks are ahead of the machine's */
	struct clock_offsets away; /* the machine's of then are ahead of those of now */
};

/* See handover.c. Descriptors. */
struct restart_handover {
	int first, n, used; /* of the reading end, one for each process */
	int writer;
};

struct restart {
	int proc_fd; /* /proc in which real pids are valid */
	struct image_reader *image;
	struct restart_records *records;
	VEC(struct restart_process) processes; /* in the order of creation: parents first */
	/* NULL; or how attributes are set that only root of the machine may set (ns/foreign.h). */
	const struct foreign *foreign;
	bool pidns;
	bool lazy; /* private memory is filled after the tasks run */
	bool changed_files_allowed;
	bool detached;	 /* whoever restarts does not stay: it is nobody's parent for long */
	bool peers_gone; /* Unix sockets are not connected anew to what is outside the tree */
	int stdio[3];	 /* what replaces an outside terminal or pipe on 0, 1, 2; -1: none */
	int tty_fd; /* the controlling terminal of the restart, for other descriptors of the old
		       one; -1 none */
	uint64_t agent_at;	  /* where the agent stands in every address space that we make */
	uint64_t agent_compat_at; /* the same in those of 32-bit programs; 0: there are none */
	int control;	    /* our end of the socket through which descriptors reach the tasks */
	int control_remote; /* its descriptor number in every task */
	int jobs;
	VEC(struct restart_replacement) replacements;
	VEC(struct restart_address) addresses; /* in whose place others are */
	struct restart_spaces spaces;
	struct restart_clocks clocks;
	gid_t *groups; /* supplementary groups of ours, by the numbers outside */
	size_t n_groups;
	void (*trace)(void *arg, const char *line);
	void *trace_arg;
	void (*warn)(void *arg, const struct error *problem); /* changed files that are allowed */
	void *warn_arg;

	struct restart_handover handover;
	const struct cgroups_restart *cgroups; /* of a container; NULL: there is none */
	VEC(struct restart_mark) late_marks;   /* see files_restart_watch() */
	VEC(struct restart_made) made;	       /* see restart_replaced() */

	/* private state of the rooms */
	struct files_restart *files;
	struct mm_restart *mm;
	struct ipc_restart *ipc;
};

struct restart_process {
	pid_t pid;  /* real; 0 before it is made */
	pid_t vpid; /* in the image */
	const Reprise__Process *msg;
	const Reprise__Mm *mm; /* NULL for a zombie */
	uint64_t mm_id;
	struct agent *agent; /* captive, shared with CLONE_VM relatives */
	bool let_go;
	bool mm_owner;			/* the first process of its mm: it builds and fills it */
	struct restart_process *parent; /* NULL: outside */
	uint64_t children_space;	/* in which pid namespace its leader makes children now */
	uint64_t user_space;		/* in which user namespace it is now */
	VEC(struct restart_task) tasks; /* leader first */
};

struct restart_task {
	pid_t tid, vtid;
	const Reprise__Task *msg;
	struct restart_process *process;
	bool asleep; /* the kernel holds the time-out of the call that it was in */
	int control; /* number of the control socket in it, where that had to move; else 0 */
};

void restart_trace(struct restart *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Where nothing was, or a socket that was nobody's any more (`was`, whose st_ino is 0 in the first
 * case), a socket's file is about to be made that outlasts the restart: restart_made_end() sees to
 * it that all is as before, unless it is told that all went well. The descriptor of the directory
 * stays the caller's.
 */
int restart_replaced(struct restart *r, int dir, const char *name, const struct stat *was,
		     struct error *e) must_check;
/* What was announced last has been made. */
int restart_made(struct restart *r, struct error *e) must_check;
void restart_made_end(struct restart *r, bool keep);

/* The unpacked message of an object, or NULL if there is none of that type and id. */
const void *restart_find(const struct restart *r, enum record_type type, uint64_t id);
/* The i-th object of a type in image order, NULL past the last; *ret_id may be NULL. */
const void *restart_nth(const struct restart *r, enum record_type type, size_t i, uint64_t *ret_id);
/*
 * Before namespaces are made: the instant at which clocks go on in all time namespaces of the
 * image.
 */
int restart_clocks_begin(struct restart *r, struct error *e) must_check;
/* Of a time namespace of the image: as it is made now, ahead of the machine's clocks. */
struct clock_offsets restart_clock_offsets(const struct restart *r,
					   const Reprise__TimeOffsets *then);
/* What a clock shows to the tasks of a process: for absolute times in calls that they execute. */
uint64_t restart_task_clock_ns(const struct restart *r, const struct restart_process *p,
			       clockid_t clock);
/* Is a process in a time namespace of the image, so that points in time are what they were? */
bool restart_clocks_go_on(const struct restart *r, const struct restart_process *p);
/*
 * When a point in time by the machine's clock of then is there by the clock of the tasks of a
 * process. False: without a time namespace, where the clocks have not stood still.
 */
bool restart_clock_point(const struct restart *r, const struct restart_process *p, clockid_t clock,
			 uint64_t then, uint64_t *ret);
/* A task of the tree by its virtual pid or tid, NULL if there is none. */
struct restart_task *restart_task_by_vtid(struct restart *r, pid_t vtid);
/* Real pid of a process or thread of the image, 0 if none. */
pid_t restart_real_pid(struct restart *r, pid_t vpid);

/*
 * Hands descriptors of ours to a task: sends them over the control socket and lets it receive them.
 * They arrive close-on-exec at the lowest free numbers; remote[i] tells which. Up to 253 at once.
 */
int restart_send_fds(struct restart *r, struct restart_task *t, const int *fds, size_t n,
		     int *remote, struct error *e) must_check;

#endif
