/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files below /proc/PID of tasks of the tree. They belong to a task, not to a
 * path, and exist as soon as the task does. (Other files of /proc are like any
 * other file.)
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fs/context.h"
#include "fs/file_kinds.h"

#define PROC "/proc/"

static bool proc_match(const struct file_seen *f)
{
	struct statfs fs;

	return !strncmp(f->link, PROC, strlen(PROC)) &&
	       isdigit((unsigned char)f->link[strlen(PROC)]) && fstatfs(f->local, &fs) == 0 &&
	       fs.f_type == PROC_SUPER_MAGIC;
}

static bool in_tree(struct checkpoint *c, pid_t pid)
{
	vec_for_each (p, &c->freezer.processes) {
		if (p->pid == pid)
			return true;
		vec_for_each (t, &p->threads)
			if (t->tid == pid)
				return true;
	}
	return false;
}

static int proc_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			   struct scratch *scratch, struct error *e)
{
	const char *text = f->link + strlen(PROC);
	char *rest;
	long pid = strtol(text, &rest, 10);

	msg->proc = scratch_message(scratch, Reprise__ProcFile, reprise__proc_file__init);
	if (msg->proc)
		msg->proc->path = scratch_string(scratch, *rest == '/' ? rest + 1 : ".");
	if (!msg->proc || !msg->proc->path)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a file of /proc");
	if (strstr(f->link, " (deleted)") || !in_tree(c, (pid_t)pid))
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "it is about a task outside the tree, or one that has ended");
	msg->proc->pid = (int32_t)pid;
	return 0;
}

static int proc_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->proc || msg->proc->pid <= 0 || msg->proc->path[0] == '/' ||
	    strstr(msg->proc->path, ".."))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper file of /proc");
	return 0;
}

static int proc_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			struct error *e)
{
	pid_t pid = restart_real_pid(r, msg->proc->pid);
	char path[4200];
	int fd;

	if (!pid)
		return error_set(e, -ESRCH, E_IMAGE_INVALID, "the task %d is missing",
				 msg->proc->pid);
	snprintf(path, sizeof(path), "%d/%s", pid, msg->proc->path);
	fd = openat(r->proc_fd, path, (int)msg->flags | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return error_errno(e, -errno, E_FILE_OPEN, "cannot open /proc/%s", path);
	*ret_fd = fd;
	if (!(msg->flags & O_PATH) && msg->pos && lseek(fd, (off_t)msg->pos, SEEK_SET) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot go to position %llu",
				   (unsigned long long)msg->pos);
	return 0;
}

static void proc_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "/proc/%d/%s", msg->proc ? msg->proc->pid : 0,
		 msg->proc ? msg->proc->path : "");
}

const struct file_ops proc_file_ops = {
	.kind = FILE_PROC,
	.name = "proc file",
	.support = "files of /proc about tasks of the tree",
	.match = proc_match,
	.checkpoint = proc_checkpoint,
	.validate = proc_validate,
	.restart = proc_restart,
	.after_tasks = true,
	.describe = proc_describe,
};
