/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pseudo-terminals of which the tree holds the master: a terminal multiplexer,
 * script(1), sshd. Slaves are seen as terminals first (tty.c), and become part of their
 * pseudo-terminal when all descriptions are known. What is between the two sides is in
 * pty_contents.c, sessions in pty_session.c.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/major.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"
#include "fs/pty_ioctl.h"
#include "fs/pty_private.h"

static bool pty_match(const struct file_seen *f)
{
	uint64_t index;

	/* /dev/ptmx, or the same in a mounted devpts: TTYAUX_MAJOR, minor 2. */
	return S_ISCHR(f->st.st_mode) && f->st.st_rdev == makedev(TTYAUX_MAJOR, 2) &&
	       !(f->flags & O_PATH) && proc_field_u64(f->fdinfo, "tty-index", 10, &index) == 0;
}

static int get_flag(int fd, unsigned long request, protobuf_c_boolean *ret, struct error *e)
{
	int value = 0;

	if (ioctl(fd, request, &value) < 0)
		return error_errno(e, -errno, E_SYSTEM, "ioctl %#lx of a pseudo-terminal", request);
	*ret = value != 0;
	return 0;
}

/* Settings that only a privileged user may change: hardly anybody has them. */
static int save_locked(int fd, Reprise__PtyFile *m, struct scratch *s, struct error *e)
{
	static const struct termios none;
	struct termios locked;

	memset(&locked, 0, sizeof(locked));
	if (ioctl(fd, TIOCGLCKTRMIOS, &locked) < 0)
		return error_errno(e, -errno, E_SYSTEM, "TIOCGLCKTRMIOS");
	if (!memcmp(&locked, &none, sizeof(none)))
		return 0;
	m->termios_locked.len = sizeof(locked);
	m->termios_locked.data = scratch_copy(s, &locked, sizeof(locked));
	if (!m->termios_locked.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pseudo-terminal");
	return 0;
}

static int save_settings(int fd, Reprise__PtyFile *m, struct scratch *s, struct error *e)
{
	struct termios2 termios;
	struct winsize size;
	int r;

	/* On a master these are about the slave (tty_pair_get_tty()). */
	if (ioctl(fd, TCGETS2, &termios) < 0 || ioctl(fd, TIOCGWINSZ, &size) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot read a pseudo-terminal's settings");
	m->termios.len = sizeof(termios);
	m->termios.data = scratch_copy(s, &termios, sizeof(termios));
	m->winsize.len = sizeof(size);
	m->winsize.data = scratch_copy(s, &size, sizeof(size));
	if (!m->termios.data || !m->winsize.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pseudo-terminal");
	r = save_locked(fd, m, s, e);
	if (r >= 0)
		r = get_flag(fd, TIOCGPKT, &m->packet, e);
	if (r >= 0)
		r = get_flag(fd, TIOCGPTLCK, &m->locked, e);
	return r < 0 ? r : get_flag(fd, TIOCGEXCL, &m->exclusive, e);
}

int pty_refuse_discipline(int fd, struct error *e)
{
	int discipline = 0;

	if (ioctl(fd, TIOCGETD, &discipline) < 0)
		return error_errno(e, -errno, E_SYSTEM, "TIOCGETD");
	if (discipline)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "line discipline %d (a network protocol, for instance) is on the "
				 "terminal, and cannot be saved",
				 discipline);
	return 0;
}

static void save_node(Reprise__PtyFile *m)
{
	char path[32];
	struct stat st;

	snprintf(path, sizeof(path), "/dev/pts/%d", m->index);
	if (stat(path, &st) < 0)
		return;
	m->uid = st.st_uid;
	m->gid = st.st_gid;
	m->mode = st.st_mode & 07777;
}

static int pty_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			  struct scratch *scratch, struct error *e)
{
	Reprise__PtyFile *m = scratch_message(scratch, Reprise__PtyFile, reprise__pty_file__init);
	struct pollfd p = {.fd = f->local, .events = POLLIN};
	uint64_t index;
	int r;

	if (!m || proc_field_u64(f->fdinfo, "tty-index", 10, &index) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pseudo-terminal");
	msg->pty = m;
	m->master = true;
	m->index = (int32_t)index;
	r = pty_refuse_discipline(f->local, e);
	if (r >= 0)
		r = save_settings(f->local, m, scratch, e);
	if (r < 0)
		return r;
	save_node(m);
	m->hung_up = poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
	if (!c->checking)
		r = pty_master_keep(c, f->entry, f->local, e);
	if (r < 0)
		return r;
	return inode_checkpoint(c, f->process, f->local, f->link, &m->inode, e);
}

static struct file_entry *master_of(const struct checkpoint *c, uint64_t tty)
{
	vec_for_each (f, &c->files->files)
		if ((*f)->ops == &pty_file_ops && (*f)->msg->pty->master &&
		    tty == makedev(UNIX98_PTY_SLAVE_MAJOR, (unsigned int)(*f)->msg->pty->index))
			return *f;
	return NULL;
}

/* A terminal whose master is here is not outside. */
static int adopt_slave(struct checkpoint *c, struct file_entry *f, struct file_entry *master,
		       struct error *e)
{
	Reprise__PtyFile *m =
		scratch_message(&c->files->scratch, Reprise__PtyFile, reprise__pty_file__init);

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pseudo-terminal");
	m->pty = master->id;
	m->index = master->msg->pty->index;
	m->exclusive = f->msg->tty->exclusive;
	m->by_alias = f->msg->tty->controlling;
	master->msg->pty->slave_known = true;
	f->ops = &pty_file_ops;
	f->msg->kind = FILE_PTY;
	f->msg->pty = m;
	f->msg->tty = NULL;
	f->msg->outside = false;
	return 0;
}

static int pty_checkpoint_all(struct checkpoint *c, struct error *e)
{
	vec_for_each (f, &c->files->files) {
		struct file_entry *master;
		int r;

		if ((*f)->ops != &tty_outside_file_ops || (*f)->msg->tty->hung_up)
			continue;
		master = master_of(c, (*f)->msg->tty->tty);
		if (!master)
			continue;
		r = adopt_slave(c, *f, master, e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, *f), e);
		if (r < 0)
			return r;
	}
	return c->checking ? 0 : pty_contents_save(c, e);
}

/* ---- restart ---- */

static int pty_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__PtyFile *m = msg->pty;
	const Reprise__File *master;
	int res;

	if (!m || m->index < 0)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a pseudo-terminal without number");
	if (m->master) {
		if (m->termios.len != sizeof(struct termios2) ||
		    m->winsize.len != sizeof(struct winsize) ||
		    (m->termios_locked.len && m->termios_locked.len != sizeof(struct termios)))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a pseudo-terminal without settings");
		res = pty_contents_validate(m, e);
		return res < 0 ? res : inode_validate(r, m->inode, e);
	}
	master = restart_find(r, RECORD_FILE, m->pty);
	if (!master || master->kind != FILE_PTY || !master->pty || !master->pty->master)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a pseudo-terminal without master");
	return 0;
}

#define ATTEMPTS_MAX 4096 /* kernel.pty.max, as it is unless somebody has changed it */

static void warn_number(struct restart *r, int was, int is)
{
	struct error warning = {};

	error_set(&warning, -EEXIST, E_RESTORE, "/dev/pts/%d is taken, and became /dev/pts/%d", was,
		  is);
	if (r->warn)
		r->warn(r->warn_arg, &warning);
}

static void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

/*
 * The kernel gives out the lowest number that is free (devpts_new_index()): those
 * below the wanted one are taken for the moment. inode 0: whatever /dev/ptmx is.
 */
static int open_numbered(struct restart *r, uint64_t inode, unsigned int flags, int wanted,
			 int *ret_fd, int *ret_index, struct error *e)
{
	int low[ATTEMPTS_MAX], index = -1, fd = -1, res = 0;
	size_t n = 0;

	while (n < ATTEMPTS_MAX) {
		if (inode)
			res = narrow_inode_open(r, inode, (int)flags | O_NOCTTY, &fd, e);
		else if ((fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
			res = error_errno(e, -errno, E_RESTORE, "cannot open /dev/ptmx");
		if (res < 0)
			break;
		if (ioctl(fd, TIOCGPTN, &index) < 0) {
			res = error_errno(e, -errno, E_RESTORE, "TIOCGPTN");
			close(fd);
			break;
		}
		if (index >= wanted)
			break;
		low[n++] = fd;
	}
	close_all(low, n);
	if (res < 0)
		return res;
	if (n == ATTEMPTS_MAX)
		return error_set(e, -EMFILE, E_RESTORE, "cannot make pseudo-terminal %d", wanted);
	*ret_fd = fd;
	*ret_index = index;
	return 0;
}

static int open_slave(int master, int flags, int *ret_fd, struct error *e)
{
	/* With O_CLOEXEC F_GETFL would show it from now on (ptm_open_peer() passes it on as it is).
	 */
	int fd = ioctl(master, TIOCGPTPEER, (flags & ~O_CLOEXEC) | O_NOCTTY);

	if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot open the slave of a pseudo-terminal");
	*ret_fd = fd;
	return 0;
}

int pty_open_dead(struct restart *r, unsigned int index, int flags, int *ret_fd, struct error *e)
{
	_cleanup_(close_fd) int master = -EBADF;
	const int unlocked = 0;
	int unused, res = open_numbered(r, 0, 0, (int)index, &master, &unused, e);

	if (res < 0)
		return res;
	if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
		return error_errno(e, -errno, E_RESTORE, "TIOCSPTLCK");
	return open_slave(master, flags, ret_fd, e);
}

/* What shows where a user namespace has no name for a group (overflowgid). */
#define NO_GROUP 65534

/*
 * devpts gives all slaves the group that it was mounted for, as a rule that of terminals. In a user
 * namespace without that group a slave cannot be given to it, and need not: it belongs to it.
 */
static int set_group(int slave, const struct stat *st, gid_t gid)
{
	if (st->st_gid == gid || fchown(slave, (uid_t)-1, gid) == 0)
		return 0;
	return errno == EINVAL && st->st_gid == NO_GROUP ? 0 : -errno;
}

static int set_node(int slave, const Reprise__PtyFile *m, struct error *e)
{
	struct stat st;
	int r;

	if (fstat(slave, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat of a pseudo-terminal");
	r = st.st_uid != m->uid && fchown(slave, m->uid, (gid_t)-1) < 0 ? -errno : 0;
	if (r >= 0)
		r = set_group(slave, &st, m->gid);
	if (r < 0)
		return error_errno(e, r, E_CREDENTIALS,
				   "cannot give a pseudo-terminal to user %u, group %u", m->uid,
				   m->gid);
	if ((st.st_mode & 07777) != m->mode && fchmod(slave, m->mode & 07777) < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot set the mode of a pseudo-terminal");
	return 0;
}

/* Nobody has it yet: nobody is told of a change. */
static int set_settings(const struct pty_sides *p, const Reprise__PtyFile *m, struct error *e)
{
	const int on = 1;
	int res = set_node(p->slave, m, e);

	if (res >= 0 && (ioctl(p->slave, TCSETS2, m->termios.data) < 0 ||
			 ioctl(p->slave, TIOCSWINSZ, m->winsize.data) < 0))
		res = error_errno(e, -errno, E_RESTORE, "cannot set up a pseudo-terminal");
	if (res >= 0)
		res = pty_contents_put(p->master, p->slave, m, e);
	if (res >= 0 && m->packet && ioctl(p->master, TIOCPKT, &on) < 0)
		res = error_errno(e, -errno, E_RESTORE, "cannot set packet mode");
	if (res >= 0 && m->termios_locked.len &&
	    ioctl(p->slave, TIOCSLCKTRMIOS, m->termios_locked.data) < 0)
		res = error_errno(e, -errno, E_CREDENTIALS,
				  "cannot lock the settings of a pseudo-terminal");
	return res;
}

static int restart_master(struct restart *r, const Reprise__File *msg, int *ret_fd, struct error *e)
{
	const Reprise__PtyFile *m = msg->pty;
	_cleanup_(close_fd) int fd = -EBADF;
	struct pty_sides sides = {.slave = -1, .exclusive = -1};
	int index, res;

	res = open_numbered(r, m->inode, msg->flags, m->index, &fd, &index, e);
	if (res < 0)
		return res;
	if (index != m->index)
		warn_number(r, m->index, index);
	sides.master = fd;
	res = pty_sides_open(&sides);
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot open the slave of a pseudo-terminal");
	res = set_settings(&sides, m, e);
	/* It stays unlocked, for others to be opened; and is hung up only where that was so. */
	sides.untouched = !m->hung_up;
	sides.locked = false;
	pty_sides_close(&sides);
	if (res >= 0)
		*ret_fd = take_fd(&fd);
	return res;
}

static int restart_slave(struct restart *r, const Reprise__File *msg, int *ret_fd, struct error *e)
{
	struct file_open *master = vec_find_id(&r->files->files, msg->pty->pty);
	int flags = (int)(msg->flags & (O_ACCMODE | O_NONBLOCK | KERNEL_O_LARGEFILE));
	int res = master->fd >= 0 ? 0 : file_open_now(r, master, e);

	if (res < 0)
		return res;
	if (msg->pty->by_alias) {
		res = pty_open_alias(r, master, flags, ret_fd, e);
		if (res != -ENOTTY)
			return res;
	}
	return open_slave(master->fd, flags, ret_fd, e);
}

static int pty_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		       struct error *e)
{
	return msg->pty->master ? restart_master(r, msg, ret_fd, e)
				: restart_slave(r, msg, ret_fd, e);
}

/* From now on nobody opens the slave. */
static int set_locks(const struct file_open *f, struct error *e)
{
	const int on = 1;

	if ((f->msg->pty->exclusive && ioctl(f->fd, TIOCEXCL) < 0) ||
	    (f->msg->pty->locked && ioctl(f->fd, TIOCSPTLCK, &on) < 0))
		return error_errno(e, -errno, E_RESTORE, "cannot lock a pseudo-terminal");
	return 0;
}

static int pty_restart_all(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (f, &r->files->files)
		if (f->ops == &pty_file_ops && f->msg->pty->master && res >= 0)
			res = pty_session_restart(r, f, e);
	vec_for_each (f, &r->files->files)
		if (f->ops == &pty_file_ops && res >= 0)
			res = set_locks(f, e);
	return res;
}

static void pty_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "%s of /dev/pts/%d", msg->pty && msg->pty->master ? "master" : "slave",
		 msg->pty ? msg->pty->index : -1);
}

const struct file_ops pty_file_ops = {
	.kind = FILE_PTY,
	.name = "pseudo-terminal",
	.support =
		"both sides inside: settings, size, packet mode, sessions, foreground groups, output "
		"that is stopped, what is queued both ways, a line that is half typed; not with a "
		"line discipline of its own",
	.match = pty_match,
	.checkpoint = pty_checkpoint,
	.checkpoint_all = pty_checkpoint_all,
	.checkpoint_end = pty_masters_free,
	.validate = pty_validate,
	.restart = pty_restart,
	.after_tasks = true, /* as late as can be: the number may be in use till then */
	.restart_all = pty_restart_all,
	.describe = pty_describe,
};
