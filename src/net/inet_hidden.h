/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_INET_HIDDEN_H
#define REPRISE_NET_INET_HIDDEN_H

#include "fs/context.h"

/* Options that can be set and not be read. Nothing is saved where the memory of the kernel may not
 * be read. */
int inet_hidden_save(struct checkpoint *c, int fd, Reprise__InetSocket *m, struct scratch *s,
		     struct error *e) must_check;
int inet_hidden_validate(const Reprise__InetSocket *m, struct error *e) must_check;
int inet_hidden_restore(int fd, const Reprise__InetSocket *m, struct error *e) must_check;

#endif
