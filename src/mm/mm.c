/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/mm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/aio.h"
#include "mm/state.h"
#include "mm/track.h"
#include "mm/vdso.h"

/*
 * Checkpoint of address spaces: the layout from smaps, the pages from the page
 * map, the fields from stat and auxv.
 */

/* To follow what is written to a mapping costs more than to copy so little: stacks of threads. */
#define WORTH_KB     256
/* Of smaller address spaces smaps is read again. */
#define SURVEY_WORTH (64ull << 20)

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the layout of an address space");
}

int mm_checkpoint_begin(struct checkpoint *c, struct error *e)
{
	_cleanup_(free_ptr) struct mm_checkpoint *mm = calloc(1, sizeof(*mm));

	if (!mm || mapped_cache_new(&mm->mapped) < 0)
		return no_memory(e);
	c->mm = take_ptr(&mm);
	return 0;
}

void mm_checkpoint_end(struct checkpoint *c)
{
	if (!c->mm)
		return;
	vec_for_each (m, &c->mm->mms) {
		vec_free(&m->pages);
		vec_free(&m->maybe_shared);
		vec_free(&m->shared);
		vec_free(&m->contents);
		vec_free(&m->kept);
		mm_copy_end(&m->copy);
	}
	vec_free(&c->mm->mms);
	scratch_free(&c->mm->scratch);
	vec_free(&c->mm->seen.ids);
	vec_free(&c->mm->looked.ids);
	mapped_cache_free(c->mm->mapped);
	aio_checkpoint_free(c->mm->aio);
	vec_free(&c->mm->registered);
	free(c->mm);
	c->mm = NULL;
}

/* ---- mappings ---- */

static int error_vma(struct error *e, int r, const struct vma *v)
{
	if (v->name[0])
		error_object(e, r, "mapping %lx-%lx (%s)", (unsigned long)v->start,
			     (unsigned long)v->end, v->name);
	else
		error_object(e, r, "mapping %lx-%lx", (unsigned long)v->start,
			     (unsigned long)v->end);
	return r;
}

static bool is_anon_name(const struct vma *v)
{
	return strncmp(v->name, "[anon:", 6) == 0 || strncmp(v->name, "[anon_shmem:", 12) == 0;
}

/* "[anon:NAME]" is how the kernel prints the NAME that was given. */
static char *anon_name(struct scratch *s, const struct vma *v)
{
	char *name = scratch_string(s, strchr(v->name, ':') + 1);
	size_t n = name ? strlen(name) : 0;

	if (n && name[n - 1] == ']')
		name[n - 1] = '\0';
	return name;
}

static int put_vma(struct mm_state *m, const struct vma *v, uint64_t inode, struct error *e)
{
	Reprise__Vma *msg = scratch_message(m->scratch, Reprise__Vma, reprise__vma__init);

	if (!msg)
		return no_memory(e);
	msg->start = v->start;
	msg->end = v->end;
	msg->prot = v->prot;
	msg->pkey = v->pkey;
	msg->kind = v->kind;
	msg->flags = v->flags;
	msg->inode = inode;
	msg->offset = inode || vma_of_ring(v->kind) ? v->offset : 0;
	/* the number of the inode, until all descriptors have been seen */
	msg->ring = vma_of_ring(v->kind) ? v->ino : 0;
	msg->write_open = v->shared && vma_has(v, "mw");
	msg->page_size = vma_has(v, "ht") ? v->page_size << 10 : 0;
	if (is_anon_name(v)) {
		msg->name = anon_name(m->scratch, v);
		if (!msg->name)
			return no_memory(e);
	}
	m->msg->vmas[m->msg->n_vmas++] = msg;
	if (vma_keeps_pages(msg) && (v->shared_kb || v->swap_kb)) {
		struct span *s = vec_push(&m->maybe_shared);

		if (!s)
			return no_memory(e);
		*s = (struct span){v->start, v->end};
	}
	return 0;
}

/* With whom is found out when all descriptors are known (fs/userfaultfd.c). */
static int keep_registered(struct checkpoint *c, const struct checkpoint_process *p,
			   const struct vma *v, struct error *e)
{
	struct mm_registered *reg;
	const char *why = NULL;

	if (v->kind != VMA_ANON && (v->kind != VMA_FILE || vma_has(v, "uw")))
		why = "is registered with userfaultfd, and of a kind for which that is not known";
	else if (vma_has(v, "lo") && !vma_has(v, "lf"))
		why = "is registered with userfaultfd, and locked";
	else if (!(v->prot & PROT_READ))
		why = "is registered with userfaultfd, and cannot be read";
	if (why)
		return checkpoint_refuse(
			c, error_vma(e, error_set(e, -EOPNOTSUPP, E_VMA_KIND, "%s", why), v), e);
	reg = vec_push(&c->mm->registered);
	if (!reg)
		return no_memory(e);
	*reg = (struct mm_registered){p->tid, v->start, v->end, vma_has(v, "um"), vma_has(v, "uw")};
	return 0;
}

const struct mm_registered *mm_registered(const struct checkpoint *c, size_t i)
{
	return i < c->mm->registered.n ? &c->mm->registered.v[i] : NULL;
}

/*
 * Asynchronous write protection only takes notes, of which the task knows nothing. A userfaultfd of
 * that mode in the tree is refused as such; so this one belongs to somebody outside: `reprise
 * watch`, or the like.
 */
static bool is_tracked_by_others(struct checkpoint *c, const struct checkpoint_process *p,
				 const struct vma *v)
{
	_cleanup_(close_fd) int fd = -EBADF;

	if (!vma_has(v, "uw") || vma_has(v, "um"))
		return false;
	fd = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%d/pagemap", p->tid);
	return fd >= 0 && pagemap_is_tracked(fd, v->start);
}

/* It takes the place that the kernel gives it; see also src/fs/uring.c. */
static int ring_in_compat(struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_VMA_KIND, "is an io_uring in a 32-bit program");
}

static int take_vma(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		    const struct vma_list *list, struct vma *v, struct error *e)
{
	uint64_t inode = 0;
	int r;

	/* by ourselves, or by somebody like us */
	if (track_covered(m->track, v->start, v->end) || is_tracked_by_others(c, p, v))
		vma_forget(v, "uw");
	r = vma_classify(v, e);

	if (r >= 0 && (v->kind == VMA_FILE || v->kind == VMA_SYSV))
		r = mapped_inode(c, p, list, v, &inode, e);
	if (r < 0)
		return checkpoint_refuse(c, error_vma(e, r, v), e);
	if (v->kind == VMA_IGNORED)
		return 0;
	if (m->msg->compat && v->kind == VMA_IO_URING)
		return checkpoint_refuse(c, error_vma(e, ring_in_compat(e), v), e);
	if (!v->shared && v->anonymous_kb + v->swap_kb >= WORTH_KB) {
		m->anonymous += (v->anonymous_kb + v->swap_kb) << 10;
		if (!track_covers(m->track, v->start, v->end))
			m->untracked += (v->anonymous_kb + v->swap_kb) << 10;
	}
	r = put_vma(m, v, inode, e);
	if (r >= 0 && (vma_has(v, "um") || vma_has(v, "uw")))
		r = keep_registered(c, p, v, e);
	if (r >= 0 && v->kind == VMA_AIO) {
		c->mm->pins_pages = true;
		r = aio_checkpoint(c, p, v, m->msg->vmas[m->msg->n_vmas - 1], m->scratch, e);
		if (r < 0)
			r = checkpoint_refuse(c, error_vma(e, r, v), e);
	}
	return r;
}

/*
 * Memory of ours that stands in the task for the time of the checkpoint. What mlockall(MCL_FUTURE)
 * of the task did to it tells about the setting, which can be read in no other way.
 */
static bool is_agent(const struct checkpoint_process *p, const struct vma *v, Reprise__Mm *msg)
{
	uint64_t at = p->agent ? agent_address(p->agent) : 0;

	if (!at || v->start < at || v->start >= at + AGENT_SIZE)
		return false;
	if (vma_has(v, "lo"))
		msg->future_lock = MCL_FUTURE | (vma_has(v, "lf") ? MCL_ONFAULT : 0);
	return true;
}

static int take_vmas(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		     struct error *e)
{
	_cleanup_(vma_list_free) struct vma_list list = {};
	int r = mm_read_vmas(c, p, m, &list, e);

	if (r < 0)
		return r;
	m->msg->vmas = scratch_alloc(m->scratch, (list.vmas.n + 1) * sizeof(*m->msg->vmas));
	if (!m->msg->vmas)
		return no_memory(e);
	vec_for_each (v, &list.vmas) {
		if (is_agent(p, v, m->msg))
			continue;
		r = take_vma(c, p, m, &list, v, e);
		if (r < 0)
			return r;
	}
	if (c->checking && m->track)
		track_seen(m->track, &list, !m->known);
	else if (c->surveyed && m->anonymous >= SURVEY_WORTH)
		return track_survey(c->surveyed, p->tid, p->frozen->start_time, &list) < 0
			       ? no_memory(e)
			       : 0;
	return 0;
}

/* ---- fields ---- */

static int take_auxv(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		     struct error *e)
{
	_cleanup_(free_ptr) char *auxv = NULL;
	ssize_t n = checkpoint_text(c, p, LOOK_AUXV, &auxv, e);

	if (n < 0)
		return (int)n;
	m->msg->auxv.data = scratch_copy(m->scratch, auxv, (size_t)n);
	m->msg->auxv.len = (size_t)n;
	return m->msg->auxv.data || n == 0 ? 0 : no_memory(e);
}

static int take_fields(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		       struct error *e)
{
	Reprise__Mm *msg = m->msg;
	struct proc_stat stat = p->stat;
	int r = 0;

	/* of a leader that has ended nothing is told */
	if (p->tid != p->frozen->pid)
		r = proc_stat_read(c->proc_fd, p->tid, p->tid, &stat, e);
	if (r < 0)
		return r;
	msg->start_code = stat.start_code;
	msg->end_code = stat.end_code;
	msg->start_data = stat.start_data;
	msg->end_data = stat.end_data;
	msg->start_brk = stat.start_brk;
	msg->start_stack = stat.start_stack;
	msg->arg_start = stat.arg_start;
	msg->arg_end = stat.arg_end;
	msg->env_start = stat.env_start;
	msg->env_end = stat.env_end;
	msg->brk = p->brk;
	return take_auxv(c, p, m, e);
}

/* ---- pages ---- */

static int take_pages(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		      struct error *e)
{
	struct span_vec unwritten = {};
	_cleanup_(close_fd) int fd =
		procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", p->tid);
	int r = fd < 0 ? fd : mm_scan(c, fd, m, &unwritten, e);

	if (r >= 0 && m->track && track_kept(m->track, &unwritten, &m->kept) < 0)
		r = no_memory(e);
	if (r >= 0 && m->track && c->tracks->last && track_carry(m->track, m->id, &unwritten) < 0)
		r = no_memory(e);
	vec_free(&unwritten);
	return r < 0 ? r : mm_frames(fd, m, e);
}

/* ---- one address space ---- */

/* Once, since all 32-bit programs have the same one. */
static int put_compat_vdso(struct checkpoint *c, const struct checkpoint_process *p,
			   struct error *e)
{
	Reprise__CompatVdso msg = REPRISE__COMPAT_VDSO__INIT;
	_cleanup_(mm_vdso_free) struct mm_vdso own = {};
	int r;

	if (c->mm->compat_vdso)
		return 0;
	c->mm->compat_vdso = true;
	r = mm_vdso_of(c->proc_fd, p->tid, &own, e);
	if (r < 0)
		return r;
	msg.code.data = own.code;
	msg.code.len = own.len;
	msg.address_delta = own.vdso - own.vvar;
	return checkpoint_put(c, RECORD_COMPAT_VDSO, objects_fresh(c->objects), &msg.base, e);
}

static int take_mm(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		   struct error *e)
{
	int r;

	/* Its stack has begun below 4 GiB; of a leader that has ended nothing is told (0). */
	m->msg->compat = freezer_is_compat(c->proc_fd, p->tid, p->stat.start_stack);
	r = take_vmas(c, p, m, e);
	if (r < 0)
		return r;
	r = mm_vdso_checkpoint(c->proc_fd, m->msg, e);
	if (r < 0)
		r = checkpoint_refuse(c, r, e);
	if (r >= 0 && m->msg->compat && m->msg->vdso && !c->checking)
		r = put_compat_vdso(c, p, e);
	if (r >= 0) {
		r = mapped_exe(c, p, &m->msg->exe, e);
		if (r < 0)
			r = checkpoint_refuse(c, error_object(e, r, "executable"), e);
	}
	if (r < 0 || c->checking)
		return r;
	r = take_fields(c, p, m, e);
	return r < 0 ? r : take_pages(c, p, m, e);
}

int mm_first_sight(struct mm_seen *seen, uint64_t id)
{
	while (seen->ids.n <= id)
		if (!vec_push(&seen->ids))
			return -ENOMEM;
	if (seen->ids.v[id])
		return 0;
	seen->ids.v[id] = true;
	return 1;
}

static struct mm_track *track_of(struct checkpoint *c, const struct checkpoint_process *p)
{
	struct mm_track *t =
		c->tracks ? track_find(c->tracks, p->tid, p->frozen->start_time) : NULL;

	/* it has executed another program since we saw it last */
	if (t && c->tracks->last && !c->checking && !track_is_same_program(t, c->proc_fd)) {
		track_drop(t);
		return NULL;
	}
	return t;
}

int mm_checkpoint(struct checkpoint *c, struct checkpoint_process *p, struct error *e)
{
	struct mm_state *m;
	int r;

	if (!p->mm || p->frozen->zombie)
		return 0;
	r = mm_first_sight(&c->mm->seen, p->mm);
	if (r <= 0)
		return r < 0 ? no_memory(e) : 0;
	m = vec_push(&c->mm->mms);
	if (!m)
		return no_memory(e);
	m->id = p->mm;
	m->process = (size_t)(p - c->processes.v);
	m->tid = p->tid;
	m->track = track_of(c, p);
	m->scratch = &c->mm->scratch;
	m->msg = scratch_message(m->scratch, Reprise__Mm, reprise__mm__init);
	if (!m->msg)
		return no_memory(e);
	return take_mm(c, p, m, e);
}

int mm_for_each_vma(struct checkpoint *c, uint32_t kind, const char *what,
		    int (*fn)(struct checkpoint *c, Reprise__Vma *v, struct error *e),
		    struct error *e)
{
	vec_for_each (m, &c->mm->mms)
		for (size_t i = 0; m->msg && i < m->msg->n_vmas; i++) {
			Reprise__Vma *v = m->msg->vmas[i];
			int r = v->kind == kind ? fn(c, v, e) : 0;

			if (r < 0)
				error_object(e, r, "mapping %lx-%lx (%s) of task %d",
					     (unsigned long)v->start, (unsigned long)v->end, what,
					     m->tid);
			r = checkpoint_refuse(c, r, e);
			if (r < 0)
				return r;
		}
	return 0;
}

uint64_t mm_anonymous_bytes(const struct checkpoint *c, uint64_t least)
{
	uint64_t sum = 0;

	vec_for_each (m, &c->mm->mms)
		if (m->anonymous >= least)
			sum += m->anonymous;
	return sum;
}

uint64_t mm_untracked_bytes(const struct checkpoint *c, uint64_t least)
{
	uint64_t sum = 0;

	vec_for_each (m, &c->mm->mms)
		if (m->anonymous >= least)
			sum += m->untracked;
	return sum;
}

int mm_track_new(struct checkpoint *c, struct error *e)
{
	vec_for_each (m, &c->mm->mms) {
		_cleanup_(close_fd) int fd = -EBADF;
		int r;

		if (!m->track)
			continue;
		fd = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", m->tid);
		r = fd < 0 ? fd : track_register_new(m->track, fd, m->msg, e);
		if (r < 0)
			return r;
	}
	return 0;
}

bool mm_pins_pages(const struct checkpoint *c)
{
	return c->mm->pins_pages;
}

int mm_checkpoint_finish(struct checkpoint *c, struct error *e)
{
	int r = mm_share(c, e);

	if (r < 0)
		return r;
	vec_for_each (m, &c->mm->mms) {
		c->mm->page_bytes += m->msg->page_bytes;
		r = checkpoint_put(c, RECORD_MM, m->id, &m->msg->base, e);
		if (r < 0)
			return r;
	}
	return 0;
}
