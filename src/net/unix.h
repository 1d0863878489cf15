/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_UNIX_H
#define REPRISE_NET_UNIX_H

#include <sys/socket.h>
#include <sys/un.h>

#include "fs/context.h"
#include "net.pb-c.h"
#include "net/sock_diag.h"

enum unix_state { /* numbers stand in images: for ever */
		  UNIX_UNCONNECTED = 1,
		  UNIX_LISTENING = 2,
		  UNIX_CONNECTED = 3,
		  UNIX_PEER_GONE = 4, /* was connected, the other side has been closed */
		  UNIX_PENDING = 5,   /* waits in the backlog of a listener of the tree */
		  UNIX_RECONNECT = 6, /* to a name outside the tree */
};

#define UNIX_RCV_SHUTDOWN  1u
#define UNIX_SEND_SHUTDOWN 2u

/* What is learnt about a socket before all have been seen. */
struct unix_seen {
	uint64_t peer; /* inode */
	bool has_peer;
	bool pending_data; /* it has sent something before it was accepted */
	const struct unix_info *info;
};

/* A socket in whose queue are descriptors: it is saved when those of the tables are known. */
struct unix_carrier {
	struct file_entry *entry;
	int fd;
	uint64_t carried;
};

/* During a checkpoint: files_checkpoint.unix_sockets. */
struct unix_checkpoint {
	struct unix_table table;
	bool read;
	VEC(struct file_entry *) by_ino; /* sorted */
	VEC(struct unix_carrier) carriers;
	struct unix_kernel *kernel; /* NULL: not asked for yet */
};

/* During a restart: files_restart.unix_sockets. */
struct unix_bound {
	uint64_t id;
	char *reach; /* a path that leads to it now */
};

struct unix_restart {
	char *scratch; /* for names whose path is gone, a directory of each; NULL: not made */
	int scratch_fd;
	VEC(struct unix_bound) bound; /* with a path */
	struct unix_table table;
	bool read;
};

/* As many descriptors may a message carry: SCM_MAX_FD of the kernel. */
#define UNIX_FDS_MAX 253

/* Messages and bytes that wait to be read, without taking them; `carried`: how many descriptors are
 * among them. */
int unix_queue_save(struct checkpoint *c, const struct file_entry *entry, int fd, uint64_t carried,
		    Reprise__UnixSocket *m, struct scratch *s, struct error *e) must_check;
/* Looks only at what descriptors they carry, as far as that does not disturb tasks that run. */
int unix_queue_look(struct checkpoint *c, const struct file_entry *entry, int fd, uint64_t carried,
		    struct error *e) must_check;
/* Sends them again through `from`, the other side of `to`. */
int unix_queue_fill(struct restart *r, int from, int to, const Reprise__UnixSocket *m,
		    struct error *e) must_check;
/* The same for a datagram socket that several may send to. */
int unix_queue_fill_datagrams(struct restart *r, uint64_t id, int fd, const Reprise__UnixSocket *m,
			      struct error *e) must_check;

/* How many messages are in the queue of a socket of ours, -1 if that cannot be learnt. */
int64_t unix_kernel_count(struct checkpoint *c, int fd);
/* All `n` of them, in their order: those that were seen by looking, and the ones without bytes that
 * nobody can see a second time. */
int unix_kernel_fill(struct checkpoint *c, int fd, Reprise__SocketData *const *seen, size_t nseen,
		     size_t n, Reprise__SocketData **ret, struct scratch *s) must_check;
void unix_kernel_free(struct unix_kernel *x); /* accepts NULL */
/* What the clients have sent that wait to be accepted, whether they are still there or not. */
int unix_waiting_save(struct checkpoint *c, const struct file_entry *listener, uint32_t clients,
		      Reprise__UnixSocket *m, struct scratch *s, struct error *e) must_check;

/* Names and paths: unix_name.c */
int unix_name_save(struct checkpoint *c, const struct file_seen *f, const struct unix_info *info,
		   Reprise__UnixSocket *m, struct scratch *s, struct error *e) must_check;
/* Gives a socket its name; id 0: for a moment only (a listener from which sockets have been
 * accepted). */
int unix_name_bind(struct restart *r, uint64_t id, int fd, const Reprise__UnixSocket *m,
		   struct error *e) must_check;
/* Connects to a socket of ours, by the id with which it was bound. */
int unix_name_connect(struct restart *r, int fd, uint64_t id, const Reprise__UnixSocket *to,
		      struct error *e) must_check;
/* The same in two steps. */
struct unix_address {
	char *directory; /* from which it is to be looked up; NULL for an abstract name */
	struct sockaddr_un un;
	socklen_t len;
};
int unix_address_of(struct restart *r, uint64_t id, const Reprise__UnixSocket *to,
		    struct unix_address *ret, struct error *e) must_check;
void unix_address_free(struct unix_address *x);
int unix_address_connect(int fd, const struct unix_address *to, struct error *e) must_check;
void unix_names_end(struct restart *r);

/* The message of a Unix socket; NULL if there is none of this id. */
const Reprise__UnixSocket *unix_socket_of(const struct restart *r, uint64_t id);
int unix_validate(const struct restart *r, const Reprise__File *msg, struct error *e);
int unix_restart_open(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		      struct error *e);
int unix_restart_finish(struct restart *r, uint64_t id, const Reprise__File *msg, int fd,
			struct error *e);
int unix_restart_all(struct restart *r, struct error *e);
void unix_restart_end(struct restart *r);

/* Adds the sockets of the network namespace in which this thread is to those that are known. */
int unix_checkpoint_network(struct checkpoint *c, struct error *e) must_check;

#endif
