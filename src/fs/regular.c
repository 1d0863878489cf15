/* SPDX-License-Identifier: Apache-2.0 */
/* Regular files and directories, and whatever was opened with O_PATH. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fs/context.h"
#include "fs/file_kinds.h"

static bool regular_match(const struct file_seen *f)
{
	if (f->link[0] != '/')
		return false;
	return (f->flags & O_PATH) || S_ISREG(f->st.st_mode) || S_ISDIR(f->st.st_mode);
}

static int refuse_state(const struct file_seen *f, const Reprise__File *msg, struct error *e)
{
	/* Nothing tells the mask of F_NOTIFY, but it makes the task the owner of the descriptor
	 * (fcntl_dirnotify()). */
	if (S_ISDIR(f->st.st_mode) && msg->owner)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"the directory is watched with F_NOTIFY, which cannot be read back");
	return 0;
}

static int regular_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	int r = refuse_state(f, msg, e);

	if (r < 0)
		return r;
	msg->regular = scratch_message(scratch, Reprise__RegularFile, reprise__regular_file__init);
	if (!msg->regular)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a file");
	return inode_checkpoint(c, f->process, f->local, f->link, &msg->regular->inode, e);
}

static int regular_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->regular)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a file without its message");
	return inode_validate(r, msg->regular->inode, e);
}

static int regular_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			   struct error *e)
{
	int res = inode_open(r, msg->regular->inode, (int)msg->flags, ret_fd, e);

	if (res < 0)
		return res;
	if (!(msg->flags & O_PATH) && msg->pos && lseek(*ret_fd, (off_t)msg->pos, SEEK_SET) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot go to position %llu",
				   (unsigned long long)msg->pos);
	return 0;
}

static void regular_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "at %llu%s%s", (unsigned long long)msg->pos,
		 msg->flags & O_APPEND ? ", append" : "", msg->flags & O_PATH ? ", O_PATH" : "");
}

const struct file_ops regular_file_ops = {
	.kind = FILE_REGULAR,
	.name = "file",
	.support =
		"files, directories, O_PATH, memfds and deleted files (saved with their contents); "
		"position, flags, POSIX, flock and OFD locks; leases and F_NOTIFY are refused",
	.match = regular_match,
	.checkpoint = regular_checkpoint,
	.validate = regular_validate,
	.restart = regular_restart,
	.describe = regular_describe,
};
