/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_SEND_FDS_H
#define REPRISE_FS_SEND_FDS_H

#include <sys/socket.h>

#include "model/restart.h"

#define SCM_FDS_MAX 253 /* SCM_MAX_FD of the kernel: descriptors in one message */

/* restart_send_fds() for any number of descriptors, and a control socket that may have been moved
 * in this task. */
int send_fds_over(struct restart *r, struct restart_task *t, int socket, const int *fds, size_t n,
		  int *remote, struct error *e) must_check;

/* A pidfd of this process, by which a task takes what no socket carries. */
int give_fd_pidfd(struct error *e) must_check;
/*
 * Lets a task, which holds such a pidfd as number `pidfd`, take our descriptor `fd`. `wanted` -1:
 * *remote is its number; else it comes to stand there, in place of what does.
 */
int give_fd_taken(struct restart_task *t, int pidfd, int fd, int wanted, bool cloexec, int *remote,
		  struct error *e) must_check;
/* Both together, for a short time. */
int give_fd(struct restart *r, struct restart_task *t, int fd, int *remote,
	    struct error *e) must_check;

#endif
