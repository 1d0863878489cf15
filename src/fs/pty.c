/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pseudo-terminals of which the tree holds the master: a terminal multiplexer,
 * script(1), sshd. Slaves are seen as terminals first (tty.c), and become part of their
 * pseudo-terminal when all descriptions are known.
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
	r = get_flag(fd, TIOCGPKT, &m->packet, e);
	if (r >= 0)
		r = get_flag(fd, TIOCGPTLCK, &m->locked, e);
	return r < 0 ? r : get_flag(fd, TIOCGEXCL, &m->exclusive, e);
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
	int r, unread = 0;

	if (!m || proc_field_u64(f->fdinfo, "tty-index", 10, &index) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pseudo-terminal");
	msg->pty = m;
	m->master = true;
	m->index = (int32_t)index;
	r = save_settings(f->local, m, scratch, e);
	if (r < 0)
		return r;
	save_node(m);
	m->hung_up = poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
	if (!c->checking && ioctl(f->local, FIONREAD, &unread) == 0 && unread)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "the pseudo-terminal holds %d bytes of output that have not been "
				 "read; try again",
				 unread);
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
static int adopt_slave(struct checkpoint *c, struct file_entry *f, const struct file_entry *master,
		       struct error *e)
{
	Reprise__PtyFile *m =
		scratch_message(&c->files->scratch, Reprise__PtyFile, reprise__pty_file__init);

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pseudo-terminal");
	if (f->msg->tty->unread && !c->checking)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "the pseudo-terminal holds %u bytes of input that have not been "
				 "read; try again",
				 f->msg->tty->unread);
	m->pty = master->id;
	m->index = master->msg->pty->index;
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
		const struct file_entry *master;
		int r;

		if ((*f)->ops != &tty_outside_file_ops)
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
	return 0;
}

/* ---- restart ---- */

static int pty_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__PtyFile *m = msg->pty;
	const Reprise__File *master;

	if (!m || m->index < 0)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a pseudo-terminal without number");
	if (m->master) {
		if (m->termios.len != sizeof(struct termios2) ||
		    m->winsize.len != sizeof(struct winsize))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a pseudo-terminal without settings");
		return inode_validate(r, m->inode, e);
	}
	master = restart_find(r, RECORD_FILE, m->pty);
	if (!master || master->kind != FILE_PTY || !master->pty || !master->pty->master)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a pseudo-terminal without master");
	return 0;
}

#define ATTEMPTS_MAX 256

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
 * below the wanted one are taken for the moment.
 */
static int open_master(struct restart *r, const Reprise__File *msg, int *ret_fd, struct error *e)
{
	int low[ATTEMPTS_MAX], index = -1, fd = -1, res = 0;
	size_t n = 0;

	while (n < ATTEMPTS_MAX) {
		res = inode_open(r, msg->pty->inode, (int)msg->flags | O_NOCTTY, &fd, e);
		if (res < 0)
			break;
		if (ioctl(fd, TIOCGPTN, &index) < 0) {
			res = error_errno(e, -errno, E_RESTORE, "TIOCGPTN");
			close(fd);
			break;
		}
		if (index >= msg->pty->index)
			break;
		low[n++] = fd;
	}
	close_all(low, n);
	if (res < 0)
		return res;
	if (n == ATTEMPTS_MAX)
		return error_set(e, -EMFILE, E_RESTORE, "cannot make pseudo-terminal %d",
				 msg->pty->index);
	*ret_fd = fd;
	if (index != msg->pty->index)
		warn_number(r, msg->pty->index, index);
	return 0;
}

static int set_node(int master, const Reprise__PtyFile *m, struct error *e)
{
	_cleanup_(close_fd) int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (slave < 0 || fstat(slave, &st) < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot open the slave of a pseudo-terminal");
	if ((st.st_uid != m->uid || st.st_gid != m->gid) && fchown(slave, m->uid, m->gid) < 0)
		return error_errno(e, -errno, E_CREDENTIALS,
				   "cannot give a pseudo-terminal to user %u, group %u", m->uid,
				   m->gid);
	if ((st.st_mode & 07777) != m->mode && fchmod(slave, m->mode & 07777) < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot set the mode of a pseudo-terminal");
	return 0;
}

static int restart_master(struct restart *r, const Reprise__File *msg, int *ret_fd, struct error *e)
{
	const int unlocked = 0;
	_cleanup_(close_fd) int fd = -EBADF;
	int res = open_master(r, msg, &fd, e);

	if (res < 0)
		return res;
	if (ioctl(fd, TIOCSPTLCK, &unlocked) < 0)
		return error_errno(e, -errno, E_RESTORE, "TIOCSPTLCK");
	/* To open and close a slave hangs up the master until the next one is opened: only where
	 * that was so. */
	if (msg->pty->hung_up) {
		res = set_node(fd, msg->pty, e);
		if (res < 0)
			return res;
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

static int pty_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		       struct error *e)
{
	struct file_open *master;
	int fd, res;

	if (msg->pty->master)
		return restart_master(r, msg, ret_fd, e);
	master = vec_find_id(&r->files->files, msg->pty->pty);
	res = master->fd >= 0 ? 0 : file_open_now(r, master, e);
	if (res < 0)
		return res;
	fd = ioctl(master->fd, TIOCGPTPEER,
		   (int)(msg->flags & (O_ACCMODE | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot open the slave of a pseudo-terminal");
	*ret_fd = fd;
	if (!master->pty_set) {
		const Reprise__PtyFile *m = master->msg->pty;

		master->pty_set = true;
		return set_node(master->fd, m, e);
	}
	return 0;
}

/* The terminal of a session: only its leader can make it so. */
static int set_session(struct restart *r, struct restart_process *p, int master, struct error *e)
{
	_cleanup_(close_fd) int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	_cleanup_(batch_free) struct batch b = {};
	struct restart_task *t = &p->tasks.v[0];
	int32_t group = p->msg->tty_pgrp;
	int remote, res, take;

	if (slave < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot open the slave of a pseudo-terminal");
	res = restart_send_fds(r, t, &slave, 1, &remote, e);
	if (res < 0)
		return res;
	take = batch_call(&b, SYS_ioctl, VAL(remote), VAL(TIOCSCTTY), VAL(0));
	if (group > 0 && group != p->msg->pgid && restart_task_by_vtid(r, group))
		batch_call(&b, SYS_ioctl, VAL(remote), VAL(TIOCSPGRP),
			   DATA(batch_data(&b, &group, sizeof(group))));
	batch_call(&b, SYS_close, VAL(remote));
	res = agent_run(p->agent, t->tid, NULL, &b, e);
	if (res >= 0 && batch_result(&b, take) < 0)
		res = error_errno(e, (int)batch_result(&b, take), E_RESTORE,
				  "cannot make a pseudo-terminal the terminal of session %d",
				  p->vpid);
	return res;
}

static int set_settings(const struct file_open *f, struct error *e)
{
	const Reprise__PtyFile *m = f->msg->pty;
	const int on = 1;

	if (ioctl(f->fd, TCSETS2, m->termios.data) < 0 ||
	    ioctl(f->fd, TIOCSWINSZ, m->winsize.data) < 0 ||
	    (m->packet && ioctl(f->fd, TIOCPKT, &on) < 0))
		return error_errno(e, -errno, E_RESTORE, "cannot set up a pseudo-terminal");
	return 0;
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
	vec_for_each (f, &r->files->files) {
		int res;

		if (f->ops != &pty_file_ops || !f->msg->pty->master)
			continue;
		/* Size and settings come before the session: nobody is told of a change. */
		res = set_settings(f, e);
		vec_for_each (p, &r->processes)
			if (res >= 0 && p->msg->controlling_tty && p->msg->sid == p->vpid &&
			    !p->msg->zombie &&
			    p->msg->tty_nr == makedev(UNIX98_PTY_SLAVE_MAJOR,
						      (unsigned int)f->msg->pty->index))
				res = set_session(r, p, f->fd, e);
		if (res >= 0)
			res = set_locks(f, e);
		if (res < 0)
			return res;
	}
	return 0;
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
		"both sides inside: settings, size, packet mode, sessions, foreground groups; not "
		"with unread input or output, and without a line that is half typed",
	.match = pty_match,
	.checkpoint = pty_checkpoint,
	.checkpoint_all = pty_checkpoint_all,
	.validate = pty_validate,
	.restart = pty_restart,
	.after_tasks = true, /* as late as can be: the number may be in use till then */
	.restart_all = pty_restart_all,
	.describe = pty_describe,
};
