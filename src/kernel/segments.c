/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/segments.h"

#include <asm/ldt.h>
#include <errno.h>
#include <string.h>

#include "kernel/ldt.h"
#include "remote/kernel_task.h"

/*
 * The segments of set_thread_area(2), three for each thread: the thread-local storage of 32-bit
 * programs. A 64-bit program has them if it asks for them as those do.
 */

/* As the kernel describes what is not set, and as it is told so (LDT_empty()). */
static bool is_empty(const struct user_desc *d)
{
	return !d->base_addr && !d->limit && !d->contents && !d->seg_32bit && !d->limit_in_pages &&
	       d->read_exec_only && d->seg_not_present && !d->useable;
}

static struct user_desc empty(unsigned int i)
{
	return (struct user_desc){
		.entry_number = TRACE_SEGMENT_FIRST + i, .read_exec_only = 1, .seg_not_present = 1};
}

static int read_segments(const struct frozen_thread *t, struct user_desc *ret, struct error *e)
{
	if (!t->in_vfork)
		return trace_get_segments(t->tid, ret, e);
	for (unsigned int i = 0; i < TRACE_SEGMENTS; i++) {
		uint64_t d = t->kernel->segments[i];

		ret[i] = d ? ldt_decode(TRACE_SEGMENT_FIRST + i, d) : empty(i);
	}
	return 0;
}

int segments_checkpoint(const struct frozen_thread *t, Reprise__Task *msg, struct scratch *s,
			struct error *e)
{
	struct user_desc segments[TRACE_SEGMENTS];
	int r = read_segments(t, segments, e);

	if (r < 0)
		return r;
	if (is_empty(&segments[0]) && is_empty(&segments[1]) && is_empty(&segments[2]))
		return 0;
	msg->segments.data = scratch_copy(s, segments, sizeof(segments));
	msg->segments.len = sizeof(segments);
	return msg->segments.data ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a task");
}

int segments_validate(const Reprise__Task *msg, struct error *e)
{
	if (msg->segments.len && msg->segments.len != TRACE_SEGMENTS * sizeof(struct user_desc))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "segments of %zu bytes",
				 msg->segments.len);
	return 0;
}

/* Before the registers, which refer to them. A child of vfork() has those of its parent. */
int segments_restart(const struct restart_task *t, struct error *e)
{
	const Reprise__Task *m = t->msg;
	int r = 0;

	if (!m->segments.len && !t->process->mm->compat)
		return 0;
	for (unsigned int i = 0; i < TRACE_SEGMENTS && r >= 0; i++) {
		struct user_desc d = empty(i);

		if (m->segments.len)
			memcpy(&d, m->segments.data + i * sizeof(d), sizeof(d));
		d.entry_number = TRACE_SEGMENT_FIRST + i;
		r = trace_set_segment(t->tid, &d, e);
	}
	return r;
}
