/* SPDX-License-Identifier: Apache-2.0 */
/* Regular files and directories, and whatever was opened with O_PATH. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/context.h"
#include "fs/dnotify.h"
#include "fs/fdinfo.h"
#include "fs/file_advice.h"
#include "fs/file_kinds.h"
#include "fs/opener.h"
#include "fs/pressure.h"
#include "fs/unwatched.h"
#include "ns/mounts_detached.h"

static bool regular_match(const struct file_seen *f)
{
	if (f->link[0] != '/')
		return false;
	return (f->flags & O_PATH) || S_ISREG(f->st.st_mode) || S_ISDIR(f->st.st_mode);
}

/* Its contents could not be read without breaking it. */
static int check_lease(const struct checkpoint *c, const Reprise__File *msg, struct error *e)
{
	const struct inode_entry *inode = vec_find_id(&c->files->inodes, msg->regular->inode);

	for (size_t i = 0; i < msg->n_locks; i++)
		if (msg->locks[i]->type == LOCK_LEASE && (!inode || inode->msg.kind != INODE_NAMED))
			return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
					 "a lease is held on it, and it has no name");
	return 0;
}

/* How long what is written will last (F_SET_RW_HINT): the kernel's inode has it, not the disk. */
static void save_write_hint(const struct file_seen *f, Reprise__RegularFile *m)
{
	uint64_t hint = 0;

	if (S_ISREG(f->st.st_mode) && !(f->flags & O_PATH) &&
	    fcntl(f->local, F_GET_RW_HINT, &hint) == 0)
		m->write_hint = (uint32_t)hint;
}

/* The first only the owner may give: whoever is not goes without. */
static void set_hints(int fd, const Reprise__RegularFile *m)
{
	uint64_t is = 0, wanted = m->write_hint;

	file_advice_restore(fd, m->advice);
	if (wanted && fcntl(fd, F_GET_RW_HINT, &is) == 0 && is != wanted)
		ignore(fcntl(fd, F_SET_RW_HINT, &wanted), "advice");
}

static bool is_of_kernel(const struct checkpoint *c, const Reprise__File *msg)
{
	const struct inode_entry *inode = vec_find_id(&c->files->inodes, msg->regular->inode);

	return inode && inode->msg.pseudo;
}

static bool is_detached(const struct checkpoint *c, const Reprise__File *msg)
{
	const struct inode_entry *inode = vec_find_id(&c->files->inodes, msg->regular->inode);

	return inode && inode->msg.detached;
}

static int regular_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	int r = dnotify_checkpoint(c, f, msg, scratch, e);

	if (r >= 0 && S_ISDIR(f->st.st_mode))
		r = inode_refuse_foreign(c, f->tid, f->local, f->link, e);
	if (r < 0)
		return r;
	msg->regular = scratch_message(scratch, Reprise__RegularFile, reprise__regular_file__init);
	if (!msg->regular)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a file");
	save_write_hint(f, msg->regular);
	r = file_advice_save(c, f, msg->regular, e);
	if (r >= 0)
		r = pressure_save(c, f, msg, scratch, e);
	if (r < 0)
		return r;
	r = inode_checkpoint(c, f->process, f->local, f->link, &msg->regular->inode, e);
	if (r >= 0 && is_detached(c, msg))
		msg->regular->holds_mount = mount_is_held_by(c, f->local);
	if (r >= 0 && is_of_kernel(c, msg))
		r = opener_save(c, f, msg, scratch, e);
	return r < 0 ? r : check_lease(c, msg, e);
}

/* The mount that it is on, if that is attached nowhere. */
static uint64_t inode_detached(const struct restart *r, uint64_t id)
{
	const Reprise__Inode *inode = restart_find(r, RECORD_INODE, id);

	return inode ? inode->detached : 0;
}

/* As long as it is open, the mount can be attached (FMODE_NEED_UNMOUNT). */
static int take_mount(const struct restart *r, uint64_t inode, int *ret_fd, struct error *e)
{
	*ret_fd = fcntl(restart_root_detached(r, inode_detached(r, inode)), F_DUPFD_CLOEXEC, 3);
	return *ret_fd < 0 ? error_errno(e, -errno, E_RESTORE, "cannot hold its mount") : 0;
}

static int regular_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->regular || (msg->regular->advice & ~(uint32_t)(ADVICE_AHEAD | ADVICE_RANDOM)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a file without its message");
	if (dnotify_validate(r, msg, e) < 0 || pressure_validate(msg, e) < 0)
		return -EBADMSG;
	if (msg->regular->holds_mount && !inode_detached(r, msg->regular->inode))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a file holds no mount");
	return inode_validate(r, msg->regular->inode, e);
}

static int regular_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			   struct error *e)
{
	int flags = (int)msg->flags, res;

	if (msg->regular->holds_mount)
		return take_mount(r, msg->regular->inode, ret_fd, e);
	if (msg->n_locks) /* not to wait until somebody gives up a lease; see set_flags() */
		flags |= O_NONBLOCK;
	res = narrow_inode_open(r, msg->regular->inode, flags, ret_fd, e);
	while (res == -EWOULDBLOCK && files_restart_patience(r)) {
		error_clear(e);
		res = narrow_inode_open(r, msg->regular->inode, flags, ret_fd, e);
	}
	if (res >= 0 && msg->opener)
		res = opener_take_over(r, msg, ret_fd, e);
	if (res >= 0 && msg->regular->unwatched)
		unwatched_take_over(r, msg, ret_fd);
	if (res >= 0)
		res = pressure_restore(r, *ret_fd, msg, e);
	if (res < 0)
		return res;
	if (!(msg->flags & O_PATH) && msg->pos && lseek(*ret_fd, (off_t)msg->pos, SEEK_SET) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot go to position %llu",
				   (unsigned long long)msg->pos);
	if (!(msg->flags & O_PATH))
		set_hints(*ret_fd, msg->regular);
	return 0;
}

static void regular_describe(const Reprise__File *msg, char *buf, size_t size)
{
	size_t len;

	snprintf(buf, size, "at %llu%s%s", (unsigned long long)msg->pos,
		 msg->flags & O_APPEND ? ", append" : "", msg->flags & O_PATH ? ", O_PATH" : "");
	len = strlen(buf);
	pressure_describe(msg, buf + len, size - len);
}

const struct file_ops regular_file_ops = {
	.kind = FILE_REGULAR,
	.name = "file",
	.support =
		"files, directories, O_PATH, memfds and deleted files (saved with their contents); "
		"position, flags, POSIX, flock and OFD locks, leases; F_NOTIFY (by root)",
	.match = regular_match,
	.checkpoint = regular_checkpoint,
	.checkpoint_all = dnotify_checkpoint_all,
	.validate = regular_validate,
	.restart = regular_restart,
	.restart_table = dnotify_restart_table,
	.describe = regular_describe,
};
