/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_SOCKET_H
#define REPRISE_NET_SOCKET_H

#include <errno.h>
#include <sys/socket.h>

#include "core/scratch.h"
#include "fs/context.h"
#include "net.pb-c.h"

/* What sockets of all families have in common. */

/* SO_DOMAIN of a socket, -1 if it is none. */
int socket_family(const struct file_seen *f);
int socket_checkpoint(struct checkpoint *c, const struct file_seen *f, Reprise__Socket **ret,
		      struct scratch *s, struct error *e) must_check;
int socket_validate(const Reprise__Socket *m, int family, struct error *e) must_check;
/* A new socket with its owner and mode, in its control group. */
int socket_make(const struct restart *restart, const Reprise__Socket *m, int *ret_fd,
		struct error *e) must_check;
/* The inode's owner and mode, of a socket that was made in another way. */
int socket_set_owner(int fd, const Reprise__Socket *m, struct error *e) must_check;
/*
 * Options that differ from those of a new socket. Those that matter for bind()
 * come before it, so they are all set at once, before. SO_REUSEADDR is always on for the bind: an
 * address may linger from the original's connections. socket_settle() sets it to what it was.
 */
int socket_set_options(int fd, const Reprise__Socket *m, struct error *e) must_check;
int socket_settle(int fd, const Reprise__Socket *m, struct error *e) must_check;
/* What a Unix socket gets when its queue has been filled; socket_settle() includes it for others.
 */
int socket_set_last(int fd, const Reprise__Socket *m, struct error *e) must_check;

/* A look that failed like this says nothing about what is there. */
static inline bool socket_unsure(int err)
{
	return err == ENOMEM || err == ENOBUFS || err == EIO || err == EINTR || err == EPERM;
}
/*
 * Sets an option of a socket of the application back to what it was. Tried again: it may be
 * interrupted (unix_set_peek_off()), or memory may be short for the moment.
 */
int socket_put_back(int fd, int name, int value, struct error *e) must_check;
/* An option that is a number: 1; 0 if there is no such option; or a negative errno. */
int socket_number(int fd, int level, int name, int *ret, struct error *e) must_check;

/* An address of a socket: getsockname() or getpeername(), empty if there is none. */
int socket_address(int fd, int (*get)(int, struct sockaddr *, socklen_t *),
		   ProtobufCBinaryData *ret, struct scratch *s, struct error *e) must_check;

#endif
