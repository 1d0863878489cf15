/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>

#include "model/restart.h"

int restart_clocks_begin(struct restart *r, struct error *e)
{
	const Reprise__Clocks *then = restart_nth(r, RECORD_CLOCKS, 0, NULL);
	struct restart_clocks *c = &r->clocks;
	int res = clock_offsets_read(r->proc_fd, 0, &c->own, e);

	if (res < 0 || !then)
		return res;
	c->away.monotonic =
		(int64_t)(then->monotonic_ns - clock_machine_ns(&c->own, CLOCK_MONOTONIC));
	c->away.boottime = (int64_t)(then->boottime_ns - clock_machine_ns(&c->own, CLOCK_BOOTTIME));
	return 0;
}

struct clock_offsets restart_clock_offsets(const struct restart *r,
					   const Reprise__TimeOffsets *then)
{
	return (struct clock_offsets){then->monotonic_ns + r->clocks.away.monotonic,
				      then->boottime_ns + r->clocks.away.boottime};
}

/* The time namespace of a process, if it is one of the image. */
static const Reprise__TimeOffsets *namespace_of(const struct restart *r,
						const struct restart_process *p)
{
	const Reprise__Container *container = restart_nth(r, RECORD_CONTAINER, 0, NULL);
	const Reprise__Task *t = p->tasks.v[0].msg;

	for (size_t i = 0; i < t->n_namespaces; i++) {
		const Reprise__Container *own = restart_find(r, RECORD_NAMESPACE, t->namespaces[i]);

		if (own && own->time)
			return own->time;
	}
	return container ? container->time : NULL;
}

uint64_t restart_task_clock_ns(const struct restart *r, const struct restart_process *p,
			       clockid_t clock)
{
	const Reprise__TimeOffsets *then = namespace_of(r, p);
	struct clock_offsets ahead = then ? restart_clock_offsets(r, then) : r->clocks.own;

	return clock_machine_ns(&r->clocks.own, clock) + (uint64_t)clock_offset(&ahead, clock);
}

bool restart_clocks_go_on(const struct restart *r, const struct restart_process *p)
{
	return namespace_of(r, p) != NULL;
}

bool restart_clock_point(const struct restart *r, const struct restart_process *p, clockid_t clock,
			 uint64_t then, uint64_t *ret)
{
	const Reprise__TimeOffsets *space = namespace_of(r, p);
	int64_t ahead;

	if (!then || !space)
		return false;
	ahead = clock_offset(&(struct clock_offsets){space->monotonic_ns, space->boottime_ns},
			     clock);
	/* What was before the beginning of a clock has passed by any. */
	*ret = ahead < 0 && then <= (uint64_t)-ahead ? 1 : then + (uint64_t)ahead;
	return true;
}
