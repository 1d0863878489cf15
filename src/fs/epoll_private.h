/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_EPOLL_PRIVATE_H
#define REPRISE_FS_EPOLL_PRIVATE_H

#include "fs/context.h"

int epoll_validate(const struct restart *r, const Reprise__File *msg, struct error *e);
int epoll_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		  struct error *e);
int epoll_restart_all(struct restart *r, struct error *e);
int epoll_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			struct error *e);

#endif
