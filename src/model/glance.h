/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_GLANCE_H
#define REPRISE_MODEL_GLANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What the threads of a tree that stands still have, by the kernel's own addresses, read of all of
 * them at once. What has different addresses is not the same, and need not be compared; what has
 * the same namespaces as somebody who was asked need not be asked, nor what directory or program
 * somebody has who has that of another one: they hold it, so that nothing else can be at that
 * address. That two other things are one, kcmp(2) says, and what they are, /proc does.
 *
 * It takes the kernel's memory (core/kernel_memory.h), and is about all threads or none.
 */
enum glance_kind {
	GLANCE_MM,
	GLANCE_FILES,
	GLANCE_FS,
	GLANCE_UNDO, /* 0: no list */
	GLANCE_NAMESPACES,
	GLANCE_ROOT_MOUNT, /* of its root directory, as that of others below */
	GLANCE_ROOT,
	GLANCE_CWD_MOUNT,
	GLANCE_CWD,
	GLANCE_EXE, /* the file of its program; 0: none */
	GLANCE_KINDS
};

struct checkpoint;
struct glance;
/* While everything runs, for this takes a while (threads, descriptors: of the tree); then when all
 * of the tree has been stopped by this thread. If it cannot be done, or is not worth it, nothing is
 * known. */
void glance_prepare(struct checkpoint *c, size_t threads, size_t descriptors);
void glance_take(struct checkpoint *c);
void glance_free(struct glance *g); /* accepts NULL */

/* Is anything known? Then it is for all kinds and all threads that live, until the end. */
bool glance_taken(const struct checkpoint *c);
/* The address of what a thread has, as a hash for kcmp_index_get(); 0 for all if nothing is known.
 */
uint64_t glance_of(const struct checkpoint *c, pid_t tid, enum glance_kind kind);
/* An open descriptor. */
struct glance_fd {
	pid_t tid;
	int fd;
	uint64_t file; /* address: equal ones are one description */
	bool cloexec;
	bool locks; /* there are some of processes on the file, of whoever */
};
/* Of a thread that leads its process, or has a table of its own; NULL: who knows. */
const struct glance_fd *glance_descriptor(const struct checkpoint *c, pid_t tid, int fd);
/* How many of them are known; those of a thread that are to be asked for are not. */
size_t glance_descriptors(const struct checkpoint *c, pid_t tid, const struct glance_fd **ret);
/* It is in the user and the pid namespace of reprise, and so will be its next child. false: who
 * knows. */
bool glance_at_home(const struct checkpoint *c, pid_t tid);

#endif
