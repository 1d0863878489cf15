/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_CHECKPOINT_H
#define REPRISE_MODEL_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/clocks.h"
#include "core/error.h"
#include "core/kernel_memory.h"
#include "core/objects.h"
#include "core/procfs.h"
#include "core/scratch.h"
#include "core/vec.h"
#include "image/image.h"
#include "model/record.h"
#include "model/spaces.h"
#include "remote/batch.h"
#include "remote/freeze.h"

/* Whether this kernel, or this machine, does something: the same for all tasks, and asked once. */
enum checkpoint_answer { NOT_ASKED, ANSWER_NO, ANSWER_YES };

/* A directory of which an overlay is made, on a mount of the host. */
struct overlay_part {
	dev_t dev; /* of the overlay */
	int dir_fd;
};
struct overlay_parts {
	VEC(struct overlay_part);
};

/* The mounts that a container has for itself. */
struct checkpoint_mounts {
	VEC(int) ids;	    /* of all: what lies on another one is of the host */
	VEC(dev_t) brought; /* devices whose files go into the image: other inodes later */
	const struct overlay_parts *overlays;
};

/*
 * The context of one checkpoint, or of one check (`checking`): the same code
 * looks at the tasks in both, but a check never stops a task, never runs
 * anything in one, and collects every refusal instead of ending at the first.
 */
struct checkpoint {
	int proc_fd;
	bool checking;
	bool exact;	/* nothing is taken for granted of what was seen before the freeze */
	bool no_copies; /* of address spaces are made: one was of no use */
	bool complete;	/* the image is written */
	enum checkpoint_deleted { DELETED_REFUSE, DELETED_SAVE, DELETED_LINK } deleted;
	/* Unix sockets whose other side is outside the tree */
	enum checkpoint_peers { PEERS_REFUSE, PEERS_DISCONNECT, PEERS_RECONNECT } peers;
	const char *const
		*externals;    /* what was declared to be outside, NULL at the end; may be NULL */
	bool inotify_overflow; /* unread events are lost, and the application is told so */
	bool tcp_closed;       /* TCP connections come back closed, instead of being refused */
	struct freezer freezer;
	struct image_writer *image;   /* NULL while checking */
	const struct same_keys *same; /* objects of the image's parent; may be NULL */
	struct mm_tracks *tracks;     /* whose memory has been copied in advance; may be NULL */
	struct mm_tracks *surveyed;   /* their mappings, by the survey, as of tracks; may be NULL */
	struct reserve *reserve;      /* for the image; NULL: for none */
	struct page_store
		*store; /* contents that are written when the tasks run again; may be NULL */
	struct objects *objects;		  /* who has been seen before */
	struct problems problems;		  /* while checking */
	VEC(struct checkpoint_process) processes; /* in the order of freezer.processes */
	struct stat output; /* of the image, so that it can be recognised among the files; st_ino 0:
			       none */
	bool subreapers;    /* one of the tasks takes in orphans (PR_SET_CHILD_SUBREAPER) */
	pid_t self;
	struct clock_offsets clocks; /* ours */
	char *status;		     /* see checkpoint_status() */
	pid_t status_of;
	struct kernel_memory *kernel; /* see checkpoint_kernel_memory() */
	struct bpf_known *programs;   /* see fs/bpf_known.h; kept likewise */
	bool filtered;		      /* a task has seccomp filters */
	bool sought_outside;	      /* whoever uses something of it outside is looked for */
	bool own_ipc;		      /* the tree is all that there is in its IPC namespace */
	bool own_groups;	      /* and it has control groups of version 2 for itself */
	int jobs;
	void (*trace)(void *arg, const char *line); /* may be NULL */
	void *trace_arg;
	struct security_probes *probes;	       /* see kernel/security.c */
	enum checkpoint_answer tells_barriers; /* see kernel/membarrier.c */
	enum checkpoint_answer has_keys;       /* see mm/keys.c */
	enum checkpoint_answer tells_dispatch; /* see kernel/task.c */
	struct unseen *unseen;		       /* see kernel/unseen.h; only while checking */
	struct glance *glance;		       /* see model/glance.h */
	struct ahead *ahead; /* looks at processes, in their order; NULL: nobody does */

	const struct checkpoint_mounts *mounts; /* of a container; NULL: those of reprise */
	struct checkpoint_spaces spaces;	/* namespaces of tasks that are not the root's */

	/* private state of the rooms, made by their begin and freed by their end functions */
	struct files_checkpoint *files;
	struct mm_checkpoint *mm;
	struct ipc_checkpoint *ipc;
};

/* Files of /proc/PID that are read in advance while the tasks stand. */
enum look_text {
	LOOK_STATUS,
	LOOK_LIMITS,
	LOOK_OOM,
	LOOK_DUMP,
	LOOK_TIMERS,
	LOOK_AUXV,
	LOOK_TEXTS
};

/* What a process is compared with. */
struct process_look {
	char *texts[LOOK_TEXTS]; /* NULL: has not been read, or was asked for */
	ssize_t lengths[LOOK_TEXTS];
	bool compared;
	int namespaces, labels; /* then: 0 or a negative errno, for which there is an error */
	struct error in_namespaces, in_labels;
	bool children_apart; /* of some thread they are born in another pid namespace than ours */
};

struct checkpoint_process {
	struct frozen_process *frozen;
	pid_t tid; /* a thread that lives: through it /proc is read (a leader may be a zombie) */
	struct proc_stat stat; /* of the leader */
	/*
	 * Who executes calls for it, and answers: a thread of its own, or of the child for which
	 * all of them wait in vfork(). NULL while checking, and for zombies.
	 */
	struct frozen_thread *speaker;
	uint64_t mm;	    /* object id; equal for processes made with CLONE_VM */
	bool shares_memory; /* with such a process */
	/* object ids of the tables of its first thread that lives; 0: not known yet */
	uint64_t files, fs, undo;
	uint64_t brk;	     /* where its heap ends, to the byte: only a task itself is told */
	struct agent *agent; /* live; NULL while checking, and for zombies */
	/* What is mapped is not locked: mlockall() was not told of the future. false: who knows. */
	bool agent_unlocked;

	/* what was looked at in advance (model/ahead.h); NULL: has not been */
	struct process_look *look;
	struct mm_look *mappings; /* private to mm */
};

/* Traces one line of what is being done; cheap when nobody listens. */
void checkpoint_trace(struct checkpoint *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * /proc/PID/task/TID/status, from the last checkpoint_look() at this thread if that was the last of
 * all: within a look nothing of it changes that anybody here asks for. The text belongs to c.
 */
int checkpoint_status(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		      const char **ret, struct error *e) must_check;
/* The same, read anew: as it was when the thread was stopped, or now. */
int checkpoint_look(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		    const char **ret, struct error *e) must_check;

/*
 * Memory of the kernel, for what no interface tells: opened when it is asked for first, and kept
 * from a check to the checkpoint that follows.
 */
int checkpoint_kernel_memory(struct checkpoint *c, struct kernel_memory **ret,
			     struct error *e) must_check;

/* Reads those files, by whichever thread; what cannot be read is left out. */
void checkpoint_read_texts(const struct checkpoint *c, const struct checkpoint_process *p,
			   struct process_look *l);
/* One of them, as procfs_read() does, which is done if it was not read before. */
ssize_t checkpoint_text(struct checkpoint *c, const struct checkpoint_process *p,
			enum look_text which, char **ret, struct error *e) must_check;
void checkpoint_look_free(struct process_look *l);

/*
 * How a refusal is reported: when checking it is added to c->problems, *e is
 * cleared and 0 is returned, so that the caller goes on with the next object;
 * otherwise, and if memory was missing, it is returned as it is.
 */
int checkpoint_refuse(struct checkpoint *c, int r, struct error *e);

/* Is it one of the tasks (processes, zombies, threads) that are being saved? */
bool checkpoint_has_task(const struct checkpoint *c, pid_t tid);
/*
 * Refuses what refers to a task for which its parent waits in vfork(): a restart makes that last,
 * when all files are open.
 */
int checkpoint_refer(const struct checkpoint *c, pid_t tid, struct error *e) must_check;

/*
 * Saves an object's record under its id, unless checking. The id comes from
 * c->objects, so that an object is saved once, before its first use.
 */
int checkpoint_put(struct checkpoint *c, enum record_type type, uint64_t id,
		   const ProtobufCMessage *msg, struct error *e) must_check;

#endif
