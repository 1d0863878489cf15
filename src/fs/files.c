/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptor tables (struct files_struct) at the checkpoint. The restart side is
 * in files_restart.c.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/fdinfo.h"
#include "fs/file_private.h"
#include "model/glance.h"

/* One table while it is being read. */
struct table {
	struct checkpoint *c;
	const struct checkpoint_process *process;
	pid_t tid;
	int pidfd;		/* when it is needed first; -1 */
	int info_dir, link_dir; /* /proc/TID/fdinfo and fd */
	VEC(Reprise__Fd *) fds;
	VEC(struct held_lock) locks;
};

/* A POSIX lock is seen on every descriptor of its inode. */
struct held_lock {
	uint64_t dev, ino;
	Reprise__PosixLock *msg;
};

/*
 * The text is made by one call of the kind's show_fdinfo() and handed out from a
 * buffer (seq_file), so that a read that leaves room has seen the end.
 */
char *file_read_info(int dir, const char *name)
{
	_cleanup_(close_fd) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	char small[2048], *text = NULL;
	size_t size = sizeof(small), used = 0;
	ssize_t n = fd < 0 ? -1 : read(fd, small, size);

	if (n < 0)
		return NULL;
	if ((size_t)n < size)
		return strndup(small, (size_t)n);
	do {
		char *more = realloc(text, size * 2 + 1);

		if (!more) {
			free(text);
			return NULL;
		}
		if (!text)
			memcpy(more, small, (size_t)n);
		text = more;
		used += (size_t)n;
		size *= 2;
		n = read(fd, text + used, size - used);
	} while (n > 0);
	text[used] = '\0';
	return text;
}

char *file_read_link(int dir, const char *name)
{
	char buf[4096 + 16];
	ssize_t n = readlinkat(dir, name, buf, sizeof(buf) - 1);

	return n < 0 ? NULL : strndup(buf, (size_t)n);
}

uint64_t file_hash(const struct stat *st, const char *fdinfo)
{
	uint64_t number = 0;

	/* All anonymous inodes are one. */
	ignore(proc_field_u64(fdinfo, "eventfd-id", 10, &number), "only eventfds have one");
	return (number + st->st_ino * 0x9e3779b97f4a7c15ULL) ^ st->st_dev << 32 ^ st->st_rdev << 8 ^
	       st->st_mode;
}

/*
 * A descriptor that goes away under our eyes: no news while checking, as the
 * tasks run; otherwise its task has been killed.
 */
static int gone(struct table *t, int fd, int err, struct error *e)
{
	if (err == -ENOMEM)
		return error_set(e, err, E_NO_MEMORY,
				 "cannot look at descriptor %d of task %d (%s)", fd, t->tid,
				 t->process->stat.comm);
	if (t->c->checking)
		return 0;
	return error_errno(e, err, err == -EPERM || err == -EACCES ? E_PERMISSION : E_TASK_GONE,
			   "cannot look at descriptor %d of task %d (%s)", fd, t->tid,
			   t->process->stat.comm);
}

/*
 * A descriptor for pidfd_getfd(), which takes the table of that very task: of
 * the thread where the kernel can (6.9), else of the process.
 */
int files_pidfd(pid_t tid)
{
	int fd = (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD);

	if (fd < 0 && errno == EINVAL)
		fd = (int)syscall(SYS_pidfd_open, tid, 0);
	return fd < 0 ? -errno : fd;
}

/* EINVAL: not the first thread of its process. A first thread that has ended has no table any more.
 */
static int cannot_open(int r, pid_t tid, struct error *e)
{
	if (r == -EINVAL)
		return error_set(
			e, r, E_KERNEL_TOO_OLD,
			"the descriptors of task %d are not those of the first thread of its process, or "
			"that has ended: only a newer kernel (6.9) lets anybody have them",
			tid);
	return error_errno(e, r, E_TASK_GONE, "cannot open task %d", tid);
}

/* A table whose descriptions are all known, as most children's, needs none. */
static int open_pidfd(struct table *t, struct error *e)
{
	if (t->pidfd < 0)
		t->pidfd = files_pidfd(t->tid);
	return t->pidfd < 0 ? cannot_open(t->pidfd, t->tid, e) : 0;
}

static int see_new(struct table *t, int fd, const char *name, char *fdinfo, const struct stat *st,
		   struct error *e)
{
	_cleanup_(free_ptr) char *link = file_read_link(t->link_dir, name);
	_cleanup_(close_fd) int local = -EBADF;
	struct file_seen f = {
		.process = t->process, .tid = t->tid, .fd = fd, .link = link, .fdinfo = fdinfo};
	struct file_entry **slot = vec_push(&t->c->files->by_class);
	int r;

	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the table of files");
	r = open_pidfd(t, e);
	if (r < 0)
		return r;
	local = (int)syscall(SYS_pidfd_getfd, t->pidfd, fd, 0);
	if (local < 0 || !link)
		return gone(t, fd, -errno, e);
	f.local = local;
	f.st = *st;
	r = file_save(t->c, &f, e);
	t->c->files->by_class.v[t->c->files->by_class.n - 1] = f.entry;
	return r;
}

static bool can_hold(const struct file_entry *f, bool write)
{
	unsigned int mode = f->msg->flags & O_ACCMODE;

	return mode == O_RDWR || mode == (write ? O_WRONLY : O_RDONLY);
}

static int add_lock(struct table *t, const struct file_entry *f, int fd,
		    const struct fdinfo_lock *lock, struct error *e)
{
	struct held_lock *held;

	if (!can_hold(f, lock->write))
		return 0;
	vec_for_each (h, &t->locks)
		if (h->dev == f->dev && h->ino == f->ino && h->msg->start == lock->start)
			return 0;
	held = vec_push(&t->locks);
	if (held)
		held->msg = scratch_message(&t->c->files->scratch, Reprise__PosixLock,
					    reprise__posix_lock__init);
	if (!held || !held->msg)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a lock");
	held->dev = f->dev;
	held->ino = f->ino;
	held->msg->fd = fd;
	held->msg->write = lock->write;
	held->msg->start = lock->start;
	held->msg->end = lock->end;
	return 0;
}

static int see_locks(struct table *t, const struct file_entry *f, int fd, const char *fdinfo,
		     struct error *e)
{
	const char *text = fdinfo;
	struct fdinfo_lock lock;
	int r;

	while ((r = fdinfo_next_lock(&text, &lock)) > 0) {
		if (lock.type != LOCK_POSIX)
			continue;
		r = add_lock(t, f, fd, &lock, e);
		if (r < 0)
			return r;
	}
	return 0; /* one that is not understood was refused with the description */
}

/* Does the description itself have the flag? Then fdinfo shows it with every descriptor. */
static int flagged_itself(struct table *t, const struct file_entry *f, int fd, struct error *e)
{
	_cleanup_(close_fd) int local = -EBADF;
	int r;

	if (f->msg->kind != FILE_PTY && f->msg->kind != FILE_TTY_OUTSIDE &&
	    f->msg->kind != FILE_OUTSIDE && f->msg->kind != FILE_MQUEUE &&
	    !(f->msg->regular && f->msg->regular->unwatched))
		return 0;
	r = open_pidfd(t, e);
	if (r < 0)
		return r;
	local = (int)syscall(SYS_pidfd_getfd, t->pidfd, fd, 0);
	return local >= 0 && fcntl(local, F_GETFL) & O_CLOEXEC;
}

/*
 * Slaves of pseudo-terminals that were opened by TIOCGPTPEER with O_CLOEXEC keep it
 * (ptm_open_peer()), and so do message queues (do_mq_open()) and files that came with an event of
 * fanotify. Then only the task can tell what the flag of the descriptor is.
 */
static int ask_cloexec(struct table *t, const struct file_entry *f, int fd, protobuf_c_boolean *ret,
		       struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const struct frozen_thread *by = NULL;
	int i, r;

	if (!*ret || !t->process->agent)
		return 0;
	r = flagged_itself(t, f, fd, e);
	if (r <= 0)
		return r;
	vec_for_each (x, &t->process->frozen->threads)
		if (x->tid == t->tid && !x->in_vfork)
			by = x;
	if (!by)
		return error_set(e, -EOPNOTSUPP, E_TASK_VFORK,
				 "whether descriptor %d is closed by exec cannot be asked", fd);
	i = batch_call(&b, SYS_fcntl, VAL(fd), VAL(F_GETFD));
	r = agent_run(t->process->agent, by->tid, by->cpu, &b, e);
	if (r >= 0)
		*ret = batch_result(&b, i) & FD_CLOEXEC;
	return r;
}

static int add_fd(struct table *t, struct file_entry *f, int fd, bool cloexec, struct error *e)
{
	Reprise__Fd *msg = scratch_message(&t->c->files->scratch, Reprise__Fd, reprise__fd__init);
	Reprise__Fd **slot = vec_push(&t->fds);

	if (!msg || !slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a descriptor");
	msg->fd = fd;
	msg->cloexec = cloexec;
	msg->file = f->id;
	*slot = msg;
	if (fd <= 2)
		f->msg->standard |= FILE_STANDARD(fd);
	return 0;
}

/* glance: NULL, or it tells the flag. */
static int add_seen(struct table *t, struct file_entry *f, int fd, const char *fdinfo,
		    const struct glance_fd *glance, struct error *e)
{
	protobuf_c_boolean cloexec;
	struct fdinfo info;
	int r = 0;

	if (fdinfo_parse(fdinfo, &info) < 0)
		return error_set(e, -EINVAL, E_SYSTEM,
				 "the fdinfo of descriptor %d of task %d is not understood", fd,
				 t->tid);
	cloexec = glance ? glance->cloexec : (info.flags & O_CLOEXEC) != 0;
	if (!glance)
		r = ask_cloexec(t, f, fd, &cloexec, e);
	if (r >= 0)
		r = add_fd(t, f, fd, cloexec, e);
	return r < 0 ? r : see_locks(t, f, fd, fdinfo, e);
}

/* A description that was met with its address, in another table or in this one. */
static struct file_entry *met_before(const struct files_checkpoint *fc,
				     const struct glance_fd *glance)
{
	uint64_t id = glance && fc->addresses ? objects_find(fc->addresses, 0, glance->file, 0) : 0;

	return id && id <= fc->by_address.n ? fc->by_address.v[id - 1] : NULL;
}

/* What is not remembered would be taken for another one the next time. */
static int remember(struct files_checkpoint *fc, const struct glance_fd *glance,
		    struct file_entry *f, struct error *e)
{
	struct file_entry **slot;
	uint64_t id;
	bool is_new;

	if (!glance)
		return 0;
	slot = vec_push(&fc->by_address);
	if (!slot || (!fc->addresses && objects_new(&fc->addresses) < 0) ||
	    objects_get(fc->addresses, 0, glance->file, 0, &id, &is_new) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a descriptor");
	*slot = f;
	return 0;
}

/* Of what was not met yet: NULL without an error if there is nothing to be saved. */
static int find_file(struct table *t, int fd, const char *name, char *fdinfo,
		     const struct glance_fd *glance, struct file_entry **ret, struct error *e)
{
	struct files_checkpoint *fc = t->c->files;
	struct stat st;
	uint64_t class;
	bool is_new;
	int r;

	if (fstatat(t->link_dir, name, &st, 0) < 0)
		return gone(t, fd, -errno, e);
	r = (glance ? kcmp_index_get_apart : kcmp_index_get)(
		fc->by_file, file_hash(&st, fdinfo), t->tid, (unsigned long)fd, &class, &is_new);
	if (r < 0)
		return gone(t, fd, r, e);
	if (is_new) {
		r = see_new(t, fd, name, fdinfo, &st, e);
		if (r < 0)
			return r;
	}
	*ret = class <= fc->by_class.n ? fc->by_class.v[class - 1] : NULL;
	return *ret ? remember(fc, glance, *ret, e) : 0;
}

/* Of a description that was met all that differs from descriptor to descriptor is the flag, and
 * locks: fdinfo tells those that the table has. */
static int see_fd(struct table *t, int fd, const char *name, struct error *e)
{
	_cleanup_(free_ptr) char *fdinfo = NULL;
	const struct glance_fd *glance = glance_descriptor(t->c, t->tid, fd);
	struct file_entry *f = met_before(t->c->files, glance);
	int r = 0;

	if (f && !glance->locks)
		return add_fd(t, f, fd, glance->cloexec, e);
	fdinfo = file_read_info(t->info_dir, name);
	if (!fdinfo)
		return gone(t, fd, -errno, e);
	if (!f)
		r = find_file(t, fd, name, fdinfo, glance, &f, e);
	return r < 0 || !f ? r : add_seen(t, f, fd, fdinfo, glance, e);
}

static int cannot_list(const struct table *t, struct error *e)
{
	return error_errno(e, -errno, E_SYSTEM, "cannot list the descriptors of task %d", t->tid);
}

/* getdents64(2) as it is: opendir() asks five things more of each directory. */
static int read_table(struct table *t, struct error *e)
{
	char buf[8192] __attribute__((aligned(8)));
	long n;

	while ((n = syscall(SYS_getdents64, t->link_dir, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n;) {
			const struct dirent64 *d = (const struct dirent64 *)(buf + at);
			int r;

			at += d->d_reclen;
			if (!isdigit((unsigned char)d->d_name[0]))
				continue;
			r = see_fd(t, atoi(d->d_name), d->d_name, e);
			if (r < 0)
				return r;
		}
	}
	return n < 0 ? cannot_list(t, e) : 0;
}

static int make_message(struct table *t, struct table_entry *entry, struct error *e)
{
	struct scratch *s = &t->c->files->scratch;
	Reprise__Files *msg = scratch_message(s, Reprise__Files, reprise__files__init);

	if (msg) {
		msg->fds = scratch_copy(s, t->fds.v, t->fds.n * sizeof(*t->fds.v));
		msg->locks = scratch_alloc(s, t->locks.n * sizeof(*msg->locks));
	}
	if (!msg || !msg->fds || !msg->locks)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a table of descriptors");
	msg->n_fds = t->fds.n;
	for (size_t i = 0; i < t->locks.n; i++)
		msg->locks[msg->n_locks++] = t->locks.v[i].msg;
	entry->msg = msg;
	return 0;
}

/* Since Linux 6.2 the size of such a directory: proc_fd_getattr(). Before, 0. */
static size_t count_descriptors(const struct table *t)
{
	char path[32];
	struct stat st;

	snprintf(path, sizeof(path), "%d/fd", t->tid);
	return fstatat(t->c->proc_fd, path, &st, 0) < 0 ? 0 : (size_t)st.st_size;
}

/* Of a table that has descriptions only that were met, and no locks, nothing is asked but whether
 * these are all. Returns 1 if it was one. */
static int read_known(struct table *t, struct error *e)
{
	const struct glance_fd *fds;
	size_t n = glance_descriptors(t->c, t->tid, &fds);
	int r = 0;

	for (size_t i = 0; i < n; i++)
		if (fds[i].locks || !met_before(t->c->files, &fds[i]))
			return 0;
	if (!n || count_descriptors(t) != n)
		return 0;
	for (size_t i = 0; i < n && r >= 0; i++)
		r = add_fd(t, met_before(t->c->files, &fds[i]), fds[i].fd, fds[i].cloexec, e);
	return r < 0 ? r : 1;
}

static int save_table(struct table *t, struct table_entry *entry, struct error *e)
{
	_cleanup_(close_fd) int info_dir = -EBADF;
	_cleanup_(close_fd) int link_dir = -EBADF;
	int r = read_known(t, e);

	if (r)
		return r < 0 ? r : make_message(t, entry, e);
	info_dir = procfs_open(t->c->proc_fd, O_RDONLY | O_DIRECTORY, e, "%d/fdinfo", t->tid);
	if (info_dir < 0)
		return info_dir;
	link_dir = procfs_open(t->c->proc_fd, O_RDONLY | O_DIRECTORY, e, "%d/fd", t->tid);
	if (link_dir < 0)
		return link_dir;
	t->info_dir = info_dir;
	t->link_dir = link_dir;
	r = read_table(t, e);
	return r < 0 ? r : make_message(t, entry, e);
}

int files_checkpoint(struct checkpoint *c, struct checkpoint_process *p, pid_t tid,
		     uint64_t *ret_files, struct error *e)
{
	struct table t = {.c = c, .process = p, .tid = tid, .pidfd = -EBADF};
	struct files_checkpoint *fc = c->files;
	struct table_entry *entry;
	uint64_t class;
	bool is_new;
	int r;

	r = kcmp_index_get(fc->by_table, glance_of(c, tid, GLANCE_FILES), tid, 0, &class, &is_new);
	if (r < 0)
		return error_errno(e, r, r == -ESRCH ? E_TASK_GONE : E_PERMISSION,
				   "cannot compare the descriptor table of task %d", tid);
	if (!is_new) {
		*ret_files = fc->tables.v[class - 1].id;
		return 0;
	}
	entry = vec_push(&fc->tables);
	if (!entry)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of tables");
	entry->id = objects_fresh(c->objects);
	entry->tid = tid;
	*ret_files = entry->id;
	r = save_table(&t, entry, e);
	close_fd(&t.pidfd);
	vec_free(&t.fds);
	vec_free(&t.locks);
	return r;
}
