/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/calls.h"

#include <errno.h>

enum { CALLS_AT_ONCE = 128 };

void calls_note(struct calls *c, const char *what, uint64_t start, uint64_t end, int allowed,
		int call)
{
	struct call_note *note = vec_push(&c->notes);

	if (!note) {
		c->failed = -ENOMEM;
		return;
	}
	*note = (struct call_note){
		.call = call, .what = what, .start = start, .end = end, .allowed = allowed};
	if (!allowed)
		batch_must(&c->batch, call);
}

void calls_exact(struct calls *c, const char *what, uint64_t start, uint64_t end, int call)
{
	calls_note(c, what, start, end, 0, call);
	if (!c->failed)
		c->notes.v[c->notes.n - 1].exact = true;
}

static int error_call(struct calls *c, const struct call_note *note, long result, struct error *e)
{
	int r;

	if (result >= 0)
		r = error_set(e, -EIO, E_RESTORE, "%s gave %#lx instead of %#lx", note->what,
			      (unsigned long)result, (unsigned long)note->start);
	else
		r = error_errno(e, (int)result, E_RESTORE, "%s failed", note->what);
	if (note->end)
		error_object(e, r, "mapping %lx-%lx", (unsigned long)note->start,
			     (unsigned long)note->end);
	return error_object(e, r, "task %d", c->p->vpid);
}

int calls_run(struct calls *c, struct error *e)
{
	int r = 0;

	if (c->failed)
		return error_errno(e, c->failed, E_NO_MEMORY, "no memory for remote calls");
	if (c->notes.n == 0)
		return 0;
	r = agent_run(c->p->agent, c->p->pid, NULL, &c->batch, e);
	if (r < 0)
		return error_object(e, r, "task %d", c->p->vpid);
	vec_for_each (note, &c->notes) {
		long result = batch_result(&c->batch, note->call);

		if (result < 0 && result != note->allowed)
			return error_call(c, note, result, e);
		if (note->exact && result >= 0 && result != (long)note->start)
			return error_call(c, note, result, e);
	}
	batch_reset(&c->batch);
	c->notes.n = 0;
	return 0;
}

int calls_bound(struct calls *c, struct error *e)
{
	return c->notes.n >= CALLS_AT_ONCE ? calls_run(c, e) : 0;
}

void calls_free(struct calls *c)
{
	batch_free(&c->batch);
	vec_free(&c->notes);
}
