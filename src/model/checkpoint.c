/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "model/checkpoint.h"

void checkpoint_trace(struct checkpoint *c, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!c->trace)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->trace(c->trace_arg, line);
}

static const char *const look_texts[LOOK_TEXTS] = {
	[LOOK_STATUS] = "status",	 [LOOK_LIMITS] = "limits", [LOOK_OOM] = "oom_score_adj",
	[LOOK_DUMP] = "coredump_filter", [LOOK_TIMERS] = "timers", [LOOK_AUXV] = "auxv",
};

void checkpoint_read_texts(const struct checkpoint *c, const struct checkpoint_process *p,
			   struct process_look *l)
{
	for (size_t i = 0; i < LOOK_TEXTS; i++) {
		l->lengths[i] =
			procfs_read(c->proc_fd, &l->texts[i], NULL, "%d/%s", p->tid, look_texts[i]);
		if (l->lengths[i] < 0)
			l->texts[i] = NULL;
	}
}

ssize_t checkpoint_text(struct checkpoint *c, const struct checkpoint_process *p,
			enum look_text which, char **ret, struct error *e)
{
	if (!p->look || !p->look->texts[which])
		return procfs_read(c->proc_fd, ret, e, "%d/%s", p->tid, look_texts[which]);
	*ret = take_ptr(&p->look->texts[which]);
	return p->look->lengths[which];
}

int checkpoint_look(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		    const char **ret, struct error *e)
{
	ssize_t len;

	free(take_ptr(&c->status));
	c->status_of = 0;
	if (tid == p->tid && p->look)
		len = checkpoint_text(c, p, LOOK_STATUS, &c->status, e);
	else
		len = procfs_read(c->proc_fd, &c->status, e, "%d/task/%d/status", p->frozen->pid,
				  tid);
	if (len < 0)
		return (int)len;
	c->status_of = tid;
	*ret = c->status;
	return 0;
}

int checkpoint_status(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		      const char **ret, struct error *e)
{
	if (c->status_of != tid)
		return checkpoint_look(c, p, tid, ret, e);
	*ret = c->status;
	return 0;
}

void checkpoint_look_free(struct process_look *l)
{
	for (size_t i = 0; l && i < LOOK_TEXTS; i++)
		free(l->texts[i]);
	free(l);
}

int checkpoint_kernel_memory(struct checkpoint *c, struct kernel_memory **ret, struct error *e)
{
	int r = c->kernel ? 0 : kernel_memory_open(c->proc_fd, &c->kernel, e);

	*ret = c->kernel;
	return r;
}

int checkpoint_refuse(struct checkpoint *c, int r, struct error *e)
{
	if (r >= 0 || !c->checking || e->code == ERROR_NONE)
		return r;
	/* That says nothing about the object, and what it should have left may be missing. */
	if (r == -ENOMEM || e->code == E_NO_MEMORY)
		return r;
	/* What has ended meanwhile is no obstacle. */
	if (e->code == E_TASK_GONE) {
		error_clear(e);
		return 0;
	}
	return problems_add(&c->problems, e);
}

bool checkpoint_has_task(const struct checkpoint *c, pid_t tid)
{
	vec_for_each (p, &c->freezer.processes) {
		if (p->pid == tid)
			return true;
		vec_for_each (t, &p->threads)
			if (t->tid == tid)
				return true;
	}
	return false;
}

static const struct frozen_process *process_of(const struct checkpoint *c, pid_t tid)
{
	vec_for_each (p, &c->freezer.processes) {
		if (p->pid == tid)
			return p;
		vec_for_each (t, &p->threads)
			if (t->tid == tid)
				return p;
	}
	return NULL;
}

int checkpoint_refer(const struct checkpoint *c, pid_t tid, struct error *e)
{
	const struct frozen_process *child = tid > 0 ? process_of(c, tid) : NULL;

	if (!child)
		return 0;
	vec_for_each (p, &c->freezer.processes)
		vec_for_each (t, &p->threads)
			if (p->pid == child->ppid && t->in_vfork && t->vfork_child == child->pid)
				return error_set(
					e, -EBUSY, E_TASK_VFORK,
					"it refers to task %d, for which its parent waits in vfork()",
					tid);
	return 0;
}

int checkpoint_put(struct checkpoint *c, enum record_type type, uint64_t id,
		   const ProtobufCMessage *msg, struct error *e)
{
	if (c->checking)
		return 0;
	if (!id)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the object table");
	return image_put(c->image, type, 0, id, msg, e);
}
