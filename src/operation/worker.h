/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_WORKER_H
#define REPRISE_OPERATION_WORKER_H

#include "operation/operation.h"

/* What the caller gets back from a worker. */
struct worker_result {
	int ret;
	struct reprise_error error;
	struct reprise_stats stats;
	struct reprise_restarted restarted;
};

struct worker_callbacks {
	reprise_progress_fn progress;
	reprise_trace_fn trace;
	reprise_problem_fn problem;
	void *arg;
	int (*ready)(void *arg, const struct reprise_restarted *restarted);
	int (*container)(void *arg, struct reprise_container *container);
	/* see report_complete() */
	int (*complete)(void *arg);
	void *complete_arg;
	struct mm_tracks *tracks; /* those that are handed on go there; NULL: nothing lasts */
};

/* For processes of ours that have memory of the application, or keys: a crash leaves none of it. */
void worker_no_core(void);
/* Reports to nobody. */
struct report *report_mute(void);

/*
 * Runs `work` in a forked process and relays what it reports. The worker dies
 * with its caller (parent-death signal), and whatever it holds is let go then.
 */
typedef int (*worker_fn)(void *arg, struct report *rep, struct worker_result *result,
			 struct error *e);
int worker_run(worker_fn work, void *arg, const struct worker_callbacks *cb,
	       struct worker_result *result);

#endif
