/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_DIAG_H
#define REPRISE_NET_DIAG_H

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>

#include "core/error.h"

/*
 * Lists sockets of this network namespace by NETLINK_SOCK_DIAG: one pass over all of them, since
 * asking for each alone makes the kernel search its whole table each time. `take` is called for
 * each. -ENOENT: this kernel does not list such sockets.
 */
int diag_dump(const void *request, size_t size, const char *what,
	      int (*take)(void *arg, const struct nlmsghdr *h), void *arg,
	      struct error *e) must_check;
/* What one recv() gave. Lengths are looked at, of messages and of attributes. 1 at the end of the
 * dump. Pure. */
int diag_take(const void *buf, size_t len, int (*take)(void *arg, const struct nlmsghdr *h),
	      void *arg) must_check;

#endif
