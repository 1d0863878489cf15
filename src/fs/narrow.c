/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/cleanup.h"
#include "fs/context.h"
#include "fs/file_kinds.h"

/*
 * Only open(2) of a 32-bit program leaves out O_LARGEFILE (force_o_largefile()), without which a
 * file ends at 2 GiB for whoever uses the descriptor; and nothing else sets or clears it.
 */
static bool is_narrow(unsigned int flags)
{
	return !(flags & (KERNEL_O_LARGEFILE | O_PATH)) && arch_compat_available();
}

static int open_narrow(int proc_fd, int fd, unsigned int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "self/fd/%d", fd);
	flags &= ~(unsigned int)(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW);
	if ((flags & O_TMPFILE) == O_TMPFILE)
		flags &= ~(unsigned int)O_TMPFILE;
	return arch_compat_openat(proc_fd, path, (int)flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

int narrow_reopen(int proc_fd, int fd, int flags)
{
	return is_narrow((unsigned int)flags) ? open_narrow(proc_fd, fd, (unsigned int)flags)
					      : reopen_fd(proc_fd, fd, flags);
}

static int open_again(const struct restart *r, unsigned int flags, int *fd, struct error *e)
{
	int n = open_narrow(r->proc_fd, *fd, flags);

	if (n < 0)
		return error_errno(e, n, E_FILE_OPEN, "cannot open it as a 32-bit program does");
	close(*fd);
	*fd = n;
	return 0;
}

int narrow_open(const struct restart *r, unsigned int flags, int *fd, struct error *e)
{
	return is_narrow(flags) ? open_again(r, flags, fd, e) : 0;
}

/* To open it twice may do something: each open of /dev/ptmx makes another terminal. */
int narrow_inode_open(struct restart *r, uint64_t inode, int flags, int *ret_fd, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	int res;

	if (!is_narrow((unsigned int)flags))
		return inode_open(r, inode, flags, ret_fd, e);
	res = inode_open(r, inode, O_PATH, &fd, e);
	if (res >= 0)
		res = open_again(r, (unsigned int)flags, &fd, e);
	if (res >= 0)
		*ret_fd = take_fd(&fd);
	return res;
}
