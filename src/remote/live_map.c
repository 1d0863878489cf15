/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapping of a live agent, and how it goes away again. Each is one system call of the task, at
 * whose end the thread sends itself a signal: so there is one stop, for which nobody has to wait
 * while there is something else to do (an errand). Where that cannot be had it is a single call.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "remote/live_private.h"

static bool is_error(long result)
{
	return result < 0 && result >= -4095;
}

static int write_code(struct agent *a, pid_t tid, struct error *e)
{
	return mem_write(tid, a->mapping, arch_agent_code,
			 (size_t)(arch_agent_code_end - arch_agent_code), e);
}

static void map_args(const struct agent *a, uint64_t args[6])
{
	args[0] = a->hole;
	args[1] = AGENT_SIZE;
	args[2] = PROT_READ | PROT_WRITE | PROT_EXEC;
	args[3] = MAP_PRIVATE | MAP_ANONYMOUS | (a->hole ? MAP_FIXED_NOREPLACE : 0);
	args[4] = (uint64_t)-1;
	args[5] = 0;
}

static int unmap(struct borrowed *b, long *result, struct error *e)
{
	const uint64_t args[6] = {b->a->mapping, AGENT_SIZE};

	return live_single(b, live_frame_at(b), SYS_munmap, args, result, e);
}

/*
 * Memory for the agent, at a place that is chosen here, so that what takes it away again is there
 * before it is. Where there can be none (RLIMIT_AS, a policy against code that is written at run
 * time) calls are made one by one. A thread with seccomp filters is no keeper: they may not allow
 * it to unmap anything.
 */
static bool is_kept(const struct borrowed *b)
{
	return b->a->leave && b->a->hole && !b->filtered;
}

static int map_singly(struct agent *a, struct error *e)
{
	struct borrowed b;
	uint64_t args[6];
	long at = 0;
	bool kept;
	int r = live_begin(&b, a, a->tid, a->saved, e);

	if (r < 0)
		return r;
	kept = is_kept(&b);
	map_args(a, args);
	a->mapping = a->hole;
	if (kept)
		r = live_write_leave(&b, e);
	if (r < 0)
		a->mapping = 0;
	else
		r = live_single(&b, kept ? live_leave_at(&b) : live_frame_at(&b), SYS_mmap, args,
				&at, e);
	if (r < 0) /* it may be there or not: what is not there can be removed as well */
		return live_finish(&b, r, e);
	a->mapping = is_error(at) ? 0 : (uint64_t)at;
	if (kept && a->mapping)
		a->keeper = b;
	if (a->mapping)
		r = write_code(a, b.tid, e);
	return live_finish(&b, r, e);
}

int agent_begin(struct agent *a, struct error *e)
{
	struct borrowed b;
	uint64_t args[6];
	int r;

	if (a->mapping || a->errand)
		return 0;
	r = live_begin(&b, a, a->tid, a->saved, e);
	if (r < 0 || !is_kept(&b) || !live_can_post(&b))
		return r;
	map_args(a, args);
	a->mapping = a->hole;
	r = live_write_leave(&b, e);
	if (r < 0)
		a->mapping = 0;
	else
		r = live_post(&b, live_leave_at(&b), SYS_mmap, args, e);
	if (r < 0)
		return live_finish(&b, r, e);
	a->errand = ERRAND_MAP;
	a->sent = b;
	return 0;
}

/* What mmap() has returned nobody knows: what is not there cannot be written to. */
static int meet_mapped(struct agent *a, struct error *e)
{
	struct borrowed b = a->sent;
	long unused;
	int r;

	a->errand = ERRAND_NONE;
	r = live_meet(&b, e);
	if (r < 0)
		return live_finish(&b, r, e);
	r = write_code(a, b.tid, e);
	if (r == -EFAULT) { /* nor by halves */
		error_clear(e);
		r = unmap(&b, &unused, e);
		a->mapping = 0;
	} else {
		a->keeper = b;
	}
	return live_finish(&b, r, e);
}

int live_map(struct agent *a, struct error *e)
{
	int r = agent_begin(a, e);

	if (r < 0)
		return r;
	return a->errand == ERRAND_MAP ? meet_mapped(a, e) : map_singly(a, e);
}

int agent_leave(struct agent *a, struct error *e)
{
	const uint64_t args[6] = {a->mapping, AGENT_SIZE};
	struct borrowed b = a->keeper;
	int r;

	if (!a->live || !a->mapping || a->abandoned || a->errand || !b.tid || !live_can_post(&b))
		return 0;
	a->undo = 0;
	r = live_post(&b, live_frame_at(&b), SYS_munmap, args, e);
	if (r < 0)
		return live_finish(&b, r, e);
	a->errand = ERRAND_UNMAP;
	a->sent = b;
	return 0;
}

static int meet_unmapped(struct agent *a, struct error *e)
{
	struct borrowed b = a->sent;
	uint8_t byte;
	int r;

	a->errand = ERRAND_NONE;
	r = live_meet(&b, e);
	if (r == 0) {
		a->keeper.tid = 0;
		if (mem_read(b.tid, a->mapping, &byte, sizeof(byte), NULL) == -EFAULT)
			a->mapping = 0;
	}
	return live_finish(&b, r, e);
}

static long unmap_by(struct agent *a, pid_t tid, const struct cpu_state *saved, struct error *e)
{
	struct borrowed b;
	long result = 0;
	int r = live_begin(&b, a, tid, saved, e);

	if (r < 0)
		return r;
	r = unmap(&b, &result, e);
	if (r == 0)
		a->keeper.tid = 0;
	if (r == 0 && !is_error(result))
		a->mapping = 0;
	r = live_finish(&b, r, e);
	return r < 0 ? r : result;
}

static int unmap_singly(struct agent *a, struct error *e)
{
	const struct borrowed keeper = a->keeper;
	long result;

	result = keeper.tid ? unmap_by(a, keeper.tid, keeper.saved, e)
			    : unmap_by(a, a->tid, a->saved, e);
	if (result == -ESRCH && a->mapping && a->last_tid != a->tid) {
		error_clear(e);
		result = unmap_by(a, keeper.tid == a->last_tid ? a->tid : a->last_tid,
				  keeper.tid == a->last_tid ? a->saved : a->last_saved, e);
	}
	if (result == -ESRCH)
		return -ESRCH;
	return result < 0 ? error_errno(e, (int)result, E_REMOTE,
					"cannot remove what ran system calls in task %d", a->tid)
			  : 0;
}

int live_unmap(struct agent *a, struct error *e)
{
	int r = 0;

	if (a->errand == ERRAND_MAP)
		r = meet_mapped(a, e);
	if (r == 0)
		r = agent_leave(a, e);
	if (r == 0 && a->errand == ERRAND_UNMAP)
		r = meet_unmapped(a, e);
	if (r == -ESRCH) { /* another thread may be there */
		error_clear(e);
		r = 0;
	}
	return r < 0 || !a->mapping ? r : unmap_singly(a, e);
}
