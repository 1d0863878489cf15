/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/sched.h"

/* struct sched_attr of include/uapi/linux/sched/types.h, SCHED_ATTR_SIZE_VER1 */
struct kernel_sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};
_Static_assert(sizeof(struct kernel_sched_attr) == 56, "SCHED_ATTR_SIZE_VER1");

#define IOPRIO_WHO_PROCESS 1
#define CPUS_MAX	   8192
#define UTIL_WHOLE	   1024 /* SCHED_CAPACITY_SCALE: no bound */
#define RESET_ON_FORK	   1u	/* SCHED_FLAG_RESET_ON_FORK */

static int read_affinity(pid_t tid, Reprise__Scheduling *m, struct scratch *s, struct error *e)
{
	uint8_t mask[CPUS_MAX / 8];
	long n = syscall(SYS_sched_getaffinity, tid, sizeof(mask), mask);

	if (n < 0)
		return error_errno(e, -errno, E_SYSTEM, "sched_getaffinity");
	m->affinity.data = scratch_copy(s, mask, (size_t)n);
	if (!m->affinity.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a cpu mask");
	m->affinity.len = (size_t)n;
	return 0;
}

/*
 * Tasks with the same cookie may share a core (PR_SCHED_CORE). Those of the restart have that of
 * reprise.
 */
static int check_cookie(pid_t tid, struct error *e)
{
	unsigned long theirs = 0, ours = 0;

	if (prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, tid, PR_SCHED_CORE_SCOPE_THREAD, &theirs) < 0 ||
	    prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, 0, PR_SCHED_CORE_SCOPE_THREAD, &ours) < 0 ||
	    theirs == ours)
		return 0;
	return error_set(e, -EOPNOTSUPP, E_TASK_STATE,
			 "has a cookie for sharing cores (PR_SCHED_CORE) that reprise has not");
}

/* Of a real-time task the lower bound has a default that the system sets. */
static int check_bounds(const struct kernel_sched_attr *a, struct error *e)
{
	if (a->policy != SCHED_FIFO && a->policy != SCHED_RR &&
	    (a->util_min || (a->util_max && a->util_max != UTIL_WHOLE)))
		return error_set(e, -EOPNOTSUPP, E_TASK_STATE,
				 "has bounds of processor utilisation (SCHED_FLAG_UTIL_CLAMP)");
	return 0;
}

int sched_check(pid_t tid, struct error *e)
{
	struct kernel_sched_attr a = {};

	if (syscall(SYS_sched_getattr, tid, &a, sizeof(a), 0) < 0)
		return 0; /* it has ended, or the checkpoint will say */
	return check_bounds(&a, e) < 0 ? e->err : check_cookie(tid, e);
}

int sched_checkpoint(pid_t tid, Reprise__Scheduling *m, struct scratch *s, struct error *e)
{
	struct kernel_sched_attr a = {};
	long io;

	if (syscall(SYS_sched_getattr, tid, &a, sizeof(a), 0) < 0)
		return error_errno(e, -errno, E_SYSTEM, "sched_getattr");
	if (check_bounds(&a, e) < 0 || check_cookie(tid, e) < 0)
		return e->err;
	m->policy = a.policy;
	m->flags = a.flags;
	/* sched_getattr() tells the nice value of ordinary policies only; real-time tasks keep
	 * theirs. */
	errno = 0;
	m->nice = getpriority(PRIO_PROCESS, (id_t)tid);
	if (errno)
		return error_errno(e, -errno, E_SYSTEM, "getpriority");
	m->priority = a.priority;
	m->runtime = a.runtime;
	m->deadline = a.deadline;
	m->period = a.period;
	io = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);
	if (io < 0)
		return error_errno(e, -errno, E_SYSTEM, "ioprio_get");
	m->ioprio = (uint32_t)io;
	return read_affinity(tid, m, s, e);
}

int sched_validate(const Reprise__Scheduling *m, struct error *e)
{
	if (!m)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a task without scheduling state");
	if (m->affinity.len > CPUS_MAX / 8)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a cpu mask of %zu bytes",
				 m->affinity.len);
	return 0;
}

static bool same_bytes(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

int sched_restart(pid_t tid, const Reprise__Scheduling *m, const Reprise__Scheduling *now,
		  struct error *e)
{
	struct kernel_sched_attr a = {
		.size = 48, /* without the utilisation clamps: SCHED_ATTR_SIZE_VER0 */
		.policy = m->policy,
		.flags = m->flags & RESET_ON_FORK,
		.nice = m->nice,
		.priority = m->priority,
		.runtime = m->runtime,
		.deadline = m->deadline,
		.period = m->period,
	};

	if (m->ioprio != now->ioprio &&
	    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, m->ioprio) < 0)
		return error_errno(e, -errno, errno == EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot set I/O priority 0x%x", m->ioprio);
	if (!same_bytes(&m->affinity, &now->affinity) &&
	    syscall(SYS_sched_setaffinity, tid, m->affinity.len, m->affinity.data) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the cpu affinity");
	if (m->nice != now->nice && setpriority(PRIO_PROCESS, (id_t)tid, m->nice) < 0)
		return error_errno(e, -errno,
				   errno == EACCES || errno == EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot set nice %d", m->nice);
	if ((m->policy != now->policy || m->priority != now->priority || m->flags != now->flags ||
	     m->runtime != now->runtime) &&
	    syscall(SYS_sched_setattr, tid, &a, 0) < 0)
		return error_errno(e, -errno, errno == EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot set scheduling policy %u, priority %u, nice %d",
				   m->policy, m->priority, m->nice);
	return 0;
}
