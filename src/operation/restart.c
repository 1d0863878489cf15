/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/id_set.h"
#include "fs/external.h"
#include "fs/file.h"
#include "fs/inode.h"
#include "ipc/ipc.h"
#include "kernel/clone.h"
#include "kernel/task.h"
#include "kernel/user_task.h"
#include "kernel/vfork.h"
#include "mm/mm.h"
#include "ns/apart.h"
#include "ns/container.h"
#include "ns/mounts_detached.h"
#include "ns/pidns.h"
#include "ns/spaces.h"
#include "operation/load.h"
#include "operation/operation.h"
#include "operation/origin.h"
#include "operation/parents.h"
#include "operation/resume.h"
#include "operation/root.h"
#include "operation/terminal.h"

typedef int (*table_fn)(struct restart *r, struct restart_task *t, struct error *e);

static uint64_t files_of(const Reprise__Task *m)
{
	return m->files;
}

static uint64_t fs_of(const Reprise__Task *m)
{
	return m->fs;
}

/* Each table is filled by the first task that refers to it. Children of vfork() are not there yet.
 */
static int for_each_table(struct restart *r, uint64_t (*id)(const Reprise__Task *), table_fn fill,
			  struct error *e)
{
	_cleanup_(id_set_free) struct id_set done = {};

	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks) {
			bool none = t->msg->is_zombie || vfork_is_child(p);
			int res = none ? 0 : id_set_add(&done, id(t->msg));

			if (res < 0)
				return error_set(e, res, E_NO_MEMORY, "no memory for the tree");
			if (res > 0)
				res = fill(r, t, e);
			if (res < 0)
				return error_object(e, res, "task %d (%s)", p->vpid, t->msg->comm);
		}
	return 0;
}

/*
 * Directories first, some of which only root may enter: the control socket leaves with the filling
 * of the table that holds it.
 */
static int fill_tables(struct restart *r, struct error *e)
{
	int res = for_each_table(r, fs_of, fs_restart, e);

	inodes_ended_finish(r);
	if (res >= 0)
		res = user_tasks_enter(r, e);
	return res < 0 ? res : for_each_table(r, files_of, files_restart_fill, e);
}

static int restart_progress(void *arg, uint64_t done, uint64_t total)
{
	report_progress(arg, "restoring", done, total);
	return 0;
}

static int open_everything(struct restart *r, struct error *e)
{
	int res = files_restart_begin(r, e);

	if (res >= 0)
		res = inodes_restart(r, e);
	if (res >= 0)
		res = mounts_settle_detached(r, e);
	return res < 0 ? res : files_restart_open(r, e);
}

/* Where the files of the container go: said beforehand, or by whoever is asked. */
static int find_place(const struct restart *r, struct container_restart *cr,
		      struct reprise_container *place, struct report *rep, struct error *e)
{
	int res;

	if (cr->place.root || !container_needs_place(r, place->name, sizeof(place->name)))
		return 0;
	res = report_container(rep, place);
	if (res == -ENOSYS)
		return 0;
	if (res < 0)
		return error_set(e, res, E_CONTAINER_STATE, "there is no place for the container");
	cr->place.root = place->root;
	cr->place.layers = place->layers;
	cr->cgroups_file = place->cgroups;
	return 0;
}

/*
 * Before a user namespace is entered that is not the container's: it hides them, and they cannot be
 * set there. In that of a container they look as they looked to the tasks.
 */
static int read_own_groups(struct restart *r, struct error *e)
{
	int n = getgroups(0, NULL);

	r->groups = calloc((size_t)(n > 0 ? n : 1), sizeof(*r->groups));
	if (!r->groups)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for groups");
	n = getgroups(n, r->groups);
	if (n < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot read our own groups");
	r->n_groups = (size_t)n;
	return 0;
}

/* The first process, which mounts what belongs to its container. */
static int begin_tree(struct loaded *l, struct container_restart *cr, struct pidns *ns, pid_t *root,
		      struct error *e)
{
	struct restart *r = &l->r;
	bool own_ipc = r->pidns && ipc_restart_any(r) && !restart_nth(r, RECORD_CONTAINER, 0, NULL);
	int res = restart_clocks_begin(r, e);

	if (res >= 0)
		res = container_restart_begin(r, cr, e);

	if (res >= 0)
		res = read_own_groups(r, e);
	if (res >= 0 && !cr->msg)
		res = r->pidns ? pidns_enter(own_ipc, e) : 0;
	if (res >= 0)
		res = ipc_restart_begin(r, own_ipc, e);
	if (res >= 0)
		res = root_restart(r, cr, ns, root, e);
	if (res >= 0)
		res = pidns_restart_counter(r, e);
	if (res >= 0)
		res = container_restart_mounted(r, cr, e);
	return res < 0 ? res : spaces_restart(r, cr->msg, &cr->cgroups.made, e);
}

static int build_tree(struct loaded *l, int messages, struct error *e)
{
	struct restart *r = &l->r;
	int res = tree_make(r, &l->plan, terminal_session, e);

	/* Those who were led to their numbers have moved it. */
	if (res >= 0 && r->spaces.list.n)
		res = pidns_restart_counter(r, e);
	if (res >= 0)
		res = spaces_restart_late(r, e);
	if (res >= 0)
		res = mm_lazy_serve(r, messages, e);

	if (res >= 0)
		res = terminal_restart(r, e);
	if (res >= 0)
		res = files_restart_open_late(r, e);
	if (res >= 0)
		res = ipc_restart_objects(r, e);
	return res < 0 ? res : fill_tables(r, e);
}

static int find_parents(struct loaded *l, const char *const *where, struct error *e)
{
	int res = parents_find(l->r.image, where, &l->parents, e);

	image_reader_set_parents(l->r.image, l->parents);
	return res;
}

static int set_options(struct restart *r, const struct reprise_restart_options *opt,
		       struct report *rep, struct error *e)
{
	int res;

	r->lazy = opt->lazy != 0;
	r->pidns = opt->pidns != 0 || container_has_pidns(r);
	r->changed_files_allowed = opt->changed_files == REPRISE_CHANGED_ALLOW;
	r->detached = opt->own_group != 0;
	r->peers_gone = opt->peers == REPRISE_PEERS_DISCONNECT;
	if (opt->use_stdio)
		memcpy(r->stdio, opt->stdio, sizeof(r->stdio));
	r->warn = restart_warn;
	r->warn_arg = rep;
	if (report_traces(rep)) {
		r->trace = report_trace;
		r->trace_arg = rep;
	}
	image_reader_set_progress(r->image, restart_progress, rep);
	for (const struct reprise_replacement *x = opt->replacements; x && x->object; x++) {
		struct restart_replacement *one = vec_push(&r->replacements);

		if (!one)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for options");
		*one = (struct restart_replacement){x->object, x->with, x->fd};
	}
	res = external_check(r, e);
	if (res < 0)
		return res;
	res = terminal_find(r);
	return res >= 0 && r->lazy ? mm_lazy_possible(r, e) : res;
}

/*
 * Only a task whose memory everybody of its user may read is in reach of who has no rights in the
 * user namespace in which that memory began, which is that of its first exec (ptrace_may_access()).
 */
static int check_reach(const struct restart *r, struct error *e)
{
	vec_for_each (p, &r->processes)
		if (!p->msg->zombie && p->msg->dumpable != 1)
			return error_set(e, -EKEYREJECTED, E_IMAGE_FOREIGN,
					 "the image was not made by root of this machine, and task "
					 "%d is not dumpable, which cannot be restored in a user "
					 "namespace",
					 p->vpid);
	return 0;
}

/*
 * What root restarts does what it likes to this machine, unless the image is known to be root's own
 * or was said to be trusted. Everybody else cannot give a task more than he has.
 */
static int keep_apart(struct restart *r, const struct reprise_restart_options *opt, struct error *e)
{
	struct error problem = {};
	struct image_key key;

	if (opt->privileged || !origin_matters() ||
	    (origin_key(&key, false) >= 0 && image_made_with(r->image, &key)))
		return 0;
	if (restart_nth(r, RECORD_CONTAINER, 0, NULL))
		return error_set(e, -EKEYREJECTED, E_IMAGE_FOREIGN,
				 "the image of a container was not made by root of this machine");
	if (restart_nth(r, RECORD_NAMESPACE, 0, NULL))
		return error_set(
			e, -EKEYREJECTED, E_IMAGE_FOREIGN,
			"the image, whose tasks have namespaces of their own, was not made "
			"by root of this machine");
	if (check_reach(r, e) < 0)
		return e->err;
	error_set(&problem, -EKEYREJECTED, E_IMAGE_FOREIGN,
		  "the image was not made by root of this machine: it is restarted in a user "
		  "namespace");
	r->warn(r->warn_arg, &problem);
	r->pidns = true;
	return apart_enter(r->proc_fd, e);
}

static void fill_result(const struct loaded *l, const struct pidns *ns,
			struct reprise_restarted *result)
{
	const struct restart_process *root = &l->r.processes.v[0];
	bool own_group = root->msg->pgid == root->vpid;

	result->pid = root->pid;
	result->init = l->r.pidns && root->vpid != 1 ? ns->init : 0;
	result->pgrp = own_group ? root->pid : 0;
	result->tty_foreground = root->msg->controlling_tty &&
				 root->msg->tty_pgrp == root->msg->pgid &&
				 !files_restart_own_terminal(&l->r, root);
}

static void fill_stats(const struct loaded *l, const struct image_totals *totals, uint64_t begun,
		       struct reprise_stats *stats)
{
	const Reprise__Files *table;

	stats->resumed_ns = stats->durable_ns = clock_now_ns() - begun;
	stats->processes = l->r.processes.n;
	vec_for_each (p, &l->r.processes)
		stats->tasks += p->tasks.n;
	for (size_t i = 0; (table = restart_nth(&l->r, RECORD_FILES, i, NULL)); i++)
		stats->descriptors += table->n_fds;
	stats->pages = totals->pages;
	stats->zero_pages = totals->zero_pages;
	stats->memory_bytes = (totals->pages - totals->zero_pages) * 4096;
	stats->image_bytes = totals->total_bytes;
}

static int ask_caller(const struct loaded *l, const struct pidns *ns, struct report *rep,
		      struct reprise_restarted *result, struct error *e)
{
	int res;

	fill_result(l, ns, result);
	res = report_ready(rep, result);
	return res < 0 ? error_set(e, res, E_INTERRUPTED, "the caller gave the restart up") : 0;
}

static void kill_all(struct restart *r, pid_t root, const struct pidns *ns)
{
	vec_for_each (p, &r->processes)
		if (p->pid > 0)
			kill(p->pid, SIGKILL);
	if (root > 0)
		kill(root, SIGKILL);
	if (r->pidns && ns->init > 0)
		kill(ns->init, SIGKILL);
}

/* The tasks are all there. From now on we hold nothing of what they see. */
static int finish_tree(struct loaded *l, struct container_restart *cr, struct pidns *ns,
		       struct image_totals *totals, struct error *e)
{
	struct restart *r = &l->r;
	int res = container_restart_place(r, cr, e);

	if (res >= 0)
		res = image_read_end(r->image, totals, e);
	if (res >= 0)
		res = resume_prepare(r, &l->plan, e);
	if (res < 0)
		return res;
	ipc_restart_keep(r);
	/* A reader or writer less is what the tasks see of what we hold. */
	files_restart_end(r);
	close_fd(&r->tty_fd);
	return pidns_release(ns, e);
}

static int let_go(struct loaded *l, struct container_restart *cr, struct pidns *ns,
		  const struct reprise_restart_options *opt, struct report *rep,
		  struct reprise_restarted *result, struct error *e)
{
	int res = mm_lazy_ready(&l->r, e);

	if (res >= 0)
		res = cgroups_restart_freeze(&cr->cgroups, e);
	if (res >= 0)
		res = ask_caller(l, ns, rep, result, e);
	if (res >= 0)
		res = files_restart_watch(&l->r, e);
	return res < 0 ? res : resume_all(&l->r, opt->leave_stopped != 0, e);
}

int operation_restart(int fd, const struct reprise_restart_options *opt, int messages,
		      struct report *rep, struct reprise_stats *stats,
		      struct reprise_restarted *result, struct error *e)
{
	_cleanup_(restart_unload) struct loaded l;
	struct pidns ns = {.channel = -EBADF};
	struct container_restart cr = {.place = {opt->root, opt->layers, opt->map_mounts},
				       .net = opt->net,
				       .cgroups_file = opt->cgroups,
				       .cgroups.helper = -EBADF};
	struct reprise_container place = {};
	struct image_totals totals = {};
	uint64_t begun = clock_now_ns();
	pid_t root = 0;
	int res = restart_load(&l, fd, opt->jobs, e);

	/* All tasks descend from this process. */
	if (res >= 0 && opt->own_group && setpgid(0, 0) < 0)
		res = error_errno(e, -errno, E_SYSTEM, "cannot make a process group");

	if (res >= 0)
		res = find_parents(&l, opt->parents, e);
	if (res >= 0)
		res = restart_check_machine(&l, e);
	if (res >= 0)
		res = set_options(&l.r, opt, rep, e);
	if (res >= 0)
		res = keep_apart(&l.r, opt, e);
	if (res >= 0)
		res = find_place(&l.r, &cr, &place, rep, e);
	if (res >= 0)
		res = begin_tree(&l, &cr, &ns, &root, e);
	if (res >= 0)
		res = open_everything(&l.r, e);
	if (res >= 0)
		res = build_tree(&l, messages, e);
	if (res >= 0)
		res = finish_tree(&l, &cr, &ns, &totals, e);
	if (res >= 0)
		res = let_go(&l, &cr, &ns, opt, rep, result, e);
	if (res < 0) {
		files_restart_end(&l.r);
		close_fd(&l.r.tty_fd);
		kill_all(&l.r, root, &ns);
		restart_made_end(&l.r, false);
		result->pid = root;
		result->init = ns.init;
		container_restart_end(&cr);
		return res;
	}
	restart_made_end(&l.r, true);
	container_restart_end(&cr);
	mm_lazy_go(&l.r);
	fill_stats(&l, &totals, begun, stats);
	return 0;
}

int operation_plan(int fd, char **text, struct error *e)
{
	_cleanup_(restart_unload) struct loaded l;
	size_t size;
	FILE *f;
	int res = restart_load(&l, fd, 1, e);

	if (res < 0)
		return res;
	f = open_memstream(text, &size);
	if (!f)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the plan");
	tree_plan_print(&l.plan, l.nodes, f);
	res = text_end(f, text);
	return res < 0 ? error_set(e, res, E_NO_MEMORY, "no memory for the plan") : 0;
}
