/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consoles and serial lines that are neither the controlling terminal nor a standard stream:
 * devices of the machine, which are opened anew by their path and given the settings that they had.
 * What a console shows, and whoever is at the other end of a line, is as it is at the restart.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kd.h>
#include <linux/major.h>
#include <linux/vt.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "fs/context.h"
#include "fs/pty_ioctl.h"
#include "fs/tty_device.h"

bool tty_is_device(uint64_t rdev)
{
	/* Documentation/admin-guide/devices.txt: modems and adapters of USB, lines of boards,
	 * consoles of hypervisors */
	static const unsigned int lines[] = {166, 188, 204, 229};

	if (major(rdev) == TTY_MAJOR || rdev == makedev(TTYAUX_MAJOR, 1))
		return true;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (major(rdev) == lines[i])
			return true;
	return false;
}

/* A virtual console answers these, others do not know them. */
static const char *console_obstacle(int fd)
{
	struct vt_mode mode;
	int value;

	if (ioctl(fd, KDGETMODE, &value) == 0 && value != KD_TEXT)
		return "the console is in graphics mode";
	if (ioctl(fd, VT_GETMODE, &mode) == 0 && mode.mode != VT_AUTO)
		return "a process decides about switching to and from the console (VT_PROCESS)";
	if (ioctl(fd, KDGKBMODE, &value) == 0 && value != K_XLATE && value != K_UNICODE)
		return "the keyboard of the console is in a raw mode";
	return NULL;
}

int tty_device_look(const struct file_seen *f, Reprise__TtyFile *m, struct scratch *s,
		    const char **ret_obstacle, struct error *e)
{
	struct termios2 termios;

	*ret_obstacle = console_obstacle(f->local);
	if (ioctl(f->local, TCGETS2, &termios) < 0)
		*ret_obstacle = "it is hung up";
	else if (m->unread)
		*ret_obstacle = "it holds input that has not been read yet, which would be lost";
	else if (m->exclusive)
		*ret_obstacle = "it is used exclusively (TIOCEXCL)";
	m->path = scratch_string(s, f->link);
	m->rdev = f->st.st_rdev;
	m->termios.data = scratch_copy(s, &termios, sizeof(termios));
	m->termios.len = sizeof(termios);
	return m->path && m->termios.data
		       ? 0
		       : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a terminal");
}

/* ---- restart ---- */

int tty_device_validate(const Reprise__TtyFile *m, struct error *e)
{
	if (m->path[0] != '/' || !tty_is_device(m->rdev) ||
	    m->termios.len != sizeof(struct termios2))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible terminal");
	return 0;
}

/* Another may use it as well: what is right already is let be. */
static int set_termios(int fd, const Reprise__TtyFile *m, struct error *e)
{
	struct termios2 is;

	if (ioctl(fd, TCGETS2, &is) == 0 && !memcmp(&is, m->termios.data, sizeof(is)))
		return 0;
	if (ioctl(fd, TCSETS2, m->termios.data) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set up the terminal %s", m->path);
	return 0;
}

int tty_device_restart(struct restart *r, const Reprise__TtyFile *m, int flags, int *ret_fd,
		       struct error *e)
{
	_cleanup_(close_fd) int at = open(m->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_(close_fd) int fd = -EBADF;
	struct stat st;
	int res;

	if (at < 0 || fstat(at, &st) < 0)
		return error_errno(e, -errno, errno == ENOENT ? E_FILE_MISSING : E_FILE_OPEN,
				   "cannot open %s", m->path);
	if (!S_ISCHR(st.st_mode) || st.st_rdev != m->rdev)
		return error_set(e, -ESTALE, E_FILE_CHANGED, "%s is another device", m->path);
	/* A line whose other end is not there is not waited for. */
	fd = reopen_fd(r->proc_fd, at, flags | O_NONBLOCK);
	if (fd < 0)
		return error_errno(e, fd, E_FILE_OPEN, "cannot open %s", m->path);
	res = set_termios(fd, m, e);
	if (res >= 0)
		*ret_fd = take_fd(&fd);
	return res;
}
