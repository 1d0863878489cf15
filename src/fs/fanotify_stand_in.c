/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who causes events of fanotify in the place of a task that has ended: a copy of this process, with
 * the number of that task in the pid namespace of the tree. It is told of each event over a socket,
 * takes the descriptors from us, and ends when we do.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/fanotify_events.h"
#include "fs/stand_in.h"

struct fanotify_stand_in {
	struct restart *r;
	pid_t pid;
	int ours, its; /* the two ends */
	int maker;     /* a pidfd of ours */
};

struct answer {
	int result;
	struct error error;
};

/* What it has of us it had when it was made; what has been opened since it takes. */
static int cause_here(const struct fanotify_stand_in *s, struct fanotify_cause x, struct error *e)
{
	_cleanup_(close_fd) int object = (int)syscall(SYS_pidfd_getfd, s->maker, x.object, 0);
	_cleanup_(close_fd) int marked =
		x.marked < 0 ? -EBADF : (int)syscall(SYS_pidfd_getfd, s->maker, x.marked, 0);

	if (object < 0 || (x.marked >= 0 && marked < 0))
		return error_errno(e, -errno, E_RESTORE, "a stand-in cannot take a file over");
	x.object = object;
	x.marked = marked;
	return fanotify_cause(&x, e);
}

static void live(void *arg)
{
	struct fanotify_stand_in *s = arg;
	struct fanotify_cause x;
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	close_fd(&s->ours);
	while (recv(s->its, &x, sizeof(x), 0) == (ssize_t)sizeof(x)) {
		struct answer a = {};

		a.result = cause_here(s, x, &a.error);
		if (send(s->its, &a, sizeof(a), MSG_NOSIGNAL) != (ssize_t)sizeof(a))
			break;
	}
}

void fanotify_stand_in_end(struct fanotify_stand_in *s)
{
	if (!s)
		return;
	close_fd(&s->ours);
	close_fd(&s->its);
	close_fd(&s->maker);
	if (s->pid > 0)
		stand_in_end(s->pid);
	free(s);
}

static void end(struct fanotify_stand_in **s)
{
	fanotify_stand_in_end(*s);
}

int fanotify_stand_in_begin(struct restart *r, pid_t vpid, struct fanotify_stand_in **ret,
			    struct error *e)
{
	_cleanup_(end) struct fanotify_stand_in *s = calloc(1, sizeof(*s));
	int pair[2];

	if (!s)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a stand-in");
	*s = (struct fanotify_stand_in){.r = r, .ours = -EBADF, .its = -EBADF, .maker = -EBADF};
	s->maker = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (s->maker < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	s->ours = pair[0];
	s->its = pair[1];
	s->pid = stand_in_live(r, vpid, live, s);
	close_fd(&s->its);
	if (s->pid == -EEXIST)
		return error_set(e, -EEXIST, E_PID_TAKEN,
				 "pid %d is taken, by which a task had caused events that are "
				 "unread",
				 vpid);
	if (s->pid < 0)
		return error_errno(e, s->pid, E_RESTORE, "cannot make a stand-in for task %d",
				   vpid);
	*ret = take_ptr(&s);
	return 0;
}

pid_t fanotify_stand_in_pid(const struct fanotify_stand_in *s)
{
	return s->pid;
}

int fanotify_stand_in_cause(struct fanotify_stand_in *s, struct fanotify_cause *x, struct error *e)
{
	struct answer a;

	if (send(s->ours, x, sizeof(*x), MSG_NOSIGNAL) != (ssize_t)sizeof(*x) ||
	    recv(s->ours, &a, sizeof(a), 0) != (ssize_t)sizeof(a))
		return error_set(e, -ESRCH, E_RESTORE, "the stand-in for task %d has ended",
				 x->event->pid);
	if (a.result < 0)
		*e = a.error;
	return a.result;
}
