/* SPDX-License-Identifier: Apache-2.0 */
/* The log of the kernel: whoever reads it has a place in it, the number of the next record. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_memory.h"
#include "fs/context.h"
#include "fs/file_kinds.h"

#define MEM_MAJOR  1
#define KMSG_MINOR 11
#define RECORD_MAX 8192 /* CONSOLE_EXT_LOG_MAX and more */

static bool kmsg_match(const struct file_seen *f)
{
	return S_ISCHR(f->st.st_mode) && f->st.st_rdev == makedev(MEM_MAJOR, KMSG_MINOR) &&
	       !(f->flags & O_PATH);
}

static bool may_read(unsigned int flags)
{
	return (flags & O_ACCMODE) != O_WRONLY;
}

/* The number of the record that is read next by a descriptor of ours; 0: there is none. */
static int next_record(int fd, uint64_t *ret)
{
	char text[RECORD_MAX + 1];
	unsigned int level;
	ssize_t n;

	do
		n = read(fd, text, RECORD_MAX);
	while (n < 0 && errno == EPIPE); /* the record has been overwritten: the next one */
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	text[n] = '\0';
	return sscanf(text, "%u,%lu,", &level, ret) == 2 ? 1 : -EPROTO;
}

static int end_of_log(uint64_t *ret)
{
	_cleanup_(close_fd) int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	uint64_t last;
	int r = fd < 0 ? -errno : 1;

	*ret = 0;
	while (r > 0) {
		r = next_record(fd, &last);
		if (r > 0)
			*ret = last + 1;
	}
	return r;
}

static bool unread(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

static int place(struct checkpoint *c, int fd, uint64_t *ret, struct error *e)
{
	struct kernel_memory *k;
	uint64_t at;
	int r;

	if (!unread(fd)) {
		r = end_of_log(ret);
		if (r < 0)
			return error_errno(e, r, E_FILE_STATE,
					   "the log of the kernel cannot be read");
		if (!unread(fd))
			return 0;
	}
	r = files_kernel_memory(c, &k, e);
	if (r >= 0)
		r = kernel_file(k, fd, &at);
	if (r >= 0)
		r = kernel_member(k, at, "file", "private_data", &at, sizeof(at));
	if (r >= 0)
		r = kernel_member(k, at, "devkmsg_user", "seq", ret, sizeof(*ret));
	if (r < 0) {
		error_clear(e);
		return error_errno(e, r, E_FILE_STATE,
				   "there are records that it has not read, and only the memory of "
				   "the kernel tells which");
	}
	return 0;
}

static int kmsg_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			   struct scratch *s, struct error *e)
{
	Reprise__KmsgFile *m = scratch_message(s, Reprise__KmsgFile, reprise__kmsg_file__init);
	int r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a device");
	msg->kmsg = m;
	r = inode_checkpoint(c, f->process, f->local, f->link, &m->inode, e);
	return r < 0 || !may_read(f->flags) ? r : place(c, f->local, &m->next, e);
}

static int kmsg_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__Inode *inode;
	int res;

	if (!msg->kmsg)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a device without its message");
	res = inode_validate(r, msg->kmsg->inode, e);
	if (res < 0)
		return res;
	inode = restart_find(r, RECORD_INODE, msg->kmsg->inode);
	if (!S_ISCHR(inode->mode) || inode->rdev != makedev(MEM_MAJOR, KMSG_MINOR))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a device of an unknown kind");
	return 0;
}

/* A log that ends before the place is that of another boot: it goes on at the end. */
static int go_to(int fd, uint64_t next)
{
	uint64_t number = 0;
	int r;

	/* Records before it are read; a place that has been overwritten is the first one left. */
	do
		r = next_record(fd, &number);
	while (r > 0 && number + 1 < next);
	if (r > 0 && number >= next && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	return r;
}

static int kmsg_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	int res = inode_open(r, msg->kmsg->inode, (int)msg->flags | O_NONBLOCK, &fd, e);

	if (res >= 0 && may_read(msg->flags)) {
		res = go_to(fd, msg->kmsg->next);
		if (res < 0)
			error_errno(e, res, E_RESTORE, "cannot find its place in the log");
	}
	if (res >= 0)
		*ret_fd = take_fd(&fd);
	return res;
}

static void kmsg_describe(const Reprise__File *msg, char *buf, size_t size)
{
	if (msg->kmsg && may_read(msg->flags))
		snprintf(buf, size, "at record %lu", (unsigned long)msg->kmsg->next);
	else
		*buf = '\0';
}

const struct file_ops kmsg_file_ops = {
	.kind = FILE_KMSG,
	.name = "kernel log",
	.support = "with its place in the log; if records are unread, by root",
	.match = kmsg_match,
	.checkpoint = kmsg_checkpoint,
	.validate = kmsg_validate,
	.restart = kmsg_restart,
	.describe = kmsg_describe,
};
