/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of address spaces, as fork makes them: for what is written faster than it can be copied in
 * advance. The kernel copies a page when it is written, and nobody has to be waited for; what is
 * unmapped, moved or given up stays in the copy, and so does all when the application ends.
 *
 * Such a copy costs page tables in the freeze, for all that the address space has, and up to as
 * much memory as is left to be read, until it has been; nothing is gained if that is little.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/state.h"
#include "ns/first.h"

/* As little of one mapping is read in the freeze. */
#define MAPPING_WORTH	     (1ull << 20)
/* What a copy takes in the freeze, in ns: of pages of 4 KiB, measured (doc/performance.md). */
#define COPY_BEGIN_NS	     1500000ull
#define COPY_SPACE_NS(bytes) ((bytes) / 50)
#define READ_NS(bytes)	     ((bytes) / 3)
/* It slows the application down for a while: so it must be better by that. */
#define BETTER		     2
/* Besides what has been written all the time, so much more may be while the copy exists. */
#define WRITTEN_BESIDES	     (64ull << 20)
#define CALLS_AT_ONCE	     256

/* ---- who can be copied ---- */

static bool is_huge(const Reprise__Vma *v)
{
	return v->kind == VMA_HUGE_ANON || (v->page_size && !(v->flags & VMA_SHARED));
}

/*
 * What takes part in a fork otherwise than by being copied: attached segments have a count and
 * times; huge pages are taken from those that a mapping has reserved, and who has reserved none is
 * killed if there is none left to be written to (hugetlb_wp()). These are left out of the copy.
 */
static bool must_be_left(const Reprise__Vma *v)
{
	return (v->kind == VMA_SYSV || is_huge(v)) && !(v->flags & VMA_DONTFORK);
}

/* Rings are known to the kernel by their place. */
static bool can_be_forked(const Reprise__Mm *mm)
{
	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];

		if (v->kind != VMA_ANON && v->kind != VMA_FILE && v->kind != VMA_VVAR &&
		    v->kind != VMA_VDSO && v->kind != VMA_DROPPABLE && v->kind != VMA_HUGE_ANON &&
		    v->kind != VMA_SYSV)
			return false;
	}
	return true;
}

/* The copy can have it as it is. */
static bool is_copied(const Reprise__Vma *v)
{
	return (v->kind == VMA_ANON || v->kind == VMA_FILE) && !(v->flags & VMA_SHARED) &&
	       !v->page_size;
}

/* What is not to be forked otherwise. 0: there is no room for that, or it cannot be taken back
 * (mseal). */
static bool advise(struct mm_copy *copy, const Reprise__Vma *v, int during, int after)
{
	struct agent_advice *last = copy->nadvices ? &copy->advices[copy->nadvices - 1] : NULL;

	if (v->flags & VMA_SEALED)
		return false;
	if (last && last->end == v->start && last->during == during) {
		last->end = v->end;
		return true;
	}
	if (copy->nadvices == AGENT_ADVICES_MAX)
		return false;
	copy->advices[copy->nadvices++] = (struct agent_advice){v->start, v->end, during, after};
	return true;
}

static bool leave_out(struct mm_copy *copy, const Reprise__Mm *mm)
{
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (must_be_left(mm->vmas[i]) &&
		    !advise(copy, mm->vmas[i], MADV_DONTFORK, MADV_DOFORK))
			return false;
	return true;
}

static bool take_in(struct mm_copy *copy, const Reprise__Vma *v)
{
	switch (v->flags & (VMA_DONTFORK | VMA_WIPEONFORK)) {
	case 0:
		return true;
	case VMA_DONTFORK:
		return advise(copy, v, MADV_DOFORK, MADV_DONTFORK);
	case VMA_WIPEONFORK:
		return advise(copy, v, MADV_KEEPONFORK, MADV_WIPEONFORK);
	}
	return false;
}

static bool same_link(int proc_fd, pid_t a, const char *of_a, pid_t b, const char *of_b)
{
	_cleanup_(free_ptr) char *x = NULL, *y = NULL;

	return procfs_readlink(proc_fd, &x, NULL, "%d/ns/%s", a, of_a) >= 0 &&
	       procfs_readlink(proc_fd, &y, NULL, "%d/ns/%s", b, of_b) >= 0 && strcmp(x, y) == 0;
}

/* Its children are born where we know them by the same pids, and it can tell us of one. */
static bool can_fork(const struct checkpoint *c, const struct checkpoint_process *p)
{
	if (!p->speaker || p->speaker->tid != p->tid)
		return false;
	vec_for_each (t, &p->frozen->threads)
		if (t->in_vfork)
			return false;
	return same_link(c->proc_fd, p->tid, "pid", c->self, "pid") &&
	       same_link(c->proc_fd, p->tid, "pid_for_children", c->self, "pid");
}

/* Whoever takes in orphans is told when the copy ends: not an application, but for the first
 * process that is our own. */
static bool orphans_leave(const struct checkpoint *c)
{
	if (c->subreapers)
		return false;
	vec_for_each (p, &c->freezer.processes)
		if (p->pid == 1 && !first_is(c->proc_fd, p->pid))
			return false;
	return true;
}

/* ---- what is worth it ---- */

struct tally {
	struct checkpoint *c;
	uint64_t **of; /* by address space: how much of each mapping is left to be read */
};

static size_t mapping_at(const Reprise__Mm *mm, uint64_t address)
{
	return bisect(mm->n_vmas, i, mm->vmas[i]->end > address);
}

static int count(void *arg, size_t source, uint64_t start, uint64_t end)
{
	struct tally *t = arg;
	const Reprise__Mm *mm = t->c->mm->mms.v[source].msg;

	for (size_t i = mapping_at(mm, start); i < mm->n_vmas && mm->vmas[i]->start < end; i++) {
		const Reprise__Vma *v = mm->vmas[i];

		t->of[source][i] += (v->end < end ? v->end : end) - start;
		start = v->end < end ? v->end : end;
	}
	return 0;
}

static uint64_t private_bytes(const struct mm_state *m)
{
	uint64_t sum = 0;

	vec_for_each (s, &m->pages)
		sum += s->end - s->start;
	return sum;
}

static int choose(struct checkpoint *c, struct mm_state *m, const uint64_t *left)
{
	struct mm_copy *copy = &m->copy;
	bool able = can_be_forked(m->msg) && leave_out(copy, m->msg);

	for (size_t i = 0; i < m->msg->n_vmas; i++) {
		const Reprise__Vma *v = m->msg->vmas[i];

		if (left[i] < MAPPING_WORTH || !is_copied(v) || !take_in(copy, v))
			continue;
		if (span_add(&copy->spans, v->start, v->end) < 0)
			return -ENOMEM;
		copy->bytes += left[i];
	}
	/* Most have little left: of these nothing more is asked. */
	if (!able ||
	    READ_NS(copy->bytes) < BETTER * (COPY_BEGIN_NS + COPY_SPACE_NS(private_bytes(m))) ||
	    !can_fork(c, &c->processes.v[m->process]))
		copy->bytes = 0;
	return 0;
}

/* All that is to be copied together; 0: nothing is. */
static uint64_t choose_all(struct checkpoint *c, struct tally *t)
{
	uint64_t sum = 0, all = 0;
	int r = 0;

	vec_for_each (m, &c->mm->mms) {
		uint64_t *of = calloc(m->msg->n_vmas + 1, sizeof(*of));

		t->of[m - c->mm->mms.v] = of;
		if (!of)
			return 0;
	}
	r = mm_each_unkept(c, count, t);
	vec_for_each (m, &c->mm->mms) {
		if (r >= 0)
			r = choose(c, m, t->of[m - c->mm->mms.v]);
		sum += m->copy.bytes;
		all += m->copy.bytes ? private_bytes(m) : 0;
	}
	vec_for_each (m, &c->mm->mms)
		if (m->copy.bytes && !mm_has_room(c, m->tid, sum + WRITTEN_BESIDES, all)) {
			checkpoint_trace(c, "no copy of memory is made: there is no room for it");
			return 0;
		}
	return r < 0 ? 0 : sum;
}

/* ---- one copy ---- */

/* Called in the copy, some at once. */
struct unmapping {
	struct mm_copy *copy;
	struct batch batch;
	uint32_t n;
	struct error *e;
};

static int unmap_now(struct unmapping *u)
{
	int r = u->n ? agent_run(u->copy->agent, u->copy->pid, NULL, &u->batch, u->e) : 0;

	batch_reset(&u->batch);
	u->n = 0;
	return r;
}

static int unmap(struct unmapping *u, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	batch_call(&u->batch, SYS_munmap, VAL(start), VAL(end - start));
	return ++u->n < CALLS_AT_ONCE ? 0 : unmap_now(u);
}

/* While the application stands still: seals and the like ask how often a file is mapped. */
static int unmap_shared(struct mm_state *m, struct error *e)
{
	struct unmapping u = {.copy = &m->copy, .e = e};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < m->msg->n_vmas; i++)
		if (m->msg->vmas[i]->flags & VMA_SHARED)
			r = unmap(&u, m->msg->vmas[i]->start, m->msg->vmas[i]->end);
	if (r >= 0)
		r = unmap_now(&u);
	batch_free(&u.batch);
	return r;
}

int mm_give_up(struct mm_state *m, uint64_t start, uint64_t end, struct error *e)
{
	vec_for_each (s, &m->copy.spans) {
		uint64_t from = s->start > start ? s->start : start;
		uint64_t to = s->end < end ? s->end : end;
		const uint64_t args[6] = {from, to - from, MADV_DONTNEED};
		long r = from < to ? agent_syscall(m->copy.agent, m->copy.pid, NULL, e, SYS_madvise,
						   args)
				   : 0;

		/* where that is not allowed it stays until all has been read */
		if (r == -ESRCH)
			return (int)r;
	}
	return 0;
}

/* Where memory is short the copy is to end, and not the application. */
static void offer_to_oom(const struct checkpoint *c, pid_t pid)
{
	_cleanup_(close_fd) int fd =
		procfs_open(c->proc_fd, O_WRONLY | O_CLOEXEC, NULL, "%d/oom_score_adj", pid);

	if (fd >= 0)
		ignore(write(fd, "1000", 4) == 4 ? 0 : -errno, "there was room enough");
}

/* *ret_back is negative if what was borrowed could not be given back. */
static int make(struct checkpoint *c, struct mm_state *m, struct agent_found *found, int *ret_back,
		struct error *e)
{
	const struct frozen_thread *by = c->processes.v[m->process].speaker;
	struct agent *a = NULL;
	int r = agent_borrow(&a, c->proc_fd, by->tid, by->cpu, NULL, found, e);
	struct error in_return = {};

	if (r >= 0)
		r = agent_copy(a, by->tid, by->cpu, m->copy.advices, m->copy.nadvices, &m->copy.pid,
			       &m->copy.agent, e);
	*ret_back = agent_return(a, &in_return);
	if (*ret_back < 0)
		*e = in_return;
	if (r < 0 || *ret_back < 0)
		return r < 0 ? r : *ret_back;
	offer_to_oom(c, m->copy.pid);
	return unmap_shared(m, e);
}

void mm_copy_end(struct mm_copy *copy)
{
	if (copy->pid)
		agent_copy_end(copy->pid, copy->agent);
	vec_free(&copy->spans);
	*copy = (struct mm_copy){};
}

/* ---- all of them ---- */

int mm_make_copies(struct checkpoint *c, struct agent_found *found, uint64_t *ret, struct error *e)
{
	size_t n = c->mm->mms.n;
	struct tally t = {c, calloc(n + 1, sizeof(*t.of))};
	uint64_t sum = 0;
	int back = 0;

	if (t.of && !c->no_copies && !c->mm->registered.n && orphans_leave(c))
		sum = choose_all(c, &t);
	vec_for_each (m, &c->mm->mms) {
		char text[ERROR_TEXT_MAX];
		struct error own = {};

		if (back < 0)
			break;
		if (!sum || !m->copy.bytes) {
			mm_copy_end(&m->copy);
			continue;
		}
		if (make(c, m, found, &back, &own) >= 0)
			continue;
		if (back < 0)
			*e = own;
		error_format(&own, text, sizeof(text));
		checkpoint_trace(c, "no copy of the memory of task %d is made: %s", m->tid, text);
		sum -= m->copy.bytes;
		mm_copy_end(&m->copy);
	}
	for (size_t i = 0; t.of && i < n; i++)
		free(t.of[i]);
	free(t.of);
	*ret = sum;
	return back;
}

/* ---- reading ---- */

/* Has it all that is to be read? What was not to be inherited by a fork, it has not. */
static int check(struct checkpoint *c, const struct mm_state *m, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", m->copy.pid);
	struct page_spans there = {};
	int r = fd < 0 ? fd : pagemap_scan(fd, &m->copy.spans, &there, e);

	vec_for_each (group, &c->mm->mms) {
		size_t at = 0;

		vec_for_each (run, &group->contents) {
			if (run->position != CONTENT_LATER || &c->mm->mms.v[run->source] != m)
				continue;
			while (at && (at == there.n || there.v[at].start > run->start))
				at--;
			while (at < there.n && there.v[at].end <= run->start)
				at++;
			if (r >= 0 && (at == there.n || there.v[at].start > run->start ||
				       there.v[at].end < run->end))
				r = error_set(e, -EAGAIN, E_TASK_BUSY, "has not all pages");
		}
	}
	vec_free(&there);
	return r;
}

static int read_all(struct checkpoint *c, struct error *e)
{
	vec_for_each (m, &c->mm->mms) {
		int r = m->copy.pid ? check(c, m, e) : 0;

		if (r < 0)
			return r;
	}
	return mm_keep_later(c, e);
}

int mm_read_copies(struct checkpoint *c, struct error *e)
{
	char text[ERROR_TEXT_MAX];
	int r;

	vec_for_each (m, &c->mm->mms)
		if (m->copy.pid)
			agent_copy_calm(m->copy.pid);
	r = read_all(c, e);
	vec_for_each (m, &c->mm->mms)
		mm_copy_end(&m->copy);
	if (r >= 0 || e->code == E_OUTPUT || e->code == E_INTERRUPTED || e->code == E_NO_MEMORY)
		return r;
	error_format(e, text, sizeof(text));
	checkpoint_trace(c, "a copy of memory was of no use: %s", text);
	error_clear(e);
	return error_set(e, -EAGAIN, E_TASK_BUSY, "a copy of its memory has ended too early");
}
