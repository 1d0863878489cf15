/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which System V objects a tree uses. All that are in the IPC namespace of who looks are
 * listed in /proc/sysvipc, whoever may use them.
 */
#include "ipc/sysv.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/cleanup.h"
#include "core/procfs.h"

static const char *const files[] = {"sem", "msg", "shm"};

int sysv_error(struct error *e, int r, enum sysv_kind kind, int id, int key)
{
	static const char *const names[] = {"semaphore set", "message queue",
					    "shared memory segment"};

	if (!key)
		return error_object(e, r, "System V %s %d", names[kind], id);
	return error_object(e, r, "System V %s %d (key %#x)", names[kind], id, (unsigned int)key);
}

/* ---- what there is ---- */

static bool parse_sem(const char *line, struct sysv_object *o)
{
	return sscanf(line, "%d %d %o %" SCNu64 " %u %u %u %u %" SCNd64 " %" SCNd64, &o->key,
		      &o->id, &o->mode, &o->nsems, &o->uid, &o->gid, &o->cuid, &o->cgid,
		      &o->times[0], &o->ctime) == 10;
}

static bool parse_msg(const char *line, struct sysv_object *o)
{
	return sscanf(line,
		      "%d %d %o %*u %" SCNu64 " %d %d %u %u %u %u %" SCNd64 " %" SCNd64 " %" SCNd64,
		      &o->key, &o->id, &o->mode, &o->qnum, &o->users[0], &o->users[1], &o->uid,
		      &o->gid, &o->cuid, &o->cgid, &o->times[0], &o->times[1], &o->ctime) == 13;
}

static bool parse_shm(const char *line, struct sysv_object *o)
{
	return sscanf(line,
		      "%d %d %o %*u %d %d %" SCNu64 " %u %u %u %u %" SCNd64 " %" SCNd64 " %" SCNd64,
		      &o->key, &o->id, &o->mode, &o->users[0], &o->users[1], &o->nattch, &o->uid,
		      &o->gid, &o->cuid, &o->cgid, &o->times[0], &o->times[1], &o->ctime) == 13;
}

/*
 * How many there are is told by one call, in the same namespace: of none no list is read. A
 * negative number where that may not be asked.
 */
static int count_kind(enum sysv_kind kind)
{
	struct seminfo sem = {};
	struct msginfo msg = {};
	struct shm_info shm = {};

	switch (kind) {
	case SYSV_SEM:
		return semctl(0, 0, SEM_INFO, &sem) < 0 ? -errno : sem.semusz;
	case SYSV_MSG:
		return msgctl(0, MSG_INFO, (struct msqid_ds *)&msg) < 0 ? -errno : msg.msgpool;
	case SYSV_SHM:
		return shmctl(0, SHM_INFO, (struct shmid_ds *)&shm) < 0 ? -errno : shm.used_ids;
	}
	return -EINVAL;
}

static int list_kind(struct checkpoint *c, uint64_t space, enum sysv_kind kind, struct error *e)
{
	static bool (*const parse[])(const char *, struct sysv_object *) = {parse_sem, parse_msg,
									    parse_shm};
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t n;
	char *line;

	if (count_kind(kind) == 0)
		return 0;
	n = procfs_read(c->proc_fd, &text, e, "sysvipc/%s", files[kind]);
	/* Not there: this kernel has no System V IPC. */
	if (n < 0)
		return procfs_unless_gone(n, e);
	for (line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
		struct sysv_object *o = vec_push(&c->ipc->objects[kind]);

		if (!o)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for IPC objects");
		o->kind = kind;
		o->space = space;
		if (!parse[kind](line + 1, o))
			return error_set(e, -EINVAL, E_SYSTEM, "/proc/sysvipc/%s is not understood",
					 files[kind]);
	}
	return 0;
}

static int list_here(struct checkpoint *c, void *arg, struct error *e)
{
	const uint64_t *space = arg;
	int r = 0;

	for (enum sysv_kind kind = SYSV_SEM; kind <= SYSV_SHM && r >= 0; kind++)
		r = list_kind(c, *space, kind, e);
	return r;
}

int ipc_note_space(struct space_set *set, uint64_t space, struct error *e)
{
	uint64_t *slot;

	vec_for_each (s, &set->ids)
		if (*s == space)
			return 0;
	slot = vec_push(&set->ids);
	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for IPC objects");
	*slot = space;
	return 1;
}

int sysv_list_objects(struct checkpoint *c, struct error *e)
{
	uint64_t space = 0;
	int r = ipc_note_space(&c->ipc->listed, space, e);

	if (r > 0)
		r = list_here(c, &space, e);
	for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++) {
		space = c->spaces.list.v[i].id;
		if (c->spaces.list.v[i].flag != CLONE_NEWIPC || c->spaces.list.v[i].refused)
			continue;
		r = ipc_note_space(&c->ipc->listed, space, e);
		if (r > 0)
			r = ipc_visit(c, space, list_here, &space, e);
	}
	return r;
}

struct sysv_object *sysv_find(const struct checkpoint *c, enum sysv_kind kind, uint64_t space,
			      int id)
{
	vec_for_each (o, &c->ipc->objects[kind])
		if (o->id == id && o->space == space)
			return o;
	return NULL;
}

bool sysv_is_apart(const struct checkpoint *c, const struct sysv_object *o)
{
	return o->space || c->own_ipc;
}

/* ---- who is in the tree ---- */

static int compare_tids(const void *a, const void *b)
{
	return (*(const pid_t *)a > *(const pid_t *)b) - (*(const pid_t *)a < *(const pid_t *)b);
}

static int add_tid(struct ipc_checkpoint *x, pid_t tid)
{
	pid_t *slot = vec_push(&x->tids);

	if (!slot)
		return -ENOMEM;
	*slot = tid;
	return 0;
}

static int64_t clock_s(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec;
}

static int list_tasks(struct checkpoint *c, struct error *e)
{
	struct ipc_checkpoint *x = c->ipc;
	int r = 0;

	x->boot = clock_s(CLOCK_REALTIME) - clock_s(CLOCK_BOOTTIME);
	x->begin = INT64_MAX;
	vec_for_each (p, &c->processes) {
		int64_t start = x->boot + (int64_t)p->frozen->start_time / sysconf(_SC_CLK_TCK);

		if (start < x->begin)
			x->begin = start;
		if (r >= 0)
			r = add_tid(x, p->frozen->pid);
		vec_for_each (t, &p->frozen->threads)
			if (r >= 0 && t->tid != p->frozen->pid)
				r = add_tid(x, t->tid);
		if (r < 0)
			return error_set(e, r, E_NO_MEMORY, "cannot list the tasks");
	}
	if (x->tids.n)
		qsort(x->tids.v, x->tids.n, sizeof(*x->tids.v), compare_tids);
	return 0;
}

/* ---- who waits ---- */

#define I386_IPC	ARCH_COMPAT_CALL(117)
#define I386_MSGSND	ARCH_COMPAT_CALL(400)
#define I386_MSGRCV	ARCH_COMPAT_CALL(401)
#define I386_SEMTIMEDOP ARCH_COMPAT_CALL(420)

static bool call_kind(long nr, enum sysv_kind *kind)
{
	*kind = nr == SYS_msgsnd || nr == SYS_msgrcv || nr == I386_MSGSND || nr == I386_MSGRCV
			? SYSV_MSG
			: SYSV_SEM;
	return nr == SYS_semop || nr == SYS_semtimedop || nr == I386_SEMTIMEDOP ||
	       *kind == SYSV_MSG;
}

/* ipc(2) of 32-bit tasks stands for all of them: which it is comes first. */
static bool call_of_ipc(struct task_call *call)
{
	static const long calls[] = {
		[1] = SYS_semop, [4] = SYS_semtimedop, [11] = SYS_msgsnd, [12] = SYS_msgrcv};
	uint64_t which = call->args[0] & 0xffff;

	if (call->nr != I386_IPC)
		return true;
	if (which >= sizeof(calls) / sizeof(*calls) || !calls[which])
		return false;
	call->nr = calls[which];
	call->args[0] = call->args[1];
	return true;
}

static bool is_restarted(long result)
{
	return result == -ARCH_ERESTARTSYS || result == -ARCH_ERESTARTNOINTR ||
	       result == -ARCH_ERESTARTNOHAND;
}

/* The call that a stopped thread goes on with, or that a running one sleeps in. */
static bool waits_in(struct checkpoint *c, const struct checkpoint_process *p,
		     const struct frozen_thread *t, long *nr, int *id)
{
	struct task_call call;

	if (t->cpu) {
		const struct user_regs_struct *regs = &t->cpu->regs;

		call.args[0] = arch_call_arg(regs, 0);
		call.args[1] = arch_call_arg(regs, 1);
		call.nr = t->syscall_eintr >= 0 ? t->syscall_eintr : arch_call_nr(regs);
		if (t->syscall_eintr < 0 && (call.nr < 0 || !is_restarted(arch_call_result(regs))))
			return false;
	} else if (!freezer_call(c->proc_fd, p->frozen->pid, t->tid, &call)) {
		return false;
	}
	if (!call_of_ipc(&call))
		return false;
	*nr = call.nr;
	*id = (int)call.args[0];
	return true;
}

static int list_blocked(struct checkpoint *c, struct error *e)
{
	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads) {
			struct sysv_object *o;
			enum sysv_kind kind;
			long nr;
			int id;

			if (t->zombie || !waits_in(c, p, t, &nr, &id) || !call_kind(nr, &kind))
				continue;
			o = sysv_find(c, kind, space_of_task(c, t->tid, CLONE_NEWIPC), id);
			if (o)
				o->tree = true;
		}
	return 0;
}

/* ---- what follows from it ---- */

static bool in_tree(const struct ipc_checkpoint *x, pid_t tid)
{
	return x->tids.n && bsearch(&tid, x->tids.v, x->tids.n, sizeof(*x->tids.v), compare_tids);
}

void sysv_used_by(struct checkpoint *c, struct sysv_object *o, pid_t pid, int64_t time)
{
	struct proc_stat st;
	int r;

	/*
	 * No process at all, or one that is in no pid namespace of ours. In an IPC namespace of its
	 * own that was a restart, or somebody who has left: who is still there is a leak.
	 */
	if (!pid) {
		o->outside |= time != 0 && !sysv_is_apart(c, o);
		return;
	}
	if (in_tree(c->ipc, pid)) {
		o->tree = true;
		if (checkpoint_refer(c, pid, NULL) < 0)
			o->late = pid;
		return;
	}
	if (pid == c->self)
		return;
	r = proc_stat_read(c->proc_fd, pid, pid, &st, NULL);
	if (r == -ESRCH)
		return;
	/* One that was started later only has the same number. */
	if (r < 0 || c->ipc->boot + (int64_t)st.start_time / sysconf(_SC_CLK_TCK) <= time + SLACK_S)
		o->outside = true;
}

/* Asked for when it matters, which is seldom. */
static int add_user(struct checkpoint *c, const struct checkpoint_process *p)
{
	_cleanup_(free_ptr) char *status = NULL;
	uint32_t ids[3], *slot;
	size_t len;
	const char *v;

	if (procfs_read(c->proc_fd, &status, NULL, "%d/status", p->tid) < 0)
		return 0; /* it has ended */
	v = proc_field(status, "Uid", &len);
	if (!v || sscanf(v, "%u %u %u", &ids[0], &ids[1], &ids[2]) != 3)
		return -EINVAL;
	for (int i = 0; i < 3; i++) {
		bool known = false;

		vec_for_each (u, &c->ipc->users.ids)
			known |= *u == ids[i];
		if (known)
			continue;
		slot = vec_push(&c->ipc->users.ids);
		if (!slot)
			return -ENOMEM;
		*slot = ids[i];
	}
	return 0;
}

static const struct user_ids *users(struct checkpoint *c)
{
	struct user_ids *users = &c->ipc->users;

	if (users->known)
		return users;
	users->known = true;
	vec_for_each (p, &c->processes)
		if (!p->frozen->zombie && add_user(c, p) < 0)
			users->anybody = true;
	return users;
}

bool sysv_have_user(struct checkpoint *c, uint32_t uid)
{
	const struct user_ids *u = users(c);

	vec_for_each (id, &u->ids)
		if (*id == uid)
			return true;
	return u->anybody;
}

bool sysv_of_our_user(struct checkpoint *c, const struct sysv_object *o)
{
	return sysv_have_user(c, o->uid) || sysv_have_user(c, o->cuid);
}

enum ipc_relation sysv_relation(struct checkpoint *c, const struct sysv_object *o)
{
	int64_t last = o->ctime;

	if (o->tree || sysv_is_apart(c, o))
		return o->outside ? IPC_OUTSIDE_TOO : IPC_OWN;
	if (o->outside || !sysv_of_our_user(c, o))
		return IPC_NOT_OURS;
	for (int i = 0; i < 2; i++)
		if (o->times[i] > last)
			last = o->times[i];
	return last + SLACK_S >= c->ipc->begin ? IPC_PERHAPS : IPC_NOT_OURS;
}

int sysv_save_perm(struct checkpoint *c, const struct sysv_object *o, enum ipc_relation relation,
		   struct scratch *s, Reprise__IpcPerm **ret, struct error *e)
{
	Reprise__IpcPerm *m = scratch_message(s, Reprise__IpcPerm, reprise__ipc_perm__init);

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an IPC object");
	c->ipc->used |= !o->space;
	if (sysv_is_apart(c, o) && relation == IPC_OUTSIDE_TOO)
		return error_set(e, -EXDEV, E_IPC_SHARED, "is used by processes outside the %s",
				 c->own_ipc ? "container" : "tree");
	if (o->late && checkpoint_refer(c, o->late, e) < 0)
		return -EBUSY;
	m->id = o->id;
	m->key = o->key;
	m->mode = o->mode;
	m->uid = o->uid;
	m->gid = o->gid;
	m->cuid = o->cuid;
	m->cgid = o->cgid;
	m->ctime = o->ctime;
	m->relation = relation;
	m->namespace_ = o->space;
	*ret = m;
	return 0;
}

int sysv_list(struct checkpoint *c, struct error *e)
{
	size_t n = 0;
	int r = sysv_list_objects(c, e);

	for (enum sysv_kind kind = SYSV_SEM; kind <= SYSV_SHM && r >= 0; kind++)
		n += c->ipc->objects[kind].n;
	if (r < 0 || !n)
		return r;
	r = list_tasks(c, e);
	return r < 0 ? r : list_blocked(c, e);
}
