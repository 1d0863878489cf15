/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_LEAKS_H
#define REPRISE_NS_LEAKS_H

#include <sys/stat.h>

#include "fs/context.h"
#include "ns/container.h"
#include "ns/outsider.h"

/*
 * Between the files of this subject: what processes outside use of a container. They are looked at
 * by what stays outside (ns/outsider.h), which sees them, and knows all by their pids there.
 */

struct inside {
	uint64_t dev, ino;
	const struct file_entry *file; /* NULL: memory without a descriptor */
};

/* By the address of its struct file. */
struct known_file {
	uint64_t file;
	struct inside *what;
};

struct ns_link {
	const char *name, *children; /* in /proc/PID/ns */
	char *link;		     /* as /proc shows it */
};

/* An interface that lives by a descriptor outside. */
struct leak_tap {
	char name[IFNAMSIZ];
	bool found;
};

struct leak_search {
	struct checkpoint *c;
	struct container *ct;
	struct outside *all; /* what runs there, at a glance; NULL: nothing is known */
	struct error *e;
	VEC(struct inside) things; /* sorted by device and inode */
	VEC(dev_t) devices;	   /* file systems that are the container's alone */
	VEC(struct ns_link) links; /* its namespaces */
	VEC(uint64_t) networks;	   /* SO_NETNS_COOKIE */
	VEC(uint64_t) seen;	   /* mount namespaces outside: by number and enum sight */
	VEC(pid_t) makers;	   /* who made it, and waits */
	VEC(struct leak_tap) taps;
	const char *pid_link;
	dev_t nsfs;		      /* what holds a namespace is of this one */
	VEC(uint64_t) rings;	      /* outside that have been looked at */
	VEC(struct known_file) files; /* what is open in the container; once they are asked for */
	bool glanced;		      /* at all that run outside */
	bool ring;		      /* the process that is looked at has an io_uring */
};

/* A task outside. */
struct outsider {
	pid_t pid, tid;
	char comm[16];
};

/* leaks.c, for leaks_glance.c. A process, all that is of it. */
int leak_look_at_process(struct leak_search *s, pid_t pid, struct error *e) must_check;
/* Its namespaces, and those that are mounted where it is. */
int leak_look_at_spaces(struct leak_search *s, pid_t pid, struct error *e) must_check;
bool leak_made_it(const struct leak_search *s, pid_t pid);

/* leaks_mounts.c: what is mounted where that task is. */
int leak_look_at_mounts(struct leak_search *s, const struct outsider *o,
			struct error *e) must_check;

/* leaks_glance.c: all that run outside; only those that may have something are looked at. Returns
 * 1; or 0: nothing can be said. */
int leak_look_at_suspects(struct leak_search *s, struct outside *all, struct error *e) must_check;

/* One leak: 0 if it is allowed, or noted by `check`. x may be NULL, fd -1; `how` says how it is
 * used, " as descriptor 3". */
int leak_report(struct leak_search *s, const struct outsider *o, const char *kind, const char *link,
		const struct inside *x, const char *how, struct error *e) must_check;
bool leak_allowed(const struct leak_search *s, const char *kind, const char *link);
/* Who has ended, or is kept from us, is left out. */
int leak_unless_hidden(ssize_t r, struct error *e) must_check;
/* The same where a directory of it could not be read. */
int leak_unlisted(const struct outsider *o, int err, const char *what, struct error *e) must_check;
/* kcmp(2) of tasks by their pids outside, in the hand; a negative errno. */
int leak_compare(int type, pid_t a, unsigned long index_a, pid_t b, unsigned long index_b);
/* How far below the pid namespace of the container is this one? -1: it is outside. */
int leak_depth_below(const struct leak_search *s, const char *link);
/* Takes down the pids of a task; `out` is that outside. While checking: is it traced from there? */
int leak_translate(struct leak_search *s, pid_t out, int depth, struct error *e) must_check;
pid_t leak_pid_outside(const struct leak_search *s, pid_t in);
/* Of whom those are that were taken down. Processes that are still the same in the freeze are known
 * by the same pids, and need not be asked there. */
void leak_pids_note(struct leak_search *s);
bool leak_pids_known(const struct leak_search *s);
bool leak_is_own_device(const struct leak_search *s, uint64_t dev);
/* Those of one inode, and the one of them that is best told: with a descriptor, if there is one. */
struct inside *leak_first(const struct leak_search *s, uint64_t dev, uint64_t ino);
struct inside *leak_next(const struct leak_search *s, struct inside *x);
struct inside *leak_find(const struct leak_search *s, uint64_t dev, uint64_t ino);

/* Does a segment of the container have that number, which others may have, too? */
bool leak_may_be_segment(const struct leak_search *s, dev_t dev, uint64_t ino);

int leak_note_taps(struct leak_search *s, struct error *e) must_check;
/* A descriptor of /dev/net/tun outside. */
int leak_look_at_tap(struct leak_search *s, const struct outsider *o, int fd, const char *link,
		     struct error *e) must_check;
/* Those whose descriptor was not found. */
int leak_check_taps(struct leak_search *s, struct error *e) must_check;

/* An epoll set outside. */
struct leak_set {
	pid_t holder; /* outside, of whose descriptors it is one: us, of what is in a queue */
	int fd;
	const char *where; /* " that is its descriptor 3" */
};
int leak_look_at_epoll(struct leak_search *s, const struct outsider *o, const struct leak_set *set,
		       struct error *e) must_check;

/* leaks_sockets.c. A duplicate of a descriptor of a task outside; negative: it may not be had. */
int leak_take(pid_t pid, int fd);
/* Is that (SO_NETNS_COOKIE, 0: unknown) a network of the container? */
bool leak_is_network(const struct leak_search *s, uint64_t cookie);
/* Is it a socket of one of these? */
bool leak_is_in_network(const struct leak_search *s, int fd);
/*
 * Duplicates of the descriptors that the first message in the queue of a Unix socket carries; the
 * message stays where it is. Their number.
 */
#define LEAK_PEEKED 253 /* SCM_MAX_FD of the kernel */
int leak_peek(const struct leak_search *s, int fd, int *ret);

/* leaks_rings.c: what the rings of a process outside keep open; of who was seen to have one. */
int leak_look_at_rings(struct leak_search *s, const struct outsider *o, struct error *e) must_check;
/* Those that nobody was seen to have, since he knows them by a number. */
int leak_look_at_numbers(struct leak_search *s, struct error *e) must_check;

/* leaks_files.c: what kind of thing that is, by its mode and how /proc calls it. */
const char *leak_kind(mode_t mode, const char *link);

/* What a task outside has open, and where it stands; what it has mapped. */
int leak_look_at_files(struct leak_search *s, const struct outsider *o, struct error *e) must_check;
int leak_look_at_memory(struct leak_search *s, const struct outsider *o,
			struct error *e) must_check;

#endif
