/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_UNIX_PLACE_H
#define REPRISE_NET_UNIX_PLACE_H

#include <linux/sockios.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "net/unix.h"

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0) /* 4.12 */
#endif

/* A call whose paths are looked up from elsewhere, in a thread with directories of its own. */
struct unix_at {
	const char *directory; /* NULL: as it is */
	int below;	       /* instead, if it is none that is bad: where all names begin */
	int (*call)(int, const struct sockaddr *, socklen_t);
	int fd;
	struct sockaddr_un un;
	socklen_t len;
	int result;
};

int unix_at_run(struct unix_at *at) must_check;
int unix_name_remember(struct unix_restart *u, uint64_t id, const char *path,
		       struct error *e) must_check;
/* 1: somebody has a socket of this file. */
int unix_name_is_live(struct unix_restart *u, const char *path, const struct stat *st,
		      struct error *e) must_check;

/* Binds a socket to a name whose file is to be there afterwards. */
int unix_place_bind(struct restart *rs, struct unix_restart *u, uint64_t id, struct unix_at *at,
		    const char *name, const Reprise__UnixSocket *m, struct error *e) must_check;

#endif
