/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptions whose other end is outside the tree. Standard streams are
 * replaced, descriptor by descriptor, by what the restart was given; other
 * descriptors of the old terminal by the terminal of the restart.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/context.h"

/* Where this flag matters, and a new description is as good as the old one. */
static bool is_terminal_or_pipe(int fd)
{
	struct stat st;

	return isatty(fd) || (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode));
}

/* Without waiting for the other end of a fifo. */
static int open_anew(struct restart *r, int given, int flags, unsigned int wanted)
{
	int fd = reopen_fd(r->proc_fd, given,
			   (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	int own = (flags & ~O_NONBLOCK) | (int)(wanted & O_NONBLOCK);

	if (fd >= 0 && fcntl(fd, F_SETFL, own) < 0)
		close_fd(&fd);
	return fd;
}

/*
 * The stand-in is shared with whoever gave it to us, and theirs are its flags. Where the
 * application wants another O_NONBLOCK, a terminal or a pipe is opened anew; in a regular file it
 * means nothing. A socket has one description only: the application gets what it had set, as it did
 * before to the one that it had inherited.
 */
static int with_flags(struct restart *r, int given, unsigned int wanted)
{
	int flags = fcntl(given, F_GETFL), fd;
	struct stat st;

	if (flags >= 0 && ((unsigned int)flags ^ wanted) & O_NONBLOCK &&
	    is_terminal_or_pipe(given)) {
		fd = open_anew(r, given, flags, wanted);
		if (fd >= 0)
			return fd;
	}
	fd = fcntl(given, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	if (flags >= 0 && !(flags & O_NONBLOCK) && (wanted & O_NONBLOCK) && fstat(fd, &st) == 0 &&
	    S_ISSOCK(st.st_mode))
		ignore(fcntl(fd, F_SETFL, flags | O_NONBLOCK), "a socket knows it");
	return fd;
}

int file_outside_stream(struct restart *r, const Reprise__File *msg, int n)
{
	struct files_restart *fr = r->files;

	if (n < 0 || n > 2 || r->stdio[n] < 0)
		return -1;
	if (fr->stdio[n] < 0)
		fr->stdio[n] = with_flags(r, r->stdio[n], msg->flags);
	return fr->stdio[n];
}

int file_outside_restart(struct restart *r, const Reprise__File *msg, int *ret_fd, struct error *e)
{
	int fd = -1;

	for (int n = 0; n <= 2 && fd < 0; n++)
		if (msg->standard & FILE_STANDARD(n))
			fd = file_outside_stream(r, msg, n);
	if (fd >= 0)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	else if (msg->kind == FILE_TTY_OUTSIDE && r->tty_fd >= 0)
		fd = with_flags(r, r->tty_fd, msg->flags);
	else
		return error_set(
			e, -ENXIO, E_FILE_OPEN, "it led outside the tree (%s), and %s",
			msg->kind == FILE_TTY_OUTSIDE ? "a terminal" : "a standard stream",
			msg->kind == FILE_TTY_OUTSIDE
				? "the restart has none to put in its place: run it on a terminal (script -qc makes one)"
				: "nothing was given to replace it");
	if (fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot duplicate a standard stream");
	*ret_fd = fd;
	return 0;
}
