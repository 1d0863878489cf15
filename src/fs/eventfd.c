/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"

static bool eventfd_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:[eventfd]");
}

static int eventfd_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	Reprise__EventFd *m = scratch_message(scratch, Reprise__EventFd, reprise__event_fd__init);
	uint64_t semaphore = 0;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an eventfd");
	msg->eventfd = m;
	if (proc_field_u64(f->fdinfo, "eventfd-count", 16, &m->count) < 0)
		return error_set(e, -EINVAL, E_KERNEL_TOO_OLD,
				 "the kernel does not tell its count");
	/* Told since 6.6. Semaphores are rare: an older kernel's eventfds are taken for counters.
	 */
	ignore(proc_field_u64(f->fdinfo, "eventfd-semaphore", 10, &semaphore), "see above");
	m->semaphore = semaphore;
	return 0;
}

static int eventfd_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->eventfd || msg->eventfd->count == UINT64_MAX)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an eventfd without a proper count");
	return 0;
}

static int eventfd_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			   struct error *e)
{
	const Reprise__EventFd *m = msg->eventfd;
	_cleanup_(close_fd) int fd = eventfd(0, EFD_CLOEXEC | (m->semaphore ? EFD_SEMAPHORE : 0));

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make an eventfd");
	if (m->count && write(fd, &m->count, sizeof(m->count)) != sizeof(m->count))
		return error_errno(e, -errno, E_RESTORE, "cannot set the count of an eventfd");
	*ret_fd = take_fd(&fd);
	return 0;
}

static void eventfd_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "count %llu%s",
		 msg->eventfd ? (unsigned long long)msg->eventfd->count : 0,
		 msg->eventfd && msg->eventfd->semaphore ? ", semaphore" : "");
}

const struct file_ops eventfd_file_ops = {
	.kind = FILE_EVENTFD,
	.name = "eventfd",
	.support = "count, semaphore (kernel 6.6 or newer)",
	.match = eventfd_match,
	.checkpoint = eventfd_checkpoint,
	.validate = eventfd_validate,
	.restart = eventfd_restart,
	.describe = eventfd_describe,
};
