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
#include "kernel/user_ids.h"
#include "kernel/vfork.h"
#include "ns/spaces.h"
#include "ns/userns.h"

/* ---- checkpoint ---- */

static int read_ids(struct checkpoint *c, pid_t pid, pid_t tid, Reprise__Credentials *ret,
		    struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	int r = (int)procfs_read(c->proc_fd, &status, e, "%d/task/%d/status", pid, tid);

	return r < 0 ? r : cred_parse(status, ret, s, e);
}

/* Where each process of the tree will be made, and what has to be known of that. */
struct making {
	struct checkpoint *c;
	const struct tree_node *nodes;
	const struct tree_tables *tables;
	uint64_t *in; /* a user namespace */
	int *first;   /* with whose ids; -1: with any */
};

static const Reprise__Container *record(const struct checkpoint *c, uint64_t id)
{
	const struct checkpoint_space *s = space_by_id(c, id);

	return s ? &c->spaces.looked->list.v[s - c->spaces.list.v]->msg : NULL;
}

/* Is a user namespace that one, or below it? */
static bool lies_in(const struct checkpoint *c, uint64_t user, uint64_t above)
{
	while (user && user != above)
		user = record(c, user)->above;
	return user == above;
}

static const struct frozen_process *process_at(const struct making *m, int i)
{
	return m->c->processes.v[i].frozen;
}

/* In there an id may have no name by which it could be set. from: who has others until then. */
static int compare_ids(const struct making *m, uint64_t user, pid_t from, pid_t pid, pid_t tid,
		       struct error *e)
{
	const Reprise__Container *in = record(m->c, user);
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Credentials now = REPRISE__CREDENTIALS__INIT, want = now;
	int r = read_ids(m->c, from, from, &now, &s, e);

	if (r >= 0)
		r = read_ids(m->c, pid, tid, &want, &s, e);
	if (r < 0 || cred_same_ids(&want, &now) || (in && user_ids_reachable(in, &want, &now)))
		return r;
	return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
			 "is in a user namespace below the root task's, and task %d has other ids "
			 "than task %d, which have no name there",
			 tid, from);
}

/* See pidns_for_children_get(): nobody tells of one that has no process yet. */
static int check_children(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
			  struct error *e)
{
	_cleanup_(free_ptr) char *own = NULL, *next = NULL;
	const pid_t pid = p->frozen->pid;

	if (!p->look || !p->look->children_apart)
		return 0;
	if (procfs_readlink(c->proc_fd, &next, NULL, "%d/task/%d/ns/pid_for_children", pid, tid) <
	    0)
		return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				 "is in a user namespace below the root task's, and its next child "
				 "would be in a pid namespace of its own");
	if (p->frozen->threads.n == 1)
		return 0;
	if (procfs_readlink(c->proc_fd, &own, e, "%d/task/%d/ns/pid", pid, tid) < 0)
		return e->err;
	return strcmp(own, next) ? error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					     "is in a user namespace below the root task's, and "
					     "its next child would be in a pid namespace that it "
					     "is not in itself")
				 : 0;
}

/* All threads go there together, from where they have the same namespaces. */
static int check_spaces(struct checkpoint *c, const struct checkpoint_process *p, struct error *e)
{
	static const struct checkpoint_member with_root;
	const struct frozen_process *f = p->frozen;
	const struct checkpoint_member *first = space_member(c, f->pid) ?: &with_root;
	int r = 0;

	vec_for_each (t, &f->threads) {
		const struct checkpoint_member *m = space_member(c, t->tid) ?: &with_root;

		if (t->zombie || r < 0)
			continue;
		if (memcmp(m->ids, first->ids, sizeof(m->ids)) != 0)
			return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					 "is in a user namespace below the root task's, and thread "
					 "%d is in other namespaces than it",
					 t->tid);
		r = check_children(c, p, t->tid, e);
	}
	return r;
}

/* Both begin in the user namespace in which they stay. */
static bool are_made_there(const struct making *m, size_t i, size_t j)
{
	return m->first[i] >= 0 && m->first[i] == m->first[j] && m->in[i] == m->in[j] &&
	       m->in[i] == space_of_user(m->c, process_at(m, (int)i)->pid);
}

/* userns_install() takes nobody who has his directories together with others. */
static int check_alone(const struct making *m, size_t i, struct error *e)
{
	const struct tree_tables *t = m->tables;

	for (size_t j = 0; j < m->c->processes.n; j++)
		if (j != i && !t[j].zombie && t[i].id[TABLE_FS] &&
		    t[j].id[TABLE_FS] == t[i].id[TABLE_FS] && !are_made_there(m, i, j))
			return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					 "is in a user namespace below the root task's, and has "
					 "its working directory together with process %d",
					 t[j].pid);
	return 0;
}

static int check_ids(const struct making *m, int i, uint64_t user, struct error *e)
{
	const struct frozen_process *f = process_at(m, i);
	const bool goes = m->in[i] != user;
	pid_t from = f->pid;
	int r = 0;

	if (m->first[i] >= 0) {
		pid_t first = process_at(m, m->first[i])->pid;

		r = compare_ids(m, m->in[i], first, f->pid, f->pid, e);
		from = goes ? f->pid : first;
	}
	vec_for_each (t, &f->threads) {
		if (r >= 0 && !t->zombie && t->tid != f->pid)
			r = compare_ids(m, user, from, f->pid, t->tid, e);
		/* made as it is */
		if (r >= 0 && t->in_vfork)
			r = compare_ids(m, 0, f->pid, t->vfork_child, t->vfork_child, e);
	}
	return r;
}

/* From there only those of its own and of those below may be entered (setns(2)). */
static int check_reach(const struct making *m, int i, uint64_t from, struct error *e)
{
	static const struct checkpoint_member with_root;
	const struct checkpoint_member *own, *maker;

	if (!from)
		return 0;
	own = space_member(m->c, process_at(m, i)->pid) ?: &with_root;
	maker = space_member(m->c, process_at(m, m->tables[i].parent)->pid) ?: &with_root;
	for (int k = 0; k < SPACE_KINDS; k++) {
		const Reprise__Container *space = own->ids[k] ? record(m->c, own->ids[k]) : NULL;

		if (own->ids[k] != maker->ids[k] &&
		    (!space || !lies_in(m->c, space->user_namespace, from)))
			return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
					 "is in a pid namespace that belongs to a user namespace, "
					 "and in a %s namespace that is not its parent's and does "
					 "not",
					 space_kinds[k].name);
	}
	return 0;
}

static int check_process(const struct making *m, int i, struct error *e)
{
	const struct checkpoint_process *p = &m->c->processes.v[i];
	uint64_t user = space_of_user(m->c, p->frozen->pid), from = m->in[i];
	int r;

	if (!user && !from)
		return 0;
	if (!lies_in(m->c, user, from))
		return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				 "is not in the user namespace that owns the pid namespace in "
				 "which its parent is");
	if (m->first[i] == i)
		from = m->in[m->tables[i].parent];
	r = check_reach(m, i, from, e);
	if (r >= 0)
		r = check_alone(m, (size_t)i, e);
	if (r >= 0)
		r = check_spaces(m->c, p, e);
	return r < 0 ? r : check_ids(m, i, user, e);
}

/* A process is made where its maker is, or begins a pid namespace that is another one's. */
static int find_maker(const struct making *m, int i, struct error *e)
{
	const struct tree_node *node = &m->nodes[i];
	const int parent = m->tables[i].parent;
	const Reprise__Container *begun = node->space_init ? record(m->c, node->pid_space) : NULL;

	m->in[i] = parent < 0 ? 0 : m->in[parent];
	m->first[i] = parent < 0 ? -1 : m->first[parent];
	if (!begun || begun->user_namespace == m->in[i])
		return 0;
	if (node->zombie)
		return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				 "has ended, and a user namespace owns the pid namespace that it "
				 "began");
	if (!lies_in(m->c, begun->user_namespace, m->in[i]))
		return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				 "is in a pid namespace that does not belong to the user namespace "
				 "of its parent");
	m->in[i] = begun->user_namespace;
	m->first[i] = i;
	return 0;
}

static int told_of(const struct making *m, int i, int r, struct error *e)
{
	if (r < 0)
		error_object(e, r, "task %d (%s)", process_at(m, i)->pid,
			     m->c->processes.v[i].stat.comm);
	return checkpoint_refuse(m->c, r, e);
}

int user_task_check(struct checkpoint *c, const struct tree_node *nodes,
		    const struct tree_tables *t, struct error *e)
{
	const size_t n = c->processes.n;
	_cleanup_(free_ptr) uint64_t *in = calloc(n + 1, sizeof(*in));
	_cleanup_(free_ptr) int *first = calloc(n + 1, sizeof(*first));
	const struct making m = {c, nodes, t, in, first};
	int r = 0;

	if (!in || !first)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the plan of the restart");
	for (int i = 0; i < (int)n && r >= 0; i++)
		r = told_of(&m, i, find_maker(&m, i, e), e);
	for (int i = 0; i < (int)n && r >= 0; i++)
		if (!process_at(&m, i)->zombie)
			r = told_of(&m, i, check_process(&m, i, e), e);
	return r;
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

/* The process that began to make others in that user namespace; NULL: they are made elsewhere. */
static const struct restart_process *beginner(const struct restart *r,
					      const struct restart_process *p, uint64_t user)
{
	const struct restart_process *found = NULL;

	for (; user && p; p = p->parent) {
		const Reprise__Container *msg =
			pid_space_is_init(p)
				? restart_find(r, RECORD_NAMESPACE, p->msg->pid_namespace)
				: NULL;

		if (msg && msg->user_namespace == user)
			found = p;
	}
	return found;
}

/* The same of all processes, which stand behind their parents, in one go. */
static void find_beginners(const struct restart *r, uint64_t user,
			   const struct restart_process **ret)
{
	for (size_t i = 0; i < r->processes.n; i++) {
		const struct restart_process *p = &r->processes.v[i];
		const Reprise__Container *msg =
			pid_space_is_init(p)
				? restart_find(r, RECORD_NAMESPACE, p->msg->pid_namespace)
				: NULL;

		ret[i] = p->parent ? ret[p->parent - r->processes.v] : NULL;
		if (!ret[i] && msg && msg->user_namespace == user)
			ret[i] = p;
	}
}

/* beginners: those of the user namespace of p. */
static int validate_process(const struct restart *r, const struct restart_process *p,
			    const struct restart_process *const *beginners, struct error *e)
{
	const Reprise__Task *by = speaker(p);
	const struct restart_process *first;

	if (restart_space_missing(r, p->msg->user_namespace, CLONE_NEWUSER))
		return invalid(e, "the user namespace of a process is not there");
	if (vfork_is_child(p) &&
	    (p->msg->user_namespace != p->parent->msg->user_namespace ||
	     (p->msg->user_namespace && !cred_same_ids(speaker(p->parent)->creds, by->creds))))
		return invalid(e, "who is waited for in vfork() is in another user namespace");
	if (!p->msg->user_namespace)
		return 0;
	if (!by)
		return invalid(e, "a process that cannot be in a user namespace of its own");
	/* Who is made there has not to go there. */
	first = beginners[p - r->processes.v];
	vec_for_each (q, &r->processes)
		vec_for_each (t, &q->tasks)
			if (q != p && !t->msg->is_zombie && t->msg->fs == by->fs &&
			    (!first || beginners[q - r->processes.v] != first))
				return invalid(e, "who is in a user namespace shares directories");
	return 0;
}

int user_tasks_validate(struct restart *r, struct error *e)
{
	_cleanup_(free_ptr) const struct restart_process **beginners =
		calloc(r->processes.n + 1, sizeof(*beginners));
	uint64_t user = 0;
	int res = 0;

	if (!beginners)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for user namespaces");
	vec_for_each (p, &r->processes) {
		if (res >= 0 && p->msg->user_namespace && p->msg->user_namespace != user) {
			user = p->msg->user_namespace;
			find_beginners(r, user, beginners);
		}
		if (res >= 0)
			res = validate_process(r, p, beginners, e);
	}
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

/* What tasks of a process have that took on no ids of their own yet. */
static const Reprise__Credentials *ids_now(const struct restart *r, const struct restart_process *p)
{
	const struct restart_process *first = beginner(r, p, p->user_space);
	const Reprise__Task *by = speaker(first ?: p);

	return by ? by->creds : NULL;
}

static int take_ids(struct restart *r, struct restart_process *p, struct restart_task *t,
		    struct error *e)
{
	const Reprise__Credentials *now = ids_now(r, p);

	if (t->msg->is_zombie)
		return 0;
	return now ? user_ids_restart(r, t, now, e)
		   : invalid(e, "a process of a user namespace has no ids");
}

/*
 * Ids are set outside, where all of them have a name. The change makes a task undumpable, which
 * would take it out of our reach, see commit_creds(); but not out of root's, and it has descriptors
 * of ours yet.
 */
static int add_ids(struct restart *r, struct restart_process *p, struct batch *b, struct scratch *s,
		   struct error *e)
{
	struct restart_task *t = &p->tasks.v[0];
	Reprise__Credentials now = REPRISE__CREDENTIALS__INIT;
	int res = read_now(r, t, &now, s, e);

	now.groups = r->groups;
	now.n_groups = r->n_groups;
	if (res >= 0)
		cred_restart_ids(b, speaker(p)->creds, &now);
	return res;
}

int user_task_enter(struct restart *r, struct restart_process *p, uint64_t user, struct error *e)
{
	struct restart_task *t = &p->tasks.v[0];
	_cleanup_(scratch_free) struct scratch s = {};
	_cleanup_(batch_free) struct batch b = {};
	int ns = open_space(r, user), remote, failed;
	int res = rlimits_raise(r, p, e);

	if (res >= 0)
		res = p->user_space ? take_ids(r, p, t, e) : add_ids(r, p, &b, &s, e);
	if (res >= 0)
		res = restart_send_fds(r, t, &ns, 1, &remote, e);
	if (res < 0)
		return res;
	batch_must(&b, batch_call(&b, SYS_setns, VAL(remote), VAL(CLONE_NEWUSER)));
	if (!userns_is_first(r->proc_fd))
		batch_call(&b, SYS_prctl, VAL(PR_SET_DUMPABLE), VAL(1), VAL(0), VAL(0), VAL(0));
	batch_call(&b, SYS_close, VAL(remote));
	res = agent_run(p->agent, t->tid, NULL, &b, e);
	failed = res < 0 ? -1 : batch_failed(&b);
	if (failed >= 0)
		res = error_errno(e, (int)batch_result(&b, failed),
				  batch_result(&b, failed) == -EPERM ? E_CREDENTIALS : E_NAMESPACE,
				  "task %d cannot enter its user namespace (system call %ld)",
				  p->vpid, batch_number(&b, failed));
	if (res >= 0)
		p->user_space = user;
	return res;
}

static int enter(struct restart *r, struct restart_process *p, struct error *e)
{
	int res;

	if (p->user_space != p->msg->user_namespace)
		return user_task_enter(r, p, p->msg->user_namespace, e);
	res = p->user_space ? rlimits_raise(r, p, e) : 0;
	vec_for_each (t, &p->tasks)
		if (res >= 0 && p->user_space)
			res = take_ids(r, p, t, e);
	return res;
}

int user_tasks_enter(struct restart *r, struct error *e)
{
	vec_for_each (p, &r->processes) {
		int res = p->msg->zombie || vfork_is_child(p) ? 0 : enter(r, p, e);

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

size_t user_task_chooses(const struct restart *r, uint64_t user, uint64_t space, size_t levels)
{
	size_t n = 0;

	if (!user)
		return levels;
	for (; space && n < levels; n++) {
		const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, space);

		if (!msg || !is_below(r, msg->user_namespace, user))
			break;
		space = msg->above;
	}
	return n;
}
