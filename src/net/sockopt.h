/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_SOCKOPT_H
#define REPRISE_NET_SOCKOPT_H

#include "core/error.h"
#include "core/scratch.h"
#include "net.pb-c.h"

/* Socket options that are read and written as they are. m has family, type and protocol. */
struct sockopt_defaults; /* options of new sockets, read once for each kind */

int sockopt_save(int fd, Reprise__Socket *m, struct sockopt_defaults **defaults, struct scratch *s,
		 struct error *e) must_check;
void sockopt_defaults_free(struct sockopt_defaults *list);
int sockopt_validate(const Reprise__Socket *m, struct error *e) must_check;
int sockopt_restore(int fd, const Reprise__Socket *m, struct error *e) must_check;
/* Those that may only be set when nothing else is done with the socket any more. */
int sockopt_restore_late(int fd, const Reprise__Socket *m, struct error *e) must_check;

#endif
