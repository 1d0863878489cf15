/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/context.h"

/* The process in whose table the file was met, while its threads are borrowed. */
static struct agent *agent_of(const struct checkpoint *c, const struct file_entry *f)
{
	if (f->in_flight)
		return NULL;
	vec_for_each (p, &c->processes)
		if (p->frozen->pid == f->pid)
			return p->agent;
	return NULL;
}

int file_promise(const struct checkpoint *c, const struct file_entry *f,
		 const struct agent_promise *calls, size_t n, struct error *e)
{
	int r = agent_promise(agent_of(c, f), f->tid, calls, n, e);

	return r < 0 ? r : 0;
}

int file_absolve(const struct checkpoint *c, const struct file_entry *f, int r, struct error *e)
{
	struct agent *a = agent_of(c, f);
	int absolved = a ? agent_absolve(a, r < 0 ? NULL : e) : 0;

	return r < 0 ? r : absolved;
}
