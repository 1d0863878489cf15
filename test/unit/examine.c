/* SPDX-License-Identifier: Apache-2.0 */
#include "examine.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/batch.h"
#include "remote/freeze.h"

static int examine_thread(struct agent *a, const struct frozen_thread *t, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t old = batch_data(&b, NULL, 24), timer = batch_data(&b, NULL, 32);
	int stack = batch_call(&b, SYS_sigaltstack, VAL(0), DATA(old));
	int tid = batch_call(&b, SYS_gettid);
	int r;

	batch_call(&b, SYS_getitimer, VAL(ITIMER_REAL), DATA(timer));
	r = agent_run(a, t->tid, t->cpu, &b, e);
	if (r < 0)
		return r;
	if (batch_result(&b, stack) != 0 || batch_result(&b, tid) != t->tid)
		return error_set(e, -EIO, E_INTERNAL, "wrong results: %ld %ld",
				 batch_result(&b, stack), batch_result(&b, tid));
	return 0;
}

static int examine_process(int proc_fd, const struct frozen_process *p, struct error *e)
{
	struct agent *a;
	int r = agent_borrow(&a, proc_fd, p->pid, p->threads.v[0].cpu, NULL, NULL, e), given_back;

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < p->threads.n; i++)
		r = examine_thread(a, &p->threads.v[i], e);
	given_back = agent_return(a, e);
	return r < 0 ? r : given_back;
}

/* Freezes, makes every thread execute something, and lets go. */
int examine(int proc_fd, pid_t pid, bool compare_maps, struct error *e)
{
	_cleanup_(freezer_free) struct freezer f = {
		.proc_fd = proc_fd,
		.root = pid,
		.self = getpid(),
		.timeout_ms = 5000,
	};
	_cleanup_(free_ptr) char *before = NULL, *after = NULL;
	int r = freezer_freeze(&f, e);

	if (r < 0)
		return r;
	if (compare_maps && procfs_read(proc_fd, &before, e, "%d/maps", pid) < 0)
		return -EIO;
	r = examine_process(proc_fd, &f.processes.v[0], e);
	if (compare_maps && procfs_read(proc_fd, &after, e, "%d/maps", pid) < 0)
		return -EIO;
	if (r == 0 && compare_maps && strcmp(before, after) != 0)
		return error_set(e, -EIO, E_INTERNAL, "the mappings have changed");
	return r;
}
