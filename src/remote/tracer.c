/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/tracer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "remote/hand.h"

#define NAMES 65536 /* a power of two */

/* What a process is: which of its threads traces. Written once. */
static struct {
	struct hand *hand;	 /* NULL: who asks */
	int ours, theirs;	 /* a pair of sockets, by which pids are told */
	_Atomic uint64_t *names; /* of tasks that are traced: ours, and that of the hand */
} tracer;

int tracer_set(struct hand *h, bool other_pids, struct error *e)
{
	int pair[2], on = 1;

	if (other_pids) {
		tracer.names = calloc(NAMES, sizeof(*tracer.names));
		if (!tracer.names)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pids");
		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) < 0)
			return error_errno(e, -errno, E_SYSTEM, "socketpair");
		tracer.ours = pair[0];
		tracer.theirs = pair[1];
		if (setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
			return error_errno(e, -errno, E_SYSTEM, "SO_PASSCRED");
	}
	tracer.hand = h;
	return 0;
}

/* ---- pids ---- */

union creds_message {
	char space[CMSG_SPACE(sizeof(struct ucred))];
	struct cmsghdr align;
};

/* The kernel tells the pid of a message as its receiver knows it (scm_recv()), of threads, too. */
static int send_pid(pid_t tid)
{
	union creds_message space = {};
	char byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = space.space,
			   .msg_controllen = sizeof(space)};
	struct ucred *creds = (struct ucred *)CMSG_DATA(&space.align);

	space.align = (struct cmsghdr){CMSG_LEN(sizeof(*creds)), SOL_SOCKET, SCM_CREDENTIALS};
	*creds = (struct ucred){tid, geteuid(), getegid()};
	return sendmsg(tracer.ours, &m, 0) == 1 ? 0 : -errno;
}

static int receive_pid(void *arg)
{
	union creds_message space;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = space.space,
			   .msg_controllen = sizeof(space)};
	struct cmsghdr *h;

	(void)arg;
	if (recvmsg(tracer.theirs, &m, MSG_DONTWAIT) != 1)
		return -ESRCH;
	h = CMSG_FIRSTHDR(&m);
	if (!h || h->cmsg_type != SCM_CREDENTIALS)
		return -ESRCH;
	return ((struct ucred *)CMSG_DATA(h))->pid ?: -ESRCH;
}

/* Who is traced keeps his number until he has been waited for. */
static pid_t known(pid_t tid)
{
	uint64_t name;

	if (!tracer.names)
		return tid;
	name = atomic_load(&tracer.names[tid & (NAMES - 1)]);
	return name >> 32 == (uint64_t)tid ? (pid_t)(uint32_t)name : 0;
}

static pid_t learn(pid_t tid)
{
	int r = send_pid(tid);

	if (r >= 0)
		r = hand_do(tracer.hand, receive_pid, NULL);
	if (r > 0)
		atomic_store(&tracer.names[tid & (NAMES - 1)], (uint64_t)tid << 32 | (uint32_t)r);
	return r;
}

static void forget(pid_t tid)
{
	if (tracer.names)
		atomic_store(&tracer.names[tid & (NAMES - 1)], 0);
}

/* Negative: there is none. */
static pid_t outside(pid_t tid)
{
	const pid_t is = known(tid);

	return is ?: learn(tid);
}

/* ---- calls ---- */

struct call {
	long nr, a, b, c, d, e;
};

static int make(void *arg)
{
	const struct call *c = arg;
	long r = syscall(c->nr, c->a, c->b, c->c, c->d, c->e);

	return r < 0 ? -errno : (int)r;
}

static int call(struct call c)
{
	return tracer.hand ? hand_do(tracer.hand, make, &c) : make(&c);
}

long tracer_ptrace(long request, pid_t tid, unsigned long addr, void *data)
{
	if (tracer.hand) {
		/* It may be another one of that number. */
		if (request == PTRACE_SEIZE)
			forget(tid);
		tid = outside(tid);
		if (tid < 0)
			return -ESRCH;
	}
	return call((struct call){SYS_ptrace, request, tid, (long)addr, (long)data, 0});
}

int tracer_waitid(pid_t tid, siginfo_t *info, int options)
{
	if (tracer.hand)
		tid = outside(tid);
	return tid < 0 ? -ECHILD
		       : call((struct call){SYS_waitid, P_PID, tid, (long)info, options, 0});
}

int tracer_waitpid(pid_t tid, int *status, int options)
{
	const pid_t there = tracer.hand ? outside(tid) : tid;
	int r = there < 0 ? -ECHILD
			  : call((struct call){SYS_wait4, there, (long)status, options, 0, 0});

	if (r <= 0)
		return r;
	forget(tid);
	return tid;
}

static int call_beside(struct call c)
{
	return tracer.hand ? hand_do_beside(tracer.hand, make, &c) : make(&c);
}

int tracer_waitid_beside(pid_t tid, siginfo_t *info, int options)
{
	tid = known(tid);
	return !tid ? -ECHILD
		    : call_beside((struct call){SYS_waitid, P_PID, tid, (long)info, options, 0});
}

int tracer_waitpid_beside(pid_t tid, int *status, int options)
{
	const pid_t there = known(tid);
	int r = !there ? -ECHILD
		       : call_beside((struct call){SYS_wait4, there, (long)status, options, 0, 0});

	return r <= 0 ? r : tid;
}
