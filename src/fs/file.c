/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open file descriptions as they are seen from outside: what all kinds have in
 * common, and the way to each kind. The restart side is in file_restart.c.
 */
#include "fs/aio_requests.h"
#include "fs/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/external.h"
#include "fs/fdinfo.h"
#include "fs/file_kinds.h"
#include "fs/bpf_attached.h"
#include "fs/bpf_resolve.h"
#include "fs/file_private.h"
#include "fs/inode_private.h"
#include "fs/inode_search.h"
#include "net/sockopt.h"
#include "ns/mounts_detached.h"

int reopen_fd(int proc_fd, int fd, int flags)
{
	char path[32];
	int own;

	snprintf(path, sizeof(path), "self/fd/%d", fd);
	own = openat(proc_fd, path, flags);
	return own < 0 ? -errno : own;
}

int files_kernel_memory(struct checkpoint *c, struct kernel_memory **ret, struct error *e)
{
	int r = checkpoint_kernel_memory(c, ret, e);

	c->files->kernel = *ret;
	return r;
}

uint64_t nofile_raise(void)
{
	struct rlimit limit;
	rlim_t soft;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= limit.rlim_max)
		return 0;
	soft = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? 0 : soft;
}

void nofile_restore(uint64_t soft)
{
	struct rlimit limit;

	if (!soft || getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = soft;
	ignore(setrlimit(RLIMIT_NOFILE, &limit), "lowering a soft limit is always allowed");
}

int file_error_object(struct error *e, int r, const struct file_entry *f)
{
	const struct file_entry *at = f;

	while (at->carrier)
		at = at->carrier;
	if (at != f)
		return error_object(e, r, "%s, %s descriptor %d (%s) of task %d (%s)", f->link,
				    at->is_socket ? "in flight to" : "used by", at->fd, at->link,
				    at->tid, at->comm);
	return error_object(e, r, "descriptor %d (%s) of task %d (%s)", f->fd, f->link, f->tid,
			    f->comm);
}

struct file_entry *file_entry_by_id(const struct checkpoint *c, uint64_t id)
{
	size_t lo = 0, hi = c->files->files.n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		struct file_entry *f = c->files->files.v[mid];

		if (f->id == id)
			return f;
		if (f->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

int file_for_each(struct checkpoint *c, const struct file_ops *ops,
		  int (*fn)(struct checkpoint *c, const struct file_entry *f, struct error *e),
		  struct error *e)
{
	vec_for_each (f, &c->files->files) {
		int r = (*f)->ops == ops ? fn(c, *f, e) : 0;

		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, *f), e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- begin and end ---- */

static uint64_t memory_device(void)
{
	_cleanup_(close_fd) int fd = memfd_create("probe", MFD_CLOEXEC);
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 ? st.st_dev : 0;
}

int files_checkpoint_begin(struct checkpoint *c, struct error *e)
{
	struct files_checkpoint *fc = calloc(1, sizeof(*fc));

	c->files = fc;
	if (!fc || kcmp_index_new(&fc->by_file, KCMP_FILE) < 0 ||
	    kcmp_index_new(&fc->by_table, KCMP_FILES) < 0 ||
	    kcmp_index_new(&fc->by_fs, KCMP_FS) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the table of files");
	fc->soft_limit = nofile_raise();
	fc->memory_dev = memory_device();
	return 0;
}

void files_checkpoint_end(struct checkpoint *c)
{
	struct files_checkpoint *fc = c->files;

	if (!fc)
		return;
	file_networks_end(c);
	for (const struct file_ops *const *k = file_kinds; *k; k++)
		if ((*k)->checkpoint_end)
			(*k)->checkpoint_end(c);
	inode_deleted_end(c);
	inode_search_end(c);
	vec_for_each (m, &fc->mounts)
		close_fd(&m->fd);
	vec_free(&fc->mounts);
	vec_for_each (inode, &fc->inodes) {
		close_fd(&inode->fd);
		vec_free(&inode->runs);
		vec_free(&inode->copies);
	}
	vec_for_each (fd, &fc->in_flight)
		close_fd(fd);
	vec_free(&fc->in_flight);
	kcmp_index_free(fc->by_file);
	kcmp_index_free(fc->by_table);
	kcmp_index_free(fc->by_fs);
	vec_free(&fc->files);
	vec_free(&fc->tables);
	vec_free(&fc->fss);
	vec_free(&fc->by_class);
	vec_free(&fc->by_address);
	objects_free(fc->addresses);
	vec_free(&fc->inodes);
	vec_free(&fc->pipes);
	vec_free(&fc->devices);
	sockopt_defaults_free(fc->sockopts);
	vec_free(&fc->ring_numbers);
	vec_free(&fc->programs);
	nofile_restore(fc->soft_limit);
	scratch_free(&fc->scratch);
	free(fc);
	c->files = NULL;
}

/* ---- one description ---- */

static const struct file_ops *kind_of(const struct file_seen *f)
{
	/* A pipe, a socket or the like, which it does not hold open. */
	if (f->flags & O_PATH && f->link[0] != '/')
		return NULL;
	for (const struct file_ops *const *k = file_kinds; *k; k++)
		if ((*k)->match && (*k)->match(f))
			return *k;
	return NULL;
}

static int save_owner(struct checkpoint *c, const struct file_seen *f, Reprise__File *msg,
		      struct scratch *s, struct error *e)
{
	struct f_owner_ex owner = {};
	uint32_t ids[2] = {};
	int signal = fcntl(f->local, F_GETSIG);

	if (fcntl(f->local, F_GETOWN_EX, &owner) < 0)
		return errno == EBADF ? 0 : /* O_PATH */
			       error_errno(e, -errno, E_SYSTEM, "F_GETOWN_EX");
	if (!owner.pid && signal <= 0)
		return 0;
	msg->owner = scratch_message(s, Reprise__FileOwner, reprise__file_owner__init);
	if (!msg->owner)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an owner");
	msg->owner->type = owner.type;
	msg->owner->pid = owner.pid;
	msg->owner->signal = signal > 0 ? signal : 0;
	if (fcntl(f->local, F_GETOWNER_UIDS, ids) == 0) {
		msg->owner->uid = ids[0];
		msg->owner->euid = ids[1];
	}
	return checkpoint_refer(c, owner.pid, e);
}

static int save_locks(const struct file_seen *f, Reprise__File *msg, struct scratch *s,
		      struct error *e)
{
	const char *text = f->fdinfo;
	struct fdinfo_lock lock;
	VEC(Reprise__FileLock *) locks = {};
	int r;

	while ((r = fdinfo_next_lock(&text, &lock)) > 0) {
		Reprise__FileLock **slot, *m;

		if (lock.type == LOCK_POSIX) /* of the table */
			continue;
		if (lock.breaking) {
			vec_free(&locks);
			return error_set(e, -EBUSY, E_FILE_STATE,
					 "somebody waits for the lease on it to be given up; try "
					 "again");
		}
		slot = vec_push(&locks);
		m = scratch_message(s, Reprise__FileLock, reprise__file_lock__init);
		if (!slot || !m) {
			vec_free(&locks);
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a lock");
		}
		*slot = m;
		m->type = lock.type;
		m->write = lock.write;
		m->pid = lock.pid > 0 ? lock.pid : 0;
		m->start = lock.start;
		m->end = lock.end;
	}
	if (r >= 0 && locks.n) {
		msg->locks = scratch_copy(s, locks.v, locks.n * sizeof(*locks.v));
		msg->n_locks = msg->locks ? locks.n : 0;
		r = msg->locks ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for locks");
	} else if (r < 0) {
		r = error_set(e, r, E_FILE_STATE, "a lock on it is not understood");
	}
	vec_free(&locks);
	return r;
}

static int save(struct checkpoint *c, struct file_seen *f, struct error *e)
{
	struct file_entry *entry = f->entry;
	struct scratch *s = &c->files->scratch;
	int r;

	r = external_declared(c, f, e);
	if (r < 0)
		return r;
	entry->ops = r ? &external_file_ops : kind_of(f);
	if (!entry->ops)
		return file_refuse_kind(f, e);
	entry->msg->kind = entry->ops->kind;
	entry->msg->flags = f->flags;
	entry->msg->pos = f->pos;
	r = save_owner(c, f, entry->msg, s, e);
	if (r >= 0)
		r = save_locks(f, entry->msg, s, e);
	if (r >= 0)
		r = file_checkpoint_kind(c, f, s, e);
	return r;
}

static struct file_entry *new_entry(struct checkpoint *c, const struct file_seen *f)
{
	struct scratch *s = &c->files->scratch;
	struct file_entry *entry = scratch_alloc(s, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->id = f->id;
	entry->pid = f->process ? f->process->frozen->pid : f->tid;
	entry->in_flight = f->carrier;
	entry->carrier = f->carrier;
	entry->tid = f->tid;
	entry->fd = f->fd;
	entry->dev = f->st.st_dev;
	entry->ino = f->st.st_ino;
	entry->rdev = f->st.st_rdev;
	entry->table = c->files->tables.n - 1;
	entry->is_socket = S_ISSOCK(f->st.st_mode);
	entry->comm = scratch_string(s, f->process ? f->process->stat.comm : "");
	entry->link = scratch_string(s, f->link);
	entry->msg = scratch_message(s, Reprise__File, reprise__file__init);
	return entry->comm && entry->link && entry->msg ? entry : NULL;
}

bool file_is_nameless(const struct file_seen *f)
{
	static const char *const names[] = {"/memfd:", "/SYSV", "/dev/zero (deleted)",
					    "/anon_hugepage", NULL};

	for (size_t i = 0; names[i]; i++)
		if (!strncmp(f->link, names[i], strlen(names[i])))
			return true;
	return f->link[0] != '/';
}

static bool is_foreign(struct checkpoint *c, const struct file_seen *f)
{
	if (!c->mounts || file_is_nameless(f) || space_of_mount(c, f->mnt_id))
		return false;
	vec_for_each (id, &c->mounts->ids)
		if (*id == f->mnt_id)
			return false;
	return !mount_is_nowhere(c, f->local);
}

/*
 * Everything that a kind may want to look at. `local` stays ours: whatever is
 * done with it is done with the application's own description, so nothing is
 * that leaves a trace.
 */
static int look(struct checkpoint *c, struct file_seen *f, struct error *e)
{
	struct fdinfo info;

	if (fdinfo_parse(f->fdinfo, &info) < 0)
		return error_set(e, -EINVAL, E_SYSTEM, "its fdinfo is not understood");
	f->flags = info.flags & ~(unsigned int)O_CLOEXEC;
	f->pos = info.pos;
	f->mnt_id = info.mnt_id;
	f->foreign = is_foreign(c, f);
	return 0;
}

int file_save(struct checkpoint *c, struct file_seen *f, struct error *e)
{
	struct files_checkpoint *fc = c->files;
	struct file_entry **slot;
	int r = look(c, f, e);

	f->id = objects_fresh(c->objects);
	f->entry = new_entry(c, f);
	slot = vec_push(&fc->files);
	if (!f->id || !f->entry || !slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the table of files");
	*slot = f->entry;
	if (r >= 0)
		r = save(c, f, e);
	if (r < 0) {
		f->entry->ops = NULL;
		file_error_object(e, r, f->entry);
	}
	return checkpoint_refuse(c, r, e);
}

/* ---- all of them ---- */

static int put_records(struct checkpoint *c, struct error *e)
{
	struct files_checkpoint *fc = c->files;
	int r = 0;

	for (size_t i = 0; i < fc->pipes.n && r >= 0; i++)
		r = checkpoint_put(c, RECORD_PIPE, fc->pipes.v[i].id, &fc->pipes.v[i].msg->base, e);
	for (size_t i = 0; i < fc->files.n && r >= 0; i++)
		r = checkpoint_put(c, RECORD_FILE, fc->files.v[i]->id, &fc->files.v[i]->msg->base,
				   e);
	for (size_t i = 0; i < fc->tables.n && r >= 0; i++)
		r = checkpoint_put(c, RECORD_FILES, fc->tables.v[i].id, &fc->tables.v[i].msg->base,
				   e);
	return r;
}

int files_checkpoint_finish(struct checkpoint *c, struct error *e)
{
	int r = 0;

	for (const struct file_ops *const *k = file_kinds; *k && r >= 0; k++)
		if ((*k)->checkpoint_queues)
			r = checkpoint_refuse(c, (*k)->checkpoint_queues(c, e), e);
	if (r >= 0)
		r = bpf_attached_save(c, e);
	if (r >= 0)
		r = bpf_resolve(c, e);
	for (const struct file_ops *const *k = file_kinds; *k && r >= 0; k++)
		if ((*k)->checkpoint_all)
			r = checkpoint_refuse(c, (*k)->checkpoint_all(c, e), e);
	if (r >= 0)
		r = checkpoint_refuse(c, aio_requests_resolve(c, e), e);
	return r < 0 || c->checking ? r : put_records(c, e);
}

bool files_hold_kind(const struct checkpoint *c, const char *name)
{
	vec_for_each (entry, &c->files->files)
		if ((*entry)->ops && strcmp((*entry)->ops->name, name) == 0)
			return true;
	return false;
}

uint64_t files_checkpoint_count(const struct checkpoint *c)
{
	uint64_t n = 0;

	/* Of a table that could not be looked at nothing is known. */
	for (size_t i = 0; c->files && i < c->files->tables.n; i++)
		if (c->files->tables.v[i].msg)
			n += c->files->tables.v[i].msg->n_fds;
	return n;
}
