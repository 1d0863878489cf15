/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/file.h"
#include "ipc/ipc.h"
#include "kernel/feasible.h"
#include "kernel/security.h"
#include "kernel/unseen.h"
#include "kernel/vfork.h"
#include "mm/mm.h"
#include "mm/shared.h"
#include "ns/spaces.h"
#include "operation/hold.h"
#include "operation/pass.h"
#include "operation/precopy.h"
#include "operation/target.h"

#define LOOKS_MAX 4
#define LOOKS_NS  1000000000ull

#define PF_EXITING 0x4 /* include/linux/sched.h; the flags are in /proc/PID/stat */

static int check_tables(struct checkpoint *c, struct checkpoint_process *cp, pid_t tid,
			struct error *e)
{
	uint64_t files = 0, fs = 0, undo = 0;
	int r = checkpoint_refuse(c, files_checkpoint(c, cp, tid, &files, e), e);

	if (r >= 0)
		r = checkpoint_refuse(c, fs_checkpoint(c, cp, tid, &fs, e), e);
	if (r >= 0)
		r = checkpoint_refuse(c, ipc_undo_identify(c, cp, tid, &undo, e), e);
	if (r < 0 || cp->files)
		return r;
	cp->files = files;
	cp->fs = fs;
	cp->undo = undo;
	return 0;
}

static int check_process(struct pass *p, struct checkpoint_process *cp, struct error *e)
{
	struct checkpoint *c = &p->c;
	size_t before = c->problems.n;
	int r;

	pass_await(p, cp);
	r = process_check(c, &p->index, cp, e);

	if (cp->frozen->zombie)
		return r;
	/* Nothing else can be learnt of a task that we may not look at. */
	for (size_t i = before; i < c->problems.n; i++)
		if (c->problems.v[i].code == E_PERMISSION)
			return r;
	if (r >= 0 && freezer_check_access(&c->freezer, cp->frozen->pid, e) < 0)
		return checkpoint_refuse(c, e->err, e);
	if (r >= 0)
		r = unseen_check(c, cp, e);
	if (r >= 0)
		r = checkpoint_refuse(c, security_check(c, cp, e), e);
	if (r >= 0)
		r = checkpoint_refuse(c, mm_checkpoint(c, cp, e), e);
	vec_for_each (t, &cp->frozen->threads)
		if (r >= 0 && !t->zombie)
			r = check_tables(c, cp, t->tid, e);
	return r;
}

static bool has_ended(const struct checkpoint *c, pid_t pid, pid_t tid)
{
	struct error unused = {};
	struct proc_stat st;

	return proc_stat_read(c->proc_fd, pid, tid, &st, &unused) < 0 || st.state == 'Z' ||
	       st.state == 'X' || st.flags & PF_EXITING;
}

/*
 * What could not be learnt of a task may be due to its end: /proc shows less and
 * less of it then. Were it something else, it would be met again once all is stopped.
 */
static void forget_if_ended(struct checkpoint *c, const struct checkpoint_process *cp,
			    size_t before)
{
	if (c->problems.n == before)
		return;
	vec_for_each (t, &cp->frozen->threads)
		if (!t->zombie && has_ended(c, cp->frozen->pid, t->tid))
			c->problems.n = before;
}

static bool has_problem(const struct checkpoint *c, enum error_code code)
{
	for (size_t i = 0; i < c->problems.n; i++)
		if (c->problems.v[i].code == code)
			return true;
	return false;
}

/* A task that ends while we look is no obstacle. */
static int check_tree(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;
	int r = freezer_survey(&c->freezer, e);

	/* After a fork, what is known of mappings tells nothing of the pages that are shared now.
	 */
	if (r >= 0 && c->tracks && c->tracks->who != precopy_who(&c->freezer))
		vec_for_each (t, &c->tracks->v)
			t->seen_ns = 0;
	if (r >= 0)
		vfork_find(c);
	if (r >= 0)
		r = pass_list(p, e);
	if (r >= 0)
		r = spaces_survey(c, p->container, e);
	if (r >= 0)
		pass_look_ahead(p);
	vec_for_each (cp, &c->processes) {
		size_t before = c->problems.n;

		if (r < 0)
			break;
		report_at(p->rep, cp->frozen->pid);
		r = check_process(p, cp, e);
		forget_if_ended(c, cp, before);
		/* Some say it themselves, those of descriptors for instance. */
		for (size_t i = before; i < c->problems.n; i++)
			if (!strstr(c->problems.v[i].object, "task "))
				error_object(&c->problems.v[i], -1, "task %d (%s)", cp->frozen->pid,
					     cp->stat.comm);
		if (r == -ESRCH) {
			error_clear(e);
			r = 0;
		}
	}
	if (r >= 0)
		r = checkpoint_refuse(c, spaces_check_network(c, p->container, e), e);
	if (r >= 0)
		r = checkpoint_refuse(c, files_checkpoint_finish(c, e), e);
	if (r >= 0)
		r = checkpoint_refuse(c, ipc_checkpoint(c, e), e);
	if (r >= 0 && !has_problem(c, E_TASK_VFORK)) /* then it has been said */
		r = checkpoint_refuse(c, tree_check_feasible(c, e), e);
	return r < 0 ? r : container_check_leaks(c, p->container, e);
}

/* Bytes of the state part of an image, generously. What pipes and sockets hold is not known. */
static uint64_t guess_state(const struct checkpoint *c)
{
	uint64_t tasks = 0;

	vec_for_each (f, &c->freezer.processes)
		tasks += f->threads.n;
	return (256u << 10) + c->processes.n * (32u << 10) + tasks * (8u << 10) +
	       files_checkpoint_count(c) * (1u << 10);
}

static bool is_among(const struct error *e, const struct problems *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].code == e->code && !strcmp(list->v[i].object, e->object) &&
		    !strcmp(list->v[i].text, e->text))
			return true;
	return false;
}

/*
 * What was not in the way at the last look has come since, and will go: in a tree that makes and
 * ends processes all the time each look meets others.
 */
static void keep_lasting(struct problems *now, const struct problems *before)
{
	size_t n = 0;

	for (size_t i = 0; i < now->n; i++)
		if (is_among(&now->v[i], before))
			now->v[n++] = now->v[i];
	now->n = n;
}

static int take_shared(struct checkpoint *c, struct subject *s, struct error *e)
{
	memory_objects_free(&s->shared);
	if (inodes_take_memory(c, SHARED_WORTH, &s->shared) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for what is shared");
	s->shared_bytes = 0;
	vec_for_each (o, &s->shared.v)
		s->shared_bytes += o->bytes;
	return 0;
}

/* lasting: what each look before this one found in the way; NULL: there was none. *again: on entry,
 * whether there may be another one; true: it takes one, since something seems to be in the way. */
static int look_once(pid_t pid, struct subject *s, const struct reprise_checkpoint_options *opt,
		     struct report *rep, struct problems *lasting, struct error *first, bool *again,
		     struct error *e)
{
	_cleanup_(pass_end) struct pass p;
	int r = pass_begin(&p, pid, &s->ct, rep, true, opt, e);

	if (s->tracks.v.n)
		p.c.tracks = &s->tracks;
	tracks_end(&s->surveyed);
	if (s->store) /* else there is nothing to be tracked */
		p.c.surveyed = &s->surveyed;
	if (opt->jobs != 1)
		p.c.reserve = &s->reserve;
	if (r >= 0) {
		pass_awake(&p, true);
		r = checkpoint_refuse(&p.c, container_check_tasks(&s->ct, e), e);
	}
	if (r >= 0)
		r = check_tree(&p, e);
	pass_awake(&p, false);
	if (lasting->v)
		keep_lasting(&p.c.problems, lasting);
	*again = *again && r >= 0 && p.c.problems.n;
	if (*again) {
		problems_free(lasting);
		*lasting = p.c.problems;
		p.c.problems = (struct problems){};
		return 0;
	}
	for (size_t i = 0; i < p.c.problems.n; i++) {
		if (i == 0)
			*first = p.c.problems.v[0];
		report_problem(rep, &p.c.problems.v[i]);
	}
	s->kernel = take_ptr(&p.c.kernel);
	s->programs = take_ptr(&p.c.programs);
	if (r < 0)
		return r;
	s->anonymous = mm_anonymous_bytes(&p.c, TRACK_WORTH);
	s->untracked = mm_untracked_bytes(&p.c, TRACK_WORTH);
	s->who = s->surveyed.who = precopy_who(&p.c.freezer);
	s->filtered = p.c.filtered;
	s->tasks = 0;
	vec_for_each (f, &p.c.freezer.processes)
		s->tasks += f->threads.n;
	s->descriptors = files_checkpoint_count(&p.c);
	s->pins = pass_pins_pages(&p.c);
	s->pipes = files_hold_kind(&p.c, "pipe") || files_hold_kind(&p.c, "fifo");
	s->faults = files_hold_kind(&p.c, "userfaultfd");
	s->state = guess_state(&p.c);
	r = s->store ? take_shared(&p.c, s, e) : 0;
	return r < 0 ? r : (int)p.c.problems.n;
}

/*
 * Looks at the tree without touching it; returns how many problems were reported. The tree runs:
 * what seems to be held outside of it may be held by a child that was just made, or a
 * descriptor may have been closed before the epoll set was looked at that it is in. What is the
 * same the next time, and the one after, is so; the rest is decided when all stands still.
 */
int pass_look(pid_t pid, struct subject *s, const struct reprise_checkpoint_options *opt,
	      struct report *rep, struct error *first, struct error *e)
{
	uint64_t begun = clock_now_ns();
	struct problems lasting = {};
	bool again = true;
	int r = 0;

	for (int i = 1; again; i++) {
		again = i < LOOKS_MAX && (i == 1 || clock_now_ns() - begun < LOOKS_NS);
		r = look_once(pid, s, opt, rep, &lasting, first, &again, e);
	}
	problems_free(&lasting);
	return r;
}

int operation_check(pid_t pid, const struct reprise_checkpoint_options *opt, struct report *rep,
		    struct error *e)
{
	_cleanup_(subject_free) struct subject s = {
		.ct = CONTAINER_INIT, .hold = -EBADF, .reserve = RESERVE_NONE};
	struct error first = {};
	int r;

	s.ct.allow_leaks = opt->allow_leaks;
	s.ct.mounts.with_overlays = !opt->fs_none;
	r = target_check(pid, e);
	if (r >= 0)
		r = hold_check(pid, e);
	if (r >= 0)
		r = container_enter(&s.ct, &pid, e);
	if (r < 0) {
		report_problem(rep, e);
		error_clear(e);
		return 1;
	}
	return pass_look(pid, &s, opt, rep, &first, e);
}
