/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of /proc. Those below /proc/PID belong to a task, not to a path, and
 * exist as soon as the task does. All are opened in the /proc of the tasks, which
 * in a new pid namespace is another than ours.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/opener.h"
#include "fs/pressure.h"
#include "ns/spaces.h"
#include "ns/mounts_covered.h"

#define PROC "/proc"

static bool proc_match(const struct file_seen *f)
{
	size_t len = strlen(PROC);
	struct statfs fs;

	return !strncmp(f->link, PROC, len) && (f->link[len] == '/' || !f->link[len]) &&
	       fstatfs(f->local, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

/* What is named by a descriptor or an address is there only when the task is complete. */
static bool comes_late(const char *path)
{
	static const char *const dirs[] = {"fd/", "fdinfo/", "map_files/"};
	const char *task = path;

	if (!strncmp(path, "task/", 5)) {
		task = strchr(path + 5, '/');
		task = task ? task + 1 : path;
	}
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		if (!strncmp(task, dirs[i], strlen(dirs[i])))
			return true;
	return false;
}

static int check_state(struct checkpoint *c, const struct file_seen *f, const Reprise__ProcFile *m,
		       struct error *e)
{
	pid_t pid =
		m->pid && m->pid_namespace ? pid_space_task(c, m->pid_namespace, m->pid) : m->pid;
	const char *suffix = strstr(f->link, " (deleted)");

	/* A thread that has ended keeps the file as a task that has ended does. */
	if ((suffix && !suffix[strlen(" (deleted)")]) || (m->pid && !checkpoint_has_task(c, pid)))
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "it is about a task outside the tree, or one that has ended");
	if (m->pid && comes_late(m->path))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it stands for a descriptor or mapping of a task, which is made "
				 "after it");
	return checkpoint_refer(c, pid, e);
}

/* Something may be mounted over it since. */
static int look_covered(struct checkpoint *c, const struct file_seen *f, Reprise__ProcFile *m,
			struct error *e)
{
	struct mount_covered covered;
	int r = mounts_look_covered(c, mount_of_file(c, f->local, m->mounts), m->mounts, f->link,
				    &covered, e);

	if (r >= 0 && covered.by)
		m->under = covered.by;
	return r;
}

static int proc_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			   struct scratch *scratch, struct error *e)
{
	const char *rest = f->link + strlen(PROC);
	int r;

	msg->proc = scratch_message(scratch, Reprise__ProcFile, reprise__proc_file__init);
	if (!msg->proc)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a file of /proc");
	if (rest[0] == '/' && isdigit((unsigned char)rest[1])) {
		char *end;

		msg->proc->pid = (int32_t)strtol(rest + 1, &end, 10);
		rest = end;
	}
	msg->proc->pid_namespace = space_of_proc(c, f->st.st_dev);
	space_of_file(c, f->local, &msg->proc->mounts);
	r = look_covered(c, f, msg->proc, e);
	if (r < 0)
		return r;
	msg->proc->path = scratch_string(scratch, *rest == '/' ? rest + 1 : ".");
	if (!msg->proc->path)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a file of /proc");
	r = pressure_save(c, f, msg, scratch, e);
	if (r >= 0)
		r = opener_save(c, f, msg, scratch, e);
	return r < 0 ? r : check_state(c, f, msg->proc, e);
}

static void path_of(const Reprise__ProcFile *m, char *path, size_t size)
{
	if (m->pid)
		snprintf(path, size, PROC "/%d/%s", m->pid, m->path);
	else
		snprintf(path, size, PROC "/%s", m->path);
}

/* It leads nowhere but below that directory. */
static bool is_below(const char *path)
{
	for (;;) {
		if (path[0] == '/' || !strcmp(path, "..") || !strncmp(path, "../", 3))
			return false;
		path = strchr(path, '/');
		if (!path)
			return true;
		path++;
	}
}

static int proc_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	char path[4200];

	if (!msg->proc || msg->proc->pid < 0 || !is_below(msg->proc->path) ||
	    restart_space_missing(r, msg->proc->pid_namespace, CLONE_NEWPID) ||
	    restart_space_missing(r, msg->proc->mounts, CLONE_NEWNS) ||
	    (msg->proc->pid_namespace && !msg->proc->mounts))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper file of /proc");
	path_of(msg->proc, path, sizeof(path));
	if (mounts_validate_under(r, msg->proc->mounts, msg->proc->under, path, e) < 0)
		return -EBADMSG;
	return pressure_validate(msg, e);
}

static int proc_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			struct error *e)
{
	const Reprise__ProcFile *m = msg->proc;
	_cleanup_(close_fd) int fd = -EBADF;
	struct rooted at;
	const char *from;
	char path[4200];
	int root;
	int res;

	if (m->pid && !m->pid_namespace && !restart_real_pid(r, m->pid))
		return error_set(e, -ESRCH, E_IMAGE_INVALID, "the task %d is missing", m->pid);
	/*
	 * The init of a new pid namespace has mounted its /proc over ours: what is found there
	 * has the numbers that the tasks know. That of a pid namespace below is found in the mount
	 * namespace of who mounted it.
	 */
	root = m->mounts ? restart_root(r, m->mounts) : AT_FDCWD;
	path_of(m, path, sizeof(path));
	from = path;
	if (m->under)
		root = restart_root_under(r, m->mounts, m->under, &from);
	at = rooted_path(root, from);
	fd = openat(at.dir, at.path,
		    (int)(msg->flags & ~(unsigned int)(O_CREAT | O_EXCL | O_TRUNC)) | O_CLOEXEC |
			    O_NOCTTY);
	if (fd < 0)
		return error_errno(e, -errno, E_FILE_OPEN, "cannot open %s", path);
	res = narrow_open(r, msg->flags, &fd, e);
	if (res >= 0)
		res = opener_take_over(r, msg, &fd, e);
	if (res >= 0)
		res = pressure_restore(r, fd, msg, e);
	if (res < 0)
		return res;
	if (!(msg->flags & O_PATH) && msg->pos && lseek(fd, (off_t)msg->pos, SEEK_SET) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot go to position %llu",
				   (unsigned long long)msg->pos);
	*ret_fd = take_fd(&fd);
	return 0;
}

static void proc_describe(const Reprise__File *msg, char *buf, size_t size)
{
	size_t len;

	if (msg->proc && msg->proc->pid)
		snprintf(buf, size, PROC "/%d/%s", msg->proc->pid, msg->proc->path);
	else
		snprintf(buf, size, PROC "/%s", msg->proc ? msg->proc->path : "");
	len = strlen(buf);
	pressure_describe(msg, buf + len, size - len);
}

const struct file_ops proc_file_ops = {
	.kind = FILE_PROC,
	.name = "proc file",
	.support =
		"of the machine, and about tasks and threads of the tree; waits for pressure (by root)",
	.match = proc_match,
	.checkpoint = proc_checkpoint,
	.validate = proc_validate,
	.restart = proc_restart,
	.after_tasks = true,
	.describe = proc_describe,
};
