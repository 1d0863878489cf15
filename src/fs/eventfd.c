/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_memory.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"

static bool eventfd_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:[eventfd]");
}

/* Of kernels before 6.6, which do not show it. */
static int flags_in_kernel(struct checkpoint *c, int fd, unsigned int *ret, struct error *e)
{
	struct kernel_memory *k;
	uint64_t at;
	int r = files_kernel_memory(c, &k, e);

	if (r >= 0)
		r = kernel_file(k, fd, &at);
	if (r >= 0)
		r = kernel_member(k, at, "file", "private_data", &at, sizeof(at));
	if (r >= 0)
		r = kernel_member(k, at, "eventfd_ctx", "flags", ret, sizeof(*ret));
	error_clear(e);
	return r;
}

/*
 * By a read, which takes 1 from a semaphore and all from a counter, and is undone: whoever uses it
 * in the tree stands still, and finds what was there. Nothing here waits: there is something to
 * read, and room for what is written (eventfd_read(), eventfd_write()).
 */
static int try_semaphore(int fd, uint64_t count, bool *ret)
{
	uint64_t n, more = count < 2 ? 2 : 0, back;

	if (more && write(fd, &more, sizeof(more)) < 0)
		return -errno;
	if (read(fd, &n, sizeof(n)) < 0)
		return -errno;
	*ret = n == 1;
	if (*ret && more)
		return read(fd, &n, sizeof(n)) < 0 ? -errno : 0;
	back = *ret ? 1 : n - more;
	return back && write(fd, &back, sizeof(back)) < 0 ? -errno : 0;
}

static int save_semaphore(struct checkpoint *c, const struct file_seen *f, Reprise__EventFd *m,
			  struct error *e)
{
	uint64_t told;
	unsigned int flags;
	bool is = false;
	int r = 0;

	if (proc_field_u64(f->fdinfo, "eventfd-semaphore", 10, &told) >= 0)
		is = told; /* 6.6 */
	else if (flags_in_kernel(c, f->local, &flags, e) >= 0)
		is = flags & EFD_SEMAPHORE;
	else if (!c->checking)
		r = try_semaphore(f->local, m->count, &is);
	m->semaphore = is;
	return r < 0 ? error_errno(e, r, E_FILE_STATE, "cannot learn whether it is a semaphore")
		     : 0;
}

static int eventfd_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	Reprise__EventFd *m = scratch_message(scratch, Reprise__EventFd, reprise__event_fd__init);

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an eventfd");
	msg->eventfd = m;
	if (proc_field_u64(f->fdinfo, "eventfd-count", 16, &m->count) < 0)
		return error_set(e, -EINVAL, E_KERNEL_TOO_OLD,
				 "the kernel does not tell its count");
	return save_semaphore(c, f, m, e);
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
	.support = "count, semaphore",
	.match = eventfd_match,
	.checkpoint = eventfd_checkpoint,
	.validate = eventfd_validate,
	.restart = eventfd_restart,
	.describe = eventfd_describe,
};
