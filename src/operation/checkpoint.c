/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/clocks.h"
#include "fs/file.h"
#include "fs/inode.h"
#include "ipc/ipc.h"
#include "kernel/feasible.h"
#include "kernel/security.h"
#include "mm/mm.h"
#include "mm/shared.h"
#include "model/glance.h"
#include "net/inet.h"
#include "net/tcp.h"
#include "ns/outsider.h"
#include "ns/pidns.h"
#include "ns/spaces.h"
#include "ns/timens.h"
#include "operation/lasting.h"
#include "operation/hold.h"
#include "operation/origin.h"
#include "operation/parents.h"
#include "operation/pass.h"
#include "operation/precopy.h"
#include "operation/target.h"

#define WARM (2ul << 20) /* memory for contents that is there before it is needed */

/* What the record of the tree says about this machine: known before anything is stopped. */
static int describe_machine(struct pass *p, struct error *e)
{
	int r = target_cpu_flags(p->c.proc_fd, &p->cpu_flags, e);

	/* every 64-bit task has the same vDSO */
	return r < 0 ? r : mm_vdso_own(p->c.proc_fd, &p->vdso, e);
}

static int put_tree(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;
	Reprise__Tree msg = REPRISE__TREE__INIT;
	char host[65] = "";

	gethostname(host, sizeof(host) - 1);
	msg.vdso.data = p->vdso.code;
	msg.vdso.len = p->vdso.len;
	msg.vdso_address_delta = p->vdso.vdso - p->vdso.vvar;
	msg.root_pid = c->freezer.root;
	msg.page_size = (uint32_t)sysconf(_SC_PAGESIZE);
	msg.boottime_ns = clock_ns(CLOCK_BOOTTIME);
	msg.monotonic_ns = clock_ns(CLOCK_MONOTONIC);
	msg.realtime_ns = clock_ns(CLOCK_REALTIME);
	msg.checkpointer_sid = getsid(0);
	msg.hostname = host;
	msg.cpu_flags = p->cpu_flags;
	msg.last_pid = pidns_counter(c->proc_fd);
	return checkpoint_put(c, RECORD_TREE, objects_fresh(c->objects), &msg.base, e);
}

static int save_process(struct pass *p, struct checkpoint_process *cp, struct error *e)
{
	struct checkpoint *c = &p->c;
	struct frozen_thread *by = cp->speaker;
	int r;

	pass_await(p, cp);
	checkpoint_trace(c, "saving process %d (%s)", cp->frozen->pid, cp->stat.comm);
	report_at(p->rep, cp->frozen->pid);
	r = process_check(c, &p->index, cp, e);
	if (r >= 0 && by && !cp->agent)
		r = agent_prepare(&cp->agent, c->proc_fd, by->tid, by->cpu,
				  c->status_of == by->tid ? c->status : NULL, &p->found, e);
	if (r >= 0 && by)
		r = agent_complete(&cp->agent, e);
	if (r >= 0 && by)
		pass_overlap(p, cp);
	if (r >= 0)
		r = process_checkpoint(c, &p->index, cp, e);
	if (r >= 0 && !cp->frozen->zombie)
		r = mm_checkpoint(c, cp, e);
	if (r >= 0 && cp->agent)
		r = pass_leave(p, cp, e);
	return r < 0 ? error_object(e, r, "task %d (%s)", cp->frozen->pid, cp->stat.comm) : 0;
}

static int save_state(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;
	int r;

	glance_take(c);
	r = put_tree(p, e);
	if (r >= 0)
		r = container_check_tasks(p->container, e);
	if (r >= 0)
		r = container_look(c, p->container, e);
	if (r >= 0)
		r = pass_list(p, e);
	if (r >= 0)
		r = pass_begin_first(p, e);
	if (r >= 0)
		r = spaces_survey(c, p->container, e);
	if (r >= 0)
		r = spaces_checkpoint(c, e);
	if (r >= 0)
		r = mm_checkpoint_drain(c, e);
	if (r >= 0)
		pass_look_ahead(p);
	vec_for_each (cp, &c->processes)
		if (r >= 0)
			r = save_process(p, cp, e);
	/* The end of a pid namespace waits for all that are in it. */
	security_probes_free(take_ptr(&c->probes));
	if (r >= 0)
		r = container_checkpoint(c, p->container, e);
	if (r >= 0)
		r = files_checkpoint_finish(c, e);
	if (r >= 0)
		r = ipc_checkpoint(c, e);
	if (r >= 0)
		r = tree_check_feasible(c, e);
	if (r >= 0)
		r = container_check_leaks(c, p->container, e);
	if (r >= 0)
		r = mm_checkpoint_finish(c, e);
	if (r >= 0)
		r = same_put(p, e);
	if (r >= 0)
		r = timens_checkpoint_clocks(c, e);
	/* the last one unmaps its agent meanwhile */
	if (r >= 0)
		r = pass_join(p, e);
	if (r < 0)
		return r;
	image_expect(c->image,
		     container_page_bytes(p->container) + inodes_page_bytes(c) + mm_page_bytes(c));
	return 0;
}

/* Will what is left to be copied fit into the time that is left? */
static int check_time(const struct pass *p, uint64_t left, struct error *e)
{
	uint64_t passed = clock_now_ns() - p->frozen, needed = passed + COPY_NS(left);

	if (!p->max_freeze || needed <= p->max_freeze)
		return 0;
	return error_set(e, -ETIME, E_MAX_FREEZE,
			 "would stand still for %llu us: %llu us until now, and %llu KiB are left "
			 "to be copied",
			 (unsigned long long)needed / 1000, (unsigned long long)passed / 1000,
			 (unsigned long long)left >> 10);
}

/*
 * What does not fit into memory goes to its final place in the image; it is written but once, at
 * whatever time. Without such a place it is kept in a file, which costs a second copy: only worth
 * it where somebody reads from a pipe or a socket who may take as long as he likes.
 */
static bool worth_keeping(struct checkpoint *c, uint64_t left)
{
	if (left <= store_memory_left(c->store) || image_has_early(c->image))
		return true;
	return !S_ISREG(c->output.st_mode) && left < store_room(c->store);
}

/* It can go on before its memory is in the image; 0: it cannot, or nothing would be gained. */
static bool can_be_kept(struct pass *p, uint64_t left, uint64_t layers)
{
	return p->c.store && (!layers || image_has_early(p->c.image)) && worth_keeping(&p->c, left);
}

/* Files of a container are read where they are: into the image, before anything changes them. */
static int save_layers(struct pass *p, struct error *e)
{
	int r;

	if (!container_page_bytes(p->container))
		return 0;
	p->layers_saved = true;
	r = image_write_state(p->c.image, e);
	return r < 0 ? r : container_save_pages(&p->c, p->container, e);
}

/*
 * The application goes on before its memory is in the image, if what has to be copied until then is
 * worth it. Returns 1 if it may go on now.
 */
static int keep_memory(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;
	uint64_t left, layers = container_page_bytes(p->container);
	bool pins = pass_pins_pages(c);
	int r = 0;

	/* of its own, made since the survey: nothing of ours is to be in its way */
	if (p->tracks.last && files_hold_kind(c, "userfaultfd"))
		return error_set(e, -EAGAIN, E_TASK_BUSY, "a userfaultfd has just been made");
	if (pins) {
		mm_forget_kept(c);
		inodes_forget_copies(c);
		p->tracks.last = false;
		r = image_early_drop(c->image, e);
	}
	if (r < 0)
		return r;
	left = inodes_uncopied_bytes(c) + mm_unkept_bytes(c);
	if (!can_be_kept(p, left, layers))
		return check_time(p, left + layers, e);
	if (!pins && !files_hold_kind(c, "userfaultfd"))
		r = mm_make_copies(c, &p->found, &p->later, e);
	left -= p->later;
	if (r < 0)
		return r;
	r = check_time(p, left + layers, e);
	if (r < 0)
		return r;
	if (p->later)
		checkpoint_trace(c, "%llu KiB are left to copies of the memory, made by fork",
				 (unsigned long long)p->later >> 10);
	checkpoint_trace(c, "%llu KiB are left to be copied", (unsigned long long)left >> 10);
	r = mm_keep_pages(c, e);
	if (r >= 0)
		r = inodes_keep_pages(c, e);
	if (r < 0 && e->code == E_OUTPUT) { /* no room: what was not kept is read later */
		error_clear(e);
		return 0;
	}
	if (r >= 0)
		r = save_layers(p, e);
	return r < 0 ? r : 1;
}

static int write_image(struct pass *p, struct image_totals *totals, struct error *e)
{
	int r = 0;

	if (!p->layers_saved) {
		r = image_write_state(p->c.image, e);
		if (r >= 0)
			r = container_save_pages(&p->c, p->container, e);
	}
	if (r >= 0)
		r = inodes_save_pages(&p->c, e);
	if (r >= 0)
		r = mm_save_pages(&p->c, e);
	if (r >= 0)
		r = image_finish(p->c.image, totals, e);
	reserve_close(p->c.reserve);
	return r;
}

static int image_progress(void *arg, uint64_t done, uint64_t total)
{
	report_progress(arg, "saving", done, total);
	return 0;
}

static int open_image(struct pass *p, const struct subject *s, int fd,
		      const struct reprise_checkpoint_options *opt, struct error *e)
{
	const struct image_writer_options wo = {
		.jobs = opt->jobs,
		.compress = (enum image_compress)opt->compress,
		.level = opt->compress_level,
		.progress = image_progress,
		.progress_arg = p->rep,
		.parents = s->parents,
		.parent_name = s->parent_name,
		.origin = s->has_origin ? &s->origin : NULL,
		.strong = opt->digest == REPRISE_DIGEST_ALL ||
			  (opt->digest == REPRISE_DIGEST_DEFAULT && opt->seal),
	};
	struct image_info info;

	image_info_here(&info);
	p->c.same = s->same;
	if (fstat(fd, &p->c.output) < 0)
		return error_errno(e, -errno, E_OUTPUT, "the destination cannot be used");
	return image_writer_new(&p->c.image, fd, &info, &wo, e);
}

static void count(const struct checkpoint *c, const struct image_totals *totals,
		  struct reprise_stats *stats)
{
	stats->processes = c->processes.n;
	vec_for_each (f, &c->freezer.processes)
		stats->tasks += f->threads.n;
	stats->descriptors = files_checkpoint_count(c);
	stats->pages = totals->pages;
	stats->zero_pages = totals->zero_pages;
	stats->memory_bytes = (totals->pages - totals->zero_pages) * 4096;
	stats->image_bytes = totals->total_bytes;
}

static int end_tasks(struct checkpoint *c, struct error *e)
{
	int r;

	inet_tcp_abort(c);
	if (c->freezer.root_is_init) /* it ends when we do */
		inet_connecting_end(c);
	r = freezer_kill(&c->freezer, e);
	if (r >= 0)
		inet_connecting_cut(c);
	return r;
}

static int let_go(struct pass *p, enum reprise_after after, struct error *e)
{
	switch (after) {
	case REPRISE_AFTER_KILL:
		return end_tasks(&p->c, e);
	case REPRISE_AFTER_STOP:
		return freezer_stop(&p->c.freezer, e);
	case REPRISE_AFTER_RUN:
		break;
	}
	freezer_thaw(&p->c.freezer);
	return 0;
}

/* The tree stands still. *resumed: when it went on again; 0 if it has not yet. */
static int save_frozen(struct pass *p, uint64_t *resumed, struct image_totals *totals,
		       struct error *e)
{
	int r;

	pass_awake(p, true);
	r = shared_settle(&p->c, e);
	if (r >= 0)
		r = save_state(p, e);
	pass_awake(p, false);
	if (r >= 0)
		r = keep_memory(p, e);
	if (r > 0 && p->tracks.last && mm_track_new(&p->c, e) < 0)
		r = e->err;
	if (r > 0) {
		freezer_thaw(&p->c.freezer);
		*resumed = clock_now_ns();
		close_fd(p->hold);
		if (p->later)
			r = mm_read_copies(&p->c, e);
		if (r >= 0)
			r = mm_confirm(&p->c, e);
		if (!p->tracks.last)
			tracks_end(&p->tracks);
	}
	return r < 0 ? r : write_image(p, totals, e);
}

/* The copies go to their final place, if the image is one that has it; 0: there is no place. */
static int make_room(struct checkpoint *c, const struct subject *s, struct error *e)
{
	uint64_t state = s->state;
	int r;

	/* as much as that of the parent has; it is moved if that is not enough */
	if (s->parents)
		state = page_map_totals(page_chain_at(s->parents, 0))->state_bytes + PAGE_BYTES;
	r = image_early_begin(c->image, state);

	if (r == 0) {
		reserve_leave(&s->reserve, state);
		store_use_image(c->store, c->image);
		image_expect(c->image, s->anonymous + s->shared_bytes);
		return 1;
	}
	if (r != -EOPNOTSUPP)
		return error_errno(e, r, E_NO_MEMORY, "no memory for the image");
	/* the image will come beside it; and it costs a second copy */
	if (S_ISREG(c->output.st_mode) || s->ct.mounts.layers.n)
		return 0;
	if (store_room(c->store) / 2 >= s->anonymous + s->shared_bytes)
		return 1;
	checkpoint_trace(c, "memory is not copied in advance: no room for a temporary file");
	return 0;
}

/* Of what is to go on: as much as can be done before it stands still. */
static int prepare_memory(struct pass *p, struct subject *s, uint64_t *stood, struct error *e)
{
	struct checkpoint *c = &p->c;
	char text[ERROR_TEXT_MAX];
	bool known;
	int r = 0;

	c->store = s->store;
	if (c->jobs != 1)
		c->reserve = &s->reserve;
	c->exact = c->no_copies = s->exact;
	if (c->store) {
		store_expect(c->store, s->anonymous + s->shared_bytes);
		store_warm(c->store, WARM);
	}
	/* What is frozen may as well wait. */
	if (c->store && s->anonymous + s->shared_bytes >= PRECOPY_WORTH && !s->pins && !s->faults &&
	    !s->ct.cgroups.frozen.n)
		r = make_room(c, s, e);
	if (r <= 0)
		lasting_give_up(&s->tracks, p->rep);
	p->tracks = s->tracks;
	p->tracks.last &= r > 0;
	s->tracks = (struct mm_tracks){.last = p->tracks.last};
	/* ours would be in the way of its own */
	if (r == 0 || (r > 0 && s->faults))
		return 0;
	c->surveyed = &s->surveyed;
	known = p->tracks.v.n && s->untracked <= UNTRACKED_MOST;
	if (r > 0)
		r = precopy(c, &p->found, &p->tracks, &s->shared, p->max_freeze, known, stood, e);
	if (r >= 0) {
		c->tracks = &p->tracks;
		p->who = known ? s->who : precopy_who(&c->freezer);
		return 0;
	}
	lasting_give_up(&p->tracks, p->rep);
	if (e->code == E_OUTPUT || e->code == E_INTERRUPTED || e->code == E_NO_MEMORY)
		return r;
	error_format(e, text, sizeof(text));
	checkpoint_trace(c, "memory is not copied in advance: %s", text);
	error_clear(e);
	return 0;
}

/* Before anything is done that cannot be undone. */
static int make_safe(int fd, const struct reprise_checkpoint_options *opt, struct report *rep,
		     struct error *e)
{
	int r;

	if (opt->after == REPRISE_AFTER_RUN)
		return 0;
	if (opt->seal) /* the envelope is complete when we have ended ours */
		close_fd(&fd);
	r = report_complete(rep);
	return r < 0 ? error_errno(e, r, E_OUTPUT, "the image cannot be completed") : 0;
}

static int save(pid_t pid, struct subject *s, int fd, const struct reprise_checkpoint_options *opt,
		struct report *rep, uint64_t begun, struct reprise_stats *stats, struct error *e)
{
	_cleanup_(pass_end) struct pass p;
	struct image_totals totals = {};
	uint64_t stood = 0, resumed = 0;
	int r = pass_begin(&p, pid, &s->ct, rep, false, opt, e);

	p.c.kernel = take_ptr(&s->kernel);
	p.c.programs = take_ptr(&s->programs);
	p.hold = &s->hold;
	if (r >= 0)
		r = open_image(&p, s, fd, opt, e);
	if (r >= 0)
		r = describe_machine(&p, e);
	if (r >= 0 && s->pipes)
		r = files_expect_pipes(&p.c, e);
	if (r < 0)
		return r;
	p.max_freeze = opt->max_freeze_ns;
	p.c.freezer.patient = opt->after != REPRISE_AFTER_RUN;
	glance_prepare(&p.c, s->tasks, s->descriptors);
	r = spaces_prepare(&p.c, e);
	if (r < 0)
		return r;
	agent_look_ahead(p.c.proc_fd, pid, &p.found);
	pass_prepare(&p, s->tasks);
	r = prepare_memory(&p, s, &stood, e);
	/* memory that somebody else fills might make us wait for him */
	if (r >= 0 && p.c.store && !p.c.tracks && !s->faults)
		mm_rehearse(&p.c, pid, WARM);
	p.frozen = clock_now_ns();
	if (r >= 0)
		r = freezer_freeze(&p.c.freezer, e);
	/* After a fork, what smaps said before tells nothing of the pages that are shared now. */
	if (p.c.tracks && p.who != precopy_who(&p.c.freezer))
		p.c.exact = true;
	if (r >= 0)
		r = save_frozen(&p, &resumed, &totals, e);
	if (r == -EAGAIN && image_has_early(p.c.image)) {
		struct error cut = {};

		if (image_early_drop(p.c.image, &cut) < 0) {
			*e = cut;
			return cut.err;
		}
	}
	if (r >= 0)
		r = make_safe(fd, opt, rep, e);
	if (r < 0)
		return r;
	p.c.complete = true;
	count(&p.c, &totals, stats);
	stats->copied_later = p.later;
	p.tracks.who = precopy_who(&p.c.freezer);
	if (resumed && p.tracks.last)
		lasting_hand_on(&p.tracks, totals.digest, rep);
	r = let_go(&p, opt->after, e);
	stats->frozen_ns = stood + (resumed ? resumed : clock_now_ns()) - p.frozen;
	stats->resumed_ns = stats->durable_ns = clock_now_ns() - begun;
	return r;
}

/* What is encrypted in the image is on no disk as it is. */
static bool is_secret(const struct reprise_seal_options *seal)
{
	return seal && (seal->passphrase || (seal->recipients && seal->recipients[0]));
}

int operation_checkpoint(pid_t pid, int fd, const char *path,
			 const struct reprise_checkpoint_options *opt, struct mm_tracks *tracks,
			 struct report *rep, struct reprise_stats *stats, struct error *e)
{
	_cleanup_(subject_free) struct subject s = {
		.ct = CONTAINER_INIT, .hold = -EBADF, .reserve = RESERVE_NONE};
	struct error first = {};
	uint64_t begun = clock_now_ns();
	int r = target_check(pid, e);

	if (tracks) {
		s.tracks = *tracks;
		tracks->v.n = 0;
	}
	if (r >= 0)
		r = hold_target(pid, &s.hold, e);
	s.ct.name = opt->container;
	s.ct.allow_leaks = opt->allow_leaks;
	s.ct.mounts.with_overlays = !opt->fs_none;
	/* Before a container is entered, which has files of its own. */
	s.has_origin = origin_key(&s.origin, true) >= 0;
	/* What is to end or to stop can as well wait for its memory. */
	if (r >= 0 && opt->after == REPRISE_AFTER_RUN)
		r = store_new(&s.store, fd, !is_secret(opt->seal), e);
	/* by the paths that the caller knows */
	if (r >= 0 && opt->compress == 0 && !(opt->parents && opt->parents[0]))
		reserve_open(&s.reserve, fd);
	if (r >= 0 && opt->parents && opt->parents[0])
		r = parents_open(opt->parents, &s.parents, &s.parent_name, e);
	if (r >= 0 && s.parents && path)
		r = parents_keep(s.parents, path, e);
	if (r >= 0 && s.parents)
		r = same_keys_new(s.parents, &s.same, e);
	if (r >= 0)
		r = container_enter(&s.ct, &pid, e);
	if (r >= 0)
		r = lasting_resume(&s, rep, e);
	if (r >= 0)
		r = pass_look(pid, &s, opt, rep, &first, e);
	if (r > 0) {
		*e = first;
		return first.err < 0 ? first.err : -EOPNOTSUPP;
	}
	if (r < 0)
		return r;
	if (s.filtered && s.ct.of_root)
		r = outsider_trace(s.ct.outside, e);
	if (r >= 0)
		r = save(pid, &s, fd, opt, rep, begun, stats, e);
	if (r != -EAGAIN || s.exact)
		return r;
	/* What has been written was cut off again. */
	error_clear(e);
	if (s.store)
		store_clear(s.store);
	s.exact = true;
	lasting_give_up(&s.tracks, rep);
	s.tracks.last = false;
	return save(pid, &s, fd, opt, rep, begun, stats, e);
}
