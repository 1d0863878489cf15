/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/registers.h"

#include <errno.h>
#include <string.h>

#include "kernel/segments.h"
#include "remote/ptrace.h"

int registers_checkpoint(struct checkpoint *c, struct checkpoint_process *p,
			 const struct frozen_thread *t, Reprise__Task *msg, struct scratch *s,
			 struct error *e)
{
	struct resume_state resume = {};
	int r = freezer_resume_state(&c->freezer, p->frozen, t, &resume, e);

	if (r < 0)
		return r;
	msg->regs.data = scratch_copy(s, &resume.regs, sizeof(resume.regs));
	msg->regs.len = sizeof(resume.regs);
	msg->xstate.data = t->cpu->xstate;
	msg->xstate.len = t->cpu->xstate_len;
	msg->sigmask = t->cpu->sigmask;
	if (resume.timed) {
		msg->timeout_form = resume.timeout_form;
		msg->timeout_arg = resume.timeout_arg;
		msg->timeout_ns = resume.remaining_ns;
	}
	return msg->regs.data ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for registers");
}

int registers_validate(const Reprise__Task *m, struct error *e)
{
	if (m->regs.len != sizeof(struct user_regs_struct) || m->xstate.len < 576 ||
	    m->xstate.len > XSTATE_MAX)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "registers of %zu and %zu bytes",
				 m->regs.len, m->xstate.len);
	if (m->timeout_form > TIMEOUT_TIMESPEC32 || m->timeout_arg > 5)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "time-out form %u of argument %u",
				 m->timeout_form, m->timeout_arg);
	return segments_validate(m, e);
}

int registers_validate_width(const Reprise__Task *m, bool compat, struct error *e)
{
	struct user_regs_struct regs;

	if (m->is_zombie)
		return 0;
	memcpy(&regs, m->regs.data, sizeof(regs));
	if (arch_is_odd(&regs) || arch_is_compat(&regs) != compat)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "code segment %#llx in a %s program",
				 (unsigned long long)regs.cs, compat ? "32-bit" : "64-bit");
	return 0;
}

int registers_restart_sleep(struct restart_task *t, struct error *e)
{
	const Reprise__Task *m = t->msg;
	const struct timespec left = {(time_t)(m->timeout_ns / 1000000000),
				      (long)(m->timeout_ns % 1000000000)};
	bool narrow = m->timeout_form == TIMEOUT_TIMESPEC32;
	bool timespec = narrow || m->timeout_form == TIMEOUT_TIMESPEC;
	struct user_regs_struct regs;
	uint64_t args[6];
	long nr;

	memcpy(&regs, m->regs.data, sizeof(regs));
	nr = arch_call_nr(&regs);
	/* others are issued again, see set_timeout() */
	if (m->timeout_form == TIMEOUT_NONE || !freezer_has_restart_block(nr))
		return 0;
	for (unsigned int i = 0; i < 6; i++)
		args[i] = arch_call_arg(&regs, i);
	if (!timespec)
		args[m->timeout_arg] = (m->timeout_ns + 999999) / 1000000;
	return agent_begin_sleep(t->process->agent, t->tid, nr, args,
				 timespec ? (int)m->timeout_arg : -1, &left, narrow, &t->asleep, e);
}

/*
 * A call that is issued again, with the time that was left. A struct timespec
 * goes below the red zone of the thread's stack: the kernel reads it at once,
 * before anything else can be there.
 */
static int set_timeout(struct restart_task *t, struct user_regs_struct *regs, struct error *e)
{
	const Reprise__Task *m = t->msg;
	const uint64_t left[2] = {m->timeout_ns / 1000000000, m->timeout_ns % 1000000000};
	const uint32_t narrow[2] = {(uint32_t)left[0], (uint32_t)left[1]};
	uint64_t at = (regs->rsp - 128 - sizeof(left)) & ~15ull;

	if (t->asleep) {
		arch_set_interrupted(regs, arch_call_nr(regs), ARCH_ERESTART_RESTARTBLOCK);
		return 0;
	}
	switch (m->timeout_form) {
	case TIMEOUT_NONE:
		return 0;
	case TIMEOUT_REGISTER_MS:
		arch_set_call_arg(regs, m->timeout_arg, (m->timeout_ns + 999999) / 1000000);
		return 0;
	case TIMEOUT_TIMESPEC:
		arch_set_call_arg(regs, m->timeout_arg, at);
		return mem_write(t->tid, at, left, sizeof(left), e);
	case TIMEOUT_TIMESPEC32:
		arch_set_call_arg(regs, m->timeout_arg, at);
		return mem_write(t->tid, at, narrow, sizeof(narrow), e);
	}
	return error_set(e, -EINVAL, E_INTERNAL, "time-out form %u", m->timeout_form);
}

int registers_restart(struct restart_task *t, struct error *e)
{
	const Reprise__Task *m = t->msg;
	_Alignas(64) uint8_t xstate[XSTATE_MAX] = {};
	uint32_t room = sizeof(xstate), len;
	struct user_regs_struct regs;
	int r;

	/*
	 * The task is in a signal-type stop, so that the kernel itself issues an
	 * interrupted system call again when it is let go, see freezer_resume_state().
	 */
	memcpy(&regs, m->regs.data, sizeof(regs));
	r = set_timeout(t, &regs, e);
	if (r < 0)
		return r;
	/* The kernel takes the full size of this processor's state only. */
	r = trace_get_xstate(t->tid, xstate, &room, e);
	if (r < 0)
		return r;
	len = m->xstate.len < room ? (uint32_t)m->xstate.len : room;
	memset(xstate, 0, sizeof(xstate));
	memcpy(xstate, m->xstate.data, len);
	r = trace_set_xstate(t->tid, xstate, room, e);
	if (r >= 0)
		r = segments_restart(t, e);
	if (r >= 0)
		r = trace_set_regs(t->tid, &regs, e);
	return r < 0 ? r : trace_set_sigmask(t->tid, m->sigmask, e);
}
