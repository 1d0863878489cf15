/* SPDX-License-Identifier: Apache-2.0 */
/* Memory devices that have no state of their own: what is opened again is what it was. */
#include <errno.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "fs/context.h"
#include "fs/file_kinds.h"

#define MEM_MAJOR 1 /* linux/major.h; minors in drivers/char/mem.c, devlist[] */

static const char *device_name(unsigned int minor)
{
	switch (minor) {
	case 3:
		return "null";
	case 5:
		return "zero";
	case 7:
		return "full";
	case 8:
		return "random";
	case 9:
		return "urandom";
	default:
		return NULL;
	}
}

static bool device_match(const struct file_seen *f)
{
	return S_ISCHR(f->st.st_mode) && major(f->st.st_rdev) == MEM_MAJOR &&
	       device_name(minor(f->st.st_rdev)) && f->link[0] == '/';
}

static int device_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			     struct scratch *scratch, struct error *e)
{
	msg->device = scratch_message(scratch, Reprise__DeviceFile, reprise__device_file__init);
	if (!msg->device)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a device");
	return inode_checkpoint(c, f->process, f->local, f->link, &msg->device->inode, e);
}

static int device_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__Inode *inode;
	int res;

	if (!msg->device)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a device without its message");
	res = inode_validate(r, msg->device->inode, e);
	if (res < 0)
		return res;
	/* To open any other device may do something. */
	inode = restart_find(r, RECORD_INODE, msg->device->inode);
	if (!S_ISCHR(inode->mode) || major(inode->rdev) != MEM_MAJOR ||
	    !device_name(minor(inode->rdev)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a device of an unknown kind");
	return 0;
}

static int device_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			  struct error *e)
{
	return narrow_inode_open(r, msg->device->inode, (int)msg->flags, ret_fd, e);
}

static void device_describe(const Reprise__File *msg, char *buf, size_t size)
{
	*buf = '\0'; /* its name says it all */
}

const struct file_ops device_file_ops = {
	.kind = FILE_DEVICE,
	.name = "device",
	.support = "null, zero, full, random, urandom; all others are refused by name",
	.match = device_match,
	.checkpoint = device_checkpoint,
	.validate = device_validate,
	.restart = device_restart,
	.describe = device_describe,
};
