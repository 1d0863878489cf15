/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_EPOLL_H
#define REPRISE_FS_EPOLL_H

#include "model/restart.h"

/*
 * A child of vfork() is made late, and so are the entries that only it can add
 * (epoll_signals.c). Its descriptors are not there yet, a control socket is.
 */
bool epoll_is_added_late(struct restart *r, const struct restart_process *p);
int epoll_restart_late(struct restart *r, const struct restart_process *p,
		       struct error *e) must_check;

#endif
