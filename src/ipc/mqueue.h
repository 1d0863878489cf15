/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IPC_MQUEUE_H
#define REPRISE_IPC_MQUEUE_H

#include "core/kernel_memory.h"
#include "core/scratch.h"
#include "fs/file.h"
#include "ipc.pb-c.h"

/* POSIX message queues. Between the files of that name. */

struct ipc_checkpoint;

struct mq_attr_kernel {
	long flags, maxmsg, msgsize, curmsgs, reserved[4];
};

struct mqueue_entry {
	uint64_t id, dev, ino;
	Reprise__Mqueue *msg;
	const struct file_entry *file; /* the first description of it; NULL: nobody has it open */
	bool notified_has_it;	       /* the process that is notified has it open */
};

/* The file system of the queues of a namespace, and its root. */
struct mqueue_place {
	uint64_t space; /* 0: the root's */
	dev_t dev;
	int dir;
	int mount; /* of it, that nobody else sees; or negative */
};

struct mqueue_open {
	uint64_t id;
	const Reprise__Mqueue *msg;
	int fd;
	bool made;
	bool taken; /* our descriptor is that of a task, too */
};

/* Descriptors are those of any program (mq_getsetattr(2), mq_notify(2)). */
int mqueue_attr(int fd, struct mq_attr_kernel *attr);

/*
 * All messages of the queue behind a descriptor of ours, in the order in which they would be
 * received. Nothing is taken: they are read from the kernel's memory.
 */
int mqueue_messages(struct kernel_memory *k, int fd, Reprise__Mqueue *msg, struct scratch *s,
		    struct error *e) must_check;
/* What comes with the signal (sigev_value). */
int mqueue_notify_value(struct kernel_memory *k, int fd, uint64_t *ret, struct error *e) must_check;

/* What comes out of the socket, and the struct sock of that (SIGEV_THREAD). */
int mqueue_notify_thread(struct kernel_memory *k, int fd, uint8_t *cookie, size_t len,
			 uint64_t *ret_sock, struct error *e) must_check;

int mqueue_notify_save(struct checkpoint *c, int fd, Reprise__Mqueue *m, int notify, int signo,
		       pid_t pid, struct scratch *s, struct error *e) must_check;
int mqueue_notify_socket(struct checkpoint *c, Reprise__MqueueNotify *n,
			 struct error *e) must_check;
int mqueue_notify_validate(const Reprise__MqueueNotify *n);

/* Those of the namespaces that are the tree's alone, as far as they are known by now. */
int mqueue_find_places(struct checkpoint *c, struct error *e) must_check;
void mqueue_places_free(struct ipc_checkpoint *x);
/* NULL: of a namespace that is not the tree's alone. */
const struct mqueue_place *mqueue_place_of(const struct checkpoint *c, dev_t dev);
/* Is that the device of the queues of a namespace? 0: the root's. 1 or 0. */
int mqueue_shows(struct checkpoint *c, dev_t dev, uint64_t space, struct error *e) must_check;
/* When all descriptors have been seen: the queues in there that nobody has open. */
int mqueue_find_unopened(struct checkpoint *c, struct error *e) must_check;
/* One of these. */
int mqueue_add(struct checkpoint *c, struct file_seen *f, const char *name,
	       struct error *e) must_check;

/* All queues of the image. */
int mqueues_validate(const struct restart *r, struct error *e) must_check;
/* Those that no descriptor leads to. */
int mqueues_restart(struct restart *r, struct error *e) must_check;
int mqueue_validate(const struct restart *r, const Reprise__File *file, struct error *e) must_check;
int mqueue_restart(struct restart *r, uint64_t id, const Reprise__File *file, int *ret_fd,
		   struct error *e) must_check;
int mqueue_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			 struct error *e) must_check;
/* Queues that were made disappear again, unless they are to stay. */
void mqueue_release(struct restart *r);

extern const struct file_ops mqueue_file_ops;

#endif
