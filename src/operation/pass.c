/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "core/warm.h"
#include "fs/bpf_known.h"
#include "fs/file.h"
#include "image/chain.h"
#include "ipc/ipc.h"
#include "kernel/security.h"
#include "kernel/unseen.h"
#include "kernel/vfork.h"
#include "mm/mm.h"
#include "model/ahead.h"
#include "model/glance.h"
#include "ns/spaces.h"
#include "operation/parents.h"
#include "operation/pass.h"

#define AHEAD_WORTH 4 /* tasks: a thread costs as much as looking at one */

/* Memory that is needed while the tasks stand: for anything, for each of them, and altogether. */
#define HEAP	  (128ul << 10)
#define HEAP_EACH (64ul << 10)
#define HEAP_MOST (2ul << 20)

void subject_free(struct subject *s)
{
	kernel_memory_free(s->kernel);
	bpf_known_free(s->programs);
	reserve_close(&s->reserve);
	store_free(s->store);
	page_chain_free(s->parents);
	same_keys_free(s->same);
	memory_objects_free(&s->shared);
	tracks_end(&s->surveyed);
	tracks_end(&s->tracks);
	container_free(&s->ct);
	close_fd(&s->hold);
}

void pass_end(struct pass *p)
{
	struct checkpoint *c = &p->c;

	ahead_end(p->helper);
	vec_for_each (cp, &c->processes) {
		ignore(agent_return(cp->agent, NULL), "the task is let go in any case");
		checkpoint_look_free(cp->look);
		mm_look_free(cp);
	}
	freezer_free(&c->freezer);
	spaces_end(c);
	mm_checkpoint_end(c);
	files_checkpoint_end(c);
	ipc_checkpoint_end(c);
	kernel_memory_free(c->kernel);
	bpf_known_free(c->programs);
	process_index_free(&p->index);
	objects_free(c->objects);
	problems_free(&c->problems);
	vec_free(&c->processes);
	image_writer_free(c->image);
	tracks_end(&p->tracks);
	mm_vdso_free(&p->vdso);
	free(p->cpu_flags);
	free(c->status);
	security_probes_free(c->probes);
	unseen_free(c->unseen);
	glance_free(c->glance);
	close_fd(&c->proc_fd);
}

/* /proc of the namespaces that we are in. */
static int open_proc(struct checkpoint *c, const struct container *ct, struct error *e)
{
	if (ct->proc_fd < 0)
		return procfs_open_root(&c->proc_fd, e);
	c->proc_fd = fcntl(ct->proc_fd, F_DUPFD_CLOEXEC, 3);
	return c->proc_fd < 0 ? error_errno(e, -errno, E_SYSTEM, "cannot duplicate a descriptor")
			      : 0;
}

int pass_begin(struct pass *p, pid_t pid, struct container *ct, struct report *rep, bool checking,
	       const struct reprise_checkpoint_options *opt, struct error *e)
{
	struct checkpoint *c = &p->c;
	int r;

	memset(p, 0, sizeof(*p));
	c->proc_fd = -EBADF;
	p->rep = rep;
	p->container = ct;
	c->mounts = ct->own & CLONE_NEWNS ? &ct->seen : NULL;
	c->own_ipc = ct->own & CLONE_NEWIPC;
	c->sought_outside = ct->own & CLONE_NEWPID;
	c->checking = checking;
	c->inotify_overflow = opt->inotify == REPRISE_INOTIFY_OVERFLOW;
	c->externals = opt->externals;
	c->tcp_closed = opt->tcp == REPRISE_TCP_CLOSED;
	c->peers = opt->peers == REPRISE_PEERS_DISCONNECT  ? PEERS_DISCONNECT
		   : opt->peers == REPRISE_PEERS_RECONNECT ? PEERS_RECONNECT
							   : PEERS_REFUSE;
	c->self = getpid();
	c->jobs = opt->jobs;
	c->deleted = opt->deleted == REPRISE_DELETED_SAVE   ? DELETED_SAVE
		     : opt->deleted == REPRISE_DELETED_LINK ? DELETED_LINK
							    : DELETED_REFUSE;
	if (report_traces(rep)) {
		c->trace = report_trace;
		c->trace_arg = rep;
	}
	r = open_proc(c, ct, e);
	if (r < 0)
		return r;
	c->freezer = (struct freezer){
		.proc_fd = c->proc_fd,
		.root = pid,
		.self = c->self,
		.timeout_ms = opt->freeze_timeout_ms > 0 ? opt->freeze_timeout_ms : 10000,
		.root_is_init = ct->outside,
		.kill = container_kill,
		.kill_arg = ct,
		.hold = container_hold,
		.hold_arg = ct,
	};
	r = clock_offsets_read(c->proc_fd, 0, &c->clocks, e);
	if (r < 0)
		return r;
	if (objects_new(&c->objects) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the object table");
	r = process_index_new(c, &p->index, e);
	if (r >= 0)
		r = files_checkpoint_begin(c, e);
	if (r >= 0)
		r = ipc_checkpoint_begin(c, e);
	return r < 0 ? r : mm_checkpoint_begin(c, e);
}

static int name_process(struct checkpoint *c, struct checkpoint_process *cp, struct error *e)
{
	if (!c->checking) {
		cp->stat = cp->frozen->stat;
		return 0;
	}
	return proc_stat_read(c->proc_fd, cp->frozen->pid, cp->frozen->pid, &cp->stat, e);
}

/* One entry for each process of the freezer, in its order. */
int pass_list(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;

	vec_for_each (f, &c->freezer.processes) {
		struct checkpoint_process *cp = vec_push(&c->processes);
		int r;

		if (!cp)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the tree");
		cp->frozen = f;
		cp->tid = f->pid;
		vec_for_each (t, &f->threads)
			if (!t->zombie) {
				cp->tid = t->tid;
				break;
			}
		if (!c->checking)
			cp->speaker = vfork_speaker(&c->freezer, f);
		if (cp->speaker && !vfork_alone(cp))
			cp->tid = cp->speaker->tid;
		r = name_process(c, cp, e);
		if (r >= 0 && !f->zombie)
			r = process_identify_mm(c, &p->index, cp, e);
		if (r == -ESRCH && c->checking) {
			error_clear(e); /* it has ended meanwhile */
			c->processes.n--;
			continue;
		}
		if (r < 0)
			return error_object(e, r, "task %d (%s)", f->pid, cp->stat.comm);
	}
	return 0;
}

/* "self" is who reads it, by the number of that /proc. */
static pid_t own_pid(const struct container *ct)
{
	_cleanup_(free_ptr) char *link = NULL;

	if (!(ct->own & CLONE_NEWPID))
		return getpid();
	return procfs_readlink(ct->host_proc, &link, NULL, "self") < 0 ? 0 : (pid_t)atoi(link);
}

void pass_awake(const struct pass *p, bool awake)
{
	/* There are waits of ours that last as long as --patience says. */
	int limit = awake ? 2 * p->c.freezer.timeout_ms + 1000 : 0;

	if (p->c.freezer.timeout_ms <= INT_MAX / 2 - 1000)
		report_awake(p->rep, awake ? own_pid(p->container) : 0, limit);
}

/* Of who executes calls, as it was before that; NULL: has not been read. */
static const char *status_of(const struct checkpoint_process *cp)
{
	return cp->look && cp->speaker->tid == cp->tid ? cp->look->texts[LOOK_STATUS] : NULL;
}

/*
 * Its memory is borrowed by this process only: whoever shares it comes later, and finds it as it
 * was. What fails is tried again by whoever needs it, and then reported.
 */
static void prepare(struct pass *p, struct checkpoint_process *cp)
{
	const struct frozen_thread *by = cp->speaker;
	struct error unused = {};

	if (by && cp->look && !cp->shares_memory)
		ignore(agent_prepare(&cp->agent, p->c.proc_fd, by->tid, by->cpu, status_of(cp),
				     &p->found_ahead, &unused),
		       "see above");
}

static void look_at(void *arg, size_t i)
{
	struct pass *p = arg;
	struct checkpoint_process *cp = &p->c.processes.v[i];

	process_look(&p->c, &p->index, cp);
	mm_look(&p->c, cp);
	prepare(p, cp);
}

/* Without memory to find out they all do. */
static void find_sharers(struct checkpoint *c)
{
	_cleanup_(free_ptr) size_t *users = NULL;
	uint64_t most = 0;

	vec_for_each (cp, &c->processes)
		if (cp->mm > most)
			most = cp->mm;
	users = calloc(most + 1, sizeof(*users)); /* ids are counted from 1 on */
	vec_for_each (cp, &c->processes)
		if (users)
			users[cp->mm]++;
	vec_for_each (cp, &c->processes)
		cp->shares_memory = !users || users[cp->mm] > 1;
}

/* Of few tasks more is lost than gained by that: there is no other thread that has our memory. */
void pass_prepare(struct pass *p, size_t tasks)
{
	size_t memory = HEAP + tasks * HEAP_EACH;

	if (p->c.jobs == 1 || tasks < AHEAD_WORTH)
		return;
	memory = memory < HEAP_MOST ? memory : HEAP_MOST;
	warm_data(p->c.proc_fd);
	p->helper = ahead_new(memory);
	warm_heap(memory);
}

/* It maps its agent while there is still something else to do. */
static int begin(struct pass *p, struct checkpoint_process *cp, struct error *e)
{
	struct checkpoint *c = &p->c;
	struct frozen_thread *by = cp->speaker;
	int r = 0;

	if (!by || cp->shares_memory)
		return 0;
	process_look_at_texts(c, cp);
	if (!cp->agent)
		r = agent_prepare(&cp->agent, c->proc_fd, by->tid, by->cpu, status_of(cp),
				  &p->found, e);
	if (r >= 0)
		r = agent_begin(cp->agent, e);
	return r < 0 ? error_object(e, r, "task %d (%s)", cp->frozen->pid, cp->stat.comm) : 0;
}

int pass_begin_first(struct pass *p, struct error *e)
{
	find_sharers(&p->c);
	return p->c.processes.n ? begin(p, p->c.processes.v, e) : 0;
}

/* The first one is looked at by who needs it: a thread takes longer to begin. */
void pass_look_ahead(struct pass *p)
{
	struct checkpoint *c = &p->c;
	size_t tasks = 0;

	vec_for_each (f, &c->freezer.processes)
		tasks += f->threads.n;
	if (c->jobs == 1 || tasks < AHEAD_WORTH)
		return;
	if (!p->helper)
		p->helper = ahead_new(0);
	p->found_ahead = p->found;
	c->ahead = p->helper;
	if (c->ahead)
		ahead_begin(c->ahead, 1, c->processes.n, look_at, p);
}

void pass_await(struct pass *p, const struct checkpoint_process *cp)
{
	ahead_wait(p->c.ahead, (size_t)(cp - p->c.processes.v));
}

int pass_join(struct pass *p, struct error *e)
{
	struct checkpoint_process *cp = p->leaving;
	int r = cp ? agent_return(take_ptr(&cp->agent), e) : 0;

	p->leaving = NULL;
	if (r < 0)
		return error_object(e, r, "task %d (%s)", cp->frozen->pid, cp->stat.comm);
	if (p->meanwhile.err < 0)
		*e = p->meanwhile;
	return p->meanwhile.err;
}

static void overlap(void *arg)
{
	struct pass *p = arg;
	struct checkpoint *c = &p->c;
	size_t next = (size_t)(p->overlapped - c->processes.v) + 1;

	if (!c->ahead)
		mm_look(c, p->overlapped);
	if (next < c->processes.n && (!c->ahead || ahead_is_done(c->ahead, next)))
		ignore(begin(p, &c->processes.v[next], &p->meanwhile), "told by who joins");
	ignore(pass_join(p, &p->meanwhile), "told by who joins next");
}

void pass_overlap(struct pass *p, struct checkpoint_process *cp)
{
	p->overlapped = cp;
	agent_meanwhile(cp->agent, overlap, p);
}

int pass_leave(struct pass *p, struct checkpoint_process *cp, struct error *e)
{
	int r = pass_join(p, e);

	if (r < 0)
		return r;
	p->leaving = cp;
	/* whoever shares its memory is to find that as it was */
	return !cp->shares_memory ? agent_leave(cp->agent, e) : pass_join(p, e);
}

bool pass_pins_pages(const struct checkpoint *c)
{
	return mm_pins_pages(c) || files_hold_kind(c, "io_uring");
}
