/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "image/store.h"
#include "mm/mm.h"
#include "mm/order.h"
#include "mm/pages.h"
#include "mm/state.h"
#include "mm/track.h"

/*
 * The contents of address spaces, on their way from the tasks into the page groups: directly, or
 * kept in between so that the tasks can go on.
 */

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the pages of an address space");
}

uint64_t mm_page_bytes(struct checkpoint *c)
{
	return c->mm->page_bytes;
}

static int read_task(const struct checkpoint *c, const struct mm_state *m, bool shared,
		     uint64_t address, void *buf, size_t len, struct error *e)
{
	int r = shared ? pages_read_shared(c->proc_fd, m->tid, address, buf, len, e)
		       : pages_read(c->proc_fd, m->tid, address, buf, len, e);

	return r < 0 ? error_object(e, r, "task %d (%s)", m->tid,
				    c->processes.v[m->process].stat.comm)
		     : 0;
}

/* ---- reading ---- */

/* The group that is being written: its runs, and where each is read from. */
struct group_source {
	struct checkpoint *c;
	const struct content_run *runs;
	size_t n;
};

static const struct content_run *run_at(const struct group_source *s, uint64_t address)
{
	size_t low = bisect(s->n, i, s->runs[i].end > address);

	return &s->runs[low];
}

/* Called from several threads at once. What is asked for lies in runs, but may go from one into the
 * next. */
static int read_contents(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct group_source *s = arg;

	while (len) {
		const struct content_run *run = run_at(s, address);
		const struct mm_state *m = &s->c->mm->mms.v[run->source];
		size_t n = run->end - address < len ? run->end - address : len;
		int r;

		if (run->position == CONTENT_LATER) /* all is shared there */
			r = pages_read_shared(s->c->proc_fd, m->copy.pid, address, buf, n, e);
		else if (run->position != STORE_NONE)
			r = store_get(s->c->store, run->position + (address - run->start), buf, n,
				      e);
		else
			r = read_task(s->c, m, run->shared, address, buf, n, e);
		if (r < 0)
			return r;
		buf = (char *)buf + n;
		address += n;
		len -= n;
	}
	return 0;
}

/* ---- keeping ---- */

struct keep {
	struct checkpoint *c;
	struct mm_state *m;	   /* whose group it is */
	struct content_runs runs;  /* in place of those of m */
	bool once;		   /* nothing of a copy is read twice */
	const struct mm_state *of; /* from whom it is read */
	bool shared;
};

static int keep_source(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct keep *k = arg;

	return read_task(k->c, k->of, k->shared, address, buf, len, e);
}

static bool has_place(const struct content_run *run)
{
	return run->position != STORE_NONE && run->position != CONTENT_LATER;
}

/* Positions may follow each other; then the run before is continued. */
static int add_run(struct keep *k, const struct content_run *run, uint64_t start, uint64_t end,
		   uint64_t position, struct error *e)
{
	struct content_run *last = k->runs.n ? &k->runs.v[k->runs.n - 1] : NULL;

	if (last && last->end == start && last->source == run->source &&
	    last->stage == run->stage && last->shared == run->shared &&
	    position ==
		    (has_place(last) ? last->position + (start - last->start) : last->position)) {
		last->end = end;
		return 0;
	}
	last = vec_push(&k->runs);
	if (!last)
		return no_memory(e);
	*last = (struct content_run){start, end, run->source, run->stage, run->shared, position};
	return 0;
}

/*
 * What has to be read while the tasks stand still: into memory as long as there is some, and else
 * all together, later.
 */
static int keep_now(struct keep *k, const struct content_run *run, uint64_t start, uint64_t end,
		    struct error *e)
{
	while (start < end) {
		size_t len = end - start < STORE_PIECE ? end - start : STORE_PIECE;
		uint64_t position = STORE_NONE;
		int r = 0;

		if (len <= store_memory_left(k->c->store))
			r = store_put(k->c->store, true, start, len, keep_source, k, &position, e);
		if (r >= 0)
			r = add_run(k, run, start, start + len, position, e);
		if (r < 0)
			return r;
		start += len;
	}
	return 0;
}

/* What a copy of the address space has can wait. */
static int keep_range(struct keep *k, const struct content_run *run, uint64_t start, uint64_t end,
		      struct error *e)
{
	int r = 0;

	if (!k->of->copy.pid)
		return keep_now(k, run, start, end, e);
	vec_for_each (s, &k->of->copy.spans) {
		uint64_t from = s->start > start ? s->start : start;
		uint64_t to = s->end < end ? s->end : end;

		if (from >= to)
			continue;
		r = keep_now(k, run, start, from, e);
		if (r >= 0)
			r = add_run(k, run, from, to, CONTENT_LATER, e);
		if (r < 0)
			return r;
		start = to;
	}
	return keep_now(k, run, start, end, e);
}

/* The first of the spans that ends behind an address. */
static size_t first_kept(const struct kept_spans *spans, uint64_t address)
{
	return bisect(spans->n, i, spans->v[i].end > address);
}

static int keep_run(struct keep *k, const struct content_run *run, struct error *e)
{
	const struct kept_spans *kept = &k->of->kept;
	uint64_t at = run->start;
	int r = 0;

	for (size_t i = first_kept(kept, at); r >= 0 && i < kept->n; i++) {
		const struct kept_span *s = &kept->v[i];
		uint64_t start = s->start > at ? s->start : at;
		uint64_t end = s->end < run->end ? s->end : run->end;

		if (start >= run->end)
			break;
		/* in the object that is this one in the parent, and no other */
		if ((s->position & PAGE_PARENT) && k->of != k->m)
			continue;
		r = keep_range(k, run, at, start, e);
		if (r >= 0)
			r = add_run(k, run, start, end, s->position + (start - s->start), e);
		at = end;
	}
	return r < 0 ? r : keep_range(k, run, at, run->end, e);
}

struct place {
	struct group_source source;
	struct kept_spans spans;
};

static int place_source(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	struct place *p = arg;

	return read_contents(&p->source, address, buf, len, e);
}

static int placed(void *arg, uint64_t address, uint64_t length, uint64_t position)
{
	struct place *p = arg;
	struct kept_span *s = vec_push(&p->spans);

	if (!s)
		return -ENOMEM;
	*s = (struct kept_span){address, address + length, position};
	return 0;
}

static int put_runs(struct keep *k, const struct page_run *runs, size_t n, struct place *p,
		    struct error *e)
{
	return n ? store_put_all(k->c->store, image_parent_object(k->c->image, k->m->id), runs, n,
				 place_source, placed, p, e)
		 : 0;
}

/* So much of a copy is read before it is given up. */
#define COPIED_AT_ONCE (32ull << 20)

/*
 * From a copy. What has been read of it is given up: then the application need not copy pages that
 * it writes to, and takes no more memory for them.
 */
static int put_copied(struct keep *k, struct page_run *runs, size_t n, struct place *p,
		      struct error *e)
{
	int r = 0;

	for (size_t i = 0, first = 0; r >= 0 && first < n; first = i) {
		uint64_t bytes = 0, rest = 0;

		for (i = first; i < n && !rest && bytes < COPIED_AT_ONCE; i++) {
			uint64_t room = COPIED_AT_ONCE - bytes;

			rest = runs[i].length > room ? runs[i].length - room : 0;
			runs[i].length -= rest;
			bytes += runs[i].length;
		}
		r = put_runs(k, runs + first, i - first, p, e);
		if (r >= 0 && k->once)
			r = mm_give_up(k->m, runs[first].address,
				       runs[i - 1].address + runs[i - 1].length, e);
		if (!rest)
			continue;
		i--;
		runs[i] = (struct page_run){runs[i].address + runs[i].length, rest, 0};
	}
	return r;
}

/* Runs of one stage, of which some have no place yet, but that instead. */
static int put_stage(struct keep *k, const struct content_run *v, size_t n, uint64_t lacking,
		     struct place *p, struct error *e)
{
	_cleanup_(free_ptr) struct page_run *runs = calloc(n, sizeof(*runs));
	size_t nruns = 0;

	if (!runs)
		return no_memory(e);
	p->source = (struct group_source){k->c, v, n};
	for (size_t i = 0; i < n; i++)
		if (v[i].position == lacking)
			runs[nruns++] = (struct page_run){v[i].start, v[i].end - v[i].start, 0};
	return lacking == CONTENT_LATER ? put_copied(k, runs, nruns, p, e)
					: put_runs(k, runs, nruns, p, e);
}

/* `from` with the places that were found, which come in the order of what lacks one. */
static int take_places(struct keep *k, const struct content_run *v, size_t n, uint64_t lacking,
		       const struct kept_spans *spans, struct error *e)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		int r = 0;

		if (v[i].position != lacking)
			r = add_run(k, &v[i], v[i].start, v[i].end, v[i].position, e);
		else
			/* one may go from one run into the next */
			for (; r >= 0 && at < spans->n && spans->v[at].start < v[i].end; at++) {
				const struct kept_span *s = &spans->v[at];
				uint64_t start = s->start > v[i].start ? s->start : v[i].start;
				uint64_t end = s->end < v[i].end ? s->end : v[i].end;

				r = add_run(k, &v[i], start, end, s->position + (start - s->start),
					    e);
				if (s->end > v[i].end)
					break;
			}
		if (r < 0)
			return r;
	}
	return 0;
}

/* What found no room in memory, or was left for later. */
static int place_rest(struct keep *k, uint64_t lacking, struct error *e)
{
	struct content_runs from = k->runs;
	int r = 0;

	k->runs = (struct content_runs){};
	for (size_t i = 0, j; r >= 0 && i < from.n; i = j) {
		struct place p = {};

		for (j = i + 1; j < from.n && from.v[j].stage == from.v[i].stage; j++)
			;
		r = put_stage(k, from.v + i, j - i, lacking, &p, e);
		if (r >= 0)
			r = take_places(k, from.v + i, j - i, lacking, &p.spans, e);
		vec_free(&p.spans);
	}
	vec_free(&from);
	return r;
}

/* Is what one address space holds put into the groups of another? */
static bool contents_are_shared(const struct checkpoint *c)
{
	for (size_t i = 0; i < c->mm->mms.n; i++)
		vec_for_each (run, &c->mm->mms.v[i].contents)
			if (run->source != i)
				return true;
	return false;
}

int mm_keep_pages(struct checkpoint *c, struct error *e)
{
	if (!contents_are_shared(c))
		store_read_once(c->store);
	vec_for_each (m, &c->mm->mms) {
		struct keep k = {.c = c, .m = m};
		int r = 0;

		for (size_t i = 0; r >= 0 && i < m->contents.n; i++) {
			k.of = &c->mm->mms.v[m->contents.v[i].source];
			k.shared = m->contents.v[i].shared;
			r = keep_run(&k, &m->contents.v[i], e);
		}
		if (r >= 0)
			r = place_rest(&k, STORE_NONE, e);
		if (r < 0) {
			vec_free(&k.runs);
			return r;
		}
		vec_free(&m->contents);
		m->contents = k.runs;
	}
	return 0;
}

/* Is all that is to be read of the copies read once, from low to high addresses? */
static bool are_read_in_order(const struct checkpoint *c)
{
	vec_for_each (m, &c->mm->mms)
		vec_for_each (run, &m->contents)
			if (run->stage != m->contents.v[0].stage)
				return false;
	return !contents_are_shared(c);
}

int mm_keep_later(struct checkpoint *c, struct error *e)
{
	bool once = are_read_in_order(c);

	vec_for_each (m, &c->mm->mms) {
		struct keep k = {.c = c, .m = m, .runs = m->contents, .once = once};
		int r;

		m->contents = (struct content_runs){};
		r = place_rest(&k, CONTENT_LATER, e);
		m->contents = k.runs;
		if (r < 0)
			return r;
	}
	return 0;
}

int mm_each_unkept(const struct checkpoint *c, mm_unkept_fn fn, void *arg)
{
	vec_for_each (m, &c->mm->mms)
		vec_for_each (run, &m->contents) {
			const struct kept_spans *kept = &c->mm->mms.v[run->source].kept;
			uint64_t at = run->start;
			int r = 0;

			for (size_t i = first_kept(kept, at); r >= 0 && i < kept->n; i++) {
				const struct kept_span *s = &kept->v[i];

				if (s->start >= run->end)
					break;
				if (at < s->start)
					r = fn(arg, run->source, at, s->start);
				at = s->end;
			}
			if (r >= 0 && at < run->end)
				r = fn(arg, run->source, at, run->end);
			if (r < 0)
				return r;
		}
	return 0;
}

static uint64_t kept_in(const struct kept_spans *kept, const struct content_run *run)
{
	uint64_t sum = 0;

	for (size_t i = first_kept(kept, run->start); i < kept->n; i++) {
		const struct kept_span *s = &kept->v[i];

		if (s->start >= run->end)
			break;
		sum += (s->end < run->end ? s->end : run->end) -
		       (s->start > run->start ? s->start : run->start);
	}
	return sum;
}

uint64_t mm_unkept_bytes(const struct checkpoint *c)
{
	uint64_t sum = c->mm->page_bytes;

	vec_for_each (m, &c->mm->mms)
		vec_for_each (run, &m->contents)
			sum -= kept_in(&c->mm->mms.v[run->source].kept, run);
	return sum;
}

int mm_put_parents(struct checkpoint *c, struct error *e)
{
	int r = 0;

	vec_for_each (m, &c->mm->mms)
		if (r >= 0 && m->track && m->track->parent)
			r = image_put_parent_object(c->image, m->id, m->track->parent, e);
	return r;
}

void mm_forget_kept(struct checkpoint *c)
{
	vec_for_each (m, &c->mm->mms)
		vec_free(&m->kept);
}

/* ---- saving ---- */

struct save {
	struct checkpoint *c;
	struct mm_state **owned; /* by process: the address space that it owns, or NULL */
};

/* Where they are read from is nothing to the image, unless they are in it already. */
static void add_page_run(struct page_run *runs, size_t *n, const struct content_run *run)
{
	uint64_t length = run->end - run->start;
	uint64_t position = store_in_image(run->position) ? run->position : 0;
	struct page_run *last = *n ? &runs[*n - 1] : NULL;

	if (last && !last->position && !position && last->address + last->length == run->start)
		last->length += length;
	else
		runs[(*n)++] = (struct page_run){run->start, length, position};
}

static int save_stage(struct save *save, const struct mm_state *m, uint32_t stage, struct error *e)
{
	const struct page_group group = {m->id, stage};
	_cleanup_(free_ptr) struct page_run *runs = NULL;
	struct group_source source;
	size_t first = 0, n, nruns = 0;

	while (first < m->contents.n && m->contents.v[first].stage < stage)
		first++;
	for (n = 0; first + n < m->contents.n && m->contents.v[first + n].stage == stage; n++)
		;
	if (n == 0)
		return 0;
	source = (struct group_source){save->c, m->contents.v + first, n};
	runs = calloc(n, sizeof(*runs));
	if (!runs)
		return no_memory(e);
	for (size_t i = 0; i < n; i++)
		add_page_run(runs, &nruns, &source.runs[i]);
	return image_put_pages(save->c->image, &group, runs, nruns, read_contents, &source, e);
}

static int save_step(void *arg, size_t node, enum mm_step step, uint32_t stage, struct error *e)
{
	struct save *save = arg;

	return step == MM_STEP_FILL ? save_stage(save, save->owned[node], stage, e) : 0;
}

struct pid_index {
	pid_t pid;
	size_t process;
};

static int by_pid(const void *a, const void *b)
{
	const struct pid_index *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

int mm_process_parents(const struct checkpoint *c, ssize_t *ret)
{
	size_t n = c->processes.n;
	_cleanup_(free_ptr) struct pid_index *index = calloc(n + 1, sizeof(*index));

	if (!index)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		index[i] = (struct pid_index){c->processes.v[i].frozen->pid, i};
	qsort(index, n, sizeof(*index), by_pid);
	for (size_t i = 0; i < n; i++) {
		const struct pid_index key = {c->processes.v[i].frozen->ppid, 0};
		const struct pid_index *found = bsearch(&key, index, n, sizeof(key), by_pid);

		ret[i] = found && found->process < i ? (ssize_t)found->process : -1;
	}
	return 0;
}

int mm_process_sessions(const struct checkpoint *c, const ssize_t *parents,
			struct order_session **ret)
{
	size_t n = c->processes.n;
	struct order_session *list = calloc(n + 1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		list[i] = (struct order_session){c->processes.v[i].frozen->pid,
						 c->processes.v[i].stat.session, parents[i]};
	*ret = list;
	return 0;
}

int mm_save_pages(struct checkpoint *c, struct error *e)
{
	size_t n = c->processes.n;
	_cleanup_(free_ptr) struct order_session *sessions = NULL;
	_cleanup_(free_ptr) struct mm_order_node *nodes = calloc(n + 1, sizeof(*nodes));
	_cleanup_(free_ptr) struct mm_state **owned = calloc(n + 1, sizeof(struct mm_state *));
	_cleanup_(free_ptr) ssize_t *parents = calloc(n + 1, sizeof(*parents));
	struct save save = {.c = c, .owned = owned};

	if (!nodes || !owned || !parents || mm_process_parents(c, parents) < 0 ||
	    mm_process_sessions(c, parents, &sessions) < 0)
		return no_memory(e);
	vec_for_each (m, &c->mm->mms) {
		owned[m->process] = m;
		nodes[m->process].owner = true;
		nodes[m->process].inherits = m->msg->parent != 0;
		nodes[m->process].stage = m->msg->parent_stage;
		nodes[m->process].last_stage = m->msg->last_stage;
	}
	for (size_t i = 0; i < n; i++) {
		nodes[i].parent = parents[i];
		nodes[i].late = order_is_late(sessions, i);
	}
	return mm_walk(nodes, n, save_step, &save, e);
}
