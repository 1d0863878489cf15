/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file.h"
#include "model/pids.h"
#include "operation/terminal.h"

int terminal_find(struct restart *r)
{
	r->tty_fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	return 0;
}

/* ioctl() on our terminal by a task: its result. */
static int in_task(struct restart *r, struct restart_process *p, unsigned long request,
		   const int32_t *value, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct restart_task *t = &p->tasks.v[0];
	int remote, call, res = restart_send_fds(r, t, &r->tty_fd, 1, &remote, e);

	if (res < 0)
		return res;
	/* 1: see TIOCSCTTY below */
	call = batch_call(&b, SYS_ioctl, VAL(remote), VAL(request),
			  value ? DATA(batch_data(&b, value, sizeof(*value))) : VAL(1));
	batch_call(&b, SYS_close, VAL(remote));
	res = agent_run(p->agent, t->tid, NULL, &b, e);
	return res < 0 ? res : (int)batch_result(&b, call);
}

/* A group lives as long as one process of the session is in it. */
static bool group_exists(const struct restart *r, const Reprise__Process *leader)
{
	vec_for_each (p, &r->processes)
		if (p->msg->pgid == leader->tty_pgrp && p->msg->sid == leader->sid)
			return true;
	return false;
}

/* Does the root lead a session on the terminal that ours takes the place of? */
static bool takes_ours(const struct restart *r)
{
	const struct restart_process *root = &r->processes.v[0];

	if (!root->msg->controlling_tty || root->msg->sid != root->vpid || r->tty_fd < 0)
		return false;
	return getsid(0) == getppid() && !files_restart_own_terminal(r, root);
}

int terminal_session(struct restart *r, struct restart_process *leader, struct error *e)
{
	int res;

	if (leader != &r->processes.v[0] || !takes_ours(r))
		return files_restart_session(r, leader, e);
	/* 1: take it away from our session (CAP_SYS_ADMIN), which is this process and the one that
	 * waits */
	res = in_task(r, leader, TIOCSCTTY, NULL, e);
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot take over the controlling terminal")
		       : 0;
}

int terminal_restart(struct restart *r, struct error *e)
{
	struct restart_process *root = &r->processes.v[0];
	int32_t pgrp = root->msg->tty_pgrp;
	int res = 0;

	if (!takes_ours(r))
		return 0;
	pgrp = restart_pid_in(r, pgrp, root->msg->pid_namespace);
	if (pgrp > 0 && group_exists(r, root->msg))
		ignore(in_task(r, root, TIOCSPGRP, &pgrp, e), "it runs in the background then");
	vec_for_each (p, &r->processes)
		if (res >= 0 && p != root && !p->msg->zombie && p->msg->sid == root->vpid &&
		    !p->msg->controlling_tty)
			res = in_task(r, p, TIOCNOTTY, NULL, e);
	return res == -ENOTTY ? 0 : res;
}
