/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_EPOLL_PRIVATE_H
#define REPRISE_FS_EPOLL_PRIVATE_H

#include "fs/context.h"

/* An entry until all descriptions have been seen. */
struct epoll_seen {
	uint64_t ino, dev;
	uint32_t nth; /* of those with the same number */
	bool proven;  /* the description that has its number in the table that has the set */
};

/* Of a large set: sets `proven` where it can tell. */
void epoll_prove(struct checkpoint *c, const struct file_entry *set, struct epoll_seen *seen);

int epoll_validate(const struct restart *r, const Reprise__File *msg, struct error *e);
int epoll_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		  struct error *e);
int epoll_restart_all(struct restart *r, struct error *e);

/* EpollEntry.adder, of a signalfd: none of the tasks; otherwise one of the process, 0 unknown. */
#define ADDED_BY_NOBODY (-1)

/* Who has added a signalfd to the set: sets m->adder, or fails if that is not told. */
int epoll_signals_find(struct checkpoint *c, const struct file_entry *set,
		       const struct file_entry *signals, Reprise__EpollEntry *m) must_check;
/* Lets that process do it again. */
int epoll_signals_restart(struct restart *r, const struct file_open *f,
			  const Reprise__EpollEntry *m, struct error *e) must_check;

#endif
