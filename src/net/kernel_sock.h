/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_KERNEL_SOCK_H
#define REPRISE_NET_KERNEL_SOCK_H

#include "fs/context.h"

/* sk_userlocks (include/net/sock.h): what the application itself has bound. */
#define SOCK_BINDADDR_LOCK 4
#define SOCK_BINDPORT_LOCK 8

/* For what can do without: -EPERM where it may not be read, which is found out once. */
int kernel_sock_memory(struct checkpoint *c, struct kernel_memory **ret) must_check;
/* The struct sock of a socket of ours, with which the structures of all families begin. */
int kernel_sock(struct kernel_memory *k, int fd, uint64_t *ret) must_check;
/* What stands at an offset of it. */
int kernel_of_sock(struct kernel_memory *k, int fd, int offset, void *buf, size_t len) must_check;
/*
 * The error that waits to be read (SO_ERROR), which whoever asks would take; with nothing behind it
 * (IP_RECVERR). 0: none, or it cannot be known.
 */
int kernel_sock_error(struct checkpoint *c, int fd);

/* In which control group of version 2 it was made (cgroup_id()); 0: it cannot be known. */
uint64_t kernel_sock_group(struct checkpoint *c, int fd);

#endif
