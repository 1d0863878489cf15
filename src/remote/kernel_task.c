/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/kernel_task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "core/cleanup.h"
#include "core/procfs.h"

/*
 * Members are found by the kernel's own description of its types. Whole structures
 * are read at once, since each reading is a system call or two.
 */
#define STRUCTURE_MAX 16384

struct reading {
	struct kernel_memory *memory;
	const char *type;
	uint64_t at;
	size_t size;
	uint8_t bytes[STRUCTURE_MAX];
};

static int read_structure(struct reading *r, const char *type, uint64_t at)
{
	int size = kernel_size(r->memory, type);

	if (size <= 0 || size > STRUCTURE_MAX)
		return -EOPNOTSUPP;
	r->type = type;
	r->at = at;
	r->size = (size_t)size;
	return kernel_read(r->memory, at, r->bytes, r->size);
}

/* -ENOENT: this kernel has no such member. */
static int get(const struct reading *r, const char *member, void *ret, size_t len)
{
	int offset = kernel_offset(r->memory, r->type, member);

	if (offset < 0)
		return -ENOENT;
	if ((size_t)offset + len > r->size)
		return -EOPNOTSUPP;
	memcpy(ret, r->bytes + offset, len);
	return 0;
}

struct member {
	const char *name, *before; /* what it was called by other kernels, NULL: the same */
	size_t at, len;
	bool optional; /* a kernel without it cannot have it set */
};

#define FIELD(f) offsetof(struct kernel_task, f), sizeof(((struct kernel_task *)0)->f)

static const struct member task_members[] = {
	{"stack", NULL, FIELD(stack), false},
	{"vfork_done", NULL, FIELD(vfork_done), false},
	{"thread_info.flags", NULL, FIELD(thread_flags), false},
	{"atomic_flags", NULL, FIELD(atomic_flags), false},
	{"flags", NULL, FIELD(flags), false},
	{"pdeath_signal", NULL, FIELD(pdeath_signal), false},
	{"sas_ss_sp", NULL, FIELD(altstack_sp), false},
	{"sas_ss_size", NULL, FIELD(altstack_size), false},
	{"sas_ss_flags", NULL, FIELD(altstack_flags), false},
	{"rseq", "rseq.usrptr", FIELD(rseq), false},
	{"rseq_len", "rseq.len", FIELD(rseq_size), true}, /* before 6.3 all are of one size */
	{"rseq_sig", "rseq.sig", FIELD(rseq_signature), false},
	{"clear_child_tid", NULL, FIELD(clear_child_tid), false},
	{"timer_slack_ns", NULL, FIELD(timer_slack), false},
	{"syscall_dispatch.selector", NULL, FIELD(dispatch_selector), true},
	{"syscall_dispatch.offset", NULL, FIELD(dispatch_offset), true},
	{"syscall_dispatch.len", NULL, FIELD(dispatch_len), true},
	{"mempolicy", NULL, FIELD(mempolicy), true},
	{"seccomp.filter", NULL, FIELD(seccomp_filter), true},
	{"thread.io_bitmap", NULL, FIELD(io_bitmap), true},
	{"thread.iopl_emul", NULL, FIELD(iopl), true},
	{"thread.pkru", NULL, FIELD(pkru), true},
	{"thread.tls_array", NULL, FIELD(segments), false},
	{"thread.fsbase", NULL, FIELD(regs.fs_base), false},
	{"thread.gsbase", NULL, FIELD(regs.gs_base), false},
	{"thread.ds", NULL, offsetof(struct kernel_task, regs.ds), 2, false},
	{"thread.es", NULL, offsetof(struct kernel_task, regs.es), 2, false},
	{"thread.fsindex", NULL, offsetof(struct kernel_task, regs.fs), 2, false},
	{"thread.gsindex", NULL, offsetof(struct kernel_task, regs.gs), 2, false},
};

static const struct member signal_members[] = {
	{"real_timer.node.expires", NULL, FIELD(real_expires), false},
	{"real_timer.state", "real_timer.is_queued", FIELD(real_state), false},
	{"it_real_incr", NULL, FIELD(real_interval), false},
	{"it", NULL, FIELD(cpu_timers), false},
	{"is_child_subreaper", NULL, FIELD(subreaper), false}, /* the lowest bit of its byte */
};

static int get_members(const struct reading *r, const struct member *m, size_t n,
		       struct kernel_task *ret)
{
	int res = 0;

	for (size_t i = 0; i < n && res == 0; i++) {
		void *to = (char *)ret + m[i].at;

		res = get(r, m[i].name, to, m[i].len);
		if (res == -ENOENT && m[i].before)
			res = get(r, m[i].before, to, m[i].len);
		if (res == -ENOENT && m[i].optional)
			res = 0;
	}
	return res;
}

#define GET_MEMBERS(r, list, ret) get_members(r, list, sizeof(list) / sizeof(*(list)), ret)

/* The extended state of a task that has been switched away from is in memory. */
static int read_fpu(struct reading *r, uint64_t fpu, struct kernel_task *ret)
{
	uint64_t state;
	int offset = kernel_offset(r->memory, "fpu", "fpstate"), res;
	int regs = kernel_offset(r->memory, "fpstate", "regs");

	if (offset < 0 || regs < 0)
		return -EOPNOTSUPP;
	state = kernel_pointer(r->memory, fpu + (uint64_t)offset);
	res = read_structure(r, "fpstate", state);
	if (res == 0)
		res = get(r, "size", &ret->xsave_size, sizeof(ret->xsave_size));
	if (res == 0)
		res = get(r, "user_xfeatures", &ret->xfeatures, sizeof(ret->xfeatures));
	if (res == 0 && ret->xsave_size > sizeof(ret->xsave))
		res = -EOPNOTSUPP;
	return res < 0 ? res
		       : kernel_read(r->memory, state + (uint64_t)regs, ret->xsave,
				     ret->xsave_size);
}

/* It is a member, or (6.16) stands behind the task, see x86_task_fpu(). */
static uint64_t place_of_fpu(const struct reading *task)
{
	int offset = kernel_offset(task->memory, "task_struct", "thread.fpu");

	return task->at + (offset < 0 ? task->size : (size_t)offset);
}

static int read_signals(struct reading *r, uint64_t sighand, uint64_t signal,
			struct kernel_task *ret)
{
	int res = read_structure(r, "sighand_struct", sighand);

	if (res == 0)
		res = get(r, "action", ret->actions, sizeof(ret->actions));
	if (res == 0)
		res = read_structure(r, "signal_struct", signal);
	if (res == 0)
		res = GET_MEMBERS(r, signal_members, ret);
	ret->subreaper &= 1;
	return res;
}

static int read_all(struct reading *r, uint64_t task, struct kernel_task *ret)
{
	uint64_t sighand = 0, signal = 0, cred = 0, fpu;
	uint32_t on_cpu = 1;
	int res = read_structure(r, "task_struct", task);

	if (res == 0)
		res = GET_MEMBERS(r, task_members, ret);
	if (res == 0)
		res = get(r, "on_cpu", &on_cpu, sizeof(on_cpu));
	if (res == 0 && on_cpu)
		res = -EAGAIN; /* its registers are where we cannot see them */
	if (res == 0)
		res = get(r, "sighand", &sighand, sizeof(sighand));
	if (res == 0)
		res = get(r, "signal", &signal, sizeof(signal));
	if (res == 0)
		res = get(r, "real_cred", &cred, sizeof(cred));
	if (res < 0)
		return res;
	fpu = place_of_fpu(r);
	res = read_structure(r, "cred", cred);
	if (res == 0)
		res = get(r, "securebits", &ret->securebits, sizeof(ret->securebits));
	if (res == 0)
		res = read_signals(r, sighand, signal, ret);
	return res < 0 ? res : read_fpu(r, fpu, ret);
}

/* The system call, its arguments, stack and instruction pointer, as /proc tells them. */
static bool agrees(const char *syscall, const struct user_regs_struct *regs)
{
	uint64_t args[6], sp, ip;
	long nr;

	if (sscanf(syscall, "%ld %lx %lx %lx %lx %lx %lx %lx %lx", &nr, &args[0], &args[1],
		   &args[2], &args[3], &args[4], &args[5], &sp, &ip) != 9)
		return false;
	for (unsigned int i = 0; i < 6; i++)
		if (arch_call_arg(regs, i) != args[i])
			return false;
	return arch_call_raw(arch_call_nr(regs)) == nr && arch_sp(regs) == sp &&
	       arch_ip(regs) == ip;
}

/*
 * They were pushed by the entry of the system call, at the top of the kernel stack
 * (task_pt_regs()). How large that is, and whether some bytes are left free, is not described: what
 * agrees with /proc is right.
 */
static int read_regs(struct kernel_memory *k, const char *syscall, struct kernel_task *ret)
{
	static const struct {
		uint32_t size, padding;
	} stacks[] = {{16384, 0}, {16384, 16}, {32768, 0}, {32768, 16}};
	const size_t len = offsetof(struct user_regs_struct, fs_base); /* struct pt_regs */

	for (size_t i = 0; i < sizeof(stacks) / sizeof(*stacks); i++) {
		uint64_t at = ret->stack + stacks[i].size - stacks[i].padding - len;

		if (kernel_read(k, at, &ret->regs, len) < 0 || !agrees(syscall, &ret->regs))
			continue;
		ret->stack_size = stacks[i].size;
		ret->regs.cs &= 0xffff; /* FRED keeps more there */
		ret->regs.ss &= 0xffff;
		return 0;
	}
	return -EOPNOTSUPP;
}

static int failed(struct error *e, int err, pid_t tid)
{
	if (err == -ESRCH)
		return error_set(e, err, E_TASK_GONE, "task %d has ended", tid);
	return error_errno(e, err, E_TASK_VFORK, "what the kernel knows of task %d cannot be read",
			   tid);
}

int kernel_task_read(struct kernel_memory *k, int proc_fd, pid_t pid, pid_t tid,
		     struct kernel_task *ret, struct error *e)
{
	_cleanup_(free_ptr) struct reading *r = malloc(sizeof(*r));
	_cleanup_(free_ptr) char *syscall = NULL;
	uint64_t task;
	int res;

	if (!r)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a task");
	memset(ret, 0, sizeof(*ret));
	r->memory = k;
	res = (int)procfs_read(proc_fd, &syscall, e, "%d/task/%d/syscall", pid, tid);
	if (res < 0)
		return res;
	res = kernel_task(k, tid, &task);
	if (res == 0)
		res = read_all(r, task, ret);
	if (res == 0)
		res = read_regs(k, syscall, ret);
	return res < 0 ? failed(e, res, tid) : 0;
}

int kernel_task_settings(struct kernel_memory *k, pid_t tid, struct kernel_task *ret,
			 struct error *e)
{
	_cleanup_(free_ptr) struct reading *r = malloc(sizeof(*r));
	uint64_t task;
	int res;

	if (!r)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a task");
	memset(ret, 0, sizeof(*ret));
	r->memory = k;
	res = kernel_task(k, tid, &task);
	if (res == 0)
		res = read_structure(r, "task_struct", task);
	if (res == 0)
		res = GET_MEMBERS(r, task_members, ret);
	return res < 0 ? failed(e, res, tid) : 0;
}
