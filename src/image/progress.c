/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "image/progress.h"

#define PROGRESS_BYTES (8u << 20)
#define PROGRESS_NS    50000000u

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool progress_due(struct progress *p, uint64_t done)
{
	p->done = done;
	if (!p->report)
		return false;
	return done - p->reported >= PROGRESS_BYTES || now_ns() - p->at_ns >= PROGRESS_NS;
}

int progress_report(struct progress *p, struct error *e)
{
	int r;

	if (!p->report)
		return 0;
	p->reported = p->done;
	p->at_ns = now_ns();
	/* Some pages may have been written more than once, see image_put_early(). */
	r = p->report(p->arg, p->total && p->done > p->total ? p->total : p->done, p->total);
	return r < 0 ? error_set(e, r, E_INTERRUPTED, "the operation was interrupted") : 0;
}
