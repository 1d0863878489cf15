/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/cleanup.h"
#include "remote/agent.h"

/*
 * A copy of the address space of an application, as fork makes it. The application must not have a
 * child that it does not know; so it is made by a helper in between, which shares its memory, makes
 * the copy and ends: then the copy belongs to whoever takes in orphans, who is told by SIGCHLD when
 * it ends, as of all of them. The helper has no exit signal, and is waited for by the application
 * itself (wait4() with __WALL), in the same stop.
 *
 * If we die the copy and the helper do (PTRACE_O_EXITKILL, which the copy has from its birth), and
 * the application waits for the helper by itself before it goes on: that is promised before it is
 * born, and the kernel writes its number into the promise (CLONE_PARENT_SETTID). Without us the
 * helper executes nothing but its end: that is where its stack makes it return from clone3().
 *
 * While the helper and the copy share the table of descriptors nothing runs that could close one.
 *
 * What of the memory is copied, the helper says by advice to the mappings. It takes that back
 * before it ends, and if we die the application does (the promise has it, too).
 */

#define TRIES 5 /* of a call that must not fail */

/* At the end of the agent's mapping. */
struct birth {
	struct clone_args args;
	uint64_t back; /* the stack of the helper: where it returns to */
	uint64_t align;
};

static int write_birth(const struct agent *a, pid_t tid, uint64_t number_at, uint64_t *ret,
		       struct error *e)
{
	uint64_t at = a->mapping + AGENT_SIZE - sizeof(struct birth);
	const struct birth birth = {
		.args = {.flags = CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_PTRACE |
				  CLONE_CLEAR_SIGHAND | CLONE_PARENT_SETTID,
			 .parent_tid = number_at,
			 .stack = a->mapping,
			 .stack_size = at + offsetof(struct birth, back) - a->mapping},
		.back = a->mapping + (uint64_t)(arch_agent_exit - arch_agent_code),
	};

	*ret = at;
	return mem_write(tid, at, &birth, sizeof(birth), e);
}

/* Waits until a new child stands still for the first time. */
static int adopt(pid_t pid, struct error *e)
{
	struct trace_stop stop;
	int r = trace_wait(pid, &stop, -1, e);

	if (r >= 0 && stop.kind == TRACE_EXITED)
		r = error_set(e, -ESRCH, E_TASK_GONE, "task %d ended while it was being made", pid);
	return r;
}

/* What the copy is to have. */
struct wanted {
	const struct agent_advice *advices;
	size_t n;
};

/*
 * The application waits for it, if we die, and its mappings are as they were. Before it is born the
 * wait is for the application itself, which is nobody's own child (ECHILD).
 */
static size_t promise_to_wait(struct agent_promise *calls, const struct wanted *w, pid_t helper)
{
	for (size_t i = 0; i < w->n; i++)
		calls[i] = (struct agent_promise){
			.nr = SYS_madvise,
			.args = {w->advices[i].start, w->advices[i].end - w->advices[i].start,
				 (uint64_t)w->advices[i].after},
		};
	calls[w->n] =
		(struct agent_promise){.nr = SYS_wait4, .args = {(uint64_t)helper, 0, __WALL, 0}};
	return w->n + 1;
}

void agent_copy_calm(pid_t pid)
{
	ignore(setpriority(PRIO_PROCESS, (id_t)pid, getpriority(PRIO_PROCESS, 0)), "or as it was");
}

/* As we do, and where we do, the copy as well: the application may be one that seldom has a
 * processor, or keeps one to itself. */
static void let_run(pid_t pid)
{
	struct sched_param param = {};
	int policy = sched_getscheduler(0);
	cpu_set_t ours;

	if (policy >= 0 && sched_getparam(0, &param) == 0)
		ignore(sched_setscheduler(pid, policy, &param), "or as the application does");
	agent_copy_calm(pid);
	if (sched_getaffinity(0, sizeof(ours), &ours) == 0)
		ignore(sched_setaffinity(pid, sizeof(ours), &ours), "or where that does");
}

static int begin_helper(struct agent *a, pid_t tid, const struct cpu_state *saved,
			const struct wanted *w, pid_t *ret, struct error *e)
{
	struct agent_promise calls[AGENT_ADVICES_MAX + 1];
	size_t n = promise_to_wait(calls, w, tid);
	uint64_t args[6] = {0, sizeof(struct clone_args)};
	int r = write_birth(a, tid, agent_promise_arg_at(a, n - 1), &args[0], e);
	long pid = r < 0 ? r : agent_syscall_promised(a, tid, saved, e, SYS_clone3, args, calls, n);

	if (r >= 0 && pid < 0)
		r = error_errno(e, (int)pid, E_REMOTE, "cannot make a copy of task %d", tid);
	if (r < 0)
		return r;
	*ret = (pid_t)pid;
	r = adopt(*ret, e);
	if (r >= 0)
		r = trace_set_options(*ret, PTRACE_O_EXITKILL, e);
	if (r >= 0)
		let_run(*ret);
	return r;
}

/* A call that fails is made again: who is not waited for here cannot be waited for by its parent.
 */
static void end(pid_t pid)
{
	struct trace_stop stop = {};

	for (int i = 0; i < TRIES && kill(pid, SIGKILL) < 0 && errno != ESRCH; i++)
		continue;
	for (int i = 0; i < TRIES && stop.kind != TRACE_EXITED;)
		i += trace_wait(pid, &stop, -1, NULL) < 0;
}

static int end_helper(struct agent *a, pid_t tid, const struct cpu_state *saved,
		      const struct wanted *w, pid_t pid, struct error *e)
{
	struct agent_promise calls[AGENT_ADVICES_MAX + 1];
	size_t n = promise_to_wait(calls, w, pid);
	const uint64_t wait[6] = {(uint64_t)pid, 0, __WALL | WNOHANG, 0};
	long waited = -EAGAIN;
	int r = 0;

	end(pid);
	for (int i = 0; i < TRIES && waited < 0 && waited != -ESRCH && waited != -ECHILD; i++) {
		error_clear(e);
		waited = agent_syscall_promised(a, tid, saved, e, SYS_wait4, wait, calls, n);
	}
	if (waited >= 0)
		r = agent_absolve(a, e);
	if (waited == 0)
		return error_set(e, -EBUSY, E_REMOTE, "what made a copy of task %d does not end",
				 tid);
	return waited < 0 ? error_errno(e, (int)waited, E_REMOTE, "wait4 in task %d", tid) : r;
}

/* Of the application it has nothing but the memory. */
static int detach(struct agent *copy, pid_t pid, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t name = batch_data(&b, "reprise-copy", sizeof("reprise-copy"));
	int session = batch_call(&b, SYS_setsid), r;
	int close = batch_call(&b, SYS_close_range, VAL(0), VAL(~0u), VAL(CLOSE_RANGE_UNSHARE));

	batch_call(&b, SYS_prctl, VAL(PR_SET_NAME), DATA(name));
	r = agent_run(copy, pid, NULL, &b, e);
	if (r >= 0 && batch_result(&b, session) < 0)
		r = (int)batch_result(&b, session);
	if (r >= 0 && batch_result(&b, close) < 0)
		r = (int)batch_result(&b, close);
	return r < 0 ? error_errno(e, r, E_REMOTE, "cannot take a copy apart") : 0;
}

static void add_advice(struct batch *b, const struct wanted *w, bool during)
{
	for (size_t i = 0; i < w->n; i++) {
		const struct agent_advice *v = &w->advices[i];
		int call = batch_call(b, SYS_madvise, VAL(v->start), VAL(v->end - v->start),
				      VAL((uint64_t)(during ? v->during : v->after)));

		if (during)
			batch_must(b, call);
	}
}

/* A call that fails is made again: the application must not keep what was advised for the copy. */
static bool take_back(struct agent *h, pid_t helper, const struct wanted *w)
{
	bool done = !w->n;

	for (int i = 0; i < TRIES && !done; i++) {
		_cleanup_(batch_free) struct batch b = {};

		add_advice(&b, w, false);
		done = agent_run(h, helper, NULL, &b, NULL) >= 0;
		for (size_t k = 0; done && k < w->n; k++)
			done = batch_result(&b, (int)k) >= 0;
	}
	return done;
}

/* The helper has ended before it could. */
static int take_back_here(struct agent *a, pid_t tid, const struct cpu_state *saved,
			  const struct wanted *w, struct error *e)
{
	int failed = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct agent_advice *v = &w->advices[i];
		const uint64_t args[6] = {v->start, v->end - v->start, (uint64_t)v->after};
		long r = -EAGAIN;

		for (int k = 0; k < TRIES && r < 0; k++)
			r = agent_syscall(a, tid, saved, NULL, SYS_madvise, args);
		failed = r < 0 ? (int)r : failed;
	}
	return failed ? error_errno(e, failed, E_REMOTE,
				    "the advice to a mapping of task %d cannot be taken back", tid)
		      : 0;
}

static int fork_advised(struct agent *h, pid_t helper, const struct wanted *w, pid_t *ret,
			struct error *e)
{
	/* with directories in common the application could not enter namespaces (mntns_install()),
	 * nor gain privileges by exec (check_unsafe_exec()) */
	const struct clone_args args = {.flags = CLONE_FILES | CLONE_PTRACE};
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at = batch_data(&b, &args, sizeof(args));
	int call, r;

	add_advice(&b, w, true);
	call = batch_call(&b, SYS_clone3, DATA(at), VAL(sizeof(args)));
	r = agent_run(h, helper, NULL, &b, e);
	if (r < 0)
		return r;
	if (batch_failed(&b) >= 0)
		return error_errno(e, (int)batch_result(&b, batch_failed(&b)), E_REMOTE,
				   "cannot say what is to be copied");
	if (batch_result(&b, call) < 0)
		return error_errno(e, (int)batch_result(&b, call), E_REMOTE, "cannot fork");
	*ret = (pid_t)batch_result(&b, call);
	return adopt(*ret, e);
}

static int fork_helper(const struct agent *a, pid_t helper, const struct wanted *w, pid_t *ret,
		       struct agent **copy, bool *taken_back, struct error *e)
{
	_cleanup_(free_ptr) struct agent *h = NULL;
	int r = agent_captive(&h, helper, a->mapping, e);

	if (r < 0)
		return r;
	r = fork_advised(h, helper, w, ret, e);
	*taken_back = take_back(h, helper, w);
	if (r >= 0)
		r = agent_captive(copy, *ret, a->mapping, e);
	return r < 0 ? r : detach(*copy, *ret, e);
}

int agent_copy(struct agent *a, pid_t tid, const struct cpu_state *saved,
	       const struct agent_advice *advices, size_t n, pid_t *ret, struct agent **ret_copy,
	       struct error *e)
{
	const struct wanted wanted = {advices, n};
	struct agent *copy = NULL;
	pid_t helper = 0, pid = 0;
	bool taken_back = true;
	int r, ended = 0;

	/* its filters say what it may call, and would hold for the copy */
	if (!a->mapping || a->seccomp || a->keeper.tid != tid)
		return error_set(e, -ENOTSUP, E_REMOTE, "task %d can make no copy", tid);
	r = begin_helper(a, tid, saved, &wanted, &helper, e);
	if (r >= 0)
		r = fork_helper(a, helper, &wanted, &pid, &copy, &taken_back, e);
	if (!taken_back)
		ended = take_back_here(a, tid, saved, &wanted, r < 0 ? NULL : e);
	if (r >= 0 && ended < 0)
		r = ended;
	if (helper)
		ended = end_helper(a, tid, saved, &wanted, helper, r < 0 ? NULL : e);
	if (r >= 0 && ended < 0)
		r = ended;
	if (r < 0) {
		if (pid)
			agent_copy_end(pid, copy);
		return r;
	}
	*ret = pid;
	*ret_copy = copy;
	return 0;
}

void agent_copy_end(pid_t pid, struct agent *copy)
{
	if (pid > 0)
		end(pid);
	free(copy);
}
