/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file.h"
#include "operation/terminal.h"

int terminal_find(struct restart *r)
{
	r->tty_fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	return 0;
}

static int in_task(struct restart_task *t, int fd, unsigned long request, uint64_t arg,
		   struct error *e)
{
	const uint64_t args[6] = {(uint64_t)fd, request, arg};

	return (int)agent_syscall(t->process->agent, t->tid, NULL, e, SYS_ioctl, args);
}

/* A group lives as long as one process of the session is in it. */
static bool group_exists(const struct restart *r, const Reprise__Process *leader)
{
	vec_for_each (p, &r->processes)
		if (p->msg->pgid == leader->tty_pgrp && p->msg->sid == leader->sid)
			return true;
	return false;
}

static int take_terminal(struct restart *r, struct restart_task *t, struct error *e)
{
	const Reprise__Process *m = t->process->msg;
	int remote, res = restart_send_fds(r, t, &r->tty_fd, 1, &remote, e);

	if (res < 0)
		return res;
	/* 1: take it away from our session (CAP_SYS_ADMIN), which is this process and the one that
	 * waits */
	res = in_task(t, remote, TIOCSCTTY, 1, e);
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot take over the controlling terminal");
	if (m->tty_pgrp > 0 && group_exists(r, m)) {
		_cleanup_(batch_free) struct batch b = {};
		int32_t pgrp = m->tty_pgrp;

		batch_call(&b, SYS_ioctl, VAL(remote), VAL(TIOCSPGRP),
			   DATA(batch_data(&b, &pgrp, sizeof(pgrp))));
		res = agent_run(t->process->agent, t->tid, NULL, &b, e);
	}
	if (res >= 0)
		res = (int)agent_syscall(t->process->agent, t->tid, NULL, e, SYS_close,
					 (const uint64_t[6]){(uint64_t)remote});
	return res;
}

int terminal_restart(struct restart *r, struct error *e)
{
	struct restart_process *root = &r->processes.v[0];

	if (!root->msg->controlling_tty || root->msg->sid != root->vpid || r->tty_fd < 0)
		return 0;
	if (getsid(0) != getppid() || files_restart_own_terminal(r, root))
		return 0;
	return take_terminal(r, &root->tasks.v[0], e);
}
