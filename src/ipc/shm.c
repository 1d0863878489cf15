/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V shared memory: who uses a segment, and segments that are not attached.
 * What is attached comes with the address spaces, as an inode (fs/inode_sysv.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/inode.h"
#include "fs.pb-c.h"
#include "ipc/sysv.h"

#define PAGE_BYTES 4096UL

/* ---- checkpoint ---- */

/* Every mapping of a segment counts as one attachment (shm_open() in ipc/shm.c). */
static int count_mappings(struct checkpoint *c, const struct checkpoint_process *p, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t n = procfs_read(c->proc_fd, &text, e, "%d/maps", p->tid);
	char *line;

	/* One that has ended meanwhile is attached to nothing. */
	if (n < 0)
		return procfs_unless_gone(n, e);
	if (!strstr(text, "/SYSV"))
		return 0;
	for (line = text; line && *line; line = strchr(line, '\n'), line += !!line) {
		uint64_t start, end, number;
		struct sysv_object *o;
		int at = 0;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*x %*s %" SCNu64 " %n", &start, &end,
			   &number, &at) != 3 ||
		    !at || strncmp(line + at, "/SYSV", 5))
			continue;
		/* What cannot be told has been refused with the mapping. */
		if (ipc_number_mapped(c, p, start, end, line + at, &number, e) < 0) {
			error_clear(e);
			c->ipc->untold = true;
			continue;
		}
		o = sysv_find(c, SYSV_SHM, ipc_space_of_segment(c, number),
			      ipc_id_of_segment(number));
		if (o) {
			o->attached++;
			o->tree = true;
		}
	}
	return 0;
}

static bool first_of_mm(struct checkpoint *c, const struct checkpoint_process *p)
{
	for (const struct checkpoint_process *q = c->processes.v; q < p; q++)
		if (q->mm == p->mm)
			return false;
	return true;
}

int shm_count_attachments(struct checkpoint *c, struct error *e)
{
	bool any = false;
	int r = 0;

	vec_for_each (o, &c->ipc->objects[SYSV_SHM])
		any |= o->nattch != 0;
	if (!any)
		return 0;
	vec_for_each (p, &c->processes)
		if (r >= 0 && !p->frozen->zombie && first_of_mm(c, p))
			r = count_mappings(c, p, e);
	return r;
}

/* A mapping of ours as a file: only through map_files, with CAP_CHECKPOINT_RESTORE or as root. */
static int open_mapping(struct checkpoint *c, const void *at, uint64_t size)
{
	static const uint64_t pages[] = {1 << 12, 1 << 21, 1 << 30};
	int fd = -ENOENT;

	/* A segment of huge pages is mapped in whole ones. */
	for (size_t i = 0; i < 3 && fd == -ENOENT; i++) {
		uint64_t end = (uint64_t)(uintptr_t)at + ((size + pages[i] - 1) & -pages[i]);
		char path[64];

		snprintf(path, sizeof(path), "self/map_files/%" PRIxPTR "-%" PRIx64, (uintptr_t)at,
			 end);
		fd = openat(c->proc_fd, path, O_RDONLY | O_CLOEXEC);
		fd = fd < 0 ? -errno : fd;
	}
	return fd;
}

static int may_not_read(struct error *e, int r)
{
	if (r == -EOPNOTSUPP)
		return error_set(
			e, r, E_PERMISSION,
			"is a System V segment of huge pages, whose contents only root can read");
	return error_errno(e, r, r == -EPERM || r == -EACCES ? E_PERMISSION : E_IPC_STATE,
			   "the contents of a System V segment cannot be read");
}

/* Of huge pages nothing smaller can be protected. */
static bool is_huge(void *map)
{
	return mprotect(map, PAGE_BYTES, PROT_NONE) < 0 || mprotect(map, PAGE_BYTES, PROT_READ) < 0;
}

/* Is a page of it swapped out, as far as is known? */
static bool is_swapped(struct checkpoint *c, int id)
{
	_cleanup_(free_ptr) char *text = NULL;

	if (procfs_read(c->proc_fd, &text, NULL, "sysvipc/shm") < 0)
		return true;
	for (const char *line = strchr(text, '\n'); line; line = strchr(line + 1, '\n')) {
		uint64_t swap;
		int is;

		if (sscanf(line,
			   "%*d %d %*o %*u %*d %*d %*u %*u %*u %*u %*u %*u %*u %*u %*u %" SCNu64,
			   &is, &swap) == 2 &&
		    is == id)
			return swap != 0;
	}
	return true;
}

/*
 * The parts that are in memory; a hole would be filled by being read. What is swapped out is not
 * there either, so that nothing is passed over if anything is.
 */
static int copy_parts(struct checkpoint *c, int id, const char *map, uint64_t size, int fd)
{
	_cleanup_(free_ptr) unsigned char *there = malloc(size / PAGE_BYTES + 1);

	if (!there)
		return -ENOMEM;
	if (mincore((void *)(uintptr_t)map, size, there) < 0 || is_swapped(c, id))
		memset(there, 1, size / PAGE_BYTES + 1);
	for (uint64_t at = 0; at < size; at += PAGE_BYTES) {
		size_t len = size - at < PAGE_BYTES ? size - at : PAGE_BYTES;

		if ((there[at / PAGE_BYTES] & 1) &&
		    pwrite(fd, map + at, len, (off_t)at) != (ssize_t)len)
			return -ENOSPC;
	}
	return 0;
}

/* In its namespace. */
static int copy_here(struct checkpoint *c, int id, int *ret_fd)
{
	_cleanup_(close_fd) int fd = memfd_create("copy", MFD_CLOEXEC);
	struct shmid_ds ds;
	void *map;
	int r = -EOPNOTSUPP;

	if (fd < 0 || shmctl(id, IPC_STAT, &ds) < 0 || ftruncate(fd, (off_t)ds.shm_segsz) < 0)
		return -errno;
	map = shmat(id, NULL, SHM_RDONLY);
	if (map == (void *)-1)
		return -errno;
	if (!is_huge(map))
		r = copy_parts(c, id, map, ds.shm_segsz, fd);
	shmdt(map);
	if (r >= 0)
		*ret_fd = take_fd(&fd);
	return r;
}

struct copying {
	int id, *ret_fd;
};

static int copy_segment(struct checkpoint *c, void *arg, struct error *e)
{
	const struct copying *copy = arg;
	struct shmid_ds ds;
	/* asks for the same permission */
	int r = shmctl(copy->id, IPC_STAT, &ds) < 0 ? -errno : 0;

	if (r >= 0 && !c->checking)
		r = copy_here(c, copy->id, copy->ret_fd);
	return r < 0 ? may_not_read(e, r) : 0;
}

int ipc_copy_segment(struct checkpoint *c, uint64_t number, int *ret_fd, struct error *e)
{
	struct copying copy = {ipc_id_of_segment(number), ret_fd};

	return ipc_visit(c, ipc_space_of_segment(c, number), copy_segment, &copy, e);
}

/* The file itself, through a mapping of ours. */
static int open_segment(struct checkpoint *c, int id)
{
	struct shmid_ds ds;
	void *map = shmat(id, NULL, SHM_RDONLY);
	int r;

	if (map == (void *)-1)
		return -errno;
	r = shmctl(id, IPC_STAT, &ds) < 0 ? -errno : open_mapping(c, map, ds.shm_segsz);
	shmdt(map);
	return r;
}

/* While checking it is not attached, which would show. */
static int save_contents(struct checkpoint *c, const struct sysv_object *o, uint64_t *ret_inode,
			 struct error *e)
{
	_cleanup_(close_fd) int fd = c->checking ? -EPERM : open_segment(c, o->id);
	char link[64];
	int r;

	if (fd == -EPERM) {
		r = copy_segment(c, &(struct copying){o->id, &fd}, e);
		if (r < 0 || c->checking)
			return r;
	}
	if (fd < 0)
		return may_not_read(e, fd);
	snprintf(link, sizeof(link), "/SYSV%08x (deleted)", (unsigned int)o->key);
	return inode_checkpoint_copy(c, c->processes.v, fd, link, 0, sysv_number(c, o), ret_inode,
				     e);
}

/* Who that is, the search for leaks finds out. */
static int note_leaked(struct checkpoint *c, const struct sysv_object *o, struct error *e)
{
	struct segment_leaked *l = vec_push(&c->ipc->leaked);

	if (!l)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an IPC object");
	*l = (struct segment_leaked){.id = o->id, .key = (uint32_t)o->key, .space = o->space};
	return 0;
}

/*
 * With kernel.shm_rmid_forced a segment that is attached nowhere ends with who made it
 * (exit_shm()); of those of a restart that would be us.
 */
static int refuse_forced(int proc_fd, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;

	if (procfs_read(proc_fd, &text, NULL, "sys/kernel/shm_rmid_forced") <= 0 || *text == '0')
		return 0;
	return error_set(e, -EOPNOTSUPP, E_IPC_STATE,
			 "is attached nowhere, and would go as soon as the restart is done, since "
			 "kernel.shm_rmid_forced is set");
}

static int save_segment(struct checkpoint *c, struct sysv_object *o, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__ShmSegment msg = REPRISE__SHM_SEGMENT__INIT;
	const int64_t last = o->times[0] > o->times[1] ? o->times[0] : o->times[1];
	struct sysv_object creator = *o;
	enum ipc_relation relation;
	int r = 0;

	/* Who made it need not use it. */
	sysv_used_by(c, &creator, o->users[0], o->ctime);
	o->tree |= creator.tree;
	if (o->users[1] || last)
		sysv_used_by(c, o, o->users[1], last);
	o->outside |= o->nattch > o->attached && !c->ipc->untold;
	relation = sysv_relation(c, o);
	if (relation == IPC_NOT_OURS)
		return 0;
	if (relation == IPC_OUTSIDE_TOO && sysv_is_apart(c, o) && c->sought_outside) {
		r = note_leaked(c, o, e);
		relation = IPC_OWN;
	}
	if (r < 0)
		return r;
	o->mode &= 0777;
	r = sysv_save_perm(c, o, relation, &s, &msg.perm, e);
	if (r >= 0 && !o->attached && relation != IPC_OUTSIDE_TOO)
		r = refuse_forced(c->proc_fd, e);
	if (r >= 0 && !o->attached && relation != IPC_OUTSIDE_TOO)
		r = save_contents(c, o, &msg.inode, e);
	return r < 0 ? r
		     : checkpoint_put(c, RECORD_SHM_SEGMENT, objects_fresh(c->objects), &msg.base,
				      e);
}

int shm_checkpoint(struct checkpoint *c, uint64_t space, struct error *e)
{
	int r = 0;

	vec_for_each (o, &c->ipc->objects[SYSV_SHM]) {
		if (r < 0)
			break;
		if (o->space != space)
			continue;
		r = save_segment(c, o, e);
		if (r < 0)
			sysv_error(e, r, SYSV_SHM, o->id, o->key);
		r = checkpoint_refuse(c, r, e);
	}
	return r;
}

/* ---- restart ---- */

const Reprise__ShmSegment *shm_of_image(const struct restart *r, uint64_t space, int id)
{
	const Reprise__ShmSegment *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_SHM_SEGMENT, i, NULL)); i++)
		if (m->perm && m->perm->id == id && m->perm->namespace_ == space)
			return m;
	return NULL;
}

int shm_validate(const struct restart *r, struct error *e)
{
	const Reprise__ShmSegment *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_SHM_SEGMENT, i, NULL)); i++) {
		const Reprise__Inode *inode =
			m->inode ? restart_find(r, RECORD_INODE, m->inode) : NULL;
		int res = sysv_validate_perm(r, m->perm, e);

		if (res < 0)
			return res;
		if (m->inode &&
		    (!inode || inode->kind != INODE_SYSV_SHM || inode->shmid != m->perm->id ||
		     inode->ipc_namespace != m->perm->namespace_))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "segment %d has no contents",
					 m->perm->id);
		if (shm_of_image(r, m->perm->namespace_, m->perm->id) != m)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "two segments have the id %d", m->perm->id);
	}
	return 0;
}

int shm_find_shared(struct restart *r, const Reprise__ShmSegment *m, struct error *e)
{
	struct shmid_ds ds;
	int there = shmctl(m->perm->id, IPC_STAT, &ds) < 0 ? -errno : 0;
	int res = sysv_is_there(r, SYSV_SHM, m->perm, there, &ds.shm_perm, -1, e);

	if (res >= 0)
		res = sysv_changed(r, SYSV_SHM, m->perm, false, ds.shm_ctime, e);
	return res < 0 ? sysv_error(e, res, SYSV_SHM, m->perm->id, m->perm->key) : 0;
}

static int check_forced(struct restart *r, void *arg, struct error *e)
{
	return refuse_forced(r->proc_fd, e);
}

/* Those that the tree made and others are attached to: nothing is done but to look. */
int shm_restart(struct restart *r, struct error *e)
{
	const Reprise__ShmSegment *m;
	int res = 0;

	for (size_t i = 0; res >= 0 && (m = restart_nth(r, RECORD_SHM_SEGMENT, i, NULL)); i++)
		if (m->perm->relation == IPC_OUTSIDE_TOO)
			res = shm_find_shared(r, m, e);
		else if (m->inode && (res = ipc_restart_visit(r, m->perm->namespace_, check_forced,
							      NULL, e)) < 0)
			sysv_error(e, res, SYSV_SHM, m->perm->id, m->perm->key);
	return res;
}
