/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "arch/arch.h"
#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/kernel_task.h"
#include "remote/survey.h"

/*
 * A thread that waits in vfork() sleeps where only a deadly signal reaches it. As
 * long as its child stands still so does the thread, without being traced: what
 * there is to know of it is read from the kernel's memory.
 */

#define I386_CLONE ARCH_COMPAT_CALL(120)
#define I386_VFORK ARCH_COMPAT_CALL(190)

/* All others stand still meanwhile. */
#define MOMENT_NS   10000000ULL
#define PATIENCE_NS 200000000ULL

static bool is_clone(long nr)
{
	return nr == SYS_clone || nr == I386_CLONE;
}

static bool is_clone3(long nr)
{
	return nr == SYS_clone3 || nr == ARCH_COMPAT_CALL(SYS_clone3);
}

bool vfork_is_call(long nr)
{
#ifdef SYS_vfork
	if (nr == SYS_vfork || nr == I386_VFORK)
		return true;
#endif
	return is_clone(nr) || is_clone3(nr);
}

bool freezer_in_vfork(const struct freezer *f, pid_t pid, pid_t tid, char state)
{
	struct task_call call;
	uint64_t flags;

	if (state != 'D' || !freezer_call(f->proc_fd, pid, tid, &call) || !vfork_is_call(call.nr))
		return false;
	if (!is_clone(call.nr) && !is_clone3(call.nr))
		return true;
	flags = call.args[0];
	if (is_clone3(call.nr) && mem_read(tid, flags, &flags, sizeof(flags), NULL) < 0)
		return false;
	return flags & CLONE_VFORK;
}

static int open_memory(struct freezer *f, struct error *e)
{
	if (!f->memory_tried)
		ignore(kernel_memory_open(f->proc_fd, &f->memory, &f->memory_error), "for later");
	f->memory_tried = true;
	if (f->memory)
		return 0;
	return error_set(e, -ENOTSUP, E_TASK_VFORK, "%s", f->memory_error.text);
}

int freezer_kernel_task(struct freezer *f, pid_t pid, pid_t tid, struct kernel_task *ret,
			struct error *e)
{
	int r = open_memory(f, e);

	return r < 0 ? r : kernel_task_read(f->memory, f->proc_fd, pid, tid, ret, e);
}

bool vfork_holds(struct freezer *f, pid_t pid, pid_t tid)
{
	struct proc_stat st;

	return proc_stat_read(f->proc_fd, pid, tid, &st, NULL) == 0 &&
	       freezer_in_vfork(f, pid, tid, st.state) && open_memory(f, NULL) == 0;
}

static bool has_pending(const struct freezer *f, pid_t pid, pid_t tid)
{
	_cleanup_(free_ptr) char *status = NULL;
	uint64_t own, shared;

	return procfs_read(f->proc_fd, &status, NULL, "%d/task/%d/status", pid, tid) > 0 &&
	       proc_field_u64(status, "SigPnd", 16, &own) == 0 &&
	       proc_field_u64(status, "ShdPnd", 16, &shared) == 0 && (own || shared);
}

bool vfork_lasts(const struct freezer *f, pid_t pid, struct frozen_thread *t)
{
	uint64_t now = monotonic_ns();

	if (!t->vfork_since)
		t->vfork_since = now;
	if (now - t->vfork_since < MOMENT_NS)
		return false;
	return now - t->vfork_since >= PATIENCE_NS || !has_pending(f, pid, t->tid);
}

/* The kernel keeps the place to be told (vfork_done) on the stack of who waits. */
struct frozen_process *freezer_vfork_child(struct freezer *f, const struct frozen_process *p,
					   pid_t tid, const struct kernel_task *kernel)
{
	vec_for_each (q, &f->processes) {
		int offset = kernel_offset(f->memory, "task_struct", "vfork_done");
		uint64_t task;

		if (q->ppid != p->pid || q->ptid != tid || q->zombie || offset < 0 ||
		    kernel_task(f->memory, q->pid, &task) < 0)
			continue;
		if (kernel_pointer(f->memory, task + (uint64_t)offset) - kernel->stack <
		    kernel->stack_size)
			return q;
	}
	return NULL;
}

static int read_mask(const struct freezer *f, pid_t pid, pid_t tid, uint64_t *ret, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	ssize_t len = procfs_read(f->proc_fd, &status, e, "%d/task/%d/status", pid, tid);

	if (len < 0)
		return (int)len;
	if (proc_field_u64(status, "SigBlk", 16, ret) < 0)
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/%d/status is not understood", tid);
	return 0;
}

/* The child has an extended state of the same form, which is known. */
static int make_cpu(const struct kernel_task *k, const struct cpu_state *child,
		    struct cpu_state *ret, struct error *e)
{
	ret->regs = k->regs;
	if (arch_is_odd(&ret->regs) || arch_is_compat(&ret->regs) != arch_is_compat(&child->regs))
		return error_set(e, -ENOTSUP, E_TASK_COMPAT, "runs code of another width");
	ret->restarted_nr = -1;
	ret->faults = 0;
	ret->xstate_len = child->xstate_len;
	memcpy(ret->xstate, child->xstate, child->xstate_len);
	if (!arch_xstate_expand(k->xsave, k->xsave_size, k->xfeatures, k->pkru, ret->xstate,
				ret->xstate_len))
		return error_set(e, -ENOTSUP, E_TASK_VFORK, "its extended state cannot be read");
	return 0;
}

static const struct cpu_state *cpu_of(const struct frozen_process *p)
{
	return p->threads.n ? p->threads.v[0].cpu : NULL;
}

static int save(struct freezer *f, const struct frozen_process *p, struct frozen_thread *t,
		struct error *e)
{
	const struct frozen_process *child;
	const struct cpu_state *cpu;
	int r = freezer_kernel_task(f, p->pid, t->tid, t->kernel, e);

	if (r < 0)
		return r;
	child = freezer_vfork_child(f, p, t->tid, t->kernel);
	cpu = child ? cpu_of(child) : NULL;
	if (!cpu)
		return error_set(e, -EBUSY, E_TASK_VFORK,
				 "task %d waits in vfork() for a task that is not its child",
				 t->tid);
	t->vfork_child = child->pid;
	r = make_cpu(t->kernel, cpu, t->cpu, e);
	return r < 0 ? r : read_mask(f, p->pid, t->tid, &t->cpu->sigmask, e);
}

int vfork_save(struct freezer *f, const struct frozen_process *p, struct frozen_thread *t,
	       struct error *e)
{
	thread_forget_stop(t);
	t->cpu = aligned_alloc(_Alignof(struct cpu_state), sizeof(*t->cpu));
	t->kernel = calloc(1, sizeof(*t->kernel));
	if (!t->cpu || !t->kernel)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot keep the registers of task %d",
				 t->tid);
	return save(f, p, t, e);
}
