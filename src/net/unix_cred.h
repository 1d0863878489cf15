/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_UNIX_CRED_H
#define REPRISE_NET_UNIX_CRED_H

#include <sys/types.h>

#include "core/error.h"
#include "core/scratch.h"
#include "model/restart.h"
#include "net.pb-c.h"

/* SO_PEERCRED of Unix sockets: process, user and groups. */
struct unix_address;
int unix_cred_save(int fd, Reprise__UnixSocket *m, struct scratch *s, struct error *e) must_check;
/*
 * The kernel takes them from the caller of socketpair(), connect() and listen(). These three are
 * called as SO_PEERCRED of `seen_by` says: where that is not known, by us and with our own ids.
 */
int unix_cred_pair(struct restart *r, const Reprise__UnixSocket *seen_by, int fds[2],
		   struct error *e) must_check;
int unix_cred_listen(struct restart *r, const Reprise__UnixSocket *seen_by, int fd, int backlog,
		     struct error *e) must_check;
int unix_cred_connect(struct restart *r, const Reprise__UnixSocket *seen_by, int fd,
		      const struct unix_address *to, struct error *e) must_check;
/* Any other call, with the ids only. */
int unix_cred_as(uid_t uid, gid_t gid, int (*call)(void *arg), void *arg,
		 struct error *e) must_check;
int unix_cred_run(const Reprise__UnixSocket *seen_by, int (*call)(void *arg), void *arg,
		  struct error *e) must_check;

#endif
