/* SPDX-License-Identifier: Apache-2.0 */
/* The way into the namespaces of a container that is to be saved. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "remote/hand.h"
#include "ns/container.h"
#include "ns/outsider.h"
#include "ns/userns.h"

/* A /proc for the namespaces that we are in, whether one is mounted there or not. */
static int open_proc(struct container *ct, struct error *e)
{
	_cleanup_(close_fd) int fs = fsopen("proc", FSOPEN_CLOEXEC);

	/* In a user namespace that does not own the pid namespace, which is still the one of
	 * before. */
	if (!(ct->own & CLONE_NEWPID) && (ct->own & CLONE_NEWUSER)) {
		ct->proc_fd = fcntl(ct->host_proc, F_DUPFD_CLOEXEC, 3);
		return ct->proc_fd < 0
			       ? error_errno(e, -errno, E_SYSTEM, "cannot duplicate a descriptor")
			       : 0;
	}
	if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return error_errno(e, -errno, E_NAMESPACE,
				   "cannot look into /proc of the container");
	ct->proc_fd = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	return ct->proc_fd < 0 ? error_errno(e, -errno, E_NAMESPACE,
					     "cannot look into /proc of the container")
			       : 0;
}

/* user: that of the container; its tasks may be in one below it. Root's checkpoint is hidden from
 * root there, who could trace it and has no power over what it has open. */
static int enter_user(const struct container *ct, int user, struct error *e)
{
	const bool foreign = userns_is_foreign(&ct->msg), hide = userns_is_first(ct->host_proc);
	int r = 0;

	if (setns(user, CLONE_NEWUSER) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot enter the user namespace");
	if (foreign)
		r = userns_become(&ct->msg, e);
	if (r >= 0 && hide && prctl(PR_SET_DUMPABLE, 0) < 0)
		r = error_errno(e, -errno, E_SYSTEM, "prctl");
	return r < 0 ? r : hand_keep_tie(e);
}

/* The pid namespace is that of our children. */
static int go_on_inside(struct container *ct, struct error *e)
{
	outsider_note(ct->outside, getpid());
	return hand_step(e);
}

int container_enter_all(struct container *ct, pid_t pid, int user, struct error *e)
{
	_cleanup_(close_fd) int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	/* Our clocks stay what they are, by which times in the kernel's memory are told. */
	int flags = (int)(ct->own & ~(uint64_t)(CLONE_NEWTIME | CLONE_NEWUSER));
	int r = 0;

	if (pidfd < 0)
		return error_errno(e, -errno, E_TASK_GONE, "task %d", pid);
	if (ct->own & CLONE_NEWPID)
		r = outsider_new(&ct->outside, ct->host_proc, pidfd, pid, e);
	if (r >= 0 && ct->own & CLONE_NEWUSER)
		r = enter_user(ct, user, e);
	if (r >= 0 && flags && setns(pidfd, flags) < 0)
		r = error_errno(e, -errno, E_NAMESPACE, "cannot enter the namespaces of task %d",
				pid);
	if (r >= 0 && ct->own & CLONE_NEWPID)
		r = go_on_inside(ct, e);
	if (r >= 0 && (ct->own & (CLONE_NEWPID | CLONE_NEWNS)))
		r = open_proc(ct, e);
	return r;
}
