/* SPDX-License-Identifier: Apache-2.0 */
/* By which pids the tasks of a container are known outside. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/leaks.h"
#include "ns/spaces.h"

int leak_depth_below(const struct leak_search *s, const char *link)
{
	const char *number = strchr(link, '[');

	if (!strcmp(link, s->pid_link))
		return 0;
	return number ? pid_space_depth_below(s->c, strtoull(number + 1, NULL, 10)) : -1;
}

/* Who traces a task from outside has no number inside. While saving it is us; and whoever looks at
 * us while we are in there is no matter. */
static int check_traced(struct leak_search *s, const char *status, pid_t in, struct error *e)
{
	_cleanup_(free_ptr) char *comm = NULL, *link = NULL;
	uint64_t tracer = 0;

	ignore(proc_field_u64(status, "TracerPid", 10, &tracer), "always there");
	if (!s->c->checking || !tracer || in == s->c->self ||
	    procfs_readlink(s->ct->host_proc, &link, NULL, "%d/ns/pid", (pid_t)tracer) < 0 ||
	    leak_depth_below(s, link) >= 0)
		return 0;
	if (procfs_read(s->ct->host_proc, &comm, NULL, "%d/comm", (pid_t)tracer) > 0)
		comm[strcspn(comm, "\n")] = '\0';
	error_set(e, -EBUSY, E_TASK_TRACED, "is being traced by process %d (%s) outside",
		  (pid_t)tracer, comm ? comm : "?");
	return checkpoint_refuse(s->c, error_object(e, -EBUSY, "task %d", in), e);
}

/* Pids as they are outside, of the tasks inside; these are known by that of the container. */
int leak_translate(struct leak_search *s, pid_t out, int depth, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	ssize_t read = procfs_read(s->ct->host_proc, &status, e, "%d/status", out);
	struct container_pid *t;
	const char *at;
	size_t len;

	if (read < 0)
		return leak_unless_hidden(read, e);
	at = proc_field(status, "NSpid", &len);
	for (const char *end = at + len; at && end > at && depth >= 0; depth--) {
		for (len = (size_t)(end - at); len && at[len - 1] != '\t'; len--)
			continue;
		end = at + len - (len > 0);
	}
	t = vec_push(&s->ct->pids);
	if (!t)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the search for leaks");
	*t = (struct container_pid){at ? atoi(at + len) : 0, out, 0};
	return check_traced(s, status, t->in, e);
}

pid_t leak_pid_outside(const struct leak_search *s, pid_t in)
{
	vec_for_each (t, &s->ct->pids)
		if (t->in == in)
			return t->out;
	return 0;
}

/* *at: where the last one was found, since both lists are in about the same order. */
static struct container_pid *find_pid(struct container *ct, pid_t in, size_t *at)
{
	for (size_t i = 0; i < ct->pids.n; i++, (*at)++) {
		if (*at >= ct->pids.n)
			*at = 0;
		if (ct->pids.v[*at].in == in)
			return &ct->pids.v[*at];
	}
	return NULL;
}

bool leak_pids_known(const struct leak_search *s)
{
	size_t at = 0;

	vec_for_each (f, &s->c->freezer.processes) {
		const struct container_pid *p = find_pid(s->ct, f->pid, &at);

		if (!p || p->start_time != f->start_time)
			return false;
	}
	return true;
}

void leak_pids_note(struct leak_search *s)
{
	size_t at = 0;

	vec_for_each (f, &s->c->freezer.processes) {
		struct container_pid *p = find_pid(s->ct, f->pid, &at);

		if (p)
			p->start_time = f->start_time;
	}
}
