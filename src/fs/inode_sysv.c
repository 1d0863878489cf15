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

int inode_sysv_checkpoint(struct inode_entry *entry, struct error *e)
{
	Reprise__Inode *msg = &entry->msg;
	struct shmid_ds ds;

	/* ipc/shm.c, newseg(): "shmid gets reported as inode# in /proc/pid/maps". */
	msg->shmid = (int32_t)msg->ino;
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

/*
 * A segment without a key is known to nobody but those who are attached or were
 * told its number. Beside its original it gets another.
 */
static int another_id(struct restart *r, const Reprise__Inode *msg, int id, struct error *e)
{
	struct error warning = {};

	if (removed(msg))
		return id;
	if (msg->shmkey == IPC_PRIVATE) {
		error_set(&warning, -EEXIST, E_RESTORE,
			  "the System V segment %d is in use by others, and became %d", msg->shmid,
			  id);
		if (r->warn)
			r->warn(r->warn_arg, &warning);
		return id;
	}
	shmctl(id, IPC_RMID, NULL);
	return error_set(e, -EEXIST, E_RESTORE,
			 "the System V segment with key %#x cannot have its id %d", msg->shmkey,
			 msg->shmid);
}

static int get_segment(struct restart *r, const Reprise__Inode *msg, bool *ret_made,
		       struct error *e)
{
	const int flags = IPC_CREAT | IPC_EXCL | 0600;
	struct shmid_ds ds;
	int id;

	if (!removed(msg) && shmctl(msg->shmid, IPC_STAT, &ds) == 0 && is_left_behind(msg, &ds))
		return msg->shmid;
	sysv_ask_for_id(r, SYSV_SHM, msg->shmid);
	id = shmget(removed(msg) ? IPC_PRIVATE : msg->shmkey, msg->size,
		    flags | (msg->hugetlb_size ? SHM_HUGETLB : 0));
	if (id < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot make the System V segment %d (key %#x)%s", msg->shmid,
				   msg->shmkey, errno == EEXIST ? ", which is in use" : "");
	*ret_made = true;
	return id == msg->shmid ? id : another_id(r, msg, id, e);
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

int inode_sysv_restart(struct restart *r, struct inode_open *inode, struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	char path[64];
	int id, res;

	id = get_segment(r, msg, &inode->made, e);
	if (id < 0)
		return id;
	inode->shmid = id;
	/* Attached here until the tasks are, so that a removed one stays. */
	inode->map = shmat(id, NULL, 0);
	if (inode->map == (void *)-1) {
		inode->map = NULL;
		return error_errno(e, -errno, E_RESTORE, "cannot attach System V segment %d", id);
	}
	/* Not in what is forked from us, where it would count as attached. */
	if (madvise(inode->map, msg->size, MADV_DONTFORK) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot attach System V segment %d", id);
	inode->fd = inode_open_mapping(r->proc_fd, inode->map, msg->size, path, sizeof(path));
	res = inode_contents_fill(r, inode, e);
	return res < 0 ? res : set_owner(id, msg, e);
}

int inode_sysv_shmid(const struct restart *r, uint64_t id)
{
	const struct inode_open *inode = inode_find(r, id);

	return inode && inode->msg->kind == INODE_SYSV_SHM ? inode->shmid : -EINVAL;
}

int inode_sysv_finish(struct inode_open *inode, struct error *e)
{
	if (removed(inode->msg) && shmctl(inode->shmid, IPC_RMID, NULL) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot remove System V segment %d",
				   inode->shmid);
	/* Attached no longer: the tasks see how often it is. */
	shmdt(inode->map);
	inode->map = NULL;
	inode->made = false; /* stays, whatever happens to us */
	return 0;
}

void inode_sysv_release(struct inode_open *inode)
{
	if (inode->map)
		shmdt(inode->map);
	inode->map = NULL;
	if (inode->made)
		shmctl(inode->shmid, IPC_RMID, NULL);
	inode->made = false;
}
