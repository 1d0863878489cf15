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
int epoll_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			struct error *e);

#endif
