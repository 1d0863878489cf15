/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_FILE_H
#define REPRISE_FS_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "model/checkpoint.h"
#include "model/restart.h"

/* asm-generic/fcntl.h: open() sets it and F_GETFL shows it, but libc has 0 for it on 64 bits. */
#define KERNEL_O_LARGEFILE 0100000

/*
 * Open file descriptions. A kind is one file in src/fs, src/net or src/ipc with
 * a struct file_ops, one row in the table of fs/file_kinds.c, one message in
 * the schema, one test.
 */
enum file_kind {		   /* numbers stand in images: for ever */
		 FILE_REGULAR = 1, /* and directories, O_PATH */
		 FILE_PIPE = 2,
		 FILE_DEVICE = 3,
		 FILE_TTY_OUTSIDE = 4,
		 FILE_EVENTFD = 5,
		 FILE_EPOLL = 6,
		 FILE_TIMERFD = 7,
		 FILE_SIGNALFD = 8,
		 FILE_INOTIFY = 9,
		 FILE_PIDFD = 10,
		 FILE_UNIX = 11,
		 FILE_INET = 12,
		 FILE_NETLINK = 13,
		 FILE_PTY = 14,
		 FILE_FIFO = 15,
		 FILE_PROC = 16,
		 FILE_FANOTIFY = 19,
		 FILE_TUN = 60,
		 FILE_KMSG = 61,
		 FILE_IO_URING = 66,
		 FILE_USERFAULTFD = 62,
		 FILE_BPF_MAP = 65,
		 FILE_OUTSIDE = 70,
		 FILE_MQUEUE = 40,
		 FILE_PACKET = 45,
		 FILE_VSOCK = 46,
		 FILE_EXTERNAL = 350,
		 FILE_NSFS = 391,
		 FILE_BPF_PROGRAM = 572,
		 FILE_BPF_TYPES = 920,
};

/* One open file description as it is seen from outside. */
struct file_seen {
	const struct checkpoint_process *process;
	pid_t tid;
	int fd;	     /* its number in that task: the first one met */
	uint64_t id; /* object id */
	int local;   /* our duplicate (pidfd_getfd): same description, so change nothing in it */
	uint64_t address; /* its struct file, of which `local` has no more than the path (O_PATH);
			     0: that of `local` */
	struct stat st;
	unsigned int flags; /* F_GETFL */
	uint64_t pos;
	int mnt_id;
	bool foreign;			  /* of no mount of the container */
	char *link;			  /* readlink of /proc/PID/fd/N */
	char *fdinfo;			  /* text of /proc/PID/fdinfo/N */
	const struct file_entry *carrier; /* a socket in whose queue it is; NULL */
	struct file_entry *entry;	  /* of this description, see fs/context.h */
};

/* A file in memory that the kernel names itself: on a mount that nobody sees. */
bool file_is_nameless(const struct file_seen *f);

struct file_ops {
	enum file_kind kind;
	const char *name;    /* "eventfd" */
	const char *support; /* one line for the table of supported kinds */
	/* Is it of this kind? Kinds are asked in the order of the table. */
	bool (*match)(const struct file_seen *f);
	/*
	 * Refuses what cannot be saved and fills in msg; runs both while checking (nothing is
	 * stopped; contents need not be collected then) and in a checkpoint. What msg points to
	 * must stay valid until the record is written: allocate from `scratch`, which is freed by
	 * the caller.
	 */
	int (*checkpoint)(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			  struct scratch *scratch, struct error *e);
	/*
	 * Runs when every table has been seen: descriptions that only a queue holds are met here.
	 * May be NULL.
	 */
	int (*checkpoint_queues)(struct checkpoint *c, struct error *e);
	/*
	 * Runs when every description has been seen and before the thaw, for what
	 * must know about others (members of an epoll set, both ends of a pipe). May be NULL.
	 */
	int (*checkpoint_all)(struct checkpoint *c, struct error *e);
	/* Frees what the kind kept; also runs when it was never asked for anything. May be NULL. */
	void (*checkpoint_end)(struct checkpoint *c);
	/* Checks an unpacked message: references, counts, enumerations. Creates nothing. */
	int (*validate)(const struct restart *r, const Reprise__File *msg, struct error *e);
	/* Opens it in this process. Flags, position and owner are set by the caller where the kind
	 * does not. */
	int (*restart)(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		       struct error *e);
	bool by_pidfd;	  /* no socket carries it (SCM_RIGHTS): tasks take it from us */
	bool after_tasks; /* needs the tasks to exist (a pidfd, files of /proc) */
	/* Second pass, when every description is open. May be NULL. */
	int (*finish)(struct restart *r, uint64_t id, const Reprise__File *msg, int fd,
		      struct error *e);
	/* Third pass, once for the kind, when finish() ran for all: what concerns several. May be
	 * NULL. */
	int (*restart_all)(struct restart *r, struct error *e);
	/* What only a task can do, with its table filled (the first task of each table). May be
	 * NULL. */
	int (*restart_table)(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			     struct error *e);
	/* Frees what the kind kept; also runs when it was never asked for anything. May be NULL. */
	void (*restart_end)(struct restart *r);
	/* One line for inspect: "counter 7, semaphore". The message was never validated: its parts
	 * may be missing. */
	void (*describe)(const Reprise__File *msg, char *buf, size_t size);
};

extern const struct file_ops *const file_kinds[]; /* NULL-terminated */

/* ---- what src/operation calls ---- */

int files_checkpoint_begin(struct checkpoint *c, struct error *e) must_check;
void files_checkpoint_end(struct checkpoint *c); /* accepts that begin never ran */
/* There are pipes: what takes time is done before the tasks are stopped. */
int files_expect_pipes(struct checkpoint *c, struct error *e) must_check;
/* The descriptor table and the fs_struct of a task; saved at first sight. Runs while checking, too
 * (kcmp works on running tasks). */
int files_checkpoint(struct checkpoint *c, struct checkpoint_process *p, pid_t tid,
		     uint64_t *ret_files, struct error *e) must_check;
int fs_checkpoint(struct checkpoint *c, struct checkpoint_process *p, pid_t tid, uint64_t *ret_fs,
		  struct error *e) must_check;
/* When all tables have been seen: what concerns several descriptions (checkpoint_all), and the
 * records of pipes and the like. */
int files_checkpoint_finish(struct checkpoint *c, struct error *e) must_check;

/* How many descriptors the saved tables have together. */
/* Is there one of that kind, by its name in the table of kinds? */
bool files_hold_kind(const struct checkpoint *c, const char *name);
uint64_t files_checkpoint_count(const struct checkpoint *c);

int files_restart_validate(const struct restart *r, struct error *e) must_check;
int files_restart_begin(struct restart *r, struct error *e) must_check;
void files_restart_end(struct restart *r); /* closes all of ours */
/*
 * Marks of groups of fanotify that decide about accesses: the last that is done before the tasks
 * run. Who opens a file that is watched, us as well, waits from here on.
 */
int files_restart_watch(struct restart *r, struct error *e) must_check;
void files_restart_watch_end(struct restart *r);
/* Opens every description; the second call, after the tasks were made, those with after_tasks, and
 * runs finish(). */
int files_restart_open(struct restart *r, struct error *e) must_check;
int files_restart_open_late(struct restart *r, struct error *e) must_check;
/* Fills the descriptor table of a task (the first that refers to this table), then closes the
 * control socket in it. */
int files_restart_fill(struct restart *r, struct restart_task *t, struct error *e) must_check;
/* Working directory, root, umask of a task (the first that refers to this fs). */
int fs_restart(struct restart *r, struct restart_task *t, struct error *e) must_check;
/*
 * Gives a session that has begun its terminal, if that is a pseudo-terminal of the tree: before its
 * leader has children, since they have it from their parent.
 */
int files_restart_session(struct restart *r, struct restart_process *leader,
			  struct error *e) must_check;
/* Whether the terminal of a session is a pseudo-terminal of the tree itself. */
bool files_restart_own_terminal(const struct restart *r, const struct restart_process *leader);
/* Our descriptor of an open file description, -1 if it is not open. */
int files_restart_fd(const struct restart *r, uint64_t file_id);

#endif
