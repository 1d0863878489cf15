/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "kernel/seccomp.h"

#define FILTERS_MAX 64

/* Whoever answers has a descriptor of the filter as it was installed, which cannot be made again.
 */
static bool asks_somebody(const struct sock_filter *insns, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (insns[i].code == (BPF_RET | BPF_K) &&
		    (insns[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
			return true;
	return false;
}

static int refuse_asking(struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_TASK_SECURITY,
			 "has a seccomp filter that asks another process (SECCOMP_RET_USER_NOTIF)");
}

static int refuse_number(struct error *e)
{
	return error_set(e, -E2BIG, E_TASK_STATE, "has more than %d seccomp filters", FILTERS_MAX);
}

/* As they were loaded, which the kernel keeps for PTRACE_SECCOMP_GET_FILTER. */
static bool asks_in_kernel(struct kernel_memory *k, uint64_t filter)
{
	_cleanup_(free_ptr) struct sock_filter *insns = NULL;
	uint64_t program = 0, original = 0, at = 0;
	uint16_t n = 0;

	if (kernel_member(k, filter, "seccomp_filter", "prog", &program, 8) < 0 ||
	    kernel_member(k, program, "bpf_prog", "orig_prog", &original, 8) < 0 ||
	    kernel_member(k, original, "sock_fprog_kern", "len", &n, sizeof(n)) < 0 ||
	    kernel_member(k, original, "sock_fprog_kern", "filter", &at, 8) < 0)
		return false;
	insns = calloc(n + 1ul, sizeof(*insns));
	return insns && kernel_read(k, at, insns, n * sizeof(*insns)) >= 0 &&
	       asks_somebody(insns, n);
}

int seccomp_look(struct kernel_memory *k, uint64_t filter, struct error *e)
{
	for (int i = 0; filter; i++) {
		if (i == FILTERS_MAX)
			return refuse_number(e);
		if (asks_in_kernel(k, filter))
			return refuse_asking(e);
		if (kernel_member(k, filter, "seccomp_filter", "prev", &filter, 8) < 0)
			break;
	}
	return 0;
}

static int read_filter(pid_t tid, unsigned long index, Reprise__SeccompFilter *f, struct scratch *s,
		       struct error *e)
{
	int n = trace_get_seccomp_filter(tid, index, NULL, e);
	int r;

	if (n < 0)
		return n;
	f->insns.len = (size_t)n * sizeof(struct sock_filter);
	f->insns.data = scratch_alloc(s, f->insns.len + 1);
	if (!f->insns.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a seccomp filter");
	r = trace_get_seccomp_filter(tid, index, (struct sock_filter *)f->insns.data, e);
	if (r >= 0 && asks_somebody((struct sock_filter *)f->insns.data, (size_t)n))
		return refuse_asking(e);
	return r < 0 ? r : trace_get_seccomp_flags(tid, index, &f->flags, e);
}

static int read_filters(pid_t tid, Reprise__Task *msg, struct scratch *s, struct error *e)
{
	msg->seccomp = scratch_alloc(s, FILTERS_MAX * sizeof(*msg->seccomp));
	if (!msg->seccomp)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for seccomp filters");
	for (unsigned long i = 0;; i++) {
		Reprise__SeccompFilter *f;
		int r;

		if (i == FILTERS_MAX)
			return refuse_number(e);
		f = scratch_message(s, Reprise__SeccompFilter, reprise__seccomp_filter__init);
		if (!f)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for seccomp filters");
		r = read_filter(tid, i, f, s, e);
		if (r == -ENOENT && i) {
			error_clear(e);
			break;
		}
		if (r < 0)
			return r;
		msg->seccomp[msg->n_seccomp++] = f;
	}
	return 0;
}

int seccomp_checkpoint(pid_t tid, unsigned int mode, Reprise__Task *msg, struct scratch *s,
		       struct error *e)
{
	int r;

	msg->seccomp_mode = mode;
	if (mode != SECCOMP_MODE_FILTER)
		return 0;
	r = read_filters(tid, msg, s, e);
	if (r == -EACCES || r == -EPERM) {
		error_clear(e);
		return error_set(e, r, E_TASK_SECCOMP,
				 "has seccomp filters, which may not be read");
	}
	return r;
}

int seccomp_validate(const Reprise__Task *msg, struct error *e)
{
	if (msg->seccomp_mode > SECCOMP_MODE_FILTER)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "seccomp mode %u",
				 msg->seccomp_mode);
	for (size_t i = 0; i < msg->n_seccomp; i++) {
		size_t len = msg->seccomp[i]->insns.len;

		if (len == 0 || len % sizeof(struct sock_filter) ||
		    len / sizeof(struct sock_filter) > BPF_MAXINSNS)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a seccomp filter of %zu bytes", len);
	}
	return 0;
}

static int install_filter(struct restart_task *t, const Reprise__SeccompFilter *f, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const struct sock_fprog prog = {
		.len = (unsigned short)(f->insns.len / sizeof(struct sock_filter))};
	uint32_t insns = batch_data(&b, f->insns.data, (uint32_t)f->insns.len);
	uint32_t at = batch_data(&b, &prog, sizeof(prog));
	int call, r;

	batch_pointer(&b, at + (uint32_t)offsetof(struct sock_fprog, filter), insns);
	call = batch_call(&b, SYS_seccomp, VAL(SECCOMP_SET_MODE_FILTER), VAL(f->flags), DATA(at));
	r = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (r >= 0 && batch_result(&b, call) < 0)
		r = error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				"cannot install a seccomp filter");
	return r;
}

int seccomp_restart(struct restart_task *t, const Reprise__Task *now, struct error *e)
{
	const Reprise__Task *m = t->msg;
	int r;

	if (m->seccomp_mode == 0)
		return 0;
	r = trace_set_options(t->tid, PTRACE_O_EXITKILL | PTRACE_O_SUSPEND_SECCOMP, e);
	if (r < 0)
		return r;
	for (size_t i = now->n_seccomp; i < m->n_seccomp; i++) {
		r = install_filter(t, m->seccomp[i], e);
		if (r < 0)
			return r;
	}
	if (m->seccomp_mode == SECCOMP_MODE_STRICT && now->seccomp_mode != SECCOMP_MODE_STRICT) {
		const uint64_t args[6] = {PR_SET_SECCOMP, SECCOMP_MODE_STRICT};
		long res = agent_syscall(t->process->agent, t->tid, NULL, e, SYS_prctl, args);

		if (res < 0)
			return error_errno(e, (int)res, E_RESTORE,
					   "cannot enter strict seccomp mode");
	}
	return 0;
}
