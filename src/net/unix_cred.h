/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_UNIX_CRED_H
#define REPRISE_NET_UNIX_CRED_H

#include <sys/types.h>

#include "core/error.h"
#include "net.pb-c.h"

/* SO_PEERCRED of Unix sockets: user and group. */
void unix_cred_save(int fd, Reprise__UnixSocket *m);
/*
 * The kernel takes them from the caller of socketpair(), connect() and listen().
 * These three, called with the ids that SO_PEERCRED of `seen_by` had: where that is not known, with
 * our own.
 */
int unix_cred_pair(const Reprise__UnixSocket *seen_by, int fds[2], struct error *e) must_check;
int unix_cred_listen(const Reprise__UnixSocket *seen_by, int fd, int backlog,
		     struct error *e) must_check;
/* Any call, with these effective ids. */
int unix_cred_as(uid_t uid, gid_t gid, int (*call)(void *arg), void *arg,
		 struct error *e) must_check;
int unix_cred_run(const Reprise__UnixSocket *seen_by, int (*call)(void *arg), void *arg,
		  struct error *e) must_check;

#endif
