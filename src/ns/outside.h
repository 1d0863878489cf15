/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_OUTSIDE_H
#define REPRISE_NS_OUTSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * All threads that a process sees, what they have open and what they have mapped, at a glance: read
 * by three programs of BPF, at some 0.2 us for each file and each mapping instead of several system
 * calls. Who is looked for is told by numbers of the kernel: addresses and devices.
 */
struct outside_task {
	uint64_t namespaces, user; /* struct nsproxy, struct user_namespace */
	uint64_t files;		   /* struct files_struct; 0: none any more */
	pid_t pid, tid;
	dev_t root, cwd; /* the file systems where they are */
	bool kernel;	 /* a thread of the kernel */
	bool inside;	 /* in the pid namespace of the container, or below */
};

/* Of threads that share a table, of their leader only; and so it is with memory. */
struct outside_file {
	uint64_t file;	  /* struct file */
	uint64_t network; /* of a socket: SO_NETNS_COOKIE */
	uint64_t watched; /* its first entry in an epoll set (epitem.fllink); 0: it is in none */
	uint64_t ino;
	dev_t dev, rdev;
	pid_t tid;
	int fd;
	mode_t mode;
	bool waiting; /* something is in the queue of a Unix socket */
};

struct outside_map {
	uint64_t ino;
	dev_t dev, user; /* what an overlay shows is mapped from below: that of the overlay */
	pid_t tid;
};

/* A file that an io_uring keeps open: registered with it, or that of a request that waits. */
#define RING_MAPPED   (-1) /* and not open */
#define RING_NUMBERED (-2) /* known by a number of its own (IORING_REGISTER_RING_FDS) */
struct outside_held {
	struct outside_file f; /* tid: who has the ring, or one of these */
	uint64_t by;	       /* the ring, struct file */
	int ring;	       /* his descriptor of it, or as above */
	bool waits;
	char name[48]; /* the last part of it; of a socket: none */
};

#define OUTSIDE_TASKS 65536
#define OUTSIDE_FILES 262144
#define OUTSIDE_MAPS  262144
#define OUTSIDE_HELD  262144

/* Threads and files are in the order of their numbers. */
struct outside {
	int result; /* 0: all is there; or a negative errno */
	size_t n_tasks, n_files, n_maps, n_held;
	struct outside_task tasks[OUTSIDE_TASKS];
	struct outside_file files[OUTSIDE_FILES];
	struct outside_map maps[OUTSIDE_MAPS];
	struct outside_held held[OUTSIDE_HELD];
};

struct outside *outside_new(void);    /* NULL: no memory */
void outside_free(struct outside *o); /* accepts NULL */

/* NULL: it was not there, or not for itself. */
const struct outside_task *outside_find_task(const struct outside *o, pid_t tid);
const struct outside_file *outside_find_file(const struct outside *o, pid_t tid, int fd);

/* Needs the rights to read the kernel's memory (core/kernel_memory.h). */
struct outside_scanner;
/* init: the first process of the container, by the number that it has here. */
int outside_scanner_new(struct outside_scanner **ret, int proc_fd, pid_t init,
			struct error *e) must_check;
void outside_scanner_free(struct outside_scanner *s); /* accepts NULL */
/* By which it reads. */
struct kernel_memory;
struct kernel_memory *outside_scanner_kernel(const struct outside_scanner *s);
/* As seen by this process; o->result tells. */
void outside_scan(struct outside_scanner *s, struct outside *o);
/* Only what the rings of one process hold, or (0) those that are known outside by a number: o->held
 * is filled in anew, the rest stays. */
int outside_scan_rings(struct outside_scanner *s, struct outside *o, pid_t pid) must_check;
/* The struct file of a descriptor. */
int outside_file_of(struct outside_scanner *s, pid_t pid, int fd, uint64_t *ret) must_check;

#endif
