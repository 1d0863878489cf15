/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/sleep.h"
#include "remote/survey.h"

/*
 * Calls from which the kernel returns -EINTR after a bare stop, though no handler has run: they
 * are issued again, with what was left of a time-out in a register.
 */

#define NS_PER_MS   1000000ULL
#define STATUS_ROOM 8192 /* seldom are there so many groups that it is more */

static uint64_t less(uint64_t total, uint64_t slept)
{
	return slept < total ? total - slept : 0;
}

struct pending_signals {
	uint64_t deliverable, caught;
};

/* Without memory of its own, so that it can be done when there is none. Returns the length. */
static ssize_t read_status(const struct freezer *f, pid_t pid, pid_t tid, char room[STATUS_ROOM],
			   struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(f->proc_fd, O_RDONLY, e, "%d/task/%d/status", pid, tid);
	ssize_t n;

	if (fd < 0)
		return fd;
	do {
		n = read(fd, room, STATUS_ROOM - 1);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot read /proc/%d/status", tid);
	room[n] = '\0';
	return n;
}

static int read_pending(const struct freezer *f, pid_t pid, pid_t tid, struct pending_signals *ret,
			struct error *e)
{
	uint64_t own, shared, blocked, ignored;
	_cleanup_(free_ptr) char *more = NULL;
	char room[STATUS_ROOM], *status = room;
	ssize_t len = read_status(f, pid, tid, room, e);

	if (len == sizeof(room) - 1) {
		len = procfs_read(f->proc_fd, &more, e, "%d/task/%d/status", pid, tid);
		status = more;
	}
	if (len < 0)
		return (int)len;
	if (proc_field_u64(status, "SigPnd", 16, &own) ||
	    proc_field_u64(status, "ShdPnd", 16, &shared) ||
	    proc_field_u64(status, "SigBlk", 16, &blocked) ||
	    proc_field_u64(status, "SigIgn", 16, &ignored) ||
	    proc_field_u64(status, "SigCgt", 16, &ret->caught))
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/%d/status is not understood", tid);
	ret->deliverable = (own | shared) & ~blocked & ~ignored;
	return 0;
}

/* Is there a signal pending that ends the call for good: one with a handler, or one that kills or
 * stops? */
static int interrupted_for_good(const struct freezer *f, pid_t pid, pid_t tid, bool *ret,
				struct error *e)
{
	const uint64_t ignored_by_default = 1ULL << (SIGCHLD - 1) | 1ULL << (SIGURG - 1) |
					    1ULL << (SIGWINCH - 1) | 1ULL << (SIGCONT - 1);
	struct pending_signals pending;
	int r = read_pending(f, pid, tid, &pending, e);

	if (r == 0)
		*ret = pending.deliverable & (pending.caught | ~ignored_by_default);
	return r;
}

/*
 * Goes on with restart_syscall(2), though there is no time-out to be remembered; then nothing would
 * tell next time what it is. The other code makes it be issued again, or fail, in the same cases.
 */
static bool is_endless_poll(const struct user_regs_struct *regs, long nr, const uint64_t args[6])
{
	return sleeping_is_poll(nr) && (int32_t)args[2] < 0 &&
	       arch_call_result(regs) == -ARCH_ERESTART_RESTARTBLOCK;
}

/* The call that has returned -EINTR because of our stop; NULL if there is none. */
static const struct sleeping_call *interrupted_call(const struct frozen_thread *t,
						    const struct user_regs_struct *regs)
{
	long nr = arch_call_nr(regs);
	const struct sleeping_call *call =
		nr >= 0 && arch_call_result(regs) == -EINTR ? sleeping_call(nr) : NULL;

	/* Job control interrupts such calls in any case. */
	return call && call->eintr && t->stop.kind == TRACE_EVENT_STOP ? call : NULL;
}

static void reissue(struct frozen_thread *t, struct user_regs_struct *regs, long nr)
{
	arch_reissue(regs, nr);
	t->reissued_at = arch_ip(regs);
}

void sleep_reissue(const struct freezer *f, pid_t pid, struct frozen_thread *t)
{
	struct user_regs_struct regs;
	bool for_good = false;
	long nr;

	if (trace_get_regs(t->tid, &regs, NULL) < 0 || arch_is_odd(&regs) ||
	    !interrupted_call(t, &regs) ||
	    (!arch_is_compat(&regs) && trace_is_compat_call(t->tid, NULL)))
		return;
	/* If that cannot be told: of our stop we know, and signals at this moment are rare. */
	ignore(interrupted_for_good(f, pid, t->tid, &for_good, NULL), "see above");
	if (for_good)
		return;
	nr = arch_call_nr(&regs);
	t->reissued_arg = arch_call_arg(&regs, sleeping_call(nr)->arg);
	reissue(t, &regs, nr);
	if (trace_set_regs(t->tid, &regs, NULL) == 0)
		t->reissued = nr;
}

/* Another task may have its id by now. */
static bool is_reissued(const struct frozen_thread *t, const struct user_regs_struct *regs, long nr)
{
	return nr >= 0 && arch_call_nr(regs) < 0 && arch_ip(regs) == t->reissued_at &&
	       arch_call_result(regs) == arch_call_raw(nr);
}

static void take_back(struct frozen_thread *t, bool *changed)
{
	if (is_reissued(t, &t->cpu->regs, t->reissued)) {
		arch_unreissue(&t->cpu->regs, t->reissued, EINTR);
		*changed = true;
	}
	t->reissued = -1;
}

void sleep_release(const struct freezer *f, pid_t pid, struct frozen_thread *t)
{
	long nr = t->reissued >= 0 ? t->reissued : t->syscall_eintr;
	struct pending_signals pending;
	struct user_regs_struct regs;
	const struct sleeping_call *call;

	if (nr < 0 || trace_get_regs(t->tid, &regs, NULL) < 0 || !is_reissued(t, &regs, nr) ||
	    read_pending(f, pid, t->tid, &pending, NULL) < 0 ||
	    !(pending.deliverable & pending.caught))
		return;
	call = sleeping_call(nr);
	arch_unreissue(&regs, nr, EINTR);
	if (call->form == TIMEOUT_REGISTER_MS)
		arch_set_call_arg(&regs, call->arg, t->reissued_arg);
	ignore(trace_set_regs(t->tid, &regs, NULL), "it has gone");
}

int sleep_undo_stop(const struct freezer *f, pid_t pid, struct frozen_thread *t, bool *changed,
		    struct error *e)
{
	struct user_regs_struct *regs = &t->cpu->regs;
	const struct sleeping_call *call;
	uint64_t args[6];
	bool for_good = false;
	long nr;
	int r;

	take_back(t, changed);
	nr = arch_call_nr(regs);
	sleeping_args(regs, args);
	if (arch_is_restart_syscall(nr)) {
		struct task_call again = {.nr = nr, .sp = arch_sp(regs), .ip = arch_ip(regs)};

		memcpy(again.args, args, sizeof(args));
		t->cpu->restarted_nr = sleeping_restarted(t->tid, t->wchan, &again);
	}
	if (is_endless_poll(regs, nr, args)) {
		arch_set_interrupted(regs, nr, ARCH_ERESTARTNOHAND);
		*changed = true;
		return 0;
	}
	call = interrupted_call(t, regs);
	if (!call)
		return 0;
	r = interrupted_for_good(f, pid, t->tid, &for_good, e);
	if (r < 0 || for_good)
		return r;
	t->reissued_arg = args[call->arg];
	if (call->form == TIMEOUT_REGISTER_MS && sleeping_is_timed(call, args)) {
		uint64_t left = less(args[call->arg] * NS_PER_MS, sleeping_since(f, t));

		arch_set_call_arg(regs, call->arg, (left + NS_PER_MS - 1) / NS_PER_MS);
	}
	reissue(t, regs, nr);
	t->syscall_eintr = nr;
	*changed = true;
	return 0;
}
