/* SPDX-License-Identifier: Apache-2.0 */
/* Working directory, root directory and umask: struct fs_struct, shared by CLONE_FS. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "model/glance.h"

/* "/" may be the root of another mount namespace, which the task has left without it. */
static int check_root(struct checkpoint *c, pid_t tid, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	uint64_t is;

	if (!c->spaces.list.n)
		return 0;
	fd = procfs_open(c->proc_fd, O_PATH | O_DIRECTORY | O_CLOEXEC, e, "%d/root", tid);
	if (fd < 0)
		return fd;
	space_of_file(c, fd, &is);
	return is == space_of_task(c, tid, CLONE_NEWNS)
		       ? 0
		       : error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				   "its root directory is that of another mount namespace");
}

static int save_directory(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
			  const char *which, uint64_t *ret_id, struct error *e)
{
	_cleanup_(free_ptr) char *link = NULL;
	_cleanup_(close_fd) int fd = -EBADF;
	int r;

	r = procfs_readlink(c->proc_fd, &link, e, "%d/%s", tid, which);
	if (r < 0)
		return r;
	/* The kernel writes paths from our root: "/" is a root like ours. */
	if (!strcmp(which, "root") && !strcmp(link, "/"))
		return checkpoint_refuse(c, check_root(c, tid, e), e);
	fd = procfs_open(c->proc_fd, O_PATH | O_DIRECTORY, e, "%d/%s", tid, which);
	if (fd < 0)
		return fd;
	r = inode_refuse_foreign(c, tid, fd, link, e);
	if (r >= 0)
		r = inode_checkpoint(c, p, fd, link, ret_id, e);
	if (r < 0)
		error_object(e, r, "%s directory of task %d (%s)",
			     strcmp(which, "root") ? "working" : "root", tid, p->stat.comm);
	return checkpoint_refuse(c, r, e);
}

/*
 * Where a task has the same directories, from the same namespaces, as the one before, as most
 * children do, they are not looked for. *k: of this one; 0 as its first address if nothing is
 * known.
 */
static void note_addresses(const struct checkpoint *c, pid_t tid, struct known_directories *k)
{
	static const enum glance_kind kinds[] = {GLANCE_ROOT_MOUNT, GLANCE_ROOT, GLANCE_CWD_MOUNT,
						 GLANCE_CWD, GLANCE_NAMESPACES};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		k->addresses[i] = glance_of(c, tid, kinds[i]);
}

static int save_directories(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
			    Reprise__Fs *msg, struct error *e)
{
	struct known_directories *last = &c->files->directories, now = {};
	int r;

	note_addresses(c, tid, &now);
	if (now.addresses[0] && !memcmp(now.addresses, last->addresses, sizeof(now.addresses))) {
		msg->root = last->root;
		msg->cwd = last->cwd;
		return 0;
	}
	r = save_directory(c, p, tid, "root", &msg->root, e);
	if (r >= 0)
		r = save_directory(c, p, tid, "cwd", &msg->cwd, e);
	now.root = msg->root;
	now.cwd = msg->cwd;
	if (r >= 0)
		*last = now;
	return r;
}

static int save_fs(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid, uint64_t id,
		   struct error *e)
{
	Reprise__Fs msg = REPRISE__FS__INIT;
	const char *status;
	uint64_t umask_value;
	int r = checkpoint_status(c, p, tid, &status, e);

	if (r < 0)
		return r;
	if (proc_field_u64(status, "Umask", 8, &umask_value) < 0)
		return error_set(e, -ENOSYS, E_KERNEL_TOO_OLD,
				 "the kernel does not tell the umask");
	msg.umask = (uint32_t)umask_value;
	r = save_directories(c, p, tid, &msg, e);
	return r < 0 ? r : checkpoint_put(c, RECORD_FS, id, &msg.base, e);
}

int fs_checkpoint(struct checkpoint *c, struct checkpoint_process *p, pid_t tid, uint64_t *ret_fs,
		  struct error *e)
{
	struct files_checkpoint *fc = c->files;
	uint64_t class, *entry;
	bool is_new;
	int r;

	r = kcmp_index_get(fc->by_fs, glance_of(c, tid, GLANCE_FS), tid, 0, &class, &is_new);
	if (r < 0)
		return error_errno(e, r, r == -ESRCH ? E_TASK_GONE : E_PERMISSION,
				   "cannot compare the working directory of task %d", tid);
	if (!is_new) {
		*ret_fs = fc->fss.v[class - 1];
		return 0;
	}
	entry = vec_push(&fc->fss);
	if (!entry)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of directories");
	*entry = *ret_fs = objects_fresh(c->objects);
	return save_fs(c, p, tid, *ret_fs, e);
}

/* ---- restart ---- */

static int send_directory(struct restart *r, struct restart_task *t, uint64_t inode,
			  int *ret_remote, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	int res;

	res = inode_open_directory(r, inode, t, &fd, e);
	if (res < 0)
		return res;
	return restart_send_fds(r, t, &fd, 1, ret_remote, e);
}

int fs_restart(struct restart *r, struct restart_task *t, struct error *e)
{
	const Reprise__Fs *msg = restart_find(r, RECORD_FS, t->msg->fs);
	_cleanup_(batch_free) struct batch b = {};
	int root = -1, cwd = -1, calls[4], n = 0, res = 0;
	uint32_t dot;

	if (msg->root)
		res = send_directory(r, t, msg->root, &root, e);
	if (res >= 0)
		res = send_directory(r, t, msg->cwd, &cwd, e);
	if (res < 0)
		return error_object(e, res, "directories of task %d", t->vtid);
	dot = batch_data(&b, ".", 2);
	if (msg->root) {
		calls[n++] = batch_call(&b, SYS_fchdir, VAL(root));
		calls[n++] = batch_call(&b, SYS_chroot, DATA(dot));
	}
	calls[n++] = batch_call(&b, SYS_fchdir, VAL(cwd));
	calls[n++] = batch_call(&b, SYS_umask, VAL(msg->umask));
	batch_call(&b, SYS_close, VAL(cwd));
	if (msg->root)
		batch_call(&b, SYS_close, VAL(root));
	res = agent_run(t->process->agent, t->tid, NULL, &b, e);
	for (int i = 0; i < n && res >= 0; i++)
		if (batch_result(&b, calls[i]) < 0)
			res = error_errno(e, (int)batch_result(&b, calls[i]), E_RESTORE,
					  "cannot set the working or root directory");
	return res < 0 ? error_object(e, res, "task %d", t->vtid) : 0;
}
