/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_REUSEPORT_H
#define REPRISE_NET_REUSEPORT_H

#include "fs/context.h"

/*
 * The program that chooses among the sockets of a port, of which nothing but the kernel's memory
 * tells. It goes by their order, so that must come out the same; what cannot be is refused.
 */
int reuseport_save(struct checkpoint *c, const struct file_seen *f, Reprise__InetSocket *m,
		   struct scratch *s, struct error *e) must_check;
int reuseport_save_all(struct checkpoint *c, const struct file_ops *ops,
		       struct error *e) must_check;
int reuseport_validate(const Reprise__InetSocket *m, struct error *e) must_check;
/* When it is bound, and listens. */
int reuseport_restore(struct restart *r, int fd, const Reprise__InetSocket *m,
		      struct error *e) must_check;

#endif
