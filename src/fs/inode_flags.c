/* SPDX-License-Identifier: Apache-2.0 */
/* Flags of chattr(1) on files that have no name. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "fs/inode_private.h"
#include "ns/layer.h"

static bool may_have(const Reprise__Inode *msg)
{
	return (msg->kind == INODE_MEMFD || msg->kind == INODE_DELETED) &&
	       (S_ISREG(msg->mode) || S_ISDIR(msg->mode));
}

void inode_flags_save(const struct checkpoint *c, int fd, Reprise__Inode *msg)
{
	_cleanup_(close_fd) int own = -EBADF;
	int flags = 0; /* the kernel takes it for one (ioctl_getflags()) */

	if (!may_have(msg))
		return;
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 && errno == EBADF) { /* O_PATH */
		own = reopen_fd(c->proc_fd, fd, O_RDONLY | O_CLOEXEC);
		ignore(own < 0 ? 0 : ioctl(own, FS_IOC_GETFLAGS, &flags), "there are none");
	}
	msg->flags = (uint32_t)flags & LAYER_FLAGS;
}

int inode_flags_validate(const Reprise__Inode *msg, struct error *e)
{
	if ((msg->flags && !may_have(msg)) || (msg->flags & ~LAYER_FLAGS))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "improper flags of a file");
	return 0;
}

int inode_flags_restart(const struct restart *restart, const struct inode_open *inode,
			struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	_cleanup_(close_fd) int own = -EBADF;
	int now = 0, r;

	if (!msg->flags || !may_have(msg) || inode->fd < 0)
		return 0;
	own = reopen_fd(restart->proc_fd, inode->fd, O_RDONLY | O_CLOEXEC);
	r = ioctl(own, FS_IOC_GETFLAGS, &now);
	now = (int)(((uint32_t)now & ~LAYER_FLAGS) | msg->flags);
	if (r >= 0)
		r = ioctl(own, FS_IOC_SETFLAGS, &now);
	return r < 0 ? error_errno(e, -errno, E_RESTORE, "cannot set the flags (chattr) of %s",
				   msg->path)
		     : 0;
}
