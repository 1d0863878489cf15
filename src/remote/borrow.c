/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/live_private.h"
#include "remote/maps.h"

/*
 * A live agent from its beginning to its end: what it needs of a process, and how all of that goes
 * away again.
 */

/* Generating these does more than to queue them. */
#define JOB_SIGNALS                                                                              \
	(SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP) | SIGNAL_BIT(SIGTSTP) | SIGNAL_BIT(SIGTTIN) | \
	 SIGNAL_BIT(SIGTTOU) | SIGNAL_BIT(SIGCONT))
#define STANDARD_SIGNALS 0x7fffffffULL

/* As the innermost pid namespace has it; 0: not told. */
static pid_t last_number(const char *status, const char *field)
{
	size_t len;
	const char *at = proc_field(status, field, &len), *last = at;

	for (; at && *at && *at != '\n'; at++)
		if (*at == ' ' || *at == '\t')
			last = at + 1;
	return last ? (pid_t)strtol(last, NULL, 10) : 0;
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
	/* A signal for the process is dropped if its first thread has ended: see live_post(). */
	a->own_pid = last_number(status, "NSpid");
	if (a->own_pid != last_number(status, "NStgid"))
		a->own_pid = 0;
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
	int r = live_map(*a, e);

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

int live_return(struct agent *a, struct error *e)
{
	int r = live_unmap(a, e), cleared;

	if (r < 0 && r != -ESRCH && !a->abandoned && live_unmap(a, NULL) == 0)
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
