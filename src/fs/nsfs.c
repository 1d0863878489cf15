/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of namespaces: /proc/PID/ns/KIND, or a file on which one is mounted. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>

#include "fs/context.h"
#include "fs/file_kinds.h"
#include "ns/spaces.h"

static bool nsfs_match(const struct file_seen *f)
{
	struct statfs fs;

	return !(f->flags & O_PATH) && S_ISREG(f->st.st_mode) && f->link[0] != '/' &&
	       fstatfs(f->local, &fs) == 0 && fs.f_type == NSFS_MAGIC;
}

static int nsfs_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			   struct scratch *s, struct error *e)
{
	msg->nsfs = scratch_message(s, Reprise__NamespaceFile, reprise__namespace_file__init);
	if (!msg->nsfs)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a file");
	return space_of_descriptor(c, f->local, &msg->nsfs->id, &msg->nsfs->type, e);
}

static int nsfs_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->nsfs)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a file without its message");
	return space_validate_use(r, msg->nsfs->id, msg->nsfs->type, e);
}

static int nsfs_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			struct error *e)
{
	int fd = space_open(r, msg->nsfs->id, msg->nsfs->type, e);

	(void)id;
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

static void nsfs_describe(const Reprise__File *msg, char *buf, size_t size)
{
	if (msg->nsfs && msg->nsfs->id)
		snprintf(buf, size, "namespace %llu", (unsigned long long)msg->nsfs->id);
	else
		snprintf(buf, size, "a namespace of the root task");
}

const struct file_ops nsfs_file_ops = {
	.kind = FILE_NSFS,
	.name = "namespace",
	.support =
		"mount, UTS, IPC, network, cgroup, time and user namespaces, also such as nobody is in; "
		"pid namespaces of processes of the tree, and such as have ended",
	.match = nsfs_match,
	.checkpoint = nsfs_checkpoint,
	.validate = nsfs_validate,
	.restart = nsfs_restart,
	.after_tasks = true,
	.describe = nsfs_describe,
};
