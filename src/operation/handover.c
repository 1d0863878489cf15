/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Only we have the writing end of a pipe. When we end, those get a signal whose are the
 * descriptions of its reading end (O_ASYNC; pipe_release()): SIGKILL for the owner, one for each
 * process that was let go. These descriptions are closed together by one call, which no signal cuts
 * short
 * (__range_close()): that is the hand-over.
 *
 * What is open in a process that ends is released after all has been closed, the latest first
 * (task_work_add()). So that the readers are still there when the writer goes, it has the
 * highest number.
 *
 * The first process of a pid namespace does not die of such a signal (sig_task_ignored()), but
 * of the end of its tracer, and all of its namespace with it: it is let go last, and where it is
 * the root of the tree, that is the hand-over. Between the two, those of nested namespaces are let
 * go one by one.
 */
#include "operation/handover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "model/pids.h"

static int failed(struct error *e)
{
	return error_errno(e, -errno, E_RESTORE, "cannot prepare the hand-over of the tree");
}

/* A number above which nothing is open. */
static int find_room(const struct restart *r, struct error *e)
{
	int fd = procfs_open(r->proc_fd, O_RDONLY | O_DIRECTORY | O_CLOEXEC, e, "thread-self/fd");
	const struct dirent *one;
	int highest = 0;
	DIR *dir;

	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		failed(e);
		close(fd);
		return e->err;
	}
	while ((one = readdir(dir)))
		if (atoi(one->d_name) > highest)
			highest = atoi(one->d_name);
	closedir(dir);
	return highest + 1;
}

/* The readers' numbers follow each other: as many as there will be stand for them until then. */
static int make_readers(struct restart *r, int pipe_fd, struct error *e)
{
	struct restart_handover *h = &r->handover;
	int room = find_room(r, e);

	if (room < 0)
		return room;
	vec_for_each (p, &r->processes) {
		int fd = fcntl(pipe_fd, F_DUPFD_CLOEXEC, room);

		if (fd < 0)
			return failed(e);
		if (!h->n)
			h->first = fd;
		h->n++;
	}
	return 0;
}

static int begin(struct restart *r, struct error *e)
{
	_cleanup_(close_fd) int reader = -EBADF, writer = -EBADF;
	int ends[2], res;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return failed(e);
	reader = ends[0];
	writer = ends[1];
	res = make_readers(r, reader, e);
	if (res < 0)
		return res;
	r->handover.writer = fcntl(writer, F_DUPFD_CLOEXEC, r->handover.first + r->handover.n);
	return r->handover.writer < 0 ? failed(e) : 0;
}

/* The end of the first process is that of all others. */
static bool root_is_first(const struct restart *r)
{
	return r->pidns && r->processes.v[0].vpid == 1;
}

int handover_turn(const struct restart *r, const struct restart_process *p)
{
	if (p == r->processes.v && root_is_first(r))
		return HANDOVER_TURNS - 1;
	return pid_space_is_init(p) ? 1 : 0;
}

int handover_add(struct restart *r, const struct restart_process *p, struct error *e)
{
	struct restart_handover *h = &r->handover;
	const struct f_owner_ex owner = {F_OWNER_PID, p->pid};
	_cleanup_(close_fd) int fd = -EBADF;
	int res;

	if (root_is_first(r))
		return 0;
	res = h->n ? 0 : begin(r, e);
	if (res < 0)
		return res;
	/* A description of its own. */
	fd = procfs_open(r->proc_fd, O_RDONLY | O_NONBLOCK | O_CLOEXEC, e, "thread-self/fd/%d",
			 h->first + h->used);
	if (fd < 0)
		return fd;
	if (fcntl(fd, F_SETOWN_EX, &owner) < 0 || fcntl(fd, F_SETSIG, SIGKILL) < 0 ||
	    fcntl(fd, F_SETFL, O_RDONLY | O_NONBLOCK | O_ASYNC) < 0 ||
	    dup3(fd, h->first + h->used, O_CLOEXEC) < 0)
		return failed(e);
	h->used++;
	return 0;
}

void handover_end(struct restart *r)
{
	struct restart_handover *h = &r->handover;

	if (!h->n)
		return;
	syscall(SYS_close_range, (unsigned int)h->first, (unsigned int)(h->first + h->n - 1), 0u);
	close_fd(&h->writer);
	*h = (struct restart_handover){};
}
