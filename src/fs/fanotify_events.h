/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_FANOTIFY_EVENTS_H
#define REPRISE_FS_FANOTIFY_EVENTS_H

#include <fcntl.h>

#include "fs/context.h"

/* What a group of fanotify holds, and nobody has read yet. */

#define FANOTIFY_EVENTS_MAX (1u << 16)

enum fanotify_type { /* numbers stand in images: for ever */
		     FANOTIFY_PATH = 1,
		     FANOTIFY_HANDLE = 2,
		     FANOTIFY_NAME = 3,
		     FANOTIFY_OVERFLOW = 4,
		     /* never in an image: */
		     FANOTIFY_STRANGE = 5,
		     FANOTIFY_PERMISSION = 6,
};

/* FS_EVENT_ON_CHILD stands in events, too, and nobody is told. */
#define FANOTIFY_MASK(mask) ((mask) & ~(uint32_t)FAN_EVENT_ON_CHILD)

struct fanotify_handle {
	uint32_t type, len;
	uint8_t bytes[MAX_HANDLE_SZ];
};

/* As the kernel keeps it (struct fanotify_event). */
struct fanotify_raw {
	enum fanotify_type type;
	uint32_t mask;
	uint64_t pid;		       /* struct pid */
	uint64_t mount, dentry;	       /* by path: struct vfsmount, struct dentry */
	uint64_t fsid;		       /* else */
	struct fanotify_handle object; /* of FANOTIFY_NAME: the directory */
	struct fanotify_handle child;  /* len 0: not told */
	struct fanotify_handle to;     /* of FAN_RENAME */
	char name[NAME_MAX + 1];
	char to_name[NAME_MAX + 1];
};

/* One of the tree, by its struct pid. */
struct fanotify_causer {
	uint64_t pid;
	pid_t tid;
};

struct fanotify_raws {
	VEC(struct fanotify_raw) all;
};

/* Those of a group of which we have a descriptor; or the last one alone. */
int fanotify_events_read(struct kernel_memory *k, int fd, bool last,
			 struct fanotify_raws *ret) must_check;
/* The handle by which events tell of a file, and the number of its file system. */
int fanotify_handle_of(int fd, struct fanotify_handle *ret) must_check;
int fanotify_fsid_of(int fd, uint64_t *ret) must_check;
bool fanotify_handle_equal(const struct fanotify_handle *a, const struct fanotify_handle *b);

/* The struct pid of a thread; 0: it has none. */
int fanotify_pid(struct kernel_memory *k, pid_t tid, uint64_t *ret) must_check;

/* Who may have caused events: fanotify_who.c */
struct fanotify_causers {
	struct checkpoint *c;
	const Reprise__Fanotify *m;
	VEC(struct fanotify_causer) all;
	uint64_t space;	  /* struct pid_namespace of the tree */
	uint32_t level;	  /* and how deep it is */
	uint64_t program; /* struct file of what we execute */
};
int fanotify_causers_list(struct checkpoint *c, const Reprise__Fanotify *m,
			  struct fanotify_causers *ret, struct error *e) must_check;
void fanotify_causers_free(struct fanotify_causers *s);
/* What we have done ourselves to look at the tree. */
bool fanotify_causers_own(const struct fanotify_causers *s, const struct fanotify_raw *raw);
/* Who has caused it, as the image says it; refused if nobody could do so again. */
int fanotify_causer_save(const struct fanotify_causers *s, const struct fanotify_raw *raw,
			 Reprise__FanotifyEvent *m, struct error *e) must_check;
int fanotify_refuse(const struct fanotify_raw *raw, const char *why, struct error *e);

/* File systems that the group watches, on which files are found by their handles. */
struct fanotify_devices {
	const dev_t *v;
	size_t n;
	bool no_double; /* of a file system can be made: see fanotify_double.c */
};
int fanotify_open_handle(struct checkpoint *c, const struct fanotify_devices *devices,
			 uint64_t fsid, const struct fanotify_handle *handle);

/*
 * Saves events that were read: finds what they are about, and who in the tree has caused them.
 * Refuses what could not be caused again. devices: on which the group has marks.
 */
int fanotify_events_save(struct checkpoint *c, Reprise__Fanotify *m,
			 const struct fanotify_raws *events, const struct fanotify_devices *devices,
			 struct error *e) must_check;
bool fanotify_is_name(const ProtobufCBinaryData *name);
bool fanotify_events_possible(const struct restart *r, const Reprise__Fanotify *m);

/* Makes a group without marks hold the events of the image, or an overflow alone. */
int fanotify_events_restart(struct restart *r, int fd, const Reprise__Fanotify *m,
			    struct error *e) must_check;
int fanotify_make_overflow(struct restart *r, int fd, struct error *e) must_check;

/* An attribute that is not there, and may be removed. */
#define FANOTIFY_NO_ACL "system.posix_acl_default"

/* What one event takes to be caused again by its task. */
struct fanotify_cause {
	struct restart *r;
	struct restart_task *t; /* NULL: this process */
	int group;
	int object; /* O_PATH: what is opened */
	int marked; /* O_PATH: what is marked for that */
	const Reprise__FanotifyEvent *event;
	bool directory;
	uint32_t step; /* of an event on a double, whose root `object` is; else 0 */
	char path[32 + NAME_MAX], other[32 + NAME_MAX];
};
int fanotify_cause(struct fanotify_cause *x, struct error *e) must_check;

/* Groups that decide about accesses: fanotify_permission.c */
int fanotify_permission_save(struct checkpoint *c, int fd, struct error *e) must_check;
int fanotify_mark_late(struct restart *r, int group, unsigned int flags, uint64_t mask, int target,
		       struct error *e) must_check;

/*
 * What cannot be caused on the files themselves: on a double of their file system
 * (fanotify_double.c).
 */
struct fanotify_double;
int fanotify_double_save(struct checkpoint *c, const Reprise__Fanotify *group,
			 const struct fanotify_devices *devices, const struct fanotify_raw *raw,
			 Reprise__FanotifyEvent *m, struct error *e) must_check;
bool fanotify_double_possible(const struct restart *r, const Reprise__Fanotify *group,
			      const Reprise__FanotifyEvent *m);
/* Calls `act` for each step of event i; *want: what the group holds then, but for who did it. */
typedef int (*fanotify_act_fn)(void *arg, struct fanotify_cause *x, struct error *e);
int fanotify_double_cause(struct restart *r, int fd, const Reprise__Fanotify *group, size_t i,
			  fanotify_act_fn act, void *arg, struct fanotify_raw *want,
			  struct error *e) must_check;
int fanotify_double_step(struct fanotify_cause *x, struct error *e) must_check;
void fanotify_double_end(struct fanotify_double *d); /* accepts NULL */
/* In whoever causes it: for fanotify_cause.c and fanotify_double.c. */
int fanotify_cause_run(const struct fanotify_cause *x, struct batch *b, int n,
		       struct error *e) must_check;
int fanotify_cause_give(const struct fanotify_cause *x, const int *fds, int n, int *remote,
			struct error *e) must_check;

/*
 * A process that has the number of a task that has ended, as the tasks see it, and causes events in
 * its place.
 */
struct fanotify_stand_in;
int fanotify_stand_in_begin(struct restart *r, pid_t vpid, struct fanotify_stand_in **ret,
			    struct error *e) must_check;
pid_t fanotify_stand_in_pid(const struct fanotify_stand_in *s);
int fanotify_stand_in_cause(struct fanotify_stand_in *s, struct fanotify_cause *x,
			    struct error *e) must_check;
void fanotify_stand_in_end(struct fanotify_stand_in *s); /* accepts NULL */

#endif
