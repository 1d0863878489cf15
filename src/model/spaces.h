/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_SPACES_H
#define REPRISE_MODEL_SPACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/vec.h"

/*
 * Namespaces of tasks that are not those of the root. Each is an object; what the rooms have to
 * know of them is here: who is in which, and which mount namespace leads to a file. The root's own
 * have the id 0.
 */
#define SPACE_KINDS 6 /* of those that a task can be in without its parent being in them */

struct checkpoint_space {
	uint64_t id;
	uint64_t flag; /* CLONE_NEW* */
	uint64_t ino;  /* of its file in nsfs */
	int ns;	       /* that file */
	bool refused;  /* while checking: it cannot be entered, or what is in it cannot be saved */
	int root;      /* of a mount namespace: its root directory, O_PATH; else -1 */
	VEC(int) mounts;
	VEC(dev_t) brought; /* devices whose files go into the image */
};

struct checkpoint_member {
	pid_t tid;
	uint64_t ids[SPACE_KINDS]; /* 0: the root's */
	uint64_t next_time;	   /* of its next child, of clocks; 0: its own */
};

/* Who is in a pid or user namespace below the root's; zombies, too. */
struct checkpoint_nested {
	pid_t pid;
	uint64_t id;
};

struct checkpoint_spaces {
	VEC(struct checkpoint_space) list;
	VEC(struct checkpoint_nested) nested;
	VEC(struct checkpoint_nested) users;   /* the same of user namespaces */
	VEC(struct checkpoint_member) members; /* tasks that are in any of them */
	struct spaces *looked;		       /* private to the room ns */
};

struct checkpoint;
/*
 * From where the path of a file leads to it: a directory for openat(2), with path + 1, if it is
 * on a mount of another mount namespace than the root's; else AT_FDCWD. *ret_id: that namespace.
 */
int space_of_file(const struct checkpoint *c, int fd, uint64_t *ret_id);
/* One that is open on a mount of such a namespace; NULL: of the root's, or of none. */
const struct checkpoint_space *space_of_mount(const struct checkpoint *c, int mnt_id);
/* Whose files go into the image. */
bool space_brings(const struct checkpoint *c, dev_t dev);
/* Where a task is; NULL: with the root. */
const struct checkpoint_member *space_member(const struct checkpoint *c, pid_t tid);

/* The id of its namespace of one kind (CLONE_NEW*); 0: the root's. */
uint64_t space_of_task(const struct checkpoint *c, pid_t tid, uint64_t flag);

/* The pid namespace of a process. */
uint64_t space_of_process(const struct checkpoint *c, pid_t pid);
/* The user namespace of a process, which is that of all its threads (userns_install()). */
uint64_t space_of_user(const struct checkpoint *c, pid_t pid);
const struct checkpoint_space *space_by_id(const struct checkpoint *c, uint64_t id);
/* Of a kind, with that number; NULL: it is not known. */
const struct checkpoint_space *space_by_number(const struct checkpoint *c, uint64_t flag,
					       uint64_t ino);

struct restart_space {
	uint64_t id, flag, ino;
	int ns, root; /* -1: not made; not a mount namespace */
};

/* A network namespace to which interfaces of others lead. */
struct restart_network {
	uint64_t id;
	int ns, rtnl; /* rtnl: a conversation with the kernel about it */
	bool made;    /* it has its interfaces */
};

/* The place on which something was mounted: files below it are reached from there. */
struct restart_place {
	uint64_t space; /* of that mount namespace */
	int by;		/* the number of what lies over it */
	int fd;
	size_t skip; /* so much of a path leads there */
};

/* A mount that is attached nowhere. */
struct restart_detached {
	uint64_t id;
	int fd;
};

struct restart_spaces {
	VEC(struct restart_detached) detached;
	uint64_t network;			/* in which this thread is now */
	uint64_t ipc;				/* the same */
	VEC(struct restart_space) list;		/* in image order */
	const struct cgroups_made *cgroups;	/* private to the room ns: where the root is */
	struct restart_space root[SPACE_KINDS]; /* those of the root */
	VEC(struct restart_network) networks;
	VEC(struct restart_place) places;
};

struct restart;
struct restart_task;
/* Is there no namespace of that kind with this id in the image? 0 is the root's, and there. */
bool restart_space_missing(const struct restart *r, uint64_t id, uint64_t flag);
/* This thread goes into a network namespace; *was: for the way back. 0 or a negative errno. */
int restart_enter_network(struct restart *r, uint64_t id, uint64_t *was);
/* The same of an IPC namespace. */
int restart_enter_ipc(struct restart *r, uint64_t id, uint64_t *was);
/* That of a task, of one kind (CLONE_NEW*). */
uint64_t restart_space_of(const struct restart *r, const struct restart_task *t, uint64_t flag);
/* The directory from which paths of mount namespace `id` begin; AT_FDCWD of the root's. */
int restart_root(const struct restart *r, uint64_t id);
/* The same for what lies below mount `under` there: *path goes on from the result. 0: nothing is
 * in the way. */
int restart_root_under(const struct restart *r, uint64_t id, int under, const char **path);
/* The root of a mount that is attached nowhere; -1: there is none. */
int restart_root_detached(const struct restart *r, uint64_t id);
/*
 * A path and where it begins, for openat(2) and its like. path must be absolute.
 */
struct rooted {
	int dir;
	const char *path;
};
struct rooted rooted_path(int root, const char *path);

#endif
