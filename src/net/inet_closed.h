/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_INET_CLOSED_H
#define REPRISE_NET_INET_CLOSED_H

#include "core/error.h"
#include "net.pb-c.h"

/* A TCP socket whose connection is over: it reads the end of file and cannot be connected again. */
int inet_closed_make(const Reprise__Socket *m, int *ret_fd, struct error *e) must_check;

#endif
