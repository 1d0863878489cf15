/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cleanup.h"
#include "remote/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define CALLS_AT   (AGENT_HEADER_AT + WIRE_HEADER_SIZE)
#define PEEK_COUNT 32

/* Not one of the kernel's, and not negative: RLIMIT_SIGPENDING does not apply then. */
#define AGENT_SI_CODE 0x5250

static size_t calls_size(const struct batch *b)
{
	return ((size_t)b->ncalls * WIRE_CALL_SIZE + 15) & ~15UL;
}

uint64_t agent_data_at(const struct agent *a, const struct batch *b)
{
	return a->mapping + CALLS_AT + calls_size(b);
}

uint64_t agent_raised_at(const struct agent *a)
{
	return a->mapping + (uint64_t)(arch_agent_raised - arch_agent_code);
}

int agent_load(const struct agent *a, pid_t tid, struct batch *b, struct agent_header *h,
	       struct error *e)
{
	siginfo_t info = {.si_code = AGENT_SI_CODE};
	uint8_t gap[16] = {};
	struct iovec local[4] = {
		{h, sizeof(*h)},
		{b->calls, (size_t)b->ncalls * WIRE_CALL_SIZE},
		{gap, calls_size(b) - (size_t)b->ncalls * WIRE_CALL_SIZE},
		{b->data, b->data_len},
	};
	struct iovec remote = {(void *)(a->mapping + AGENT_HEADER_AT),
			       sizeof(*h) + calls_size(b) + b->data_len};
	ssize_t n;
	int r;

	info.si_signo = (int)h->signal;
	h->ncalls = b->ncalls;
	h->calls = a->mapping + CALLS_AT;
	h->data = agent_data_at(a, b);
	memcpy(h->siginfo, &info, sizeof(h->siginfo));
	n = process_vm_writev(tid, local, 4, &remote, 1, 0);
	r = n < 0 ? -errno : -EFAULT;
	if (n < 0 || (size_t)n != remote.iov_len)
		return error_errno(e, r, trace_error_code(r),
				   "cannot write a list of system calls into task %d", tid);
	return 0;
}

int agent_unload(const struct agent *a, pid_t tid, struct batch *b, struct error *e)
{
	uint8_t gap[16];
	struct iovec local[3] = {
		{b->calls, (size_t)b->ncalls * WIRE_CALL_SIZE},
		{gap, calls_size(b) - (size_t)b->ncalls * WIRE_CALL_SIZE},
		{b->data, b->data_len},
	};
	struct iovec remote = {(void *)(a->mapping + CALLS_AT), calls_size(b) + b->data_len};
	ssize_t n;
	int r;

	if (!remote.iov_len)
		return 0;
	n = process_vm_readv(tid, local, 3, &remote, 1, 0);
	r = n < 0 ? -errno : -EFAULT;
	if (n < 0 || (size_t)n != remote.iov_len)
		return error_errno(e, r, trace_error_code(r),
				   "cannot read the results of system calls from task %d", tid);
	return 0;
}

static int pending_in(pid_t tid, bool shared, uint64_t *ret, struct error *e)
{
	siginfo_t infos[PEEK_COUNT];
	uint64_t offset = 0;
	int n;

	do {
		n = trace_peek_siginfo(tid, shared, offset, infos, PEEK_COUNT, e);
		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			*ret |= SIGNAL_BIT(infos[i].si_signo);
		offset += (uint64_t)n;
	} while (n == PEEK_COUNT);
	return 0;
}

int agent_pending(pid_t tid, uint64_t *ret, struct error *e)
{
	int r;

	*ret = 0;
	r = pending_in(tid, false, ret, e);
	return r < 0 ? r : pending_in(tid, true, ret, e);
}

uint64_t agent_address(const struct agent *a)
{
	return a->mapping;
}

int agent_run(struct agent *a, pid_t tid, const struct cpu_state *saved, struct batch *b,
	      struct error *e)
{
	/* Only an image that has been tampered with wants something of a task that is not made yet.
	 */
	if (!a)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a task is needed before it is made");
	return a->live ? live_run(a, tid, saved, b, e) : captive_run(a, tid, b, e);
}

long agent_syscall(struct agent *a, pid_t tid, const struct cpu_state *saved, struct error *e,
		   long nr, const uint64_t args[6])
{
	_cleanup_(batch_free) struct batch b = {};
	struct batch_arg list[6];
	int call, r;

	if (a && a->live)
		return live_syscall(a, tid, saved, e, nr, args);
	for (unsigned int i = 0; i < 6; i++)
		list[i] = VAL(args[i]);
	call = batch_call_(&b, nr, list, 6);
	r = agent_run(a, tid, saved, &b, e);
	return r < 0 ? r : batch_result(&b, call);
}

void agent_meanwhile(struct agent *a, void (*fn)(void *arg), void *arg)
{
	a->meanwhile = fn;
	a->meanwhile_arg = arg;
}

int agent_return(struct agent *a, struct error *e)
{
	int r = 0;

	if (!a)
		return 0;
	if (a->live)
		r = live_return(a, e);
	free(a);
	return r;
}
