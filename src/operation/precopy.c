/* SPDX-License-Identifier: Apache-2.0 */
#include "operation/precopy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/pagemap.h"
#include "mm/shared.h"
#include "model/reserve.h"
#include "operation/operation.h"
#include "operation/parents.h"

enum { MAX_PASSES = 6, MAX_PASSES_TO_FIT = 30 };

/* As little as this is copied in the freeze as well. */
#define ENOUGH (1ull << 20)

/* Whether so much is worth being copied once more is tried for so long. */
#define SAMPLE_WORTH (32ull << 20)
#define SAMPLE_NS    5000000ull

#define MANY_FDS 4096

struct precopy {
	struct checkpoint *c;
	struct agent_found *found;
	struct mm_tracks *tracks;
	uint64_t max_freeze;
	uint64_t *stood;
	struct error *e;
};

static uint64_t anonymous_bytes(const struct precopy *pc, pid_t pid)
{
	_cleanup_(free_ptr) char *text = NULL;
	unsigned long size, resident, shared;

	if (procfs_read(pc->c->proc_fd, &text, NULL, "%d/statm", pid) < 0 ||
	    sscanf(text, "%lu %lu %lu", &size, &resident, &shared) != 3 || resident < shared)
		return 0;
	return (uint64_t)(resident - shared) * PAGE_BYTES;
}

static const struct frozen_thread *alive(const struct frozen_process *f)
{
	vec_for_each (t, &f->threads)
		if (!t->zombie && !t->in_vfork) /* then it is the child that is asked */
			return t;
	return NULL;
}

/* Of a process made with CLONE_VM. */
static bool tracked_already(const struct precopy *pc, pid_t tid)
{
	vec_for_each (t, &pc->tracks->v)
		if (syscall(SYS_kcmp, t->tid, tid, KCMP_VM, 0, 0) == 0)
			return true;
	return false;
}

/* The descriptor that the task will get: /proc lists them in order. Of many it is not looked for.
 */
static int next_fd(const struct precopy *pc, pid_t tid)
{
	int fd =
		procfs_open(pc->c->proc_fd, O_RDONLY | O_DIRECTORY | O_CLOEXEC, NULL, "%d/fd", tid);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	int next = 0;

	if (!dir) {
		close_fd(&fd);
		return -1;
	}
	while (next < MANY_FDS && (d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		if (atoi(d->d_name) != next)
			break;
		next++;
	}
	closedir(dir);
	return next < MANY_FDS ? next : -1;
}

/*
 * The task makes it, we take it, and the task's own descriptor is closed: by itself if we die. In
 * the mode that is used no fault is ever reported, so that the restriction to faults of user mode,
 * which makes it available to everybody, means nothing.
 */
static int make_uffd(struct precopy *pc, const struct frozen_process *f,
		     const struct frozen_thread *t, struct agent *a, int *ret)
{
	const uint64_t make[6] = {O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY};
	_cleanup_(close_fd) int pidfd = (int)syscall(SYS_pidfd_open, f->pid, 0);
	uint64_t close[6] = {0};
	int next = next_fd(pc, t->tid);
	long fd, r;
	int ours;

	if (pidfd < 0)
		return error_errno(pc->e, -errno, E_SYSTEM, "pidfd_open");
	fd = next < 0 ? agent_syscall(a, t->tid, t->cpu, pc->e, __NR_userfaultfd, make)
		      : agent_syscall_undone(a, t->tid, t->cpu, pc->e, __NR_userfaultfd, make,
					     __NR_close, (uint64_t)next);
	if (fd < 0)
		return error_errno(pc->e, (int)fd, E_SYSTEM, "userfaultfd");
	ours = (int)syscall(SYS_pidfd_getfd, pidfd, (int)fd, 0);
	if (ours < 0)
		ours = -errno;
	close[0] = (uint64_t)fd;
	r = agent_syscall(a, t->tid, t->cpu, pc->e, __NR_close, close);
	if (r < 0) /* all stand still: nobody else has got that number */
		ignore((int)agent_syscall(a, t->tid, t->cpu, NULL, __NR_close, close), "once more");
	if (ours < 0)
		return error_errno(pc->e, ours, E_SYSTEM, "pidfd_getfd");
	if (r < 0) {
		close_fd(&ours);
		return error_errno(pc->e, (int)r, E_SYSTEM, "close");
	}
	*ret = ours;
	return 0;
}

static bool is_worth_tracking(const struct precopy *pc, pid_t tid)
{
	return anonymous_bytes(pc, tid) >= TRACK_WORTH ||
	       (pc->tracks->shared && shared_maps(pc->tracks->shared, pc->c->proc_fd, tid));
}

static int track_process(struct precopy *pc, const struct frozen_process *f)
{
	const struct frozen_thread *t = alive(f);
	struct mm_track *new;
	struct agent *a = NULL;
	int uffd = -EBADF, r, back;

	if (f->zombie || !t || !is_worth_tracking(pc, t->tid) || tracked_already(pc, t->tid))
		return 0;
	r = agent_borrow(&a, pc->c->proc_fd, t->tid, t->cpu, NULL, pc->found, pc->e);
	if (r >= 0)
		r = make_uffd(pc, f, t, a, &uffd);
	back = agent_return(a, r < 0 ? NULL : pc->e);
	if (r >= 0 && back < 0)
		close_fd(&uffd);
	if (r < 0 || back < 0)
		return r < 0 ? r : back;
	r = track_begin(pc->tracks, t->tid, f->start_time, uffd, pc->e);
	if (r < 0)
		return r;
	new = &pc->tracks->v.v[pc->tracks->v.n - 1];
	if (pc->c->same)
		new->parent = same_mm(pc->c->same, f->pid);
	/* after a fork other pages are shared */
	if (pc->c->surveyed && pc->c->surveyed->who == precopy_who(&pc->c->freezer))
		track_take_survey(new, pc->c->surveyed);
	if (pc->tracks->last)
		track_program(pc->c->proc_fd, t->tid, new->program);
	return 0;
}

/* One that has ended meanwhile has nothing to be saved. */
static int unless_gone(struct precopy *pc, struct mm_track *t, int r)
{
	if (r != -ESRCH)
		return r;
	error_clear(pc->e);
	track_drop(t);
	return 0;
}

/* All stand still for a moment: mappings are registered, and no system call is under way. */
static int stop_for_a_moment(struct precopy *pc, bool first)
{
	uint64_t begun = clock_now_ns();
	int r = freezer_freeze(&pc->c->freezer, pc->e);

	if (first)
		vec_for_each (f, &pc->c->freezer.processes)
			if (r >= 0)
				r = track_process(pc, f);
	vec_for_each (t, &pc->tracks->v)
		if (r >= 0)
			r = unless_gone(pc, t, track_register(t, pc->c->proc_fd, pc->e));
	if (r >= 0)
		r = shared_register(pc->c, pc->tracks, pc->e);
	freezer_thaw(&pc->c->freezer);
	*pc->stood += clock_now_ns() - begun;
	return r;
}

uint64_t precopy_who(const struct freezer *f)
{
	uint64_t sum = 0;

	vec_for_each (p, &f->processes)
		sum += ((uint64_t)p->pid + p->start_time) * 0x9e3779b97f4a7c15 ^ (uint64_t)p->pid;
	return sum;
}

static int copy_track(struct precopy *pc, struct mm_track *t, struct page_seen *seen)
{
	return track_copy(t, pc->c->proc_fd, seen, pc->c->store, pc->e);
}

/*
 * Is more than half of it written again before it is copied? Then that would be for nothing, and
 * each write is slower meanwhile. 0: so it is.
 */
static int is_worth_copying(struct precopy *pc, uint64_t bytes)
{
	uint64_t again = 0;
	int r = 0;

	if (bytes < SAMPLE_WORTH || pc->max_freeze)
		return 1;
	usleep(SAMPLE_NS / 1000);
	vec_for_each (t, &pc->tracks->v)
		if (r >= 0)
			r = unless_gone(pc, t, track_again(t, pc->c->proc_fd, &again, pc->e));
	if (r >= 0)
		r = shared_again(pc->c, pc->tracks, &again, pc->e);
	if (r < 0)
		return r;
	return again < bytes / 2 / (COPY_NS(bytes) / SAMPLE_NS);
}

/*
 * The same by a part, before all is protected: each page costs whoever writes to it a fault.
 * *ret_bytes: how much it would be, 0 if that cannot be told so. What is shared is told by looks
 * only.
 */
static int is_worth_looking(struct precopy *pc, uint64_t *ret_bytes)
{
	uint64_t tried = 0, again = 0;
	int r = 0;

	if (pc->max_freeze || pc->tracks->shared)
		return 1;
	vec_for_each (t, &pc->tracks->v)
		if (r >= 0)
			r = unless_gone(pc, t, track_try(t, pc->c->proc_fd, &tried, pc->e));
	if (r >= 0 && tried >= SAMPLE_WORTH / TRACK_TRIED) {
		*ret_bytes = tried * TRACK_TRIED;
		usleep(SAMPLE_NS / 1000);
		vec_for_each (t, &pc->tracks->v)
			if (r >= 0)
				r = unless_gone(pc, t,
						track_again(t, pc->c->proc_fd, &again, pc->e));
	}
	if (r < 0 || (*ret_bytes && again >= tried / 2 / (COPY_NS(*ret_bytes) / SAMPLE_NS)))
		return r < 0 ? r : 0;
	vec_for_each (t, &pc->tracks->v)
		track_tried(t);
	return 1;
}

static int leave_all(struct precopy *pc)
{
	int r = 0;

	vec_for_each (t, &pc->tracks->v)
		if (r >= 0)
			r = track_leave(t, pc->e);
	return r < 0 ? r : shared_leave(pc->tracks, pc->e);
}

static void trace_pass(const struct precopy *pc, bool worth, uint64_t bytes)
{
	checkpoint_trace(pc->c, "%s %llu KiB while the tasks ran", worth ? "copied" : "left",
			 (unsigned long long)bytes >> 10);
}

/* Returns 0 if another one would be of no use. */
static int pass(struct precopy *pc, bool first, uint64_t *ret_bytes)
{
	_cleanup_(page_seen_free) struct page_seen seen = {};
	uint64_t bytes = 0, tried = 0;
	int worth = first ? 1 : is_worth_looking(pc, &tried), r = worth;

	if (worth == 0) {
		*ret_bytes = tried;
		trace_pass(pc, false, tried);
		return leave_all(pc);
	}
	if (first)
		reserve_begin(pc->c->reserve, 0);
	vec_for_each (t, &pc->tracks->v)
		if (r >= 0)
			r = unless_gone(pc, t, track_look(t, pc->c->proc_fd, &bytes, pc->e));
	reserve_end(pc->c->reserve);
	if (r >= 0)
		r = shared_look(pc->c, pc->tracks, &bytes, pc->e);
	if (r >= 0)
		r = worth = bytes <= ENOUGH ? 0 : first || tried ? 1 : is_worth_copying(pc, bytes);
	if (r > 0)
		r = stop_for_a_moment(pc, false);
	vec_for_each (t, &pc->tracks->v)
		if (r >= 0 && worth > 0)
			r = unless_gone(pc, t, copy_track(pc, t, &seen));
	if (r >= 0)
		r = worth ? shared_copy(pc->c, pc->tracks, pc->e) : leave_all(pc);
	*ret_bytes = bytes;
	trace_pass(pc, worth, bytes);
	return r < 0 ? r : worth;
}

/* Until little is left, or it does not get less; with a limit to the freeze, until it fits. */
static int copy_all(struct precopy *pc)
{
	uint64_t last = UINT64_MAX, bytes = 0;
	int most = pc->max_freeze ? MAX_PASSES_TO_FIT : MAX_PASSES;

	for (int i = 0; i < most; i++) {
		int r = pass(pc, i == 0, &bytes);

		if (r < 0)
			return r;
		if (r == 0 || (!pc->max_freeze && bytes > last / 2))
			break;
		/* half of the time is for the rest */
		if (pc->max_freeze && COPY_NS(bytes) < pc->max_freeze / 2)
			break;
		last = bytes;
	}
	/* It will be about as much again; faulting memory in takes longer than copying into it. */
	store_warm(pc->c->store, ENOUGH + bytes + bytes / 4);
	return 0;
}

/* Without it, that memory is copied in the freeze. */
static int begin_shared(struct precopy *pc, struct memory_objects *shared)
{
	struct error why = {};
	char text[ERROR_TEXT_MAX];
	int r;

	if (!shared->v.n)
		return 0;
	if (pc->c->same)
		vec_for_each (o, &shared->v)
			o->parent = same_inode(pc->c->same, o->dev, o->ino);
	r = shared_begin(pc->c, shared, &pc->tracks->shared, &why);
	if (r >= 0)
		return 0;
	error_format(&why, text, sizeof(text));
	checkpoint_trace(pc->c, "shared memory is copied in the freeze: %s", text);
	return 0;
}

static void look_for_holes(struct precopy *pc)
{
	bool told = pagemap_tells_holes(pc->c->proc_fd, MAP_PRIVATE);

	vec_for_each (t, &pc->tracks->v)
		t->tells_holes = told;
}

int precopy(struct checkpoint *c, struct agent_found *found, struct mm_tracks *tracks,
	    struct memory_objects *shared, uint64_t max_freeze, bool all_known, uint64_t *stood,
	    struct error *e)
{
	struct precopy pc = {c, found, tracks, max_freeze, stood, e};
	int r = begin_shared(&pc, shared);

	if (r >= 0 && (!all_known || tracks->shared))
		r = stop_for_a_moment(&pc, true);
	if (r >= 0 && tracks->v.n)
		look_for_holes(&pc);
	if (r >= 0 && (tracks->v.n || tracks->shared))
		r = copy_all(&pc);
	if (r < 0)
		tracks_end(tracks);
	return r;
}
