/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_CONTEXT_H
#define REPRISE_FS_CONTEXT_H

#include "core/kernel_memory.h"
#include "core/objects.h"
#include "core/scratch.h"
#include "core/vec.h"
#include "fs/file.h"
#include "fs/inode.h"
#include "remote/batch.h"

/*
 * What the room keeps during one checkpoint and one restart. Private to the
 * rooms of files (fs, net, ipc).
 */

/* A description that was seen. Its message is complete when all have been seen. */
struct file_entry {
	uint64_t id;
	const struct file_ops *ops; /* NULL: refused while checking */
	Reprise__File *msg;
	pid_t pid, tid;
	int fd;		/* where it was met first */
	bool in_flight; /* met in the queue of a socket: pid, tid and fd are ours */
	const struct file_entry *carrier; /* this socket */
	char *comm;
	char *link;
	uint64_t dev, ino, rdev;
	size_t table; /* index of the table in which it was met */
	bool is_socket;
	uint64_t private; /* of its kind */
};

struct inode_entry {
	uint64_t id;
	int fd;			 /* readable descriptor of contents that have to be saved, or -1 */
	int root;		 /* where its path begins, see space_of_file(), */
	size_t skip;		 /* and how far it is there already, see mounts_covered.h */
	uint64_t bytes;		 /* of its pages, as the survey saw it; 0: not of interest */
	struct page_runs runs;	 /* if they are kept: with positions in c->store */
	struct page_runs copies; /* made in advance, which hold: with positions as well; sorted */
	Reprise__Inode msg;	 /* strings belong to files_checkpoint.scratch */
};

/* A pipe, by <device, inode>: its two ends are descriptions. */
struct pipe_entry {
	uint64_t id;
	struct file_entry *read_end, *write_end; /* first met; NULL: not in the tree */
	bool other_end; /* somebody, somewhere, holds the end that we have not seen */
	bool fifo;
	Reprise__Pipe *msg;
};

/* A question to pipe_asker.h, and for what the answer is. */
struct pipe_asked {
	struct file_entry *entry;
	Reprise__Pipe *contents; /* NULL: not asked for */
	Reprise__PipeFile *fresh;
};

/* A TCP socket that is about to be connected; claimed by who will connect it again. */
struct tcp_connecting {
	struct file_entry *entry;
	int fd; /* ours */
	bool claimed;
};

/* What is read once for each network namespace. */
struct network_view {
	uint64_t id;	 /* see model/spaces.h */
	uint64_t cookie; /* SO_NETNS_COOKIE */
	struct sockopt_defaults *sockopts;
	struct multicast_groups *multicast;
	struct inet_table *inet_tables;
	struct packet_table *packets;
};

/* What file system a device number means. */
struct device_seen {
	uint64_t dev, type, block_size;
};

/* A descriptor on a file system, through which handles of it are opened; -1: there is none. */
struct mount_seen {
	dev_t dev;
	int fd;
};

/* A name that was made for a file that had lost the one by which it was known. */
struct made_link {
	const char *path; /* NULL: it could not be made */
};

struct table_entry {
	uint64_t id;
	pid_t tid; /* a task that has it */
	Reprise__Files *msg;
};

/* A number by which a thread knows a ring of io_uring. */
struct ring_number {
	pid_t tid;
	uint32_t index;
	uint64_t file; /* struct file, 0 not found out yet */
};

/* A socket to which a BPF program is attached. */
struct socket_program {
	const struct file_entry *socket;
	uint64_t *to;	 /* where its open file id is noted */
	uint64_t holder; /* what in the kernel refers to it: struct sk_filter, struct sock_reuseport
			  */
	uint32_t number; /* of the program; 0: unknown */
};

/* What the glance told of a task's directories, and what these are: inodes, 0 for "/" as a root. */
struct known_directories {
	uint64_t addresses[5];
	uint64_t root, cwd;
};

struct files_checkpoint {
	struct kcmp_index *by_file, *by_table,
		*by_fs;			     /* class n is entry n - 1 of by_class, tables, fss */
	VEC(struct file_entry *) by_class;   /* NULL where it could not be looked at */
	struct objects *addresses;	     /* of descriptions: what the glance tells (glance.h) */
	VEC(struct file_entry *) by_address; /* by their ids there */
	VEC(struct file_entry *)
	files; /* by id: all descriptions; ops is NULL where one was refused while checking */
	VEC(struct table_entry) tables;
	VEC(uint64_t) fss;
	struct known_directories directories;
	VEC(struct inode_entry) inodes;
	VEC(struct pipe_entry) pipes; /* by id */
	struct pipe_asker *pipe_asker;
	VEC(struct pipe_asked) pipes_asked;
	size_t pipes_answered;	/* of them */
	struct scratch scratch; /* messages and names, until the records are put */
	uint64_t memory_dev;	/* device of memfds and shared anonymous memory */
	struct unix_checkpoint *unix_sockets;
	struct sockopt_defaults *sockopts;
	struct multicast_groups *multicast;
	struct packet_table *packets;
	struct inet_table *inet_tables;
	struct pty_masters *ptys;
	uint64_t netns; /* SO_NETNS_COOKIE of sockets that are made here; 0: not known yet */
	VEC(struct network_view) networks;
	VEC(int) tcp_connections; /* ours: those that were saved as closed */
	VEC(struct tcp_connecting) tcp_connecting;
	VEC(struct device_seen) devices;
	VEC(struct made_link) links;
	VEC(struct mount_seen) mounts;
	struct inode_names *names; /* see inode_search.c */
	uint64_t soft_limit;	   /* RLIMIT_NOFILE to go back to; 0: was not raised */
	VEC(int) in_flight; /* ours, of descriptions that were met in a queue: kcmp(2) needs them */
	/* While checking: queues hold descriptors that can only be seen when everything is stopped,
	 * so nothing may be called missing. */
	bool unseen;
	VEC(struct ring_number) ring_numbers;
	VEC(struct socket_program) programs;
	bool kernel_hidden;	      /* those that can do without it need not try again */
	struct kernel_memory *kernel; /* of struct checkpoint, if a kind has asked for it */
};

/* A description on the restart side. */
struct file_open {
	uint64_t id;
	const Reprise__File *msg;
	const struct file_ops *ops;
	int fd;
	int other;	  /* made together with another, until its turn comes; -1 */
	bool made_link;	  /* of a tun or tap: its interface did not exist */
	bool pty_session; /* of a master: its session has it */
	bool async;	  /* O_ASYNC has been set */
	bool leased;	  /* its lease has been taken again */
};

struct inode_open {
	uint64_t id;
	const Reprise__Inode *msg;
	int fd;		   /* of nameless ones */
	uint64_t dev, ino; /* of the file that was checked */
	bool checked;
	int shmid; /* System V: the segment, where it is attached here, and */
	void *map;
	bool made;	   /* whether it has to be removed if the restart fails */
	bool left_behind;  /* by the original: its contents become those of the image */
	pid_t stand_in;	   /* for the task that had ended, or 0 */
	pid_t stand_in_of; /* the task that it was made for */
};

/* A directory that has to go again. */
struct removed_dir {
	char *path;
	int root;
};

struct pipe_open {
	uint64_t id;
	const Reprise__Pipe *msg;
	int ends[2]; /* ours, until the end: read, write */
	bool taken[2];
};

struct files_restart {
	int patience_ms; /* how long we may still wait for others to let go of names and locks */
	VEC(struct file_open) files;	 /* sorted by id */
	VEC(struct inode_open) inodes;	 /* sorted by id */
	VEC(struct pipe_open) pipes;	 /* sorted by id */
	VEC(struct removed_dir) removed; /* in the order in which they were made */
	int stdio[3]; /* what stands in for outside streams, with flags adjusted; -1 not asked yet
		       */
	struct unix_restart *unix_sockets;
	struct fanotify_double *fanotify_double; /* the last one, or NULL */
	uint64_t soft_limit;
};

#define FILE_STANDARD(fd) (1u << (fd))

/* The element of a vector sorted by ids, or NULL. */
#define vec_find_id(vec, wanted)                               \
	({                                                     \
		__typeof__((vec)->v) _found = NULL;            \
		size_t _lo = 0, _hi = (vec)->n;                \
                                                               \
		while (_lo < _hi && !_found) {                 \
			size_t _mid = _lo + (_hi - _lo) / 2;   \
                                                               \
			if ((vec)->v[_mid].id == (wanted))     \
				_found = &(vec)->v[_mid];      \
			else if ((vec)->v[_mid].id < (wanted)) \
				_lo = _mid + 1;                \
			else                                   \
				_hi = _mid;                    \
		}                                              \
		_found;                                        \
	})

/* "descriptor 7 (socket:[4711]) of task 4242 (redis-server)" in front of an error. */
int file_error_object(struct error *e, int r, const struct file_entry *f);

/*
 * A descriptor of ours that came out of the queue of a socket: the id of its description, which is
 * saved if nobody in the tree has it open. Takes the descriptor. *ret is 0 for one that was refused
 * while checking.
 */
int file_in_flight(struct checkpoint *c, const struct file_entry *carrier, int fd, uint64_t *ret,
		   struct error *e) must_check;

/* What the memory of the kernel tells of a description. */
struct file_told {
	uint64_t address; /* struct file */
	uint64_t pos;
	uint32_t flags;
};
/* The same for a regular file that nobody has as a descriptor: `fd` is open with O_PATH. It has no
 * owner for signals, and no locks. */
int file_of_kernel(struct checkpoint *c, const struct file_entry *carrier, int fd,
		   const struct file_told *told, uint64_t *ret, struct error *e) must_check;

/* The entry of a description that was met before, by its object id; NULL. */
/*
 * The task that has the file undoes by these calls what is going to be done to it for a moment, if
 * we die; where that is possible (see agent_promise()). Once it has been undone: file_absolve(),
 * with what became of it.
 */
int file_promise(const struct checkpoint *c, const struct file_entry *f,
		 const struct agent_promise *calls, size_t n, struct error *e) must_check;
int file_absolve(const struct checkpoint *c, const struct file_entry *f, int r,
		 struct error *e) must_check;
struct file_entry *file_entry_by_id(const struct checkpoint *c, uint64_t id);

/* For a kind's checkpoint_all: a refusal names the description, and a check goes on. */
int file_for_each(struct checkpoint *c, const struct file_ops *ops,
		  int (*fn)(struct checkpoint *c, const struct file_entry *f, struct error *e),
		  struct error *e);
/* Memory of the kernel, for kinds that it tells too little of. */
int files_kernel_memory(struct checkpoint *c, struct kernel_memory **ret,
			struct error *e) must_check;

/* A pidfd through which pidfd_getfd() takes from the table of that very task. */
int files_pidfd(pid_t tid);

/* A descriptor of ours, opened anew with other flags through /proc/self/fd. */
int reopen_fd(int proc_fd, int fd, int flags);

/* Kinds that stand in for something outside: see outside.c. */
int file_outside_restart(struct restart *r, const Reprise__File *msg, int *ret_fd, struct error *e);
/* The stand-in for standard stream n, -1 if there is none. */
int file_outside_stream(struct restart *r, const Reprise__File *msg, int n);

/* Closes what is ours, and takes back what a restart that failed has made. */
void inodes_restart_end(struct restart *r);

/*
 * Names, ports and locks are in use as long as the original is not quite dead: an image that is
 * streamed arrives a moment before that. Waits a little and returns true if it is worth another
 * attempt.
 */
bool files_restart_patience(struct restart *r);

/* Raises the soft limit of open files to the hard one; returns the old value if it changed, else 0.
 */
uint64_t nofile_raise(void);
void nofile_restore(uint64_t soft);

/* inode_open() for a description that has these flags: if O_LARGEFILE is not among them, as a
 * 32-bit program does it (narrow.c). */
int narrow_inode_open(struct restart *r, uint64_t inode, int flags, int *ret_fd,
		      struct error *e) must_check;
/* reopen_fd() in the same way. */
int narrow_reopen(int proc_fd, int fd, int flags) must_check;
/* The same of what is open already: it is opened once more. */
int narrow_open(const struct restart *r, unsigned int flags, int *fd, struct error *e) must_check;

#endif
