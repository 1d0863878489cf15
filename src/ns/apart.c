/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/apart.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"

/* From here on systemd and the distributions give no ids to anybody (systemd's UIDS-GIDS.md). */
#define FIRST 0x70000000u
#define COUNT 65536u

static int write_map(int proc_fd, pid_t pid, const char *name)
{
	_cleanup_(close_fd) int fd = procfs_open(proc_fd, O_WRONLY, NULL, "%d/%s", (int)pid, name);
	char map[64];
	int n = snprintf(map, sizeof(map), "0 %u %u", FIRST, COUNT);

	if (fd < 0)
		return fd;
	return write(fd, map, (size_t)n) == n ? 0 : -errno;
}

/* The maps are written from outside: whoever is inside has lost the right to. */
static void __attribute__((noreturn)) write_maps(int channel, int proc_fd, pid_t pid)
{
	char byte;
	int r;

	if (read(channel, &byte, 1) != 1)
		_exit(1);
	r = write_map(proc_fd, pid, "uid_map");
	if (r >= 0)
		r = write_map(proc_fd, pid, "gid_map");
	if (write(channel, &r, sizeof(r)) != sizeof(r))
		_exit(1);
	_exit(0);
}

/* Our parent is to take us with it when it dies, which a change of ids undoes (commit_creds()). */
static int become_nobody(void)
{
	int sig = 0;

	if (prctl(PR_GET_PDEATHSIG, &sig) < 0 || setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 ||
	    setresuid(0, 0, 0) < 0)
		return -errno;
	/* and so is our /proc, without which no task of ours can be reached */
	if (prctl(PR_SET_DUMPABLE, 1) < 0 || (sig && prctl(PR_SET_PDEATHSIG, sig) < 0))
		return -errno;
	return 0;
}

static int enter(int channel)
{
	int told = -EPIPE;

	if (unshare(CLONE_NEWUSER) < 0)
		return -errno;
	if (write(channel, "", 1) != 1 || read(channel, &told, sizeof(told)) != sizeof(told))
		return -EPIPE;
	return told < 0 ? told : become_nobody();
}

int apart_enter(int proc_fd, struct error *e)
{
	pid_t parent = getppid(), self = getpid(), helper;
	_cleanup_(close_fd) int ours = -EBADF;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	ours = pair[0];
	helper = fork();
	if (helper == 0) {
		close_fd(&ours);
		write_maps(pair[1], proc_fd, self);
	}
	close_fd(&pair[1]);
	r = helper < 0 ? -errno : enter(ours);
	close_fd(&ours);
	while (helper > 0 && waitpid(helper, NULL, 0) < 0 && errno == EINTR)
		continue;
	if (r >= 0 && getppid() != parent)
		r = -ESRCH;
	return r < 0 ? error_errno(e, r, E_NAMESPACE, "cannot make a user namespace") : 0;
}
