/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/kabi.h"
#include "kernel/prctl.h"

/* How an option answers: as the result of the call, or through a pointer to an int or a long. */
enum answer { ANSWER_RESULT, ANSWER_INT, ANSWER_LONG };

struct option {
	int get;
	uint64_t get_arg;
	enum answer answer;
	size_t field; /* in the message */
	enum { U32, U64, BOOL } width;
};

#define TASK(get, arg, answer, field, width)                            \
	{                                                               \
		get, arg, answer, offsetof(Reprise__Task, field), width \
	}
#define PROC(get, arg, answer, field, width)                               \
	{                                                                  \
		get, arg, answer, offsetof(Reprise__Process, field), width \
	}

static const struct option task_options[] = {
	TASK(PR_GET_TID_ADDRESS, 0, ANSWER_LONG, clear_child_tid, U64),
	TASK(PR_GET_PDEATHSIG, 0, ANSWER_INT, pdeath_signal, U32),
	TASK(PR_GET_KEEPCAPS, 0, ANSWER_RESULT, keep_caps, BOOL),
	TASK(PR_GET_TSC, 0, ANSWER_INT, tsc_mode, U32),
	TASK(PR_MCE_KILL_GET, 0, ANSWER_RESULT, mce_kill, U32),
	TASK(PR_GET_IO_FLUSHER, 0, ANSWER_RESULT, io_flusher, U32),
	TASK(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, ANSWER_RESULT, speculation_store_bypass,
	     U64),
	TASK(PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, ANSWER_RESULT,
	     speculation_indirect_branch, U64),
	TASK(PR_GET_SPECULATION_CTRL, PR_SPEC_L1D_FLUSH, ANSWER_RESULT, speculation_l1d_flush, U64),
};

static const struct option process_options[] = {
	PROC(PR_GET_CHILD_SUBREAPER, 0, ANSWER_INT, child_subreaper, BOOL),
	PROC(PR_GET_THP_DISABLE, 0, ANSWER_RESULT, thp_disable, U32),
	PROC(PR_GET_DUMPABLE, 0, ANSWER_RESULT, dumpable, U64),
	PROC(PR_GET_MDWE, 0, ANSWER_RESULT, mdwe, U32),
	PROC(PR_GET_MEMORY_MERGE, 0, ANSWER_RESULT, memory_merge, U32),
	PROC(PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, ANSWER_RESULT,
	     timer_restore_ids, BOOL),
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
_Static_assert(COUNT(task_options) <= PRCTLS_MAX && COUNT(process_options) <= PRCTLS_MAX, "room");

static void ask(struct batch *b, const struct option *o, size_t n, struct prctl_query *q)
{
	for (size_t i = 0; i < n; i++) {
		struct batch_arg arg = VAL(o[i].get_arg);

		if (o[i].answer != ANSWER_RESULT) {
			q->data[i] = batch_data(b, NULL, 8);
			arg = DATA(q->data[i]);
		}
		q->calls[i] = batch_call(b, SYS_prctl, VAL(o[i].get), arg, VAL(0), VAL(0), VAL(0));
	}
}

static uint64_t answer_of(struct batch *b, const struct option *o, const struct prctl_query *q,
			  size_t i)
{
	uint64_t v = 0;

	if (o->answer == ANSWER_RESULT)
		return (uint64_t)batch_result(b, q->calls[i]);
	memcpy(&v, batch_at(b, q->data[i]), o->answer == ANSWER_INT ? sizeof(int) : sizeof(long));
	return v;
}

static void collect(struct batch *b, const struct option *o, size_t n, const struct prctl_query *q,
		    void *msg)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v;
		uint32_t small;
		protobuf_c_boolean truth;

		if (batch_result(b, q->calls[i]) < 0)
			continue;
		v = answer_of(b, &o[i], q, i);
		small = (uint32_t)v;
		truth = v != 0;
		if (o[i].width == U64)
			memcpy((char *)msg + o[i].field, &v, sizeof(v));
		else if (o[i].width == U32)
			memcpy((char *)msg + o[i].field, &small, sizeof(small));
		else
			memcpy((char *)msg + o[i].field, &truth, sizeof(truth));
	}
}

void prctl_task_query(struct batch *b, struct prctl_query *q)
{
	ask(b, task_options, COUNT(task_options), q);
}

void prctl_task_collect(struct batch *b, const struct prctl_query *q, Reprise__Task *msg)
{
	msg->mce_kill = PR_MCE_KILL_DEFAULT;
	collect(b, task_options, COUNT(task_options), q, msg);
}

static void set(struct batch *b, uint64_t op, uint64_t a2, uint64_t a3)
{
	batch_must(b, batch_call(b, SYS_prctl, VAL(op), VAL(a2), VAL(a3), VAL(0), VAL(0)));
}

/* PR_SPEC_PRCTL: the task may choose; otherwise the machine has decided for all. */
static void set_speculation(struct batch *b, uint64_t which, uint64_t was)
{
	const uint64_t chosen =
		which == PR_SPEC_L1D_FLUSH
			? PR_SPEC_ENABLE
			: PR_SPEC_DISABLE | PR_SPEC_FORCE_DISABLE | PR_SPEC_DISABLE_NOEXEC;

	if ((was & PR_SPEC_PRCTL) && (was & chosen))
		set(b, PR_SET_SPECULATION_CTRL, which, was & ~(uint64_t)PR_SPEC_PRCTL);
}

void prctl_task_restart(struct batch *b, const Reprise__Task *msg)
{
	batch_call(b, SYS_set_tid_address, VAL(msg->clear_child_tid));
	if (msg->tsc_mode > PR_TSC_ENABLE)
		set(b, PR_SET_TSC, msg->tsc_mode, 0);
	if (msg->mce_kill != PR_MCE_KILL_DEFAULT)
		set(b, PR_MCE_KILL, PR_MCE_KILL_SET, msg->mce_kill);
	if (msg->io_flusher)
		set(b, PR_SET_IO_FLUSHER, msg->io_flusher, 0);
	set_speculation(b, PR_SPEC_STORE_BYPASS, msg->speculation_store_bypass);
	set_speculation(b, PR_SPEC_INDIRECT_BRANCH, msg->speculation_indirect_branch);
	set_speculation(b, PR_SPEC_L1D_FLUSH, msg->speculation_l1d_flush);
}

void prctl_process_query(struct batch *b, struct prctl_query *q)
{
	ask(b, process_options, COUNT(process_options), q);
}

void prctl_process_collect(struct batch *b, const struct prctl_query *q, Reprise__Process *msg)
{
	collect(b, process_options, COUNT(process_options), q, msg);
}

void prctl_process_restart(struct batch *b, const Reprise__Process *msg)
{
	set(b, PR_SET_CHILD_SUBREAPER, msg->child_subreaper, 0);
	/* PR_GET_THP_DISABLE answers 1, or 3 when only unadvised memory is excluded */
	if (msg->thp_disable)
		set(b, PR_SET_THP_DISABLE, 1, msg->thp_disable & 2);
	if (msg->memory_merge)
		set(b, PR_SET_MEMORY_MERGE, 1, 0);
	if (msg->mdwe)
		set(b, PR_SET_MDWE, msg->mdwe, 0);
}
