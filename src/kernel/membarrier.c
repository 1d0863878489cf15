/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/membarrier.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/kernel_memory.h"

#define GET_REGISTRATIONS (1 << 9) /* MEMBARRIER_CMD_GET_REGISTRATIONS, 6.3 */

/* Commands that fail with EPERM in a process that has not registered for them, and registrations.
 */
static const unsigned int kinds[MEMBARRIER_KINDS][2] = {
	{MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED},
	{MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE,
	 MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE},
	{MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ},
};

/* Bits of mm_struct.membarrier_state (MEMBARRIER_STATE_*_READY), and registrations. */
static const unsigned int states[][2] = {
	{1 << 0, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED},
	{1 << 2, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED},
	{1 << 4, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE},
	{1 << 6, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ},
};

#define STATES (sizeof(states) / sizeof(states[0]))

void membarrier_query(struct checkpoint *c, struct batch *b, struct membarrier_query *q)
{
	bool tells;

	if (c->tells_barriers == NOT_ASKED)
		c->tells_barriers = syscall(SYS_membarrier, GET_REGISTRATIONS, 0, 0) >= 0
					    ? ANSWER_YES
					    : ANSWER_NO;
	tells = c->tells_barriers == ANSWER_YES;
	q->told =
		tells ? batch_call(b, SYS_membarrier, VAL(GET_REGISTRATIONS), VAL(0), VAL(0)) : -1;
	for (size_t i = 0; !tells && i < MEMBARRIER_KINDS; i++)
		q->kinds[i] = batch_call(b, SYS_membarrier, VAL(kinds[i][0]), VAL(0), VAL(0));
}

static int from_kernel(struct checkpoint *c, pid_t tid, uint64_t *ret)
{
	struct error unused = {};
	struct kernel_memory *k;
	uint64_t task, mm;
	uint32_t state;
	int r = checkpoint_kernel_memory(c, &k, &unused);

	if (r >= 0)
		r = kernel_task(k, tid, &task);
	if (r >= 0)
		r = kernel_member(k, task, "task_struct", "mm", &mm, sizeof(mm));
	if (r >= 0)
		r = kernel_member(k, mm, "mm_struct", "membarrier_state", &state, sizeof(state));
	if (r < 0)
		return r;
	*ret = 0;
	for (size_t i = 0; i < STATES; i++)
		if (state & states[i][0])
			*ret |= states[i][1];
	return 0;
}

/*
 * Before 6.3 an ordinary user does not learn who has registered for barriers of all processes
 * (MEMBARRIER_CMD_GLOBAL_EXPEDITED, which anybody may send): to be registered costs an interrupt
 * now and then, not to be is an error that nobody sees.
 */
uint64_t membarrier_collect(struct checkpoint *c, pid_t tid, const struct batch *b,
			    const struct membarrier_query *q)
{
	uint64_t found = MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;

	if (q->told >= 0)
		return batch_result(b, q->told) > 0 ? (uint64_t)batch_result(b, q->told) : 0;
	if (from_kernel(c, tid, &found) >= 0)
		return found;
	for (size_t i = 0; i < MEMBARRIER_KINDS; i++)
		if (batch_result(b, q->kinds[i]) >= 0)
			found |= kinds[i][1];
	return found;
}

void membarrier_restart(struct batch *b, uint64_t registrations)
{
	for (unsigned int bit = 0; bit < 16; bit++)
		if (registrations & (1u << bit))
			batch_must(b,
				   batch_call(b, SYS_membarrier, VAL(1u << bit), VAL(0), VAL(0)));
}
