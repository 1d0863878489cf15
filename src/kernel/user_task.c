/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/user_task.h"

#include <errno.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "kernel/cred.h"
#include "kernel/rlimit.h"
#include "kernel/vfork.h"

/* ---- checkpoint ---- */

static int read_ids(struct checkpoint *c, pid_t pid, pid_t tid, Reprise__Credentials *ret,
		    struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	int r = (int)procfs_read(c->proc_fd, &status, e, "%d/task/%d/status", pid, tid);

	return r < 0 ? r : cred_parse(status, ret, s, e);
}

/* In there an id may have no name by which it could be set. */
static int compare_ids(struct checkpoint *c, const struct frozen_process *f, pid_t pid, pid_t tid,
		       struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Credentials first = REPRISE__CREDENTIALS__INIT, other = first;
	int r = read_ids(c, f->pid, f->pid, &first, &s, e);

	if (r >= 0)
		r = read_ids(c, pid, tid, &other, &s, e);
	if (r < 0)
		return r;
	return cred_same_ids(&first, &other)
		       ? 0
		       : error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				   "is in a user namespace below the root task's, and task %d has "
				   "other ids than it",
				   tid);
}

/* All threads go there together, from where they have the same namespaces. */
static int check_spaces(struct checkpoint *c, const struct checkpoint_process *p, struct error *e)
{
	static const struct checkpoint_member with_root;
	const struct frozen_process *f = p->frozen;
	const struct checkpoint_member *first = space_member(c, f->pid) ?: &with_root;
	char path[64], link[64];

	vec_for_each (t, &f->threads) {
		const struct checkpoint_member *m = space_member(c, t->tid) ?: &with_root;

		if (t->zombie)
			continue;
		if (memcmp(m->ids, first->ids, sizeof(m->ids)) != 0)
			return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					 "is in a user namespace below the root task's, and thread "
					 "%d is in other namespaces than it",
					 t->tid);
		/* See pidns_for_children_get(). */
		snprintf(path, sizeof(path), "%d/task/%d/ns/pid_for_children", f->pid, t->tid);
		if (p->look && p->look->children_apart &&
		    (f->threads.n > 1 || readlinkat(c->proc_fd, path, link, sizeof(link)) < 0))
			return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					 "is in a user namespace below the root task's, and its "
					 "next child would be in a pid namespace %s",
					 f->threads.n > 1 ? "that it is not in itself"
							  : "of its own");
	}
	return 0;
}

static int check_process(struct checkpoint *c, const struct checkpoint_process *p, struct error *e)
{
	const struct frozen_process *f = p->frozen;
	int r = check_spaces(c, p, e);

	vec_for_each (t, &f->threads) {
		if (r >= 0 && !t->zombie && t->tid != f->pid)
			r = compare_ids(c, f, f->pid, t->tid, e);
		if (r >= 0 && t->in_vfork)
			r = compare_ids(c, f, t->vfork_child, t->vfork_child, e);
	}
	return r;
}

/* userns_install() takes nobody who has his directories together with others. */
static int check_alone(const struct tree_tables *t, size_t n, size_t i, struct error *e)
{
	for (size_t j = 0; j < n; j++)
		if (j != i && !t[j].zombie && t[i].id[TABLE_FS] &&
		    t[j].id[TABLE_FS] == t[i].id[TABLE_FS])
			return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					 "is in a user namespace below the root task's, and has "
					 "its working directory together with process %d",
					 t[j].pid);
	return 0;
}

int user_task_check(struct checkpoint *c, const struct tree_tables *t, struct error *e)
{
	for (size_t i = 0; i < c->processes.n; i++) {
		const struct checkpoint_process *p = &c->processes.v[i];
		int r;

		if (p->frozen->zombie || !space_of_user(c, p->frozen->pid))
			continue;
		r = check_alone(t, c->processes.n, i, e);
		if (r >= 0)
			r = check_process(c, p, e);
		if (r < 0)
			error_object(e, r, "task %d (%s)", p->frozen->pid, p->stat.comm);
		r = checkpoint_refuse(c, r, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- validation ---- */

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

/* Who is alive answers for a process: of a leader that has exited nothing is left. */
static const Reprise__Task *speaker(const struct restart_process *p)
{
	const Reprise__Task *leader = tree_leader(p);

	return leader && leader->is_zombie && p->tasks.n > 1 ? p->tasks.v[1].msg : leader;
}

static int validate_process(const struct restart *r, const struct restart_process *p,
			    struct error *e)
{
	const Reprise__Task *by = speaker(p);

	if (restart_space_missing(r, p->msg->user_namespace, CLONE_NEWUSER))
		return invalid(e, "the user namespace of a process is not there");
	if (vfork_is_child(p) &&
	    (p->msg->user_namespace != p->parent->msg->user_namespace ||
	     (p->msg->user_namespace && !cred_same_ids(speaker(p->parent)->creds, by->creds))))
		return invalid(e, "who is waited for in vfork() is in another user namespace");
	if (!p->msg->user_namespace)
		return 0;
	if (!p->parent || !by)
		return invalid(e, "a process that cannot be in a user namespace of its own");
	vec_for_each (t, &p->tasks)
		if (!t->msg->is_zombie && !cred_same_ids(by->creds, t->msg->creds))
			return invalid(e, "threads of different users in a user namespace");
	vec_for_each (q, &r->processes)
		vec_for_each (t, &q->tasks)
			if (q != p && !t->msg->is_zombie && t->msg->fs == by->fs)
				return invalid(e, "who is in a user namespace shares directories");
	return 0;
}

int user_tasks_validate(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (p, &r->processes)
		if (res >= 0)
			res = validate_process(r, p, e);
	return res;
}

/* ---- restart ---- */

static int open_space(struct restart *r, uint64_t id)
{
	vec_for_each (s, &r->spaces.list)
		if (s->id == id)
			return s->ns;
	return -EBADF;
}

static int read_now(struct restart *r, const struct restart_task *t, Reprise__Credentials *now,
		    struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	int res = (int)procfs_read(r->proc_fd, &status, e, "%d/task/%d/status", t->process->pid,
				   t->tid);

	return res < 0 ? res : cred_parse(status, now, s, e);
}

/*
 * Ids are set outside, where all of them have a name. The change makes a task undumpable, which
 * would take it out of our reach, see commit_creds().
 */
int user_task_enter(struct restart *r, struct restart_process *p, struct error *e)
{
	struct restart_task *t = &p->tasks.v[0];
	_cleanup_(scratch_free) struct scratch s = {};
	_cleanup_(batch_free) struct batch b = {};
	Reprise__Credentials now = REPRISE__CREDENTIALS__INIT;
	int ns = open_space(r, p->msg->user_namespace), remote, failed;
	int res = rlimits_raise(p, e);

	if (res >= 0)
		res = read_now(r, t, &now, &s, e);
	now.groups = r->groups;
	now.n_groups = r->n_groups;
	if (res >= 0)
		res = restart_send_fds(r, t, &ns, 1, &remote, e);
	if (res < 0)
		return res;
	cred_restart_ids(&b, speaker(p)->creds, &now);
	batch_must(&b, batch_call(&b, SYS_setns, VAL(remote), VAL(CLONE_NEWUSER)));
	batch_call(&b, SYS_prctl, VAL(PR_SET_DUMPABLE), VAL(1), VAL(0), VAL(0), VAL(0));
	batch_call(&b, SYS_close, VAL(remote));
	res = agent_run(p->agent, t->tid, NULL, &b, e);
	failed = res < 0 ? -1 : batch_failed(&b);
	if (failed >= 0)
		res = error_errno(e, (int)batch_result(&b, failed),
				  batch_result(&b, failed) == -EPERM ? E_CREDENTIALS : E_NAMESPACE,
				  "task %d cannot enter its user namespace (system call %ld)",
				  p->vpid, batch_number(&b, failed));
	return res;
}

int user_tasks_enter(struct restart *r, struct error *e)
{
	vec_for_each (p, &r->processes) {
		int res = 0;

		if (p->msg->user_namespace && !p->msg->zombie && p->tasks.n == 1 &&
		    !vfork_is_child(p))
			res = user_task_enter(r, p, e);
		if (res < 0)
			return res;
	}
	return 0;
}

int user_task_now(struct restart *r, const struct restart_task *t, Reprise__Task *now,
		  struct scratch *s, struct error *e)
{
	Reprise__Credentials *creds =
		scratch_message(s, Reprise__Credentials, reprise__credentials__init);
	int res;

	if (!creds)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for credentials");
	res = read_now(r, t, creds, s, e);
	/* Groups that have no name outside look different from there. */
	creds->groups = t->msg->creds->groups;
	creds->n_groups = t->msg->creds->n_groups;
	now->creds = creds;
	return res;
}

static bool is_below(const struct restart *r, uint64_t user, uint64_t above)
{
	while (user && user != above) {
		const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, user);

		user = msg ? msg->above : 0;
	}
	return user == above;
}

size_t user_task_chooses(const struct restart *r, const struct restart_process *p, size_t levels)
{
	uint64_t space = p->msg->pid_namespace;
	size_t n = 0;

	if (!p->msg->user_namespace)
		return levels;
	for (; space && n < levels; n++) {
		const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, space);

		if (!msg || !is_below(r, msg->user_namespace, p->msg->user_namespace))
			break;
		space = msg->above;
	}
	return n;
}
