/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions with a pseudo-terminal of the tree, and what only they can open: /dev/tty. */
#include <errno.h>
#include <fcntl.h>
#include <linux/major.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_private.h"
#include "fs/pty_ioctl.h"
#include "fs/pty_private.h"
#include "model/pids.h"

static struct restart_process *session_leader(struct restart *r, const struct file_open *master)
{
	dev_t tty = makedev(UNIX98_PTY_SLAVE_MAJOR, (unsigned int)master->msg->pty->index);

	vec_for_each (p, &r->processes)
		if (p->msg->controlling_tty && p->msg->sid == p->vpid && !p->msg->zombie &&
		    p->msg->tty_nr == tty)
			return p;
	return NULL;
}

bool files_restart_own_terminal(const struct restart *r, const struct restart_process *leader)
{
	const Reprise__File *f;

	for (size_t i = 0; (f = restart_nth(r, RECORD_FILE, i, NULL)); i++)
		if (f->kind == FILE_PTY && f->pty && f->pty->master &&
		    leader->msg->tty_nr ==
			    makedev(UNIX98_PTY_SLAVE_MAJOR, (unsigned int)f->pty->index))
			return true;
	return false;
}

/* A group lives as long as one process is in it. */
static bool group_exists(struct restart *r, const struct restart_process *leader, pid_t group)
{
	vec_for_each (p, &r->processes)
		if (p->msg->pgid == group && p->msg->sid == leader->vpid)
			return true;
	return false;
}

/* A call of ioctl() on the slave, by a process of the session. */
static int on_slave(struct restart *r, struct restart_process *p, int master, unsigned long request,
		    const int32_t *value, struct error *e)
{
	_cleanup_(close_fd) int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	_cleanup_(batch_free) struct batch b = {};
	struct restart_task *t = &p->tasks.v[0];
	int remote, res, call;

	if (slave < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot open the slave of a pseudo-terminal");
	res = restart_send_fds(r, t, &slave, 1, &remote, e);
	if (res < 0)
		return res;
	call = batch_call(&b, SYS_ioctl, VAL(remote), VAL(request),
			  value ? DATA(batch_data(&b, value, sizeof(*value))) : VAL(0));
	batch_call(&b, SYS_close, VAL(remote));
	res = agent_run(p->agent, t->tid, NULL, &b, e);
	return res < 0 ? res : (int)batch_result(&b, call);
}

/* Children have the terminal from their parent alone, so it must be there before they are. */
int files_restart_session(struct restart *r, struct restart_process *leader, struct error *e)
{
	vec_for_each (f, &r->files->files) {
		int res;

		if (f->msg->kind != FILE_PTY || !f->msg->pty->master ||
		    session_leader(r, f) != leader)
			continue;
		res = f->fd >= 0 ? 0 : file_open_now(r, f, e);
		if (res < 0)
			return res;
		res = on_slave(r, leader, f->fd, TIOCSCTTY, NULL, e);
		if (res < 0)
			return error_errno(
				e, res, E_RESTORE,
				"cannot make a pseudo-terminal the terminal of session %d",
				leader->vpid);
	}
	return 0;
}

/* Those of the session that were there before it had the terminal, or have given it up. */
static int give_up(struct restart *r, struct restart_process *leader, int master, struct error *e)
{
	vec_for_each (p, &r->processes) {
		int res;

		if (p->msg->sid != leader->vpid || p->msg->controlling_tty || p->msg->zombie ||
		    p == leader)
			continue;
		res = on_slave(r, p, master, TIOCNOTTY, NULL, e);
		if (res < 0 && res != -ENOTTY)
			return error_errno(e, res, E_RESTORE, "task %d cannot give up its terminal",
					   p->vpid);
	}
	return 0;
}

static int set_foreground(struct restart *r, struct restart_process *leader, int master,
			  pid_t group, struct error *e)
{
	int32_t number = restart_pid_in(r, group, leader->msg->pid_namespace);

	return number ? on_slave(r, leader, master, TIOCSPGRP, &number, e) : -ESRCH;
}

int pty_session_restart(struct restart *r, struct file_open *master, struct error *e)
{
	struct restart_process *leader = session_leader(r, master);
	int32_t group = leader ? leader->msg->tty_pgrp : 0;
	int res = 0;

	if (master->pty_session || !leader)
		return 0;
	master->pty_session = true;
	if (group > 0 && group != leader->msg->pgid && group_exists(r, leader, group))
		res = set_foreground(r, leader, master->fd, group, e);
	if (res < 0)
		return error_errno(e, res, E_RESTORE,
				   "cannot put process group %d in the foreground", group);
	return give_up(r, leader, master->fd, e);
}

int pty_open_alias(struct restart *r, struct file_open *master, int flags, int *ret_fd,
		   struct error *e)
{
	struct restart_process *leader = session_leader(r, master);
	_cleanup_(batch_free) struct batch b = {};
	_cleanup_(close_fd) int pidfd = -EBADF;
	static const char path[] = "/dev/tty";
	int call =
		batch_call(&b, SYS_openat, VAL(AT_FDCWD), DATA(batch_data(&b, path, sizeof(path))),
			   VAL(flags | O_NOCTTY | O_CLOEXEC), VAL(0));
	int res, fd = -1;

	if (!leader)
		return -ENOTTY;
	res = agent_run(leader->agent, leader->tasks.v[0].tid, NULL, &b, e);
	if (res < 0)
		return res;
	if (batch_result(&b, call) < 0)
		return error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				   "session %d cannot open /dev/tty", leader->vpid);
	pidfd = (int)syscall(SYS_pidfd_open, leader->pid, 0);
	if (pidfd >= 0)
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, batch_result(&b, call), 0);
	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot take over /dev/tty");
	*ret_fd = fd;
	return (int)agent_syscall(leader->agent, leader->tasks.v[0].tid, NULL, e, SYS_close,
				  (const uint64_t[6]){(uint64_t)batch_result(&b, call)});
}
