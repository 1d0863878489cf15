/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pidfd of a process or thread of the tree. One of a process that has gone is
 * made again from a stand-in that ended in the same way.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/stand_in.h"

static bool pidfd_match(const struct file_seen *f)
{
	size_t len;

	return strstr(f->link, "pidfd") && f->link[0] != '/' && proc_field(f->fdinfo, "Pid", &len);
}

/* Where the kernel remembers it (6.15), also after the process was reaped. */
static int exit_status(int fd)
{
	struct pidfd_info info = {.mask = PIDFD_INFO_EXIT};

	if (ioctl(fd, PIDFD_GET_INFO, &info) < 0 || !(info.mask & PIDFD_INFO_EXIT))
		return 0;
	return info.exit_code;
}

/* Equal for pidfds of one process that has gone; 0: the kernel does not tell (before 6.9). */
static uint64_t dead_inode(const struct file_seen *f)
{
	struct statfs fs;

	return fstatfs(f->local, &fs) == 0 && fs.f_type == PID_FS_MAGIC ? f->st.st_ino : 0;
}

static int pidfd_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			    struct scratch *scratch, struct error *e)
{
	Reprise__PidFd *m = scratch_message(scratch, Reprise__PidFd, reprise__pid_fd__init);
	size_t len;
	int pid = atoi(proc_field(f->fdinfo, "Pid", &len));

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pidfd");
	msg->pidfd = m;
	if (flistxattr(f->local, NULL, 0) > 0)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it has extended attributes (trusted.*), which belong to the "
				 "process");
	m->thread = f->flags & PIDFD_THREAD;
	if (pid == 0)
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "its process is in another pid namespace");
	if (pid < 0) {
		m->status = exit_status(f->local);
		m->dead = dead_inode(f);
		return 0;
	}
	if (!checkpoint_has_task(c, pid))
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "its process %d is outside the tree", pid);
	m->pid = pid;
	return checkpoint_refer(c, pid, e);
}

static bool stops(int sig)
{
	return sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

static int pidfd_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	int status = msg->pidfd ? msg->pidfd->status : 0;

	if (!msg->pidfd || msg->pidfd->pid < 0)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a pidfd of no process");
	if (!WIFEXITED(status) && (!WIFSIGNALED(status) || stops(WTERMSIG(status))))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a process that ended in no way");
	return 0;
}

static int open_pid(pid_t pid, const Reprise__PidFd *m)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, m->thread ? PIDFD_THREAD : 0);

	return fd < 0 ? -errno : fd;
}

/* All descriptions of one process that has gone, while its stand-in is not reaped. */
static int open_all(struct restart *r, pid_t pid, const struct file_open *first)
{
	int fd = open_pid(pid, first->msg->pidfd);
	uint64_t dead = first->msg->pidfd->dead;

	vec_for_each (f, &r->files->files) {
		if (fd < 0 || !dead || f == first || f->ops != &pidfd_file_ops || f->fd >= 0 ||
		    f->msg->pidfd->pid || f->msg->pidfd->dead != dead)
			continue;
		f->other = open_pid(pid, f->msg->pidfd);
		if (f->other < 0) {
			close(fd);
			fd = f->other;
		}
	}
	return fd;
}

/* A process that ended as that one did. */
static int dead_pidfd(struct restart *r, struct file_open *f)
{
	pid_t pid;
	int fd;

	if (f->other >= 0)
		return take_fd(&f->other);
	pid = stand_in_begin(r, f->msg->pidfd->status, 0);
	if (pid < 0)
		return pid;
	fd = open_all(r, pid, f);
	stand_in_end(pid);
	return fd;
}

static int pidfd_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			 struct error *e)
{
	const Reprise__PidFd *m = msg->pidfd;
	pid_t pid = m->pid ? restart_real_pid(r, m->pid) : 0;
	int fd;

	if (m->pid && !pid)
		return error_set(e, -ESRCH, E_IMAGE_INVALID, "the process %d of a pidfd is missing",
				 m->pid);
	fd = pid ? open_pid(pid, m) : dead_pidfd(r, vec_find_id(&r->files->files, id));
	if (fd < 0)
		return error_errno(e, fd, E_RESTORE, "cannot open process %d", m->pid);
	*ret_fd = fd;
	return 0;
}

static void pidfd_describe(const Reprise__File *msg, char *buf, size_t size)
{
	if (msg->pidfd && msg->pidfd->pid)
		snprintf(buf, size, "%s %d", msg->pidfd->thread ? "thread" : "process",
			 msg->pidfd->pid);
	else
		snprintf(buf, size, "of a process that has gone");
}

const struct file_ops pidfd_file_ops = {
	.kind = FILE_PIDFD,
	.name = "pidfd",
	.support =
		"of processes and threads of the tree, and of those that have gone, with their status",
	.match = pidfd_match,
	.checkpoint = pidfd_checkpoint,
	.validate = pidfd_validate,
	.restart = pidfd_restart,
	.after_tasks = true,
	.describe = pidfd_describe,
};
