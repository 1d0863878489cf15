/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IPC_MQUEUE_H
#define REPRISE_IPC_MQUEUE_H

#include "core/kernel_memory.h"
#include "core/scratch.h"
#include "fs/file.h"
#include "ipc.pb-c.h"

/* POSIX message queues. Between the files of that name. */

struct mq_attr_kernel {
	long flags, maxmsg, msgsize, curmsgs, reserved[4];
};

struct mqueue_entry {
	uint64_t id, dev, ino;
	Reprise__Mqueue *msg;
	const struct file_entry *file; /* the first description of it */
	bool notified_has_it;	       /* the process that is notified has it open */
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

int mqueue_validate(const struct restart *r, const Reprise__File *file, struct error *e) must_check;
int mqueue_restart(struct restart *r, uint64_t id, const Reprise__File *file, int *ret_fd,
		   struct error *e) must_check;
int mqueue_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			 struct error *e) must_check;
/* Queues that were made disappear again, unless they are to stay. */
void mqueue_release(struct restart *r);

extern const struct file_ops mqueue_file_ops;

#endif
