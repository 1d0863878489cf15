/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/file.h"
#include "fs/inode.h"
#include "image/store.h"
#include "ipc/ipc.h"
#include "kernel/process.h"
#include "kernel/vfork.h"
#include "mm/mm.h"
#include "mm/vdso.h"
#include "net/tcp.h"
#include "ns/container.h"
#include "operation/operation.h"
#include "operation/precopy.h"
#include "operation/target.h"

#define LOOKS_MAX 6
#define LOOKS_NS  1000000000ull

#define WARM (2ul << 20) /* memory for contents that is there before it is needed */

#define PF_EXITING 0x4 /* include/linux/sched.h; the flags are in /proc/PID/stat */

/* One pass over a tree: a check that only looks, or the checkpoint itself. */
struct pass {
	struct checkpoint c;
	struct process_index index;
	struct agent_found found;
	struct report *rep;
	char *cpu_flags;
	struct mm_vdso vdso;
	struct container *container; /* the caller's */
	struct mm_tracks tracks;
	uint64_t max_freeze; /* ns; 0: no limit */
	uint64_t frozen;     /* when the freeze began */
	uint64_t who;	     /* was there when memory was copied in advance */
};

/* What is to be saved, and what is known of it in advance. */
struct subject {
	struct container ct;
	struct page_store
		*store; /* opened before a container is entered; NULL: is to end or to stop */
	struct kernel_memory *kernel; /* if somebody has to look there: opened while all runs */
	uint64_t anonymous;	      /* bytes of private memory */
	bool exact;		      /* see struct checkpoint */
};

static void subject_free(struct subject *s)
{
	kernel_memory_free(s->kernel);
	store_free(s->store);
	container_free(&s->ct);
}

static void pass_end(struct pass *p)
{
	struct checkpoint *c = &p->c;

	vec_for_each (cp, &c->processes)
		ignore(agent_return(cp->agent, NULL), "the task is let go in any case");
	freezer_free(&c->freezer);
	mm_checkpoint_end(c);
	files_checkpoint_end(c);
	ipc_checkpoint_end(c);
	kernel_memory_free(c->kernel);
	process_index_free(&p->index);
	objects_free(c->objects);
	problems_free(&c->problems);
	vec_free(&c->processes);
	image_writer_free(c->image);
	tracks_end(&p->tracks);
	mm_vdso_free(&p->vdso);
	free(p->cpu_flags);
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

static int pass_begin(struct pass *p, pid_t pid, struct container *ct, struct report *rep,
		      bool checking, const struct reprise_checkpoint_options *opt, struct error *e)
{
	struct checkpoint *c = &p->c;
	int r;

	memset(p, 0, sizeof(*p));
	c->proc_fd = -EBADF;
	p->rep = rep;
	p->container = ct;
	c->mounts = ct->own & CLONE_NEWNS ? &ct->seen : NULL;
	c->own_ipc = ct->own & CLONE_NEWIPC;
	c->checking = checking;
	c->inotify_overflow = opt->inotify == REPRISE_INOTIFY_OVERFLOW;
	c->tcp_closed = opt->tcp == REPRISE_TCP_CLOSED;
	c->peers = opt->peers == REPRISE_PEERS_DISCONNECT  ? PEERS_DISCONNECT
		   : opt->peers == REPRISE_PEERS_RECONNECT ? PEERS_RECONNECT
							   : PEERS_REFUSE;
	c->self = getpid();
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
		.root_is_init = ct->outside >= 0,
		.kill = container_kill,
		.kill_arg = ct,
	};
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
	struct proc_stat st;
	int r = proc_stat_read(c->proc_fd, cp->frozen->pid, cp->frozen->pid, &st, e);

	if (r < 0)
		return r;
	memcpy(cp->comm, st.comm, sizeof(cp->comm) - 1);
	cp->sid = st.session;
	return 0;
}

/* One entry for each process of the freezer, in its order. */
static int list_processes(struct pass *p, struct error *e)
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
			return error_object(e, r, "task %d (%s)", f->pid, cp->comm);
	}
	return 0;
}

static int check_process(struct pass *p, struct checkpoint_process *cp, struct error *e)
{
	struct checkpoint *c = &p->c;
	size_t before = c->problems.n;
	uint64_t unused;
	int r = process_check(c, &p->index, cp, e);

	if (cp->frozen->zombie)
		return r;
	/* Nothing else can be learnt of a task that we may not look at. */
	for (size_t i = before; i < c->problems.n; i++)
		if (c->problems.v[i].code == E_PERMISSION)
			return r;
	if (r >= 0)
		r = checkpoint_refuse(c, mm_checkpoint(c, cp, e), e);
	vec_for_each (t, &cp->frozen->threads) {
		if (r < 0 || t->zombie)
			continue;
		r = checkpoint_refuse(c, files_checkpoint(c, cp, t->tid, &unused, e), e);
		if (r >= 0)
			r = checkpoint_refuse(c, fs_checkpoint(c, cp, t->tid, &unused, e), e);
		if (r >= 0)
			r = checkpoint_refuse(c, ipc_undo_identify(c, cp, t->tid, &unused, e), e);
	}
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

/* A task that ends while we look is no obstacle. */
static int check_tree(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;
	int r = freezer_survey(&c->freezer, e);

	if (r >= 0)
		vfork_find(c);
	if (r >= 0)
		r = list_processes(p, e);
	vec_for_each (cp, &c->processes) {
		size_t before = c->problems.n;

		if (r < 0)
			break;
		r = check_process(p, cp, e);
		forget_if_ended(c, cp, before);
		/* Some say it themselves, those of descriptors for instance. */
		for (size_t i = before; i < c->problems.n; i++)
			if (!strstr(c->problems.v[i].object, "task "))
				error_object(&c->problems.v[i], -1, "task %d (%s)", cp->frozen->pid,
					     cp->comm);
		if (r == -ESRCH) {
			error_clear(e);
			r = 0;
		}
	}
	if (r >= 0)
		r = checkpoint_refuse(c, files_checkpoint_finish(c, e), e);
	if (r >= 0)
		r = checkpoint_refuse(c, ipc_checkpoint(c, e), e);
	return r < 0 ? r : container_check_leaks(c, p->container, e);
}

static bool pins_pages(const struct checkpoint *c)
{
	return mm_pins_pages(c) || files_hold_kind(c, "io_uring");
}

/* The pid that was given last, in our pid namespace. */
static pid_t newest_pid(int proc_fd)
{
	_cleanup_(free_ptr) char *text = NULL;
	const char *at = NULL;

	if (procfs_read(proc_fd, &text, NULL, "loadavg") > 0)
		at = strrchr(text, ' ');
	return at ? (pid_t)atoi(at) : 0;
}

/* *again: on entry, whether the result may be dropped; true: it was, since tasks have been made
 * meanwhile. */
static int look_once(pid_t pid, struct subject *s, const struct reprise_checkpoint_options *opt,
		     struct report *rep, struct error *first, bool *again, struct error *e)
{
	_cleanup_(pass_end) struct pass p;
	int r = pass_begin(&p, pid, &s->ct, rep, true, opt, e);
	pid_t newest = r < 0 ? 0 : newest_pid(p.c.proc_fd);

	if (r >= 0)
		r = checkpoint_refuse(&p.c, container_check_tasks(&s->ct, e), e);
	if (r >= 0)
		r = check_tree(&p, e);
	*again = *again && r >= 0 && p.c.problems.n && newest_pid(p.c.proc_fd) != newest;
	if (*again)
		return 0;
	for (size_t i = 0; i < p.c.problems.n; i++) {
		if (i == 0)
			*first = p.c.problems.v[0];
		report_problem(rep, &p.c.problems.v[i]);
	}
	s->kernel = take_ptr(&p.c.kernel);
	s->anonymous = r >= 0 && !pins_pages(&p.c) ? mm_anonymous_bytes(&p.c) : 0;
	return r < 0 ? r : (int)p.c.problems.n;
}

/*
 * Looks at the tree without touching it; returns how many problems were reported. The tree runs:
 * what seems to be held outside of it may be held by a child that was just made.
 */
static int look(pid_t pid, struct subject *s, const struct reprise_checkpoint_options *opt,
		struct report *rep, struct error *first, struct error *e)
{
	uint64_t begun = clock_now_ns();
	int r;

	for (int i = 1;; i++) {
		bool again = i < LOOKS_MAX && clock_now_ns() - begun < LOOKS_NS;

		r = look_once(pid, s, opt, rep, first, &again, e);
		if (!again)
			return r;
	}
}

int operation_check(pid_t pid, const struct reprise_checkpoint_options *opt, struct report *rep,
		    struct error *e)
{
	_cleanup_(subject_free) struct subject s = {.ct = CONTAINER_INIT};
	struct error first = {};
	int r;

	s.ct.allow_leaks = opt->allow_leaks;
	r = target_check(pid, e);
	if (r >= 0)
		r = container_enter(&s.ct, &pid, e);
	if (r < 0) {
		report_problem(rep, e);
		error_clear(e);
		return 1;
	}
	return look(pid, &s, opt, rep, &first, e);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

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
	return checkpoint_put(c, RECORD_TREE, objects_fresh(c->objects), &msg.base, e);
}

static int save_process(struct pass *p, struct checkpoint_process *cp, struct error *e)
{
	struct checkpoint *c = &p->c;
	struct frozen_thread *by = cp->speaker;
	int r;

	checkpoint_trace(c, "saving process %d (%s)", cp->frozen->pid, cp->comm);
	r = process_check(c, &p->index, cp, e);
	if (r >= 0 && by)
		r = agent_borrow(&cp->agent, c->proc_fd, by->tid, by->cpu, &p->found, e);
	if (r >= 0)
		r = process_checkpoint(c, &p->index, cp, e);
	if (r >= 0 && !cp->frozen->zombie)
		r = mm_checkpoint(c, cp, e);
	if (r >= 0 && cp->agent)
		r = agent_return(take_ptr(&cp->agent), e);
	return r < 0 ? error_object(e, r, "task %d (%s)", cp->frozen->pid, cp->comm) : 0;
}

static int save_state(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;
	int r = put_tree(p, e);

	if (r >= 0)
		r = container_check_tasks(p->container, e);
	if (r >= 0)
		r = container_checkpoint(c, p->container, e);
	if (r >= 0)
		r = list_processes(p, e);
	if (r >= 0)
		r = mm_checkpoint_drain(c, e);
	vec_for_each (cp, &c->processes)
		if (r >= 0)
			r = save_process(p, cp, e);
	if (r >= 0)
		r = files_checkpoint_finish(c, e);
	if (r >= 0)
		r = ipc_checkpoint(c, e);
	if (r >= 0)
		r = container_check_leaks(c, p->container, e);
	if (r >= 0)
		r = mm_checkpoint_finish(c, e);
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
 * What is not kept is written while the tree stands still. That takes one copy instead of two, and
 * is as fast as the reader: nobody knows how fast somebody reads from a pipe or a socket.
 */
static bool worth_keeping(struct checkpoint *c, uint64_t left)
{
	if (left <= STORE_MEMORY || left <= (inodes_page_bytes(c) + mm_page_bytes(c)) / 2)
		return true;
	return !S_ISREG(c->output.st_mode) && left < store_room(c->store);
}

/*
 * The application goes on before its memory is in the image, if what has to be copied until then is
 * worth it. Returns 1 if it may go on now.
 */
static int keep_memory(struct pass *p, struct error *e)
{
	struct checkpoint *c = &p->c;
	uint64_t left;
	int r;

	if (pins_pages(c))
		mm_forget_kept(c);
	left = inodes_page_bytes(c) + mm_unkept_bytes(c);
	r = check_time(p, left + container_page_bytes(p->container), e);
	if (r < 0)
		return r;
	/* files of a container are read where they are */
	if (!c->store || container_page_bytes(p->container))
		return 0;
	if (!worth_keeping(c, left))
		return 0;
	checkpoint_trace(c, "%llu KiB are left to be copied", (unsigned long long)left >> 10);
	r = inodes_keep_pages(c, e);
	if (r >= 0)
		r = mm_keep_pages(c, e);
	if (r < 0 && e->code == E_OUTPUT) { /* no room: what was not kept is read later */
		error_clear(e);
		return 0;
	}
	return r < 0 ? r : 1;
}

static int write_image(struct pass *p, struct image_totals *totals, struct error *e)
{
	int r = image_write_state(p->c.image, e);

	if (r >= 0)
		r = container_save_pages(&p->c, p->container, e);
	if (r >= 0)
		r = inodes_save_pages(&p->c, e);
	if (r >= 0)
		r = mm_save_pages(&p->c, e);
	return r < 0 ? r : image_finish(p->c.image, totals, e);
}

static int image_progress(void *arg, uint64_t done, uint64_t total)
{
	report_progress(arg, "saving", done, total);
	return 0;
}

static int open_image(struct pass *p, int fd, const struct reprise_checkpoint_options *opt,
		      struct error *e)
{
	const struct image_writer_options wo = {
		.jobs = opt->jobs,
		.compress = (enum image_compress)opt->compress,
		.level = opt->compress_level,
		.progress = image_progress,
		.progress_arg = p->rep,
	};
	struct image_info info;

	image_info_here(&info);
	p->c.jobs = opt->jobs;
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

static int let_go(struct pass *p, enum reprise_after after, struct error *e)
{
	switch (after) {
	case REPRISE_AFTER_KILL:
		inet_tcp_abort(&p->c);
		return freezer_kill(&p->c.freezer, e);
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
	int r = save_state(p, e);

	if (r >= 0)
		r = keep_memory(p, e);
	if (r > 0) {
		freezer_thaw(&p->c.freezer);
		*resumed = clock_now_ns();
		r = mm_confirm(&p->c, e);
		tracks_end(&p->tracks);
	}
	return r < 0 ? r : write_image(p, totals, e);
}

/* Of what is to go on: as much as can be done before it stands still. */
static void prepare_memory(struct pass *p, const struct subject *s, uint64_t *stood)
{
	struct checkpoint *c = &p->c;
	struct error e = {};

	c->store = s->store;
	c->exact = s->exact;
	if (!c->store)
		return;
	store_warm(c->store, WARM);
	/*
	 * It costs a second copy of everything: where a short stop is asked for, and where
	 * somebody reads who may take as long as he likes.
	 */
	if (!p->max_freeze && S_ISREG(c->output.st_mode))
		return;
	if (s->anonymous < PRECOPY_WORTH || s->ct.mounts.layers.n)
		return;
	/* the image will come beside it */
	if (store_room(c->store) / 2 < s->anonymous) {
		checkpoint_trace(c,
				 "memory is not copied in advance: no room for a temporary file");
		return;
	}
	if (precopy(c, &p->found, &p->tracks, p->max_freeze, stood, &e) < 0) {
		char text[ERROR_TEXT_MAX];

		error_format(&e, text, sizeof(text));
		checkpoint_trace(c, "memory is not copied in advance: %s", text);
		store_clear(c->store);
		return;
	}
	c->tracks = &p->tracks;
	p->who = precopy_who(&c->freezer);
}

static int save(pid_t pid, struct subject *s, int fd, const struct reprise_checkpoint_options *opt,
		struct report *rep, uint64_t begun, struct reprise_stats *stats, struct error *e)
{
	_cleanup_(pass_end) struct pass p;
	struct image_totals totals = {};
	uint64_t stood = 0, resumed = 0;
	int r = pass_begin(&p, pid, &s->ct, rep, false, opt, e);

	p.c.kernel = take_ptr(&s->kernel);
	if (r >= 0)
		r = open_image(&p, fd, opt, e);
	if (r >= 0)
		r = describe_machine(&p, e);
	if (r < 0)
		return r;
	p.max_freeze = opt->max_freeze_ns;
	prepare_memory(&p, s, &stood);
	p.frozen = clock_now_ns();
	r = freezer_freeze(&p.c.freezer, e);
	/* After a fork, what smaps said before tells nothing of the pages that are shared now. */
	if (p.c.tracks && p.who != precopy_who(&p.c.freezer))
		p.c.exact = true;
	if (r >= 0)
		r = save_frozen(&p, &resumed, &totals, e);
	if (r < 0)
		return r;
	p.c.complete = true;
	count(&p.c, &totals, stats);
	r = let_go(&p, opt->after, e);
	stats->frozen_ns = stood + (resumed ? resumed : clock_now_ns()) - p.frozen;
	stats->resumed_ns = stats->durable_ns = clock_now_ns() - begun;
	return r;
}

int operation_checkpoint(pid_t pid, int fd, const struct reprise_checkpoint_options *opt,
			 struct report *rep, struct reprise_stats *stats, struct error *e)
{
	_cleanup_(subject_free) struct subject s = {.ct = CONTAINER_INIT};
	struct error first = {};
	uint64_t begun = clock_now_ns();
	int r = target_check(pid, e);

	s.ct.name = opt->container;
	s.ct.allow_leaks = opt->allow_leaks;
	s.ct.mounts.with_overlays = true;
	/* What is to end or to stop can as well wait for its memory. */
	if (r >= 0 && opt->after == REPRISE_AFTER_RUN)
		r = store_new(&s.store, fd, e);
	if (r >= 0)
		r = container_enter(&s.ct, &pid, e);
	if (r >= 0)
		r = look(pid, &s, opt, rep, &first, e);
	if (r > 0) {
		*e = first;
		return first.err < 0 ? first.err : -EOPNOTSUPP;
	}
	if (r < 0)
		return r;
	r = save(pid, &s, fd, opt, rep, begun, stats, e);
	if (r != -EAGAIN || s.exact)
		return r;
	/* Nothing has been written yet. */
	error_clear(e);
	store_clear(s.store);
	s.exact = true;
	return save(pid, &s, fd, opt, rep, begun, stats, e);
}
