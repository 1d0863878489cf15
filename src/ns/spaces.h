/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_SPACES_H
#define REPRISE_NS_SPACES_H

#include "ns/cgroup_make.h"
#include "ns/container.h"
#include "ns/resident.h"

/*
 * Namespaces that some tasks have and the root has not: each is saved once, under an id, and every
 * task refers to those in which it is. What is in them is described as it is for a container, whose
 * outside are the namespaces of the root.
 */

/*
 * Who is in which, and what is in them; before files are looked at. This process is in those of the
 * root, but for clocks.
 */
int spaces_survey(struct checkpoint *c, struct container *ct, struct error *e) must_check;
/* What does not depend on the tree, before that stands still; else it is done by spaces_survey().
 */
int spaces_prepare(struct checkpoint *c, struct error *e) must_check;
/*
 * What a file of nsfs stands for: at first sight, one that no task is in is looked at, and saved.
 * *ret_id: 0 is the root's. A refusal for those of other kinds that are not.
 */
int space_of_descriptor(struct checkpoint *c, int fd, uint64_t *ret_id, uint64_t *ret_flag,
			struct error *e) must_check;
/* Where interfaces of the container's own network namespace lead to; once it and the others have
 * been looked at. */
int spaces_check_network(struct checkpoint *c, const struct container *ct,
			 struct error *e) must_check;
/* The records, with the files that they bring along. */
int spaces_checkpoint(struct checkpoint *c, struct error *e) must_check;
void spaces_end(struct checkpoint *c);
/* Is it the root's, in which we are? ino: the number of its file. */
bool space_is_own(const struct checkpoint *c, uint64_t flag, uint64_t ino);

/* This thread goes into one of them (not of mounts or clocks), and back to the root's. */
int space_visit(struct checkpoint *c, uint64_t id, struct error *e) must_check;
int space_return(struct checkpoint *c, uint64_t flag, struct error *e) must_check;

int spaces_validate(const struct restart *r, struct error *e) must_check;
/* Makes them: the root's are there, described by `root` if it is in a container, and its stub,
 * which is in them but for that of its clocks. cgroups: where it is. */
int spaces_restart(struct restart *r, const Reprise__Container *root,
		   const struct cgroups_made *cgroups, struct error *e) must_check;
/* What shows pid namespaces, whose first processes are there by now. */
int spaces_restart_late(struct restart *r, struct error *e) must_check;
void spaces_restart_end(struct restart *r);
/* Is this a kind of namespace, and the record one of it? 0 is the root's. */
int space_validate_use(const struct restart *r, uint64_t id, uint64_t flag,
		       struct error *e) must_check;
/* The same of one that is mounted on a file. */
int space_validate_bound(const struct restart *r, const Reprise__Mount *m,
			 struct error *e) must_check;
/* A new descriptor of a namespace. */
int space_open(struct restart *r, uint64_t id, uint64_t flag, struct error *e) must_check;
/* A new task, which is in those of its maker, goes where it belongs. */
int spaces_enter(struct restart *r, struct restart_task *t, struct error *e) must_check;
/* All are there, and those namespaces that tasks make; who was before them goes there now. */
int spaces_enter_late(struct restart *r, struct error *e) must_check;

/* ---- between the files of this subject ---- */

/* A task that is being made goes into a namespace of that kind. */
int space_go(struct restart *r, struct restart_task *t, const struct restart_space *s,
	     struct error *e) must_check;

struct space_kind {
	const char *name; /* in /proc/PID/ns */
	uint64_t flag;
};
/* Mounts come last: others are needed to make them. */
extern const struct space_kind space_kinds[SPACE_KINDS];
#define SPACE_TIME (SPACE_KINDS - 2)
#define SPACE_MNT  (SPACE_KINDS - 1)
/* By CLONE_NEW*; -1: none of these. */
int space_kind_of(uint64_t flag);
/* Of all kinds of which the root has one; NULL: there is none. */
const char *space_kind_name(uint64_t flag);
/* The number in the link of a namespace, "net:[4026531840]"; 0: there is none. */
uint64_t space_number(int proc_fd, struct error *e, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* At first sight; ns becomes ours. NULL: no memory, or ns is none. */
struct checkpoint_space *space_add(struct checkpoint *c, uint64_t flag, uint64_t ino, int ns,
				   struct error *e);
/* The user namespace that owns the i-th, which is saved, too. */
int space_find_owner(struct checkpoint *c, size_t i, struct error *e) must_check;

/*
 * User namespaces below the root's: that of a descriptor, which becomes ours, is looked at and
 * saved, with those above it. *ret_id: 0 is the root's.
 */
int user_space_get(struct checkpoint *c, int fd, uint64_t *ret_id, struct error *e) must_check;
/* Who is in which. */
int user_spaces_look(struct checkpoint *c, struct error *e) must_check;
int user_spaces_checkpoint(struct checkpoint *c, struct error *e) must_check;
/* Also of records of other kinds, which have nothing of it. */
int user_space_validate(const struct restart *r, const Reprise__Container *msg,
			struct error *e) must_check;
/* This process, a child of ours, goes there, as somebody who has a name there. */
int user_space_become(struct restart *r, uint64_t id, struct error *e) must_check;
/* A descriptor of a new one, below that of the descriptor `above`; -1: below the root's. */
int user_space_make(struct restart *r, const Reprise__Container *msg, int above,
		    struct error *e) must_check;
/* Its limits, when all namespaces are made. */
int user_space_settle(struct restart *r, int ns, const Reprise__Container *msg,
		      struct error *e) must_check;

/* One that is made; NULL: it is none, or not there yet. */
struct restart_space *space_made(struct restart *r, uint64_t id);
/* This thread is in a new one, which belongs to whom it belonged. */
int space_go_to_new(struct restart *r, const Reprise__Container *msg, struct error *e) must_check;
int space_make(struct restart *r, struct restart_space *s, const Reprise__Container *msg,
	       struct error *e) must_check;

/* Can what a file holds be there in time? */
int space_check_bound(const struct checkpoint *c, const Reprise__Mount *m,
		      struct error *e) must_check;

/* Do mounts show the message queues of who is there? */
int mounts_check_queues(struct checkpoint *c, const struct container *ct,
			struct error *e) must_check;

/* Pid namespaces below the root's, which are those of processes: who is in which. */
int pid_spaces_look(struct checkpoint *c, struct error *e) must_check;
/* In which the i-th was made: ours, or one that a process of the tree is in. */
int pid_space_find_above(struct checkpoint *c, size_t i, struct error *e) must_check;
/* One whose first process has ended is saved, too. 1: so it is; 0: it is none of these. */
int pid_space_of_ended(struct checkpoint *c, int fd, uint64_t *ret, struct error *e) must_check;
/* That of the children of a thread may be one. */
int pid_space_look_next(struct checkpoint *c, const struct checkpoint_process *p,
			const struct frozen_thread *t, struct error *e) must_check;
bool pid_space_is_ended(const struct checkpoint *c, uint64_t id);
/* One that was made again, or is to be; NULL: it is none of these. */
const struct restart_space *pid_space_ended(struct restart *r, uint64_t id);
int pid_space_make_ended(struct restart *r, struct restart_space *s, const Reprise__Container *msg,
			 struct error *e) must_check;
/* Those in pid namespaces of processes, which are there by now. */
int pid_spaces_make_ended_late(struct restart *r, struct error *e) must_check;
/* How far below the root's is the one with that number? -1: it is not known. */
int pid_space_depth_below(const struct checkpoint *c, uint64_t ino);
/* A process or thread by its number in one of them; 0: there is none in the tree. */
pid_t pid_space_task(const struct checkpoint *c, uint64_t space, pid_t number);
/* Which of them a proc shows; 0: the root's. */
uint64_t space_of_proc(const struct checkpoint *c, dev_t dev);
int pid_spaces_checkpoint(struct checkpoint *c, struct error *e) must_check;

/* What is in one. */
struct space_contents {
	Reprise__Container msg;
	struct mounts_survey mounts;
	struct network network;
	pid_t tid; /* who is in it; 0: nobody, it is held otherwise */
	char comm[64];
	bool looked;
	struct resident resident;     /* of a mount namespace, once it is looked at */
	Reprise__Container *settings; /* of a user namespace */
};

/* A proc that shows a pid namespace below the root's. */
struct space_proc {
	dev_t dev;
	uint64_t space;
};

/* All of a thread's namespaces that are in one struct nsproxy; a thread that has it. */
struct space_proxy {
	uint64_t address;
	pid_t tid;
};

/* A mount on which a file is open. */
struct space_mount {
	int id;
	uint64_t space;
	const struct mount_line *line; /* NULL: it is not one of that namespace */
	int fd;			       /* a copy of it alone; -1: was not needed yet */
};

/* A mount that is none of the tree's. */
struct space_detached {
	int mount;
	uint64_t id; /* of its record; 0: it is attached somewhere, */
	int root;    /* else its root directory; -1: nobody has a directory of it */
	bool brought;
	dev_t dev; /* of what is brought */
};

struct spaces {
	VEC(struct space_detached) detached;
	VEC(struct space_mount) mounts;
	VEC(struct space_proc) procs;
	VEC(struct space_proxy) proxies;
	VEC(struct space_contents *) list; /* as c->spaces.list */
	struct scratch s;
	struct container *ct;
	bool joined; /* where networks lead to is known: who comes later is asked at once */
	bool saved;  /* the records are written: who comes later writes his own */
	uint64_t own[SPACE_KINDS]; /* numbers of ours, that of time of the root task */
	uint64_t own_user, own_pid;
	int fds[SPACE_KINDS];
};

/* Fills in the i-th of the list. */
int space_look(struct checkpoint *c, size_t i, struct error *e) must_check;
/* When others have been looked at: where its interfaces lead to. Others than networks have none. */
int space_join(struct checkpoint *c, size_t i, struct error *e) must_check;
/* When that is known of all: they lead back. */
int space_check(struct checkpoint *c, size_t i, struct error *e) must_check;

#endif
