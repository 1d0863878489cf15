/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IPC_SYSV_H
#define REPRISE_IPC_SYSV_H

#include <sys/ipc.h>

#include "core/kernel_memory.h"
#include "core/objects.h"
#include "core/vec.h"
#include "ipc.pb-c.h"
#include "ipc/ipc.h"
#include "ipc/mqueue.h"

/*
 * What the kinds of System V objects have in common. Private to src/ipc and to
 * fs/inode_sysv.c.
 *
 * There is no descriptor that tells whether a task uses such an object: whoever knows its
 * number and has the permission may use it. What the kernel tells is who is blocked in a call on
 *it, who holds adjustments of it, and who used it last. That decides:
 *
 *   own      a task of the tree is one of these, and no process outside is
 *   shared   both are
 *   perhaps  it belongs to a user of the tree and was changed while the tree was there, and whoever
 *used it last has ended, or nobody has yet
 *
 * Own and perhaps are saved with their contents and re-created where they are gone. What is shared
 *must be there at the restart: nobody would be at the other side of a copy. All others are not the
 *tree's.
 */
enum ipc_relation { /* numbers stand in images: for ever */
		    IPC_NOT_OURS = 0,
		    IPC_OWN = 1,
		    IPC_OUTSIDE_TOO = 2,
		    IPC_PERHAPS = 3,
};

/* Times are told in seconds, and start times of processes are not those of the wall clock. */
#define SLACK_S 2

enum sysv_kind { SYSV_SEM, SYSV_MSG, SYSV_SHM };

/* A line of /proc/sysvipc/sem, msg or shm. */
struct sysv_object {
	enum sysv_kind kind;
	uint64_t space; /* the namespace; 0: the root's */
	int id, key;
	unsigned int mode;
	uint32_t uid, gid, cuid, cgid;
	uint64_t nsems, qnum, nattch;
	uint64_t attached;	 /* of nattch, in the tree */
	int64_t ctime, times[2]; /* of the last uses: 0 never */
	pid_t users[2];	    /* the last sender and receiver; creator and last user of a segment */
	bool tree, outside; /* who uses it, as far as is known by now */
	pid_t late;	    /* one of those who a restart makes last, see checkpoint_refer() */
};

/* The tasks that share a SEM_UNDO list. */
struct undo_list {
	uint64_t id, space;
	pid_t pid, tid; /* the first of them */
	char comm[16];
	size_t tasks;
	size_t begun; /* processes that have it, but not from their parent */
	bool apart;   /* of a thread that does not share with its process */
};

/* A task that has a list. */
struct undo_member {
	pid_t pid;
	size_t list, main; /* its own, and that of the first thread of its process */
};

/* Of the processes of the tree; anybody: it cannot be told. */
struct user_ids {
	VEC(uint32_t) ids;
	bool known, anybody;
};

/* A segment of a container that somebody outside has attached. */
struct segment_leaked {
	int id;
	uint32_t key;
	uint64_t space;
	bool found; /* by whom */
};

/* More namespaces may be met on the way. */
struct space_set {
	VEC(uint64_t) ids;
};

struct ipc_checkpoint {
	VEC(struct segment_leaked) leaked;
	struct space_set listed, placed;    /* of which is known what is in them */
	VEC(struct sysv_object) objects[3]; /* by kind */
	struct kcmp_index *by_undo;
	VEC(struct undo_list) lists; /* class n is entry n - 1 */
	VEC(struct undo_member) members;
	VEC(struct mqueue_entry) queues;
	VEC(struct mqueue_place) places; /* of the namespaces that are the tree's alone */
	VEC(pid_t) tids;		 /* of the whole tree, sorted */
	struct user_ids users;
	int64_t boot;  /* when the machine was started, and */
	int64_t begin; /* the oldest process of the tree: seconds since 1970 */
	struct kernel_memory *kernel;
	bool kernel_asked;
	bool used;		   /* the tree uses some object */
	bool untold;		   /* of some mapping it is not known which segment it is */
	struct error kernel_error; /* why it cannot be read */
};

struct ipc_made {
	enum sysv_kind kind;
	int id;
};

struct ipc_restart {
	VEC(struct mqueue_open) queues;
	VEC(struct ipc_made) made; /* to be removed if the restart fails */
};

/* ---- checkpoint ---- */

/* 1 at first sight. */
int ipc_note_space(struct space_set *set, uint64_t space, struct error *e) must_check;
/* All objects there are, in all namespaces of the tree that are known by now. */
int sysv_list_objects(struct checkpoint *c, struct error *e) must_check;
/* The same, and what tells at once who uses them. */
int sysv_list(struct checkpoint *c, struct error *e) must_check;
/* The kernel's memory, or NULL with the reason in c->ipc->kernel_error. */
struct kernel_memory *ipc_kernel_memory(struct checkpoint *c);
/* The kernel says that pid (0: none) used it at `time` or before. */
void sysv_used_by(struct checkpoint *c, struct sysv_object *o, pid_t pid, int64_t time);
enum ipc_relation sysv_relation(struct checkpoint *c, const struct sysv_object *o);
/* Does it belong to a user of the tree? */
bool sysv_of_our_user(struct checkpoint *c, const struct sysv_object *o);
bool sysv_have_user(struct checkpoint *c, uint32_t uid);
struct sysv_object *sysv_find(const struct checkpoint *c, enum sysv_kind kind, uint64_t space,
			      int id);
/* Of a segment, as ipc_number_mapped() gives it. */
uint64_t sysv_number(const struct checkpoint *c, const struct sysv_object *o);
/* Is nobody but the tree in its namespace? */
bool sysv_is_apart(const struct checkpoint *c, const struct sysv_object *o);
int sysv_save_perm(struct checkpoint *c, const struct sysv_object *o, enum ipc_relation relation,
		   struct scratch *s, Reprise__IpcPerm **ret, struct error *e) must_check;
/* "System V semaphore set 5 (key 0x4d2)" in front of an error. */
int sysv_error(struct error *e, int r, enum sysv_kind kind, int id, int key);

int undo_check_sharing(struct checkpoint *c, struct error *e) must_check;
/* Marks the sets that the tree holds adjustments of; puts the records. */
int undo_checkpoint(struct checkpoint *c, struct error *e) must_check;
/* Those of one namespace, in which we are. */
int sem_checkpoint(struct checkpoint *c, uint64_t space, struct error *e) must_check;
int msg_checkpoint(struct checkpoint *c, uint64_t space, struct error *e) must_check;
int shm_checkpoint(struct checkpoint *c, uint64_t space, struct error *e) must_check;
/* Which mappings of the tree belong to which segment. */
int shm_count_attachments(struct checkpoint *c, struct error *e) must_check;

/* ---- restart ---- */

/* Calls fn in an IPC namespace of the image; 0: that of the root, in which we are. */
int ipc_restart_visit(struct restart *r, uint64_t space,
		      int (*fn)(struct restart *r, void *arg, struct error *e), void *arg,
		      struct error *e) must_check;

int sysv_validate_perm(const struct restart *r, const Reprise__IpcPerm *m,
		       struct error *e) must_check;
/*
 * The kernel takes this number for the next object of the kind (ipc_idr_alloc()), and forgets it.
 * Where that is not permitted the id will tell.
 */
void sysv_ask_for_id(struct restart *r, enum sysv_kind kind, int id);
enum sysv_found { SYSV_ABSENT, SYSV_PRESENT, SYSV_GIVEN_UP };
/*
 * `stat`: what IPC_STAT of its number said, 0 or a negative errno; `of_key`: the number of the
 * object that has its key, negative for none. Returns an enum sysv_found or refuses.
 */
int sysv_is_there(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m, int stat,
		  const struct ipc_perm *now, int of_key, struct error *e) must_check;
bool sysv_same_perm(const Reprise__IpcPerm *m, const struct ipc_perm *now);
/* Of one that is there, and the same as it was or not: 1 to go on with it, 0 to leave it alone. */
int sysv_changed(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m, bool same,
		 int64_t ctime, struct error *e) must_check;
/* A new object with that number, if the kernel lets us, by its creator; n: semaphores, or bytes of
 * a segment. */
int sysv_get(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m, size_t n, int flags,
	     struct error *e) must_check;
/* A new set of n semaphores, or a new queue, by its creator; its number. */
int sysv_create(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m, int n,
		struct error *e) must_check;
/* The process of the image that has this pid or thread, lives, and is in that namespace; NULL. */
struct restart_task *sysv_actor(struct restart *r, uint64_t space, pid_t vpid);
/*
 * Whoever does for the others: the first in that namespace, which is the root in its own. The
 * kernel remembers who used an object last, and that shall be one of the tree. NULL: nobody is in
 * it, so we do. */
struct restart_task *sysv_stand_in(struct restart *r, uint64_t space);

/* The set of that number in the image, NULL. */
const Reprise__SemSet *sem_of_image(const struct restart *r, uint64_t space, int semid);
int sem_validate(const struct restart *r, struct error *e) must_check;
int sem_restart(struct restart *r, struct error *e) must_check;
int undo_validate(const struct restart *r, struct error *e) must_check;
/* The first task of a list. NULL: nobody has it. */
struct restart_task *undo_holder(struct restart *r, uint64_t id);
/* Sum of the adjustments of a semaphore. */
int64_t undo_total(const struct restart *r, uint64_t space, int semid, uint32_t n);
int msg_validate(const struct restart *r, struct error *e) must_check;
int msg_restart(struct restart *r, struct error *e) must_check;
int shm_validate(const struct restart *r, struct error *e) must_check;
int shm_restart(struct restart *r, struct error *e) must_check;
/* What the image knows of a segment besides its inode; NULL. */
const Reprise__ShmSegment *shm_of_image(const struct restart *r, uint64_t space, int id);
/* One that is shared with the outside is there, and the same. */
int shm_find_shared(struct restart *r, const Reprise__ShmSegment *m, struct error *e) must_check;

#endif
