/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V shared memory that is attached. A segment that was not removed gets
 * its id and key again, since the application knows them. One that was removed
 * and lives on only because it is attached gets its id if that is free.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/inode_private.h"
#include "ipc/sysv.h"

#ifndef SHM_HUGE_SHIFT
#define SHM_HUGE_SHIFT 26 /* linux/shm.h */
#endif

/* One that the tree may not have used, and whose number another has. */
#define SEGMENT_GIVEN_UP (-ENOTUNIQ)

static int look(struct checkpoint *c, void *arg, struct error *e)
{
	Reprise__Inode *msg = arg;
	struct shmid_ds ds;

	if (shmctl(msg->shmid, IPC_STAT, &ds) < 0)
		return error_errno(e, -errno, E_FILE_STATE,
				   "cannot look at the System V segment %d", msg->shmid);
	msg->shmkey = ds.shm_perm.__key;
	msg->shmmode = ds.shm_perm.mode; /* with SHM_DEST and SHM_LOCKED */
	msg->uid = ds.shm_perm.uid;
	msg->gid = ds.shm_perm.gid;
	msg->size = ds.shm_segsz;
	return 0;
}

int inode_sysv_checkpoint(struct checkpoint *c, struct inode_entry *entry, struct error *e)
{
	Reprise__Inode *msg = &entry->msg;

	/* ipc/shm.c, newseg(): "shmid gets reported as inode# in /proc/pid/maps". */
	msg->shmid = ipc_id_of_segment(msg->ino);
	msg->ipc_namespace = ipc_space_of_segment(c, msg->ino);
	return ipc_visit(c, msg->ipc_namespace, look, msg, e);
}

static bool removed(const Reprise__Inode *msg)
{
	return msg->shmmode & SHM_DEST;
}

/* What a killed original has left behind: it is what it was, and nobody is attached. */
static bool is_left_behind(const Reprise__Inode *msg, const struct shmid_ds *ds)
{
	return ds->shm_perm.__key == msg->shmkey && ds->shm_segsz == msg->size &&
	       ds->shm_nattch == 0 && !(ds->shm_perm.mode & SHM_DEST);
}

static unsigned int log2_of(uint64_t x)
{
	return x ? 63u - (unsigned int)__builtin_clzll(x) : 0;
}

static int make_segment(struct restart *r, const Reprise__Inode *msg,
			const Reprise__ShmSegment *seg, bool *ret_made, struct error *e)
{
	Reprise__IpcPerm perm = REPRISE__IPC_PERM__INIT;
	int flags = 0, id;

	if (msg->hugetlb_size)
		flags = SHM_HUGETLB | (int)(log2_of(msg->hugetlb_size) << SHM_HUGE_SHIFT);
	perm.id = msg->shmid;
	perm.key = removed(msg) ? IPC_PRIVATE : msg->shmkey;
	perm.cuid = seg ? seg->perm->cuid : geteuid();
	perm.cgid = seg ? seg->perm->cgid : getegid();
	perm.namespace_ = msg->ipc_namespace;
	id = sysv_get(r, SYSV_SHM, &perm, msg->size, flags, e);
	if (id < 0)
		return id;
	*ret_made = true;
	/* Nobody can come to a removed one by its number. */
	if (id == msg->shmid || removed(msg))
		return id;
	shmctl(id, IPC_RMID, NULL);
	*ret_made = false;
	return error_set(e, -EEXIST, E_IPC_TAKEN, "cannot have its number again (it would be %d)",
			 id);
}

/* The segment itself. *ret_keep: its contents are not those of the image, and stay. */
static int get_segment(struct restart *r, struct inode_open *inode, bool *ret_keep, struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	const Reprise__ShmSegment *seg = shm_of_image(r, msg->ipc_namespace, msg->shmid);
	int there, of_key, res;
	struct shmid_ds ds;

	*ret_keep = true;
	if (seg && seg->perm->relation == IPC_OUTSIDE_TOO) {
		res = shm_find_shared(r, seg, e);
		return res < 0 ? res : msg->shmid;
	}
	there = shmctl(msg->shmid, IPC_STAT, &ds) < 0 ? -errno : 0;
	if (there == 0 && is_left_behind(msg, &ds)) {
		*ret_keep = seg && seg->perm->relation == IPC_PERHAPS;
		inode->left_behind = !*ret_keep;
		return msg->shmid;
	}
	of_key = msg->shmkey && !removed(msg) ? shmget(msg->shmkey, 0, 0) : -1;
	if (!seg || removed(msg) || (there == -EINVAL && of_key < 0)) {
		*ret_keep = false;
		return make_segment(r, msg, seg, &inode->made, e);
	}
	if (seg->perm->relation != IPC_PERHAPS)
		return error_set(e, -EEXIST, E_IPC_TAKEN, "another one has its number or its key");
	/* Refuses or warns. */
	res = sysv_is_there(r, SYSV_SHM, seg->perm, there == 0 ? -EEXIST : there, &ds.shm_perm,
			    of_key, e);
	return res < 0 ? res : SEGMENT_GIVEN_UP;
}

static int set_owner(int id, const Reprise__Inode *msg, struct error *e)
{
	struct shmid_ds ds;

	if (shmctl(id, IPC_STAT, &ds) < 0)
		return error_errno(e, -errno, E_SYSTEM, "shmctl of System V segment %d", id);
	ds.shm_perm.uid = msg->uid;
	ds.shm_perm.gid = msg->gid;
	ds.shm_perm.mode = msg->shmmode & 0777;
	if (shmctl(id, IPC_SET, &ds) < 0)
		return error_errno(e, -errno, E_CREDENTIALS,
				   "cannot set the owner of System V segment %d", id);
	if ((msg->shmmode & SHM_LOCKED) && shmctl(id, SHM_LOCK, NULL) < 0)
		return error_errno(e, -errno, E_CREDENTIALS, "cannot lock System V segment %d", id);
	return 0;
}

static int attach(struct restart *r, struct inode_open *inode, struct error *e)
{
	uint64_t size = inode->msg->size;
	char path[64];
	void *map = shmat(inode->shmid, NULL, 0);

	if (map == (void *)-1)
		return error_errno(e, -errno, E_RESTORE, "cannot be attached");
	inode->map = map;
	/* Not in what is forked from us, where it would count as attached. */
	if (madvise(map, size, MADV_DONTFORK) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot be attached");
	/* What was written after the checkpoint may be where the image has holes. */
	if (inode->left_behind && madvise(map, size, MADV_REMOVE) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot be emptied");
	inode->fd = inode_open_mapping(r->proc_fd, map, size, path, sizeof(path));
	return 0;
}

/* Contents that are not wanted have to be read all the same: they stand in the way of others. */
static int skip_contents(struct restart *r, const struct inode_open *inode, struct error *e)
{
	struct inode_open nowhere = *inode;
	int res;

	nowhere.map = mmap(NULL, inode->msg->size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (nowhere.map == MAP_FAILED)
		return error_errno(e, -errno, E_NO_MEMORY, "no memory to read it");
	res = inode_contents_fill(r, &nowhere, e);
	munmap(nowhere.map, inode->msg->size);
	return res;
}

static int make(struct restart *r, void *arg, struct error *e)
{
	struct inode_open *inode = arg;
	bool keep;
	int id = get_segment(r, inode, &keep, e), res = 0;

	inode->shmid = id;
	/* Attached here until the tasks are, so that a removed one stays. */
	if (id >= 0)
		res = attach(r, inode, e);
	else if (id != SEGMENT_GIVEN_UP)
		res = id;
	if (res >= 0)
		res = keep ? skip_contents(r, inode, e) : inode_contents_fill(r, inode, e);
	return res < 0 ? sysv_error(e, res, SYSV_SHM, inode->msg->shmid, inode->msg->shmkey) : 0;
}

int inode_sysv_restart(struct restart *r, struct inode_open *inode, struct error *e)
{
	return ipc_restart_visit(r, inode->msg->ipc_namespace, make, inode, e);
}

int inode_sysv_shmid(const struct restart *r, uint64_t id)
{
	const struct inode_open *inode = inode_find(r, id);

	return inode && inode->msg->kind == INODE_SYSV_SHM ? inode->shmid : -EINVAL;
}

static int finish(struct restart *r, void *arg, struct error *e)
{
	struct inode_open *inode = arg;
	int res = inode->made || inode->left_behind ? set_owner(inode->shmid, inode->msg, e) : 0;

	if (res < 0)
		return res;
	if (!inode->map)
		return 0;
	if (removed(inode->msg) && inode->made && shmctl(inode->shmid, IPC_RMID, NULL) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot remove System V segment %d",
				   inode->shmid);
	/* Attached no longer: the tasks see how often it is. */
	shmdt(inode->map);
	inode->map = NULL;
	inode->made = false; /* stays, whatever happens to us */
	return 0;
}

int inode_sysv_finish(struct restart *r, struct inode_open *inode, struct error *e)
{
	return ipc_restart_visit(r, inode->msg->ipc_namespace, finish, inode, e);
}

void inode_sysv_release(struct inode_open *inode)
{
	if (inode->map)
		shmdt(inode->map);
	inode->map = NULL;
	/* What is in a namespace of its own goes with it. */
	if (inode->made && !inode->msg->ipc_namespace)
		shmctl(inode->shmid, IPC_RMID, NULL);
	inode->made = false;
}
