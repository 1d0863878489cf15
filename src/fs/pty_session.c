/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions with a pseudo-terminal of the tree, and what only they can open: /dev/tty. */
#include <errno.h>
#include <fcntl.h>
#include <linux/major.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/pty_ioctl.h"
#include "fs/pty_private.h"

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

/* Only the leader can make it the terminal of its session. */
static int set_session(struct restart *r, struct restart_process *p, int master, struct error *e)
{
	_cleanup_(close_fd) int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	_cleanup_(batch_free) struct batch b = {};
	struct restart_task *t = &p->tasks.v[0];
	int32_t group = p->msg->tty_pgrp;
	int remote, res, take, give = -1;

	if (slave < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot open the slave of a pseudo-terminal");
	res = restart_send_fds(r, t, &slave, 1, &remote, e);
	if (res < 0)
		return res;
	take = batch_call(&b, SYS_ioctl, VAL(remote), VAL(TIOCSCTTY), VAL(0));
	if (group > 0 && group != p->msg->pgid && group_exists(r, p, group))
		give = batch_call(&b, SYS_ioctl, VAL(remote), VAL(TIOCSPGRP),
				  DATA(batch_data(&b, &group, sizeof(group))));
	batch_call(&b, SYS_close, VAL(remote));
	res = agent_run(p->agent, t->tid, NULL, &b, e);
	if (res >= 0 && batch_result(&b, take) < 0)
		return error_errno(e, (int)batch_result(&b, take), E_RESTORE,
				   "cannot make a pseudo-terminal the terminal of session %d",
				   p->vpid);
	if (res >= 0 && give >= 0 && batch_result(&b, give) < 0)
		return error_errno(e, (int)batch_result(&b, give), E_RESTORE,
				   "cannot put process group %d in the foreground", group);
	return res;
}

int pty_session_restart(struct restart *r, struct file_open *master, struct error *e)
{
	struct restart_process *leader = session_leader(r, master);

	if (master->pty_session || !leader)
		return 0;
	master->pty_session = true;
	return set_session(r, leader, master->fd, e);
}

int pty_open_alias(struct restart *r, struct file_open *master, int flags, int *ret_fd,
		   struct error *e)
{
	struct restart_process *leader = session_leader(r, master);
	_cleanup_(batch_free) struct batch b = {};
	_cleanup_(close_fd) int pidfd = -EBADF;
	static const char path[] = "/dev/tty";
	int res, call, fd = -1;

	if (!leader)
		return -ENOTTY;
	res = pty_session_restart(r, master, e);
	if (res < 0)
		return res;
	call = batch_call(&b, SYS_openat, VAL(AT_FDCWD), DATA(batch_data(&b, path, sizeof(path))),
			  VAL(flags | O_NOCTTY | O_CLOEXEC), VAL(0));
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
