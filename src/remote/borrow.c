/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/live_private.h"
#include "remote/maps.h"

/*
 * A live agent from its beginning to its end: what it needs of a process, its mapping, and how all
 * of that goes away again.
 */

/* Generating these does more than to queue them. */
#define JOB_SIGNALS                                                                              \
	(SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP) | SIGNAL_BIT(SIGTSTP) | SIGNAL_BIT(SIGTTIN) | \
	 SIGNAL_BIT(SIGTTOU) | SIGNAL_BIT(SIGCONT))
#define STANDARD_SIGNALS 0x7fffffffULL

static bool is_error(long result)
{
	return result < 0 && result >= -4095;
}

static int write_code(struct agent *a, pid_t tid, uint64_t at, struct error *e)
{
	return mem_write(tid, at, arch_agent_code, (size_t)(arch_agent_code_end - arch_agent_code),
			 e);
}

/*
 * Memory for the agent, at a place that is chosen here, so that what takes it away again is there
 * before it is. Where there can be none (RLIMIT_AS, a policy against code that is written at run
 * time) calls are made one by one. A thread with seccomp filters is no keeper: they may not allow
 * it to unmap anything.
 */
static int map_agent(struct agent *a, struct error *e)
{
	const uint64_t hole = a->hole;
	bool kept;
	uint64_t args[6] = {0,
			    AGENT_SIZE,
			    PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS,
			    (uint64_t)-1,
			    0};
	struct borrowed b;
	long at = 0;
	int r = live_begin(&b, a, a->tid, a->saved, e);

	if (r < 0)
		return r;
	kept = a->leave && hole && !b.filtered;
	if (hole) {
		args[0] = hole;
		args[3] |= MAP_FIXED_NOREPLACE;
	}
	a->mapping = hole;
	if (kept)
		r = live_write_leave(&b, e);
	if (r < 0)
		a->mapping = 0;
	else
		r = live_single(&b, kept ? live_leave_at(&b) : live_frame_at(&b), SYS_mmap, args,
				&at, e);
	if (r < 0) /* it may be there or not: what is not there can be removed as well */
		return live_finish(&b, r, e);
	a->mapping = is_error(at) ? 0 : (uint64_t)at;
	if (kept && a->mapping)
		a->keeper = b;
	if (a->mapping)
		r = write_code(a, b.tid, a->mapping, e);
	return live_finish(&b, r, e);
}

static int read_process(struct agent *a, const char *status, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t len = status ? 0 : procfs_read(a->proc_fd, &text, e, "%d/status", a->tid);
	uint64_t caught, ignored;
	const char *features;
	size_t n;

	if (len < 0)
		return (int)len;
	status = status ? status : text;
	if (proc_field_u64(status, "SigIgn", 16, &ignored) ||
	    proc_field_u64(status, "SigCgt", 16, &caught))
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/%d/status is not understood",
				 a->tid);
	ignore(proc_field_u64(status, "Seccomp", 10, &a->seccomp), "absent without CONFIG_SECCOMP");
	a->ignorable = (ignored | IGNORED_BY_DEFAULT) & ~caught & STANDARD_SIGNALS & ~JOB_SIGNALS &
		       ~FAULT_SIGNALS;
	/* Our return addresses are not on the shadow stack. */
	features = proc_field(status, "x86_Thread_features", &n);
	if (features && memmem(features, n, "shstk", 5))
		return error_set(e, -ENOTSUP, E_TASK_STATE, "task %d has a shadow stack", a->tid);
	return 0;
}

static int find_gadgets(struct agent *a, struct maps *maps, struct agent_found *found,
			struct error *e)
{
	struct arch_gadgets likely = {};
	int r;

	if (found && !arch_is_compat(&a->saved->regs))
		likely = (struct arch_gadgets){found->syscall_ret, found->sigreturn};
	r = text_find_gadgets(a->proc_fd, a->tid, maps, arch_is_compat(&a->saved->regs), &likely,
			      &a->gadgets, &a->patched, e);
	if (r == 0 && found && !a->patched)
		*found = (struct agent_found){a->gadgets.syscall_ret, a->gadgets.sigreturn};
	return r;
}

/* Room for two threads, the place below them, and what follows them; or else for one thread. */
static int find_slot(struct agent *a, uint64_t sp, struct maps *maps, struct error *e)
{
	size_t frame = live_frame_size(a), size = 3 * frame + LEAVE_SIZE;

	if (slot_find(a->proc_fd, a->tid, sp, maps, size, &a->slot, NULL) == 0) {
		a->leave = (a->slot.at + 3 * frame + LEAVE_ALIGN - 1) & ~(LEAVE_ALIGN - 1UL);
		return 0;
	}
	return slot_find(a->proc_fd, a->tid, sp, maps, frame + DATA_ROOM, &a->slot, e);
}

static int prepare(struct agent *a, const char *status, struct agent_found *found, struct error *e)
{
	_cleanup_(maps_free) struct maps maps = {};
	uint64_t sp = arch_sp(&a->saved->regs) - arch_red_zone();
	int r = maps_read(a->proc_fd, a->tid, sp, &maps, e);

	if (r == 0)
		r = read_process(a, status, e);
	if (r == 0)
		r = find_slot(a, sp, &maps, e);
	if (r == 0)
		r = find_gadgets(a, &maps, found, e);
	a->hole = maps.hole;
	return r;
}

int agent_prepare(struct agent **ret, int proc_fd, pid_t tid, const struct cpu_state *saved,
		  const char *status, struct agent_found *found, struct error *e)
{
	struct agent *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot make an agent");
	a->live = true;
	a->proc_fd = proc_fd;
	a->tid = a->last_tid = tid;
	a->saved = a->last_saved = saved;
	r = prepare(a, status, found, e);
	if (r < 0) {
		ignore(agent_return(a, NULL), "the first error counts");
		return r;
	}
	*ret = a;
	return 0;
}

int agent_complete(struct agent **a, struct error *e)
{
	int r = map_agent(*a, e);

	if (r < 0)
		ignore(agent_return(take_ptr(a), NULL), "the first error counts");
	return r;
}

int agent_borrow(struct agent **ret, int proc_fd, pid_t tid, const struct cpu_state *saved,
		 const char *status, struct agent_found *found, struct error *e)
{
	int r = agent_prepare(ret, proc_fd, tid, saved, status, found, e);

	return r < 0 ? r : agent_complete(ret, e);
}

static long unmap_by(struct agent *a, pid_t tid, const struct cpu_state *saved, struct error *e)
{
	const uint64_t args[6] = {a->mapping, AGENT_SIZE};
	struct borrowed b;
	long result = 0;
	int r = live_begin(&b, a, tid, saved, e);

	if (r < 0)
		return r;
	r = live_last(&b, live_frame_at(&b), SYS_munmap, args, &result, e);
	if (r == 0)
		a->keeper.tid = 0;
	if (r == 0 && !is_error(result))
		a->mapping = 0;
	r = live_finish(&b, r, e);
	return r < 0 ? r : result;
}

static int unmap_agent(struct agent *a, struct error *e)
{
	const struct borrowed keeper = a->keeper;
	long result;

	if (!a->mapping)
		return 0;
	result = keeper.tid ? unmap_by(a, keeper.tid, keeper.saved, e)
			    : unmap_by(a, a->tid, a->saved, e);
	if (result == -ESRCH && a->mapping && a->last_tid != a->tid) {
		error_clear(e);
		result = unmap_by(a, keeper.tid == a->last_tid ? a->tid : a->last_tid,
				  keeper.tid == a->last_tid ? a->saved : a->last_saved, e);
	}
	if (result == -ESRCH)
		return -ESRCH;
	return result < 0 ? error_errno(e, (int)result, E_REMOTE,
					"cannot remove what ran system calls in task %d", a->tid)
			  : 0;
}

int live_return(struct agent *a, struct error *e)
{
	int r = unmap_agent(a, e), cleared;

	if (r < 0 && r != -ESRCH && !a->abandoned && unmap_agent(a, NULL) == 0)
		a->mapping = 0;
	if (a->abandoned) {
		slot_free(&a->slot);
		return r < 0 ? r
			     : error_set(e, -EIO, E_REMOTE, "task %d was left to itself", a->tid);
	}
	cleared = a->slot.used ? slot_clear(&a->slot, a->last_tid, r < 0 ? NULL : e) : 0;
	if (r == 0)
		r = cleared;
	text_unpatch(a->proc_fd, a->last_tid, a->patched);
	if (r == -ESRCH) {
		error_clear(e); /* there is nothing to give back to */
		r = 0;
	}
	slot_free(&a->slot);
	return r;
}
