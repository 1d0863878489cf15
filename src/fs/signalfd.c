/* SPDX-License-Identifier: Apache-2.0 */
/* A signalfd holds a mask only: the signals are those of whoever reads it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"

static bool signalfd_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:[signalfd]");
}

static int signalfd_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			       struct scratch *scratch, struct error *e)
{
	msg->signalfd = scratch_message(scratch, Reprise__SignalFd, reprise__signal_fd__init);
	if (!msg->signalfd)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a signalfd");
	if (proc_field_u64(f->fdinfo, "sigmask", 16, &msg->signalfd->mask) < 0)
		return error_set(e, -EINVAL, E_KERNEL_TOO_OLD, "the kernel does not tell its mask");
	return 0;
}

static int signalfd_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->signalfd)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a signalfd without its message");
	return 0;
}

static int signalfd_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			    struct error *e)
{
	/* The kernel's mask of 64 bits, not the larger one of libc. */
	int fd = (int)syscall(SYS_signalfd4, -1, &msg->signalfd->mask, sizeof(uint64_t),
			      SFD_CLOEXEC);

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make a signalfd");
	*ret_fd = fd;
	return 0;
}

static void signalfd_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "mask %#llx",
		 msg->signalfd ? (unsigned long long)msg->signalfd->mask : 0);
}

const struct file_ops signalfd_file_ops = {
	.kind = FILE_SIGNALFD,
	.name = "signalfd",
	.support = "in full",
	.match = signalfd_match,
	.checkpoint = signalfd_checkpoint,
	.validate = signalfd_validate,
	.restart = signalfd_restart,
	.describe = signalfd_describe,
};
