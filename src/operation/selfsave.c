/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "image/crypto.h"
#include "operation/selfsave.h"

/*
 * The worker reports by writing into the memory of its parent, after the memory
 * was saved: in the image the report is still missing. No descriptor and no
 * mapping exists for it that would have to be saved.
 */
struct self_report {
	volatile int complete;
	struct worker_result result;
};

static void __attribute__((noreturn))
self_worker(pid_t parent, struct self_report *theirs, worker_fn work, void *arg)
{
	struct self_report mine = {.complete = 1};
	const struct iovec local = {&mine, sizeof(mine)}, remote = {theirs, sizeof(*theirs)};
	struct report *mute = report_mute();
	struct error e = {};

	prctl(PR_SET_PDEATHSIG, 9);
	if (getppid() != parent)
		_exit(1);
	mine.result.ret = work(arg, mute, &mine.result, &e);
	if (mine.result.ret < 0) {
		if (e.code == ERROR_NONE)
			error_errno(&e, mine.result.ret, E_INTERNAL, "the operation failed");
		error_export(&e, &mine.result.error);
	}
	_exit(process_vm_writev(parent, &local, 1, &remote, 1, 0) == (ssize_t)sizeof(mine) ? 0 : 1);
}

/* A restarted process has been started at another time than the original. */
static uint64_t own_start_time(void)
{
	_cleanup_(close_fd) int proc_fd = -EBADF;
	struct proc_stat st = {};
	struct error unused = {};

	if (procfs_open_root(&proc_fd, &unused) >= 0)
		ignore(proc_stat_read(proc_fd, getpid(), getpid(), &st, &unused), "0: unknown");
	return st.start_time;
}

static int fail(struct reprise_error *error, int r, enum error_code code, const char *what)
{
	struct error e = {};

	error_set(&e, r, code, "%s", what);
	if (error)
		error_export(&e, error);
	return r;
}

int selfsave(worker_fn work, void *arg, struct reprise_stats *stats, struct reprise_error *error)
{
	struct self_report rep = {};
	uint64_t started = own_start_time();
	pid_t reaped, parent = getpid(), pid;

	if (crypto_ready() < 0)
		return fail(error, -EIO, E_SYSTEM, "libsodium cannot be used");
	pid = fork();
	if (pid < 0)
		return fail(error, -errno, E_SYSTEM, "fork failed");
	if (pid == 0)
		self_worker(parent, &rep, work, arg);
	do {
		reaped = waitpid(pid, NULL, 0);
	} while (reaped < 0 && errno == EINTR);
	/*
	 * A restarted copy has no such child. (Nor has a process that ignores
	 * SIGCHLD, but there the report is complete, unless the worker was killed.)
	 */
	if (!rep.complete)
		return reaped != pid || own_start_time() != started
			       ? 0
			       : fail(error, -EINTR, E_INTERRUPTED, "the worker ended");
	if (error)
		*error = rep.result.error;
	if (stats)
		*stats = rep.result.stats;
	return rep.result.ret < 0 ? rep.result.ret : 1;
}
