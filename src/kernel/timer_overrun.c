/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/timer_overrun.h"

#include <errno.h>

#include "kernel/timer.h"

/* The timers of a process are on a list, of the kind with two ends or (6.12) of the other. */
struct timer_list {
	uint64_t at; /* the first node */
	uint64_t end;
	int node; /* in struct k_itimer */
};

static int find_list(struct kernel_memory *k, pid_t tid, struct timer_list *ret)
{
	int size = 0, offset = kernel_offset_size(k, "signal_struct", "posix_timers", &size);
	uint64_t task, signal = 0;
	int r = kernel_task(k, tid, &task);

	if (r >= 0)
		r = kernel_member(k, task, "task_struct", "signal", &signal, sizeof(signal));
	if (r < 0)
		return r;
	ret->node = kernel_offset(k, "k_itimer", "list");
	if (offset < 0 || ret->node < 0)
		return -EOPNOTSUPP;
	ret->end = size == 2 * sizeof(uint64_t) ? signal + (uint64_t)offset : 0;
	ret->at = kernel_pointer(k, signal + (uint64_t)offset);
	return 0;
}

static Reprise__PosixTimer *by_id(Reprise__Process *msg, int id)
{
	for (size_t i = 0; i < msg->n_timers; i++)
		if (msg->timers[i]->id == id)
			return msg->timers[i];
	return NULL;
}

void timers_pending_overruns(const struct checkpoint *c, const struct checkpoint_process *p,
			     Reprise__Process *msg)
{
	struct timer_list list;

	/* Nothing is opened for it in the freeze. */
	if (!msg->n_timers || !c->kernel || find_list(c->kernel, p->tid, &list) < 0)
		return;
	for (size_t i = 0; i < POSIX_TIMERS_MAX && list.at && list.at != list.end; i++) {
		uint64_t timer = list.at - (uint64_t)list.node;
		Reprise__PosixTimer *t = NULL;
		int64_t overrun = -1;
		int id = -1;

		if (kernel_member(c->kernel, timer, "k_itimer", "it_id", &id, sizeof(id)) >= 0)
			t = by_id(msg, id);
		/* It counts from -1; and of a timer whose signal is not pending from when that was
		 * taken. */
		if (t && t->interval_ns &&
		    kernel_member(c->kernel, timer, "k_itimer", "it_overrun", &overrun,
				  sizeof(overrun)) >= 0 &&
		    overrun > 0)
			t->pending_overrun = overrun < INT32_MAX ? (uint64_t)overrun : INT32_MAX;
		list.at = kernel_pointer(c->kernel, list.at);
	}
}
