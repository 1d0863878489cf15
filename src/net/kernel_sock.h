/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_KERNEL_SOCK_H
#define REPRISE_NET_KERNEL_SOCK_H

#include "core/kernel_memory.h"

/* The struct sock of a socket of ours, with which the structures of all families begin. */
int kernel_sock(struct kernel_memory *k, int fd, uint64_t *ret) must_check;

#endif
