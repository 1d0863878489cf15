/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/ptrace.h"

#include <asm/ldt.h>
#include <elf.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/kabi.h"
#include "remote/tracer.h"

/*
 * glibc's ptrace() takes the request as an enum that lacks the newer ones, and
 * hides results behind errno for PEEK requests: the raw call does neither.
 */
static long do_ptrace(long request, pid_t tid, unsigned long addr, const void *data)
{
	return tracer_ptrace(request, tid, addr, (void *)data);
}

enum error_code trace_error_code(int err)
{
	return err == -ESRCH ? E_TASK_GONE : err == -EPERM ? E_PERMISSION : E_REMOTE;
}

static int failed(struct error *e, long r, pid_t tid, const char *what)
{
	if (r == -ESRCH)
		return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended, or is not stopped",
				 tid);
	return error_errno(e, (int)r, trace_error_code((int)r), "cannot %s task %d", what, tid);
}

static int simple(long request, pid_t tid, unsigned long addr, const void *data, struct error *e,
		  const char *what)
{
	long r = do_ptrace(request, tid, addr, data);

	return r < 0 ? failed(e, r, tid, what) : 0;
}

int trace_seize(pid_t tid, unsigned long options, struct error *e)
{
	/*
	 * TRACESYSGOOD always: when a tracer dies, a syscall stop turns into the
	 * signal that it reported. With the option that is no valid signal and
	 * is dropped; without it, it is a SIGTRAP, which kills.
	 */
	return simple(PTRACE_SEIZE, tid, 0, (void *)(options | PTRACE_O_TRACESYSGOOD), e, "trace");
}

int trace_set_options(pid_t tid, unsigned long options, struct error *e)
{
	return simple(PTRACE_SETOPTIONS, tid, 0, (void *)(options | PTRACE_O_TRACESYSGOOD), e,
		      "set the tracing options of");
}

int trace_interrupt(pid_t tid, struct error *e)
{
	return simple(PTRACE_INTERRUPT, tid, 0, NULL, e, "interrupt");
}

int trace_get_event(pid_t tid, unsigned long *ret, struct error *e)
{
	return simple(PTRACE_GETEVENTMSG, tid, 0, ret, e, "read the event of");
}

int trace_cont(pid_t tid, int signal, struct error *e)
{
	return simple(PTRACE_CONT, tid, 0, (void *)(long)signal, e, "resume");
}

int trace_syscall(pid_t tid, int signal, struct error *e)
{
	return simple(PTRACE_SYSCALL, tid, 0, (void *)(long)signal, e, "resume");
}

int trace_detach(pid_t tid, int signal, struct error *e)
{
	long r = do_ptrace(PTRACE_DETACH, tid, 0, (void *)(long)signal);

	return r < 0 && r != -ESRCH ? failed(e, r, tid, "detach from") : 0;
}

int trace_get_regs(pid_t tid, struct user_regs_struct *ret, struct error *e)
{
	/* Not PTRACE_GETREGSET, whose form depends on the code segment (task_user_regset_view()).
	 */
	return simple(PTRACE_GETREGS, tid, 0, ret, e, "read the registers of");
}

int trace_set_regs(pid_t tid, const struct user_regs_struct *regs, struct error *e)
{
	return simple(PTRACE_SETREGS, tid, 0, regs, e, "set the registers of");
}

int trace_get_xstate(pid_t tid, void *buf, uint32_t *len, struct error *e)
{
	struct iovec iov = {buf, *len};
	int r = simple(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov, e, "read the extended state of");

	if (r < 0)
		return r;
	if (iov.iov_len == *len)
		return error_set(e, -E2BIG, E_REMOTE,
				 "the extended state of task %d is larger than %u bytes", tid,
				 *len);
	*len = (uint32_t)iov.iov_len;
	return 0;
}

int trace_set_xstate(pid_t tid, const void *buf, uint32_t len, struct error *e)
{
	struct iovec iov = {(void *)buf, len};

	return simple(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &iov, e, "set the extended state of");
}

int trace_get_sigmask(pid_t tid, uint64_t *ret, struct error *e)
{
	return simple(PTRACE_GETSIGMASK, tid, sizeof(*ret), ret, e, "read the signal mask of");
}

int trace_set_sigmask(pid_t tid, uint64_t mask, struct error *e)
{
	return simple(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask, e, "set the signal mask of");
}

int trace_get_siginfo(pid_t tid, siginfo_t *ret, struct error *e)
{
	return simple(PTRACE_GETSIGINFO, tid, 0, ret, e, "read the signal of");
}

int trace_set_siginfo(pid_t tid, const siginfo_t *info, struct error *e)
{
	return simple(PTRACE_SETSIGINFO, tid, 0, info, e, "change the signal of");
}

int trace_peek_siginfo(pid_t tid, bool shared, uint64_t offset, siginfo_t *buf, int n,
		       struct error *e)
{
	struct ptrace_peeksiginfo_args args = {
		.off = offset,
		.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0,
		.nr = n,
	};
	long r = do_ptrace(PTRACE_PEEKSIGINFO, tid, (unsigned long)&args, buf);

	return r < 0 ? failed(e, r, tid, "read the pending signals of") : (int)r;
}

int trace_get_rseq(pid_t tid, struct trace_rseq *ret, struct error *e)
{
	struct ptrace_rseq_configuration conf = {};
	long r = do_ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof(conf), &conf);

	*ret = (struct trace_rseq){};
	if (r == -EIO || r == -EINVAL)
		return 0; /* before 5.13, or built without rseq */
	if (r < 0)
		return failed(e, r, tid, "read the restartable sequences of");
	*ret = (struct trace_rseq){
		.address = conf.rseq_abi_pointer,
		.size = conf.rseq_abi_size,
		.signature = conf.signature,
		.flags = conf.flags,
	};
	return 0;
}

int trace_get_dispatch(pid_t tid, struct ptrace_sud_config *ret, struct error *e)
{
	long r;

	*ret = (struct ptrace_sud_config){};
	r = do_ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, sizeof(*ret), ret);
	/* Before 6.4 it cannot be asked for, or the kernel has no such thing. */
	if (r == -EIO || r == -EINVAL)
		return 1;
	return r < 0 ? failed(e, r, tid, "read the system call dispatch of") : 0;
}

int trace_get_segments(pid_t tid, struct user_desc *ret, struct error *e)
{
	for (unsigned int i = 0; i < TRACE_SEGMENTS; i++) {
		long r = do_ptrace(PTRACE_GET_THREAD_AREA, tid, TRACE_SEGMENT_FIRST + i, &ret[i]);

		if (r < 0)
			return failed(e, r, tid, "read the segments of");
	}
	return 0;
}

int trace_set_segment(pid_t tid, const struct user_desc *segment, struct error *e)
{
	return simple(PTRACE_SET_THREAD_AREA, tid, segment->entry_number, segment, e,
		      "set a segment of");
}

int trace_is_compat_call(pid_t tid, struct error *e)
{
	struct ptrace_syscall_info info;
	long r = do_ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info);

	return r < 0 ? failed(e, r, tid, "read the system call of") : info.arch == AUDIT_ARCH_I386;
}

#define NT_IOPERM 0x201 /* NT_386_IOPERM */

bool trace_has_ports(pid_t tid)
{
	uint64_t bits;
	struct iovec some = {&bits, sizeof(bits)};

	/* ENXIO: no port at all (ioperm_get()) */
	return do_ptrace(PTRACE_GETREGSET, tid, NT_IOPERM, &some) == 0;
}

int trace_get_seccomp_filter(pid_t tid, unsigned long index, struct sock_filter *insns,
			     struct error *e)
{
	long r = do_ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, insns);

	if (r == -ENOENT)
		return -ENOENT;
	if (r == -EACCES)
		return error_set(e, -EACCES, E_TASK_SECCOMP,
				 "no permission to read the seccomp filters of task %d", tid);
	return r < 0 ? failed(e, r, tid, "read the seccomp filters of") : (int)r;
}

int trace_get_seccomp_flags(pid_t tid, unsigned long index, uint64_t *ret, struct error *e)
{
	struct seccomp_metadata md = {.filter_off = index};
	long r = do_ptrace(PTRACE_SECCOMP_GET_METADATA, tid, sizeof(md), &md);

	if (r == -ENOENT)
		return -ENOENT;
	if (r < 0)
		return failed(e, r, tid, "read the seccomp filters of");
	*ret = md.flags;
	return 0;
}

int trace_save(pid_t tid, struct cpu_state *ret, struct error *e)
{
	int r = trace_get_regs(tid, &ret->regs, e);

	if (r < 0)
		return r;
	ret->restarted_nr = -1;
	ret->faults = 0;
	ret->xstate_len = sizeof(ret->xstate);
	r = trace_get_xstate(tid, ret->xstate, &ret->xstate_len, e);
	if (r < 0)
		return r;
	return trace_get_sigmask(tid, &ret->sigmask, e);
}

static int transfer(pid_t tid, uint64_t addr, void *buf, size_t len, bool write, struct error *e)
{
	struct iovec local = {buf, len}, remote = {(void *)addr, len};
	ssize_t n = write ? process_vm_writev(tid, &local, 1, &remote, 1, 0)
			  : process_vm_readv(tid, &local, 1, &remote, 1, 0);
	int r = n < 0 ? -errno : -EFAULT;

	if (n >= 0 && (size_t)n == len)
		return 0;
	if (r == -ESRCH)
		return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
	return error_errno(e, r, trace_error_code(r), "cannot %s %zu bytes at %#lx of task %d",
			   write ? "write" : "read", len, (unsigned long)addr, tid);
}

int mem_read(pid_t tid, uint64_t addr, void *buf, size_t len, struct error *e)
{
	return len ? transfer(tid, addr, buf, len, false, e) : 0;
}

int mem_write(pid_t tid, uint64_t addr, const void *buf, size_t len, struct error *e)
{
	return len ? transfer(tid, addr, (void *)buf, len, true, e) : 0;
}
