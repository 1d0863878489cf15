/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal outside: the slave of a pseudo-terminal whose master nobody in
 * the tree holds, a console, a serial line. Its settings belong to those
 * outside; the restart puts its own terminal in its place. Consoles and lines that are
 * neither the terminal of the tree nor a standard stream are devices (tty_device.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/major.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/pty_private.h"
#include "fs/tty_device.h"

static bool is_controlling_alias(dev_t rdev)
{
	return rdev == makedev(TTYAUX_MAJOR, 0); /* /dev/tty */
}

static bool is_slave(uint64_t rdev)
{
	return major(rdev) >= UNIX98_PTY_SLAVE_MAJOR &&
	       major(rdev) < UNIX98_PTY_SLAVE_MAJOR + UNIX98_PTY_MAJOR_COUNT;
}

static bool tty_match(const struct file_seen *f)
{
	return S_ISCHR(f->st.st_mode) &&
	       (tty_is_device(f->st.st_rdev) || f->st.st_rdev == makedev(TTYAUX_MAJOR, 0) ||
		is_slave(f->st.st_rdev));
}

/* What is remembered until all descriptions are known: file_entry.private. */
struct tty_seen {
	bool own;	      /* the controlling terminal of whoever has it */
	const char *obstacle; /* why a device cannot be opened anew; NULL */
};

static int save_state(int fd, dev_t rdev, Reprise__File *msg, struct error *e)
{
	Reprise__TtyFile *m = msg->tty;
	int exclusive = 0, unread = 0;
	unsigned int dev;

	m->tty = rdev;
	/* hung_up_tty_ioctl() has one answer to all questions, for ever */
	if (ioctl(fd, TIOCGDEV, &dev) < 0 && errno == EIO &&
	    (is_slave(rdev) || is_controlling_alias(rdev))) {
		if (!is_slave(rdev))
			m->tty = makedev(UNIX98_PTY_SLAVE_MAJOR, 0);
		m->hung_up = true;
		return 0;
	}
	msg->outside = true;
	/* /dev/tty and /dev/console stand for another. */
	if (ioctl(fd, TIOCGDEV, &dev) == 0)
		m->tty = makedev((dev >> 8) & 0xfff, (dev & 0xff) | (dev >> 12 & 0xfff00));
	if (ioctl(fd, FIONREAD, &unread) == 0 && unread > 0)
		m->unread = (uint32_t)unread;
	if (ioctl(fd, TIOCGEXCL, &exclusive) == 0)
		m->exclusive = exclusive != 0;
	return pty_refuse_discipline(fd, e);
}

static int tty_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			  struct scratch *scratch, struct error *e)
{
	struct tty_seen *seen = scratch_alloc(scratch, sizeof(*seen));
	struct proc_stat stat;
	int r;

	f->entry->private = (uint64_t)(uintptr_t)seen;
	/* The terminal may have another name after the restart, and another one this name. */
	if (f->flags & O_PATH)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "it is no more than a path (O_PATH) to a terminal");
	msg->tty = scratch_message(scratch, Reprise__TtyFile, reprise__tty_file__init);
	if (!seen || !msg->tty)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a terminal");
	r = save_state(f->local, f->st.st_rdev, msg, e);
	if (r < 0 || msg->tty->hung_up)
		return r;
	if (msg->tty->exclusive && !c->checking) {
		r = pty_exclusive_keep(c, f->entry, f->local, e);
		if (r < 0)
			return r;
	}
	if (tty_is_device(f->st.st_rdev)) {
		r = tty_device_look(f, msg->tty, scratch, &seen->obstacle, e);
		if (r < 0)
			return r;
	}
	msg->tty->controlling = is_controlling_alias(f->st.st_rdev);
	if (msg->tty->controlling || !f->process)
		return 0;
	r = proc_stat_read(c->proc_fd, f->process->frozen->pid, f->tid, &stat, e);
	if (r < 0)
		return r;
	/* Both in the kernel's old encoding, new_encode_dev(). */
	seen->own = (dev_t)stat.tty_nr == f->st.st_rdev;
	return 0;
}

/* Is it the terminal on some standard stream? */
static bool is_standard(const struct checkpoint *c, uint64_t rdev)
{
	vec_for_each (f, &c->files->files)
		if ((*f)->ops == &tty_outside_file_ops && (*f)->rdev == rdev && (*f)->msg->standard)
			return true;
	return false;
}

static int save_or_refuse(struct file_entry *f, const struct tty_seen *seen, struct error *e)
{
	if (!tty_is_device(f->rdev))
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "it is a terminal that is neither the controlling one nor a "
				 "standard stream, and nobody in the tree holds its other side");
	if (seen->obstacle)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"it is neither the controlling terminal nor a standard stream, and "
			"cannot be opened anew: %s",
			seen->obstacle);
	f->msg->outside = false;
	f->msg->tty->device = true;
	return 0;
}

static int tty_checkpoint_all(struct checkpoint *c, struct error *e)
{
	vec_for_each (f, &c->files->files) {
		const struct tty_seen *seen = (void *)(uintptr_t)(*f)->private;
		int r;

		if ((*f)->ops != &tty_outside_file_ops || !(*f)->msg->outside || c->files->unseen ||
		    (*f)->msg->tty->controlling || seen->own || is_standard(c, (*f)->rdev))
			continue;
		r = save_or_refuse(*f, seen, e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, *f), e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int tty_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->tty)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a terminal without its message");
	if (msg->tty->hung_up && !is_slave(msg->tty->tty))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a terminal of an unknown kind that is hung up");
	return msg->tty->device ? tty_device_validate(msg->tty, e) : 0;
}

static int tty_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		       struct error *e)
{
	int flags = (int)(msg->flags & (O_ACCMODE | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC;
	int fd = -ENXIO;

	if (msg->tty->hung_up)
		return pty_open_dead(r, minor(msg->tty->tty), flags, ret_fd, e);
	if (msg->tty->device)
		return tty_device_restart(r, msg->tty, flags, ret_fd, e);
	if (msg->tty->controlling && r->tty_fd >= 0) {
		fd = open("/dev/tty", flags);
		if (fd < 0)
			fd = reopen_fd(r->proc_fd, r->tty_fd, flags);
	}
	if (fd < 0)
		return file_outside_restart(r, msg, ret_fd, e);
	*ret_fd = fd;
	return 0;
}

static void tty_describe(const Reprise__File *msg, char *buf, size_t size)
{
	/* Also asked about images that nobody has validated. */
	if (!msg->tty || msg->tty->controlling)
		snprintf(buf, size, "the controlling terminal");
	else if (msg->tty->device)
		snprintf(buf, size, "%s", msg->tty->path);
	else if (msg->tty->hung_up)
		snprintf(buf, size, "/dev/pts/%u, hung up", minor(msg->tty->tty));
	else
		snprintf(buf, size, "terminal %u:%u outside the tree", major(msg->tty->tty),
			 minor(msg->tty->tty));
}

const struct file_ops tty_outside_file_ops = {
	.kind = FILE_TTY_OUTSIDE,
	.name = "terminal",
	.support =
		"the terminal from which a tree was started: the restart puts its own in its place; "
		"pseudo-terminals that are hung up; other consoles and serial lines with their "
		"settings, as devices of the machine (not in graphics mode)",
	.match = tty_match,
	.checkpoint = tty_checkpoint,
	.checkpoint_all = tty_checkpoint_all,
	.validate = tty_validate,
	.restart = tty_restart,
	.describe = tty_describe,
};
