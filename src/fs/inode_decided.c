/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A removed file is opened to read its contents, while all stand still. If a group of fanotify that
 * belongs to the tree decides about that, nobody answers: whoever opens it then waits until it is
 * killed (fanotify_get_response()). So a process of its own opens it where somebody decides about
 * accesses to the file system, and is given a moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "fs/inode_private.h"

#define OPEN_MS 200 /* the application stands still meanwhile */

/* enum fsnotify_group_prio: objects that are watched, by groups that decide from the second on. */
enum { PRIO_DECIDES = 1, PRIO_COUNT = 3 };

/* Since 6.10 struct super_block counts them. 0 where that cannot be known. */
static bool has_deciders(struct checkpoint *c, int fd)
{
	struct kernel_memory *k = NULL;
	struct error ignored = {};
	int64_t watched[PRIO_COUNT] = {};
	int size = 0;

	if (c->files->kernel_hidden || files_kernel_memory(c, &k, &ignored) < 0)
		return false;
	{
		const int offsets[] = {
			kernel_offset(k, "file", "f_inode"), kernel_offset(k, "inode", "i_sb"),
			kernel_offset(k, "super_block", "s_fsnotify_info"),
			kernel_offset_size(k, "fsnotify_sb_info", "watched_objects", &size)};

		if (offsets[2] < 0 || offsets[3] < 0 || size != sizeof(watched) ||
		    kernel_of_file(k, fd, offsets, 4, watched, sizeof(watched)) < 0)
			return false;
	}
	for (int i = PRIO_DECIDES; i < PRIO_COUNT; i++)
		if (watched[i] > 0)
			return true;
	return false;
}

static void __attribute__((noreturn)) open_and_end(int proc_fd, int fd, int place, pid_t maker)
{
	int own;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != maker)
		_exit(ESRCH);
	own = reopen_fd(proc_fd, fd, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	_exit(own < 0 ? -own : dup3(own, place, O_CLOEXEC) < 0 ? errno : 0);
}

/* Our descriptors are its own, too. */
static int open_beside(struct checkpoint *c, int fd)
{
	_cleanup_(close_fd) int place = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	const pid_t self = getpid();
	int status, r = 0;
	pid_t pid;

	if (place < 0)
		return -errno;
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL);
	if (pid < 0)
		return -errno;
	if (pid == 0)
		open_and_end(c->proc_fd, fd, place, self);
	for (int i = 0; i < OPEN_MS && r == 0; i++) {
		r = waitpid(pid, &status, WNOHANG | __WCLONE);
		if (r == 0)
			patience_pause();
	}
	if (r == 0) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, __WCLONE);
		return -ETIMEDOUT;
	}
	if (r < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
		return r > 0 && WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
	return take_fd(&place);
}

int inode_open_to_read(struct checkpoint *c, int fd, const char *path, int *ret, struct error *e)
{
	int r = has_deciders(c, fd) ? open_beside(c, fd)
				    : reopen_fd(c->proc_fd, fd, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (r == -ETIMEDOUT)
		return error_set(
			e, -EBUSY, E_FILE_STATE,
			"%s was removed, and whoever opens it to save its contents waits for "
			"a group of fanotify that decides about accesses, and stands still itself",
			path);
	if (r < 0)
		return error_errno(e, r, r == -EACCES ? E_PERMISSION : E_FILE_OPEN,
				   "cannot open %s to read its contents", path);
	*ret = r;
	return 0;
}
