/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/mm.h"
#include "mm/state.h"
#include "mm/track.h"
#include "model/reserve.h"

/*
 * The mappings of a task that stands still, and their flags. Only smaps tells the flags, and it
 * takes 10 to 40 ms per GiB, since it walks all page tables. So of a large address space smaps is
 * read shortly before the freeze, in it only maps, and smaps again right after it: a mapping that
 * is the same in all three, with the same flags before and after, had these in between. A lock is
 * told by the sum of what is locked as well. Where it does not come out, the checkpoint is made
 * once more, with smaps read in the freeze. Root sees in the freeze itself whether they are the
 * same (src/mm/raw.c), and need not read smaps again.
 */

enum {
	READS_MOST = 20,
	ENTRY = 512,   /* less than an entry of smaps has */
	PIECE = 3072,  /* a page without the longest usual one */
	LARGE = 16384, /* pages, from which on a walk costs more than a read */
};

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the layout of an address space");
}

/* Pages; *ret_private: without those of files and of shared memory. 0: it has ended. */
static unsigned long resident(int proc_fd, pid_t tid, unsigned long *ret_private)
{
	_cleanup_(free_ptr) char *statm = NULL;
	struct error unused = {};
	unsigned long size, all, shared;

	if (procfs_read(proc_fd, &statm, &unused, "%d/statm", tid) <= 0 ||
	    sscanf(statm, "%lu %lu %lu", &size, &all, &shared) != 3)
		return 0;
	if (ret_private)
		*ret_private = all > shared ? all - shared : 0;
	return all;
}

/*
 * The kernel gives such a file a page at a time. If the task runs, mappings may have been merged
 * between two pages, so that one overlaps with what was told before: it is read again.
 *
 * A read is given entries until the buffer of the kernel is full; the one that did not fit is made
 * once more by the next read (seq_read_iter()). In smaps each costs a walk through page tables. So
 * no read of a large address space asks for more than one, and none of another asks for what the
 * buffer would not hold together with one more.
 */
bool vmas_costly(int proc_fd, pid_t tid)
{
	return resident(proc_fd, tid, NULL) >= LARGE;
}

/* Whether MLOCK_ONFAULT shows as "??" here: by a page of our own. */
static bool locks_unnamed(int proc_fd)
{
	_cleanup_(vma_list_free) struct vma_list own = {};
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct error unused = {};
	bool found = false;
	void *at = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return false;
	if (mlock2(at, page, MLOCK_ONFAULT) == 0 &&
	    procfs_read(proc_fd, &own.text, &unused, "self/smaps") >= 0 &&
	    vma_parse(own.text, &own) == 0)
		vec_for_each (v, &own.vmas)
			if (v->start <= (uintptr_t)at && v->end > (uintptr_t)at)
				found = v->unnamed == 1;
	munmap(at, page);
	return found;
}

static bool any_unnamed(const struct vma_list *list)
{
	vec_for_each (v, &list->vmas)
		if (v->unnamed)
			return true;
	return false;
}

int vmas_read(int proc_fd, pid_t tid, const char *file, struct vma_list *ret, struct error *e)
{
	bool smaps = strcmp(file, "smaps") == 0;
	size_t piece = !smaps ? SIZE_MAX : vmas_costly(proc_fd, tid) ? ENTRY : PIECE;
	int r = -EINVAL;

	for (int i = 0; i < READS_MOST && r == -EINVAL; i++) {
		vma_list_free(ret);
		r = (int)procfs_read_by(proc_fd, piece, &ret->text, e, "%d/%s", tid, file);
		if (r < 0)
			return r;
		r = vma_parse(ret->text, ret);
	}
	if (r == 0 && any_unnamed(ret) && locks_unnamed(proc_fd))
		vma_name_locks(ret);
	if (r == -ENOMEM)
		return no_memory(e);
	return r < 0 ? error_set(e, r, E_INTERNAL, "/proc/%d/%s is not understood", tid, file) : 0;
}

static bool same_header(const struct vma *a, const struct vma *b)
{
	return a->start == b->start && a->end == b->end && a->offset == b->offset &&
	       a->ino == b->ino && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor &&
	       a->prot == b->prot && a->shared == b->shared && strcmp(a->name, b->name) == 0;
}

/* The entry of a sorted list that begins at an address; *at goes along. */
static const struct vma *find(const struct vma_list *list, size_t *at, uint64_t start)
{
	while (*at < list->vmas.n && list->vmas.v[*at].start < start)
		(*at)++;
	return *at < list->vmas.n && list->vmas.v[*at].start == start ? &list->vmas.v[*at] : NULL;
}

static void take_over(struct vma *v, const struct vma *known)
{
	v->page_size = known->page_size;
	v->pkey = known->pkey;
	v->anonymous_kb = known->anonymous_kb;
	v->swap_kb = known->swap_kb;
	v->shared_kb = known->shared_kb;
	v->huge_kb = known->huge_kb;
	v->letters = known->letters;
	v->strange = known->strange;
	v->unnamed = known->unnamed;
	v->raw = known->raw;
	v->has_raw = known->has_raw;
}

bool vmas_take_over(struct vma_list *list, const struct vma_list *known)
{
	size_t at = 0;

	vec_for_each (v, &list->vmas) {
		const struct vma *other = find(known, &at, v->start);

		if (!other || !same_header(v, other))
			return false;
		take_over(v, other);
	}
	return true;
}

static bool is_agent(const struct checkpoint_process *p, const struct vma *v)
{
	uint64_t at = p->agent ? agent_address(p->agent) : 0;

	return at && v->start >= at && v->end <= at + AGENT_SIZE;
}

/* With the same sum the agent's mapping is not locked either: so mlockall() was not told of the
 * future. */
static bool same_locks(const struct checkpoint *c, pid_t tid, const struct vma_list *list)
{
	_cleanup_(free_ptr) char *status = NULL;
	uint64_t is = 0, should_be = 0;
	const char *field;
	size_t len;

	if (procfs_read(c->proc_fd, &status, NULL, "%d/status", tid) < 0)
		return false;
	field = proc_field(status, "VmLck", &len);
	if (!field)
		return false;
	is = strtoull(field, NULL, 10);
	vec_for_each (v, &list->vmas)
		if (vma_has(v, "lo"))
			should_be += (v->end - v->start) >> 10;
	return is == should_be;
}

/* Whether all could be told. */
static int read_known(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		      struct vma_list *ret, struct error *e)
{
	size_t at = 0;
	int r = vmas_read(c->proc_fd, p->tid, "maps", ret, e);

	if (r < 0)
		return r;
	vec_for_each (v, &ret->vmas) {
		const struct vma *known = find(&m->track->vmas, &at, v->start);

		if (is_agent(p, v))
			continue;
		if (!known || !same_header(v, known))
			return 0;
		take_over(v, known);
	}
	m->same = vmas_same_raw(c, p->tid, &m->track->vmas);
	return m->same || same_locks(c, p->tid, ret);
}

struct mm_look {
	int r;
	struct error e;
	struct vma_list list;
};

void mm_look(struct checkpoint *c, struct checkpoint_process *p)
{
	struct mm_look *l;

	/* of what was copied in advance the mappings are known */
	if (!p->mm || p->frozen->zombie || (c->tracks && !c->checking) ||
	    mm_first_sight(&c->mm->looked, p->mm) <= 0)
		return;
	l = calloc(1, sizeof(*l));
	if (!l)
		return;
	l->r = vmas_read(c->proc_fd, p->tid, "smaps", &l->list, &l->e);
	p->mappings = l;
}

void mm_look_free(struct checkpoint_process *p)
{
	if (p->mappings)
		vma_list_free(&p->mappings->list);
	free(take_ptr(&p->mappings));
}

/* While the task runs, and nothing is written yet. */
static int read_survey(struct checkpoint *c, pid_t tid, struct vma_list *ret, struct error *e)
{
	unsigned long pages = 0;
	int r;

	if (c->reserve && resident(c->proc_fd, tid, &pages) >= LARGE)
		reserve_begin(c->reserve, (uint64_t)pages * PAGE_BYTES);
	r = vmas_read_raw(c, tid, ret, e);
	reserve_end(c->reserve);
	return r;
}

int mm_read_vmas(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		 struct vma_list *ret, struct error *e)
{
	int r = 0;

	if (m->track && !c->exact) {
		r = read_known(c, p, m, ret, e);
		/* the survey may rely on what was confirmed at the last checkpoint, not long ago */
		if (r > 0 && c->checking && !m->same && !track_knows(m->track))
			r = 0;
		m->known = r > 0;
	}
	if (r)
		return r < 0 ? r : 0;
	m->same = false;
	vma_list_free(ret);
	if (p->mappings) {
		struct mm_look *l = p->mappings;

		if (l->r < 0) {
			*e = l->e;
			return l->r;
		}
		*ret = l->list;
		l->list = (struct vma_list){};
		/* read before the agent was there, and so without what its mapping tells */
		if (c->checking || p->agent_unlocked || same_locks(c, p->tid, ret))
			return 0;
		vma_list_free(ret);
	}
	return c->checking ? read_survey(c, p->tid, ret, e)
			   : vmas_read(c->proc_fd, p->tid, "smaps", ret, e);
}

/* What comes and goes by itself is not compared: our own registration. */
static bool same_letters(const struct vma *a, const struct vma *b)
{
	struct vma x = *a, y = *b;

	vma_forget(&x, "uw");
	vma_forget(&y, "uw");
	return x.letters == y.letters && x.pkey == y.pkey;
}

static int confirm(struct checkpoint *c, struct mm_state *m, struct error *e)
{
	_cleanup_(vma_list_free) struct vma_list now = {};
	struct error gone = {};
	size_t at = 0;
	int r = vmas_read(c->proc_fd, m->tid, "smaps", &now, &gone);

	if (r == -ESRCH) /* it has ended since; there is nothing to be asked any more */
		return 0;
	if (r < 0) {
		*e = gone;
		return r;
	}
	vec_for_each (v, &m->track->vmas.vmas) {
		const struct vma *other = find(&now, &at, v->start);

		if (other && same_header(v, other) && !same_letters(v, other))
			return error_set(e, -EAGAIN, E_TASK_BUSY,
					 "flags of mappings of task %d changed", m->tid);
	}
	track_seen(m->track, &now, true);
	return 0;
}

int mm_confirm(struct checkpoint *c, struct error *e)
{
	vec_for_each (m, &c->mm->mms) {
		int r = m->known && !m->same ? confirm(c, m, e) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}
