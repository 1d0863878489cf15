/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "kernel/signal.h"
#include "model/pids.h"

/* struct kernel_sigaction of include/linux/signal_types.h, x86-64 */
struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};
_Static_assert(sizeof(struct kernel_sigaction) == 32, "as rt_sigaction(2) wants it");

/* The same of i386. */
struct compat_sigaction {
	uint32_t handler, flags, restorer, mask[2];
};
_Static_assert(sizeof(struct compat_sigaction) == 20, "as rt_sigaction(2) wants it there");
#define I386_RT_SIGACTION 174

#define SIGINFO_SIZE 128
_Static_assert(sizeof(siginfo_t) == SIGINFO_SIZE, "siginfo_t is part of the kernel's interface");

void sighand_query(struct batch *b, struct sighand_query *q)
{
	q->data = batch_data(b, NULL, NSIG_ALL * sizeof(struct kernel_sigaction));
	for (uint32_t i = 0; i < NSIG_ALL; i++)
		batch_call(b, SYS_rt_sigaction, VAL(i + 1), VAL(0),
			   DATA(q->data + i * sizeof(struct kernel_sigaction)), VAL(8));
}

int sighand_collect(struct batch *b, const struct sighand_query *q, Reprise__Sighand *msg,
		    struct scratch *s)
{
	const struct kernel_sigaction *sa = batch_at(b, q->data);

	msg->actions = scratch_alloc(s, NSIG_ALL * sizeof(*msg->actions));
	if (!msg->actions)
		return -ENOMEM;
	for (msg->n_actions = 0; msg->n_actions < NSIG_ALL; msg->n_actions++) {
		Reprise__SigAction *a =
			scratch_message(s, Reprise__SigAction, reprise__sig_action__init);

		if (!a)
			return -ENOMEM;
		a->handler = sa[msg->n_actions].handler;
		a->flags = sa[msg->n_actions].flags;
		a->restorer = sa[msg->n_actions].restorer;
		a->mask = sa[msg->n_actions].mask;
		msg->actions[msg->n_actions] = a;
	}
	return 0;
}

int sighand_validate(const Reprise__Sighand *msg, struct error *e)
{
	if (msg->n_actions != NSIG_ALL)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%zu signal actions instead of %d",
				 msg->n_actions, NSIG_ALL);
	return 0;
}

static bool settable(int sig)
{
	return sig != SIGKILL && sig != SIGSTOP;
}

/*
 * The form of the frame that a handler gets is that of the interface by which it was set
 * (SA_IA32_ABI): in 32-bit programs their own.
 */
static void set_compat_action(struct batch *b, int sig, const Reprise__SigAction *a)
{
	struct compat_sigaction sa = {(uint32_t)a->handler, (uint32_t)a->flags,
				      (uint32_t)a->restorer};
	int call;

	memcpy(sa.mask, &a->mask, sizeof(sa.mask));
	call = batch_call(b, I386_RT_SIGACTION, VAL(sig), DATA(batch_data(b, &sa, sizeof(sa))),
			  VAL(0), VAL(8));
	batch_compat(b, call);
	batch_must(b, call);
}

int sighand_restart(struct batch *b, const Reprise__Sighand *msg, bool compat)
{
	const struct kernel_sigaction drop = {.handler = (uint64_t)(uintptr_t)SIG_IGN};
	uint32_t ignore_at = batch_data(b, &drop, sizeof(drop));

	for (int sig = 1; sig <= NSIG_ALL; sig++) {
		const Reprise__SigAction *a = msg->actions[sig - 1];
		const struct kernel_sigaction sa = {a->handler, a->flags, a->restorer, a->mask};

		if (!settable(sig))
			continue;
		batch_must(b, batch_call(b, SYS_rt_sigaction, VAL(sig), DATA(ignore_at), VAL(0),
					 VAL(8)));
		if (compat)
			set_compat_action(b, sig, a);
		else
			batch_must(b, batch_call(b, SYS_rt_sigaction, VAL(sig),
						 DATA(batch_data(b, &sa, sizeof(sa))), VAL(0),
						 VAL(8)));
	}
	return b->failed;
}

#define PEEK_AT_ONCE 32

static int pending_add(Reprise__Siginfo ***list, size_t *n, size_t *cap, const siginfo_t *si,
		       struct scratch *s)
{
	Reprise__Siginfo *m = scratch_message(s, Reprise__Siginfo, reprise__siginfo__init);

	if (*n == *cap) {
		size_t want = *cap ? *cap * 2 : PEEK_AT_ONCE;
		Reprise__Siginfo **more = scratch_alloc(s, want * sizeof(*more));

		if (!more)
			return -ENOMEM;
		if (*n)
			memcpy(more, *list, *n * sizeof(*more));
		*list = more;
		*cap = want;
	}
	if (!m)
		return -ENOMEM;
	m->raw.data = scratch_copy(s, si, SIGINFO_SIZE);
	if (!m->raw.data)
		return -ENOMEM;
	m->raw.len = SIGINFO_SIZE;
	(*list)[(*n)++] = m;
	return 0;
}

int pending_checkpoint(pid_t tid, bool shared, size_t *ret_n, Reprise__Siginfo ***ret,
		       struct scratch *s, struct error *e)
{
	Reprise__Siginfo **list = NULL;
	siginfo_t buf[PEEK_AT_ONCE];
	size_t n = 0, cap = 0;
	uint64_t offset = 0;
	int got;

	do {
		got = trace_peek_siginfo(tid, shared, offset, buf, PEEK_AT_ONCE, e);
		if (got < 0)
			return got;
		for (int i = 0; i < got; i++)
			if (pending_add(&list, &n, &cap, &buf[i], s) < 0)
				return error_set(e, -ENOMEM, E_NO_MEMORY,
						 "no memory for pending signals");
		offset += (uint64_t)got;
	} while (got > 0);
	*ret_n = n;
	*ret = list;
	return 0;
}

static bool has_timer(const Reprise__Process *p, int id)
{
	for (size_t i = 0; i < p->n_timers; i++)
		if (p->timers[i]->id == id)
			return true;
	return false;
}

int pending_restart(struct restart *r, struct restart_task *t, bool shared, size_t n,
		    Reprise__Siginfo **list, struct error *e)
{
	enum { AT_ONCE = 128 };
	uint64_t space = t->process->msg->pid_namespace;
	pid_t pid = restart_pid_in(r, t->process->vpid, space);
	pid_t tid = restart_pid_in(r, t->vtid, space);
	int res = 0;

	for (size_t i = 0; i < n && res >= 0; i += AT_ONCE) {
		_cleanup_(batch_free) struct batch b = {};

		for (size_t j = i; j < n && j < i + AT_ONCE; j++) {
			siginfo_t si;
			uint32_t at;

			memcpy(&si, list[j]->raw.data, sizeof(si));
			if (si.si_code == SI_TIMER && has_timer(t->process->msg, si.si_timerid))
				continue; /* the timer itself queues it, see timer.c */
			at = batch_data(&b, &si, sizeof(si));
			if (shared)
				batch_must(&b, batch_call(&b, SYS_rt_sigqueueinfo, VAL(pid),
							  VAL(si.si_signo), DATA(at)));
			else
				batch_must(&b, batch_call(&b, SYS_rt_tgsigqueueinfo, VAL(pid),
							  VAL(tid), VAL(si.si_signo), DATA(at)));
		}
		res = agent_run(t->process->agent, t->tid, NULL, &b, e);
		for (uint32_t k = 0; k < b.ncalls && res >= 0; k++)
			if (batch_result(&b, (int)k) < 0)
				res = error_errno(e, (int)batch_result(&b, (int)k), E_RESTORE,
						  "cannot queue a pending signal");
	}
	return res;
}

void altstack_query(struct batch *b, struct altstack_query *q)
{
	q->data = batch_data(b, NULL, sizeof(stack_t));
	q->call = batch_call(b, SYS_sigaltstack, VAL(0), DATA(q->data));
}

int altstack_collect(struct batch *b, const struct altstack_query *q, Reprise__Task *msg,
		     struct error *e)
{
	const stack_t *ss = batch_at(b, q->data);

	if (batch_result(b, q->call) < 0)
		return error_errno(e, (int)batch_result(b, q->call), E_REMOTE,
				   "cannot ask for the alternate signal stack");
	msg->altstack_sp = (uint64_t)(uintptr_t)ss->ss_sp;
	msg->altstack_size = ss->ss_size;
	msg->altstack_flags = (uint32_t)ss->ss_flags;
	return 0;
}

void altstack_restart(struct batch *b, const Reprise__Task *msg)
{
	stack_t ss = {
		.ss_sp = (void *)(uintptr_t)msg->altstack_sp,
		/* SS_ONSTACK only reports where the stack pointer was */
		.ss_flags = (int)(msg->altstack_flags & ~(uint32_t)SS_ONSTACK),
		.ss_size = msg->altstack_size,
	};

	if (msg->altstack_flags & SS_DISABLE)
		ss = (stack_t){.ss_flags = SS_DISABLE};
	batch_must(b, batch_call(b, SYS_sigaltstack, DATA(batch_data(b, &ss, sizeof(ss))), VAL(0)));
}
