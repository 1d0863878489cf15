/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first process of a tree: a stub without memory but the agent, from which all others descend.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/procfs.h"
#include "kernel/clone.h"
#include "kernel/process.h"
#include "kernel/task.h"
#include "mm/mm.h"
#include "ns/container.h"
#include "ns/pidns.h"
#include "operation/root.h"

#define PID_TRIES   2000
#define PID_WAIT_NS 1000000

/* Until it is traced. Its descriptor of the control socket is the only one it keeps. */
struct stub {
	int control;
};

static void __attribute__((noreturn)) stub_run(void *arg)
{
	const struct stub *s = arg;
	sigset_t all;
	char byte = 1;

	/* glibc registered an rseq area for our thread; fork keeps the registration. */
	if (__rseq_size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 1,
			RSEQ_SIG);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_PDEATHSIG, 0);
	if (s->control > 3)
		syscall(SYS_close_range, 0u, (unsigned int)s->control - 1, 0u);
	syscall(SYS_close_range, (unsigned int)s->control + 1, ~0u, 0u);
	/* The coordinator holds the other end: its death is the end of this read, and ours. */
	if (write(s->control, &byte, 1) == 1)
		while (read(s->control, &byte, 1) > 0)
			continue;
	_exit(1);
}

static int open_control(struct restart *r, struct stub *stub, struct error *e)
{
	int pair[2], high;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	/* out of the way of the tables to come */
	high = fcntl(pair[1], F_DUPFD_CLOEXEC, 512);
	if (high < 0)
		high = pair[1];
	else
		close(pair[1]);
	r->control = pair[0];
	r->control_remote = high;
	stub->control = high;
	return 0;
}

static int place_agent(struct restart *r, struct error *e)
{
	void *want, *at;
	int res = mm_restart_choose_agent(r, e);

	if (res < 0)
		return res;
	want = (void *)(uintptr_t)r->agent_at;
	at = mmap(want, AGENT_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (at == MAP_FAILED)
		return error_errno(e, -errno, E_RESTORE, "cannot place the agent");
	agent_place(at);
	return 0;
}

/*
 * Who was killed, perhaps by the checkpoint just before, has his pid until his parent has heard of
 * it. Waits for that, a moment for all together; false when it is over.
 */
static bool wait_for_pid(int *tries)
{
	return (*tries)++ < PID_TRIES &&
	       nanosleep(&(struct timespec){.tv_nsec = PID_WAIT_NS}, NULL) == 0;
}

/* Who has a pid that we need? */
static int check_pids(struct restart *r, struct error *e)
{
	int tries = 0;

	vec_for_each (p, &r->processes)
		for (size_t i = 0; i < p->tasks.n || i == 0; i++) {
			pid_t vtid = p->tasks.n ? p->tasks.v[i].vtid : p->vpid;
			struct error unused = {};
			struct proc_stat st;

			while (proc_stat_read(r->proc_fd, vtid, vtid, &st, &unused) == 0)
				if ((st.state != 'Z' && st.state != 'X') || !wait_for_pid(&tries))
					return error_set(e, -EEXIST, E_PID_TAKEN,
							 "pid %d is taken by %s", vtid, st.comm);
		}
	return 0;
}

/* A pid is free a moment after it has gone from /proc (free_pids()), or not at all: it may be that
 * of a session. */
static int fork_root(struct restart *r, struct stub *stub, pid_t *ret, struct error *e)
{
	pid_t vpid = r->processes.v[0].vpid;
	struct clone_args args = {
		.flags = CLONE_PARENT | CLONE_CLEAR_SIGHAND,
		.set_tid = (uint64_t)(uintptr_t)&vpid,
		.set_tid_size = 1,
	};
	int tries = 0;
	long pid;

	do
		pid = syscall(SYS_clone3, &args, sizeof(args));
	while (pid < 0 && errno == EEXIST && wait_for_pid(&tries));
	if (pid == 0)
		stub_run(stub);
	if (pid < 0 && errno == EPERM)
		return error_set(e, -EPERM, E_PID_CHOOSE, "may not choose pid %d", vpid);
	if (pid < 0 && errno == EEXIST)
		return error_set(e, -EEXIST, E_PID_TAKEN, "pid %d is taken", vpid);
	if (pid < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make task %d", vpid);
	*ret = (pid_t)pid;
	return 0;
}

static int make_root(struct restart *r, struct container_restart *cr, struct pidns *ns,
		     struct stub *stub, pid_t *ret, struct error *e)
{
	pid_t vpid = r->processes.v[0].vpid;
	bool mounts = cr->msg && cr->msg->own & CLONE_NEWNS;
	int res;

	if (!r->pidns) {
		res = mounts ? container_restart_first(cr, e) : 0;
		return res < 0 ? res : fork_root(r, stub, ret, e);
	}
	res = pidns_make_init(ns, vpid == 1, container_restart_first, cr, stub_run, stub, e);
	if (res < 0)
		return res;
	if (vpid != 1)
		return pidns_make_root(ns, r, vpid, ret, e);
	*ret = ns->init;
	return 0;
}

/* From here on the stub dies with us; it keeps nothing of our memory but the agent. */
static int capture_root(struct restart *r, pid_t pid, struct error *e)
{
	const uint64_t below[6] = {0, r->agent_at};
	const uint64_t above[6] = {r->agent_at + AGENT_SIZE,
				   0x7ffffffff000 - r->agent_at - AGENT_SIZE};
	struct restart_process *root = &r->processes.v[0];
	char byte;
	int res;

	if (read(r->control, &byte, 1) != 1)
		return error_set(e, -ESRCH, E_TASK_GONE,
				 "the root task ended while it was being made");
	res = trace_seize(pid, PTRACE_O_EXITKILL, e);
	if (res >= 0)
		res = trace_interrupt(pid, e);
	if (res >= 0)
		res = stub_adopt(r, root, pid, r->agent_at, e);
	if (res < 0)
		return res;
	if (agent_syscall(root->agent, pid, NULL, e, SYS_munmap, below) < 0 ||
	    agent_syscall(root->agent, pid, NULL, e, SYS_munmap, above) < 0)
		return error_set(e, -EIO, E_RESTORE, "cannot empty the address space of a stub");
	return stub_program(r, root, 0, e);
}

int root_restart(struct restart *r, struct container_restart *cr, struct pidns *ns, pid_t *ret,
		 struct error *e)
{
	struct stub stub = {};
	int res = r->pidns ? 0 : check_pids(r, e);

	if (res >= 0)
		res = place_agent(r, e);
	if (res >= 0)
		res = open_control(r, &stub, e);
	if (res >= 0)
		res = make_root(r, cr, ns, &stub, ret, e);
	return res < 0 ? res : capture_root(r, *ret, e);
}
