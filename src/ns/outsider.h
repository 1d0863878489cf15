/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_OUTSIDER_H
#define REPRISE_NS_OUTSIDER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * The process that stays outside of a container that is being saved, where it can do what cannot be
 * done from within: its pids are those of the host. It is asked over a socket.
 */

#define OUTSIDER_SOCKETS  64 /* in one question */
#define OUTSIDER_NETWORKS 8
#define OUTSIDER_THREADS  64
#define OUTSIDER_PEEKED	  253 /* SCM_MAX_FD of the kernel */

/* proc_fd is of its pid namespace; init and first are the first process of the container. Serves
 * until the other side closes its end; `child` has it, and its status is passed on. `all` is shared
 * with it, or NULL. */
struct outside;
void __attribute__((noreturn))
outsider_stay(int socket, int proc_fd, int init, pid_t first, pid_t child, struct outside *all);

/* As kill(2) of the first process, and kcmp(2) of tasks by their pids outside; a negative errno. */
int outsider_kill(int socket, int sig);
int outsider_compare(int socket, int type, pid_t a, unsigned long index_a, pid_t b,
		     unsigned long index_b);

/* KCMP_EPOLL_TFD: is a descriptor of a what stands there in an epoll set of b? */
struct kcmp_epoll_slot;
int outsider_compare_epoll(int socket, pid_t a, int fd, pid_t b,
			   const struct kcmp_epoll_slot *slot);

/*
 * The attributes of a file by its name in a directory that only root of the machine sees
 * (`trusted.`), one behind the other: the name with its zero, a uint32_t with the length, the
 * value. Returns how many bytes.
 */
#define OUTSIDER_MARKS 65536
int outsider_marks(int socket, int parent, const char *name, char *buf);

/*
 * Looks at all that runs outside (outside_scan()), while the caller goes on. What it finds is in
 * the shared memory by the end, if that returns 0; no other question may be asked in between.
 */
int outsider_begin_scan(int socket);
int outsider_end_scan(int socket);

/* Sockets of a process outside. */
struct outsider_sockets {
	pid_t pid;
	size_t n, n_networks;
	int fds[OUTSIDER_SOCKETS];
	uint64_t networks[OUTSIDER_NETWORKS]; /* SO_NETNS_COOKIE */
	/* the answer, a bit each */
	uint64_t inside;   /* those that belong to one of the networks */
	uint64_t carriers; /* Unix sockets with descriptors in their queues */
};
int outsider_look_at_sockets(int socket, struct outsider_sockets *s);

/* Threads of a process outside. */
struct outsider_threads {
	pid_t pid;
	size_t n;
	pid_t tids[OUTSIDER_THREADS];
	uint64_t apart; /* the answer: those that do not share descriptors, or places, with the
			   first */
};
int outsider_look_at_threads(int socket, struct outsider_threads *t);
/*
 * Duplicates of the descriptors that the first message in the queue of a Unix socket carries; the
 * message stays where it is. Their number, or a negative errno.
 */
int outsider_peek(int socket, pid_t pid, int fd, int *ret);

#endif
