/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One event of fanotify, caused again by the task that has caused it: what it tells of is the file,
 * the task, and what was done. The group has a mark for what it tells, and for no more, so that
 * whatever else goes with it is not told. Nothing is changed: no time, no byte.
 *
 *	FAN_OPEN, FAN_CLOSE_*	open(2), close(2)
 *	FAN_ACCESS		readv(2) of nothing, which tells of success (vfs_readv());
 *				getdents(2)
 *	FAN_MODIFY		a write of nothing by io_uring, which tells of that too
 *				(io_req_io_end()), while write(2) does not
 *	FAN_ATTRIB		removexattr(2) of a default ACL where none is: of what is no
 *				directory this works without asking the file system
 *				(set_posix_acl())
 *	FAN_OPEN_EXEC		execve(2) with arguments that are nowhere: the file is opened before
 *				they are looked at (alloc_bprm())
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/fanotify_events.h"
#include "fs/send_fds.h"
#include "fs/uring.h"

#define READ_FLAGS  (O_RDONLY | O_NOATIME | O_NONBLOCK | O_CLOEXEC)
#define WRITE_FLAGS (O_WRONLY | O_NONBLOCK | O_CLOEXEC)
#define READS	    (FAN_OPEN | FAN_ACCESS | FAN_CLOSE_NOWRITE)

/* Numbers in the task: the file, /proc, the file open for writing, a ring. */
struct there {
	int object, proc, written, ring;
};

static int mark(const struct fanotify_cause *x, unsigned int how, struct error *e)
{
	uint64_t mask = x->event->mask | (x->directory ? FAN_ONDIR : 0) |
			(x->event->type == FANOTIFY_NAME ? FAN_EVENT_ON_CHILD : 0);
	char path[32];

	snprintf(path, sizeof(path), "self/fd/%d", x->marked);
	if (fanotify_mark(x->group, how, mask, x->r->proc_fd, path) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot mark a file");
	return 0;
}

static pid_t called(const struct fanotify_cause *x)
{
	return x->event->pid;
}

/* Calls none of which may fail. */
int fanotify_cause_run(const struct fanotify_cause *x, struct batch *b, int n, struct error *e)
{
	int r = x->t ? agent_run(x->t->process->agent, x->t->tid, NULL, b, e)
		     : batch_run_here(b, e);

	for (int i = 0; i < n && r >= 0; i++)
		if (batch_result(b, i) < 0)
			r = error_errno(e, (int)batch_result(b, i), E_RESTORE,
					"task %d cannot open or read a file again", called(x));
	return r;
}

/* Descriptors for whoever causes it, who closes them. */
int fanotify_cause_give(const struct fanotify_cause *x, const int *fds, int n, int *remote,
			struct error *e)
{
	if (x->t)
		return restart_send_fds(x->r, x->t, fds, (size_t)n, remote, e);
	for (int i = 0; i < n; i++) {
		remote[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
		if (remote[i] < 0)
			return error_errno(e, -errno, E_SYSTEM, "F_DUPFD");
	}
	return 0;
}

/* ---- a write of nothing ---- */

struct ring {
	struct io_uring_params params;
	int fd;
	uint8_t *rings, *sqes;
};

static void ring_free(struct ring *u)
{
	if (u->rings)
		munmap(u->rings, 4096);
	if (u->sqes)
		munmap(u->sqes, 4096);
	close_fd(&u->fd);
}

static int ring_make(struct ring *u, int written, struct error *e)
{
	void *at;

	u->fd = (int)syscall(SYS_io_uring_setup, 1, &u->params);
	if (u->fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make an io_uring");
	at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, IORING_OFF_SQ_RING);
	u->rings = at == MAP_FAILED ? NULL : at;
	at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, IORING_OFF_SQES);
	u->sqes = at == MAP_FAILED ? NULL : at;
	if (!u->rings || !u->sqes)
		return error_errno(e, -errno, E_RESTORE, "cannot map an io_uring");
	*(struct io_uring_sqe *)(void *)u->sqes =
		(struct io_uring_sqe){.opcode = IORING_OP_WRITE, .fd = written};
	*(uint32_t *)(void *)(u->rings + u->params.sq_off.array) = 0;
	*(uint32_t *)(void *)(u->rings + u->params.sq_off.tail) = 1;
	return 0;
}

/* Each write has a ring of its own, which goes with it. */
static int write_nothing(const struct fanotify_cause *x, const struct there *there, struct error *e)
{
	_cleanup_(ring_free) struct ring u = {.fd = -EBADF};
	_cleanup_(batch_free) struct batch b = {};
	int remote, r = ring_make(&u, there->written, e);
	const struct io_uring_cqe *done;

	if (r >= 0)
		r = x->t ? give_fd(x->r, x->t, u.fd, &remote, e)
			 : fanotify_cause_give(x, &u.fd, 1, &remote, e);
	if (r < 0)
		return r;
	batch_call(&b, SYS_io_uring_enter, VAL(remote), VAL(1), VAL(1), VAL(IORING_ENTER_GETEVENTS),
		   VAL(0), VAL(0));
	batch_call(&b, SYS_close, VAL(remote));
	r = fanotify_cause_run(x, &b, 2, e);
	done = (const void *)(u.rings + u.params.cq_off.cqes);
	if (r >= 0 && done->res < 0)
		r = error_errno(e, done->res, E_RESTORE, "task %d cannot write nothing to a file",
				called(x));
	return r;
}

/* ---- all that is told ---- */

static uint32_t put_path(struct batch *b, int object)
{
	char path[32];

	snprintf(path, sizeof(path), "self/fd/%d", object);
	return batch_data(b, path, sizeof(path));
}

static int read_it(const struct fanotify_cause *x, const struct there *there, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t path = put_path(&b, there->object), room = batch_data(&b, NULL, 1024);
	int fd = batch_call(&b, SYS_openat, VAL(there->proc), DATA(path), VAL(READ_FLAGS), VAL(0));

	batch_must(&b, fd);
	if (x->directory)
		batch_call(&b, SYS_getdents64, RESULT(fd), DATA(room), VAL(1024));
	else
		batch_call(&b, SYS_readv, RESULT(fd), DATA(room), VAL(0));
	batch_call(&b, SYS_close, RESULT(fd));
	return fanotify_cause_run(x, &b, 3, e);
}

static int close_written(const struct fanotify_cause *x, const struct there *there, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t path = put_path(&b, there->object);
	int fd = batch_call(&b, SYS_openat, VAL(there->proc), DATA(path), VAL(WRITE_FLAGS), VAL(0));

	batch_must(&b, fd);
	batch_call(&b, SYS_close, RESULT(fd));
	return fanotify_cause_run(x, &b, 2, e);
}

/* Not by the path, which would take a /proc that the task can name. */
static int keep_attributes(const struct fanotify_cause *x, const struct there *there,
			   struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t path = put_path(&b, there->object);
	uint32_t name = batch_data(&b, FANOTIFY_NO_ACL, sizeof(FANOTIFY_NO_ACL));
	int fd = batch_call(&b, SYS_openat, VAL(there->proc), DATA(path), VAL(READ_FLAGS), VAL(0));

	batch_must(&b, fd);
	batch_call(&b, SYS_fremovexattr, RESULT(fd), DATA(name));
	batch_call(&b, SYS_close, RESULT(fd));
	return fanotify_cause_run(x, &b, 3, e);
}

static int execute(const struct fanotify_cause *x, const struct there *there, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t none = batch_data(&b, "", 1);

	/* no address of any program, whatever it has mapped */
	batch_call(&b, SYS_execveat, VAL(there->object), DATA(none), VAL(-4096), VAL(0),
		   VAL(AT_EMPTY_PATH));
	return fanotify_cause_run(x, &b, 0, e);
}

static int cause_all(const struct fanotify_cause *x, const struct there *there, struct error *e)
{
	uint32_t mask = x->event->mask;
	int r = mark(x, FAN_MARK_ADD, e);

	if (r < 0)
		return r;
	if (mask & FAN_OPEN_EXEC)
		r = execute(x, there, e);
	if (r >= 0 && mask & (mask & FAN_OPEN_EXEC ? FAN_ACCESS : READS))
		r = read_it(x, there, e);
	if (r >= 0 && (mask & FAN_MODIFY))
		r = write_nothing(x, there, e);
	if (r >= 0 && (mask & FAN_ATTRIB))
		r = keep_attributes(x, there, e);
	if (r >= 0 && (mask & FAN_CLOSE_WRITE))
		r = close_written(x, there, e);
	return r < 0 ? r : mark(x, FAN_MARK_REMOVE, e);
}

/* That it is closed in the end is not told any more. */
static int open_written(const struct fanotify_cause *x, int *ret, struct error *e)
{
	if (!(x->event->mask & FAN_MODIFY))
		return 0;
	*ret = reopen_fd(x->r->proc_fd, x->object, WRITE_FLAGS);
	return *ret < 0 ? error_errno(e, *ret, E_RESTORE, "cannot open a file for writing") : 0;
}

int fanotify_cause(struct fanotify_cause *x, struct error *e)
{
	_cleanup_(close_fd) int written = -EBADF;
	_cleanup_(batch_free) struct batch b = {};
	int fds[3] = {x->object, x->r->proc_fd}, remote[3], n = 2;
	int r;

	if (x->step)
		return fanotify_double_step(x, e);
	r = open_written(x, &written, e);
	if (r < 0)
		return r;
	if (written >= 0)
		fds[n++] = written;
	r = fanotify_cause_give(x, fds, n, remote, e);
	if (r >= 0)
		r = cause_all(x, &(struct there){remote[0], remote[1], remote[n - 1]}, e);
	if (r < 0)
		return r;
	for (int i = 0; i < n; i++)
		batch_call(&b, SYS_close, VAL(remote[i]));
	return fanotify_cause_run(x, &b, n, e);
}
