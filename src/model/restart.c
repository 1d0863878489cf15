/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/records.h"
#include "model/restart.h"

void restart_trace(struct restart *r, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!r->trace)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r->trace(r->trace_arg, line);
}

const void *restart_find(const struct restart *r, enum record_type type, uint64_t id)
{
	return records_find(r->records, type, id);
}

const void *restart_nth(const struct restart *r, enum record_type type, size_t i, uint64_t *ret_id)
{
	return records_nth(r->records, type, i, ret_id);
}

struct restart_task *restart_task_by_vtid(struct restart *r, pid_t vtid)
{
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks)
			if (t->vtid == vtid)
				return t;
	return NULL;
}

pid_t restart_real_pid(struct restart *r, pid_t vpid)
{
	const struct restart_task *t;

	/* Zombies have no task. */
	vec_for_each (p, &r->processes)
		if (p->vpid == vpid)
			return p->pid;
	t = restart_task_by_vtid(r, vpid);
	return t ? t->tid : 0;
}
