/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_H
#define REPRISE_NS_MOUNTS_H

#include "core/scratch.h"
#include "model/checkpoint.h"
#include "model/restart.h"
#include "ns.pb-c.h"
#include "ns/mount_table.h"
#include "ns/mounts_hidden.h"

/* How a mount comes about. Numbers stand in images. */
enum mount_kind {
	MOUNT_EXTERNAL = 1,    /* a directory or file of the host, bound */
	MOUNT_BIND = 2,	       /* part of another mount of the container */
	MOUNT_FRESH = 3,       /* a pseudo file system: a new instance */
	MOUNT_TMPFS = 4,       /* with the contents of a layer */
	MOUNT_OVERLAY = 5,     /* files of the host, and a layer over them */
	MOUNT_REMOUNT = 6,     /* of a copy of the host's mounts: other flags */
	MOUNT_CGROUP = 370,    /* a control group of the container, or one below it */
	MOUNT_NAMESPACE = 390, /* a file that holds a namespace */
};

/* Private contents that go into the image. */
struct mount_layer {
	Reprise__Mount *mount;
	int dir_fd;
};

/* A proc of the root's own mounts that shows another pid namespace than the root's. */
struct mount_shown {
	int id;
	dev_t dev;
	uint64_t number; /* of that namespace; 0: it is hidden, and may show any */
};

struct mounts_survey {
	struct mount_table theirs, ours;
	VEC(Reprise__Mount *) mounts;
	VEC(char *) unmounted;
	VEC(struct mount_layer) layers;
	VEC(struct mount_shown) shown;
	struct mounts_hidden hidden;   /* of theirs, where they are not ours */
	struct overlay_parts overlays; /* what they are made of, while the host's paths are there */
	bool derived;
	bool user;  /* in a user namespace of their own */
	bool marks; /* what overlays of outside have noted is seen nevertheless */
	const Reprise__Container
		*ids; /* what the host's are called there; NULL: as the host does */
	bool nested;  /* of a task; what is outside is the root's mount namespace, */
	pid_t above;  /* or that of this one; 0 */
	const struct cgroups *cgroups; /* of the container */
	struct checkpoint *c;  /* pid namespaces below the root's are known there; NULL: none is */
	bool without_consoles; /* those that show a terminal are left out */
	bool with_overlays;    /* the writable layers of overlays go into the image */
};

/*
 * Looks at the mounts of a task in another mount namespace, from outside: what
 * is there, and where it comes from. `s` keeps the messages.
 */
int mounts_survey(int proc_fd, pid_t pid, struct mounts_survey *ret, struct scratch *s,
		  struct error *e) must_check;
/* The root of a mount of theirs: a descriptor that may only name it (O_PATH). */
int mounts_open(const struct mounts_survey *m, int proc_fd, pid_t pid,
		const struct mount_line *line, struct error *e) must_check;
/* Contents that go into the image: the descriptor is taken over, or closed. */
int mounts_add_layer(struct mounts_survey *m, Reprise__Mount *msg, int fd,
		     struct error *e) must_check;
/* The device of one of theirs, 0 if there is none. */
dev_t mounts_device(const struct mounts_survey *m, int id);
/* A copy of a mount, without what is mounted on it: a descriptor. */
typedef int (*mounts_open_fn)(void *arg, const char *point, struct error *e);
/* For who is in their mount namespace; the first gives a negative errno. */
int mounts_open_alone(const char *point);
int mounts_open_here(void *arg, const char *point, struct error *e);
/* Opens what lies in their memory. */
int mounts_open_layers(struct mounts_survey *m, mounts_open_fn open_mount, void *arg,
		       struct error *e) must_check;
void mounts_survey_free(struct mounts_survey *m);

/* File systems that are made anew: whose contents the kernel makes up, or that are memory. */
bool mounts_is_fresh(const char *type);
bool mounts_is_memory(const char *type);
/* Of a new file system: not all of it is mounted. */
bool mounts_is_part(const Reprise__Mount *m);
/* A path from the root that does not climb. */
bool mounts_absolute(const char *path);
int mounts_validate(const Reprise__Container *msg, struct error *e) must_check;

/* Where writable layers are made on the host, and what takes the place of what was outside. */
struct mounts_place {
	const char *root;	/* an empty directory: the container's root is mounted there */
	const char *layers;	/* directory for writable layers: N/upper and N/work */
	const char *const *map; /* "A=B" pairs, NULL at the end; may be NULL */
	const void *arg;
	/* The directory of the container's control group in a hierarchy; NULL: it has none. */
	const char *(*cgroup)(const void *cgroups, const char *controllers);
	const void *cgroups;
	/* For who knows them already: a descriptor of the namespace that is mounted there. */
	int (*namespace)(const void *arg, const Reprise__Mount *m);
	int proc_fd;
	const int *external_fd;	    /* what is outside is this, and nowhere else; may be NULL */
	const int *fresh_fd;	    /* the same of a file system that is new */
	const int *early_fds;	    /* see ns/mounts_early.h; may be NULL */
	const int *root_fds;	    /* see propagation_open_root(); may be NULL */
	struct mounts_below *below; /* see ns/mounts_covered.h; may be NULL */
	/* A copy of what is outside, for where it cannot be bound from; -1: there is none. May be
	 * NULL. */
	int (*external)(const void *arg, const Reprise__Mount *m);
	bool apart;	 /* what they exchange with others is set by somebody else */
	bool one_by_one; /* what a mount is bound from is there already */
};

#define MOUNTS_PATH_SIZE 8192
/* What takes the place of something outside. */
const char *mounts_mapped(const struct mounts_place *place, const char *external);
/* A descriptor that only names it, or -1 and errno; no link leads out of the root. */
int mounts_open_in_root(int root, const char *path);
/* The directory of the writable layer of one overlay, made if it is not there: a descriptor. */
int mounts_upper(const struct mounts_place *place, const Reprise__Mount *m,
		 struct error *e) must_check;
/*
 * Mounts everything, and makes it the root of this process and of all others
 * of the mount namespace. To be called in the new pid namespace, whose /proc it mounts.
 */
int mounts_restart(const Reprise__Container *msg, const struct mounts_place *place,
		   struct error *e) must_check;

/* One of them alone, whose root is ours. */
int mounts_restart_one(const Reprise__Container *msg, size_t i, const struct mounts_place *place,
		       struct error *e) must_check;

/* MS_* of a mount. */
int mounts_set_flags(int fd, unsigned long flags, bool with_readonly, struct error *e) must_check;

/* Mounts a namespace, of which fd is a descriptor. */
int mounts_bind_namespace(int proc_fd, int fd, const char *to, struct error *e) must_check;

/* Makes a mount the root of all processes of this mount namespace. */
int mounts_change_root(const char *root, struct error *e) must_check;

#endif
