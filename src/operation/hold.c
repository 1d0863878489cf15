/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "operation/hold.h"

enum { PATIENCE_MS = 3000, PAUSE_MS = 20 };

/*
 * The file is opened by those only who may trace the task (mem_open() of the kernel), so that
 * nobody else can hold it. All who use one mount of /proc see the same inode as long as it is open.
 */
static int open_memory(pid_t pid, int *ret_proc, struct error *e)
{
	int r = procfs_open_root(ret_proc, e), fd;

	if (r < 0)
		return r;
	fd = procfs_open(*ret_proc, O_RDONLY, NULL, "%d/mem", pid);
	return fd;
}

/* By whom the file is locked, as /proc/locks tells it; 0 if it does not. */
static pid_t holder(int proc_fd, int fd)
{
	_cleanup_(free_ptr) char *text = NULL;
	struct stat st;

	if (fstat(fd, &st) < 0 || procfs_read(proc_fd, &text, NULL, "locks") < 0)
		return 0;
	for (const char *line = text; *line; line = strchrnul(line, '\n'), line += !!*line) {
		unsigned int major_, minor_;
		unsigned long ino;
		int pid;

		if (sscanf(line, "%*s FLOCK %*s %*s %d %x:%x:%lu", &pid, &major_, &minor_, &ino) ==
			    4 &&
		    makedev(major_, minor_) == st.st_dev && ino == st.st_ino)
			return pid;
	}
	return 0;
}

static int busy(int proc_fd, pid_t pid, pid_t who, struct error *e)
{
	_cleanup_(free_ptr) char *comm = NULL;

	if (who > 0 && procfs_read(proc_fd, &comm, NULL, "%d/comm", who) > 0)
		comm[strcspn(comm, "\n")] = '\0';
	if (!comm)
		return error_set(e, -EBUSY, E_TASK_BUSY,
				 "task %d is being saved by another process", pid);
	return error_set(e, -EBUSY, E_TASK_BUSY, "task %d is being saved by process %d (%s)", pid,
			 who, comm);
}

/* Most checkpoints are short: that of a watch, for instance, is worth waiting for. */
static bool lock(int fd)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};

	for (int waited = 0;; waited += PAUSE_MS) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
			return true;
		if (waited >= PATIENCE_MS)
			return false;
		nanosleep(&pause, NULL);
	}
}

int hold_target(pid_t pid, int *ret, struct error *e)
{
	_cleanup_(close_fd) int proc_fd = -EBADF;
	_cleanup_(close_fd) int fd = open_memory(pid, &proc_fd, e);

	if (proc_fd < 0)
		return fd;
	if (fd >= 0 && !lock(fd))
		return busy(proc_fd, pid, holder(proc_fd, fd), e);
	*ret = take_fd(&fd);
	return 0;
}

int hold_check(pid_t pid, struct error *e)
{
	_cleanup_(close_fd) int proc_fd = -EBADF;
	_cleanup_(close_fd) int fd = open_memory(pid, &proc_fd, e);
	pid_t who;

	if (proc_fd < 0)
		return fd;
	who = fd < 0 ? 0 : holder(proc_fd, fd);
	return who ? busy(proc_fd, pid, who, e) : 0;
}
