/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/kernel_memory.h"
#include "core/procfs.h"
#include "fs/uring_numbers.h"
#include "fs/file.h"
#include "ipc/ipc.h"
#include "kernel/cred.h"
#include "kernel/levels.h"
#include "kernel/registers.h"
#include "kernel/sched.h"
#include "kernel/seccomp.h"
#include "kernel/segments.h"
#include "kernel/task.h"
#include "kernel/vfork.h"
#include "remote/kernel_task.h"
#include "remote/ptrace.h"

#define I386_SET_ROBUST_LIST 311
#define PERSONALITY_ASK	     0xffffffff /* personality(2): nothing is set */

#define MEMPOLICY_NODES 1024

struct mempolicy {
	int32_t mode;
	uint32_t pad;
	uint64_t nodes[MEMPOLICY_NODES / 64];
};

/* What the freeze would find out otherwise. */
static int check_running(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
			 const char *status, struct error *e)
{
	size_t n = 0;
	const char *features = proc_field(status, "x86_Thread_features", &n);
	int r;

	/* see begin() in remote/borrow.c */
	if (features && memmem(features, n, "shstk", 5))
		return error_set(e, -ENOTSUP, E_TASK_STATE, "has a shadow stack");
	r = sched_check(tid, e);
	return r < 0 ? r : freezer_check_sleep(&c->freezer, p->frozen->pid, tid, e);
}

/*
 * Before 6.4 only the memory of the kernel tells whether system calls of a task are dispatched to
 * itself. To find out, for a stopped task of a newer kernel, is the agent's business (which kernel
 * it is, the first task shows); a check looks at all threads at once (unseen.c).
 */
static int check_dispatch(struct checkpoint *c, pid_t tid, struct error *e)
{
	_cleanup_(free_ptr) struct kernel_task *t = NULL;
	struct ptrace_sud_config config;
	struct kernel_memory *k;
	struct error unused = {};
	int r;

	if (c->tells_dispatch == ANSWER_YES)
		return 0;
	r = trace_get_dispatch(tid, &config, &unused);
	c->tells_dispatch = r == 0 ? ANSWER_YES : NOT_ASKED;
	if (r <= 0)
		return 0;
	if (checkpoint_kernel_memory(c, &k, &unused) < 0)
		return 0; /* an ordinary user cannot know */
	t = malloc(sizeof(*t));
	if (!t)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a task");
	if (kernel_task_settings(k, tid, t, &unused) < 0 ||
	    !(t->dispatch_selector || t->dispatch_offset || t->dispatch_len))
		return 0;
	return error_set(
		e, -ENOTSUP, E_TASK_STATE,
		"has its system calls dispatched to itself (PR_SET_SYSCALL_USER_DISPATCH)");
}

static int traced(const struct checkpoint *c, pid_t tracer, struct error *e)
{
	_cleanup_(free_ptr) char *comm = NULL;

	if (procfs_read(c->proc_fd, &comm, NULL, "%d/comm", tracer) > 0)
		comm[strcspn(comm, "\n")] = '\0';
	return error_set(e, -EBUSY, E_TASK_TRACED, "is being traced by task %d (%s)", tracer,
			 comm ?: "?");
}

int task_check(struct checkpoint *c, struct checkpoint_process *p, pid_t tid, struct error *e)
{
	uint64_t mode = 0, tracer = 0;
	const char *status;
	int r = checkpoint_look(c, p, tid, &status, e);

	if (r < 0)
		return r;
	ignore(proc_field_u64(status, "Seccomp", 10, &mode), "absent without CONFIG_SECCOMP");
	ignore(proc_field_u64(status, "TracerPid", 10, &tracer), "always there");
	c->filtered |= mode != SECCOMP_MODE_DISABLED;
	if (tracer && (pid_t)tracer != c->self)
		return traced(c, (pid_t)tracer, e);
	vec_for_each (t, &p->frozen->threads)
		if (t->tid == tid && t->in_vfork)
			return vfork_check(c, p, tid, e);
	if (mode != SECCOMP_MODE_DISABLED && geteuid() != 0)
		return error_set(e, -EACCES, E_TASK_SECCOMP, "is confined by seccomp");
	return c->checking ? check_running(c, p, tid, status, e) : check_dispatch(c, tid, e);
}

void task_query(struct batch *b, struct task_query *q)
{
	altstack_query(b, &q->altstack);
	prctl_task_query(b, &q->prctl);
	processor_task_query(b, &q->processor);
	q->securebits =
		batch_call(b, SYS_prctl, VAL(PR_GET_SECUREBITS), VAL(0), VAL(0), VAL(0), VAL(0));
	q->timerslack =
		batch_call(b, SYS_prctl, VAL(PR_GET_TIMERSLACK), VAL(0), VAL(0), VAL(0), VAL(0));
	q->mempolicy = batch_data(b, NULL, sizeof(struct mempolicy));
	q->mempolicy_call =
		batch_call(b, SYS_get_mempolicy, DATA(q->mempolicy),
			   DATA(q->mempolicy + (uint32_t)offsetof(struct mempolicy, nodes)),
			   VAL(MEMPOLICY_NODES), VAL(0), VAL(0));
	q->personality = batch_call(b, SYS_personality, VAL(PERSONALITY_ASK));
	q->rings = uring_numbers_query(b);
}

static int collect_mempolicy(struct batch *b, const struct task_query *q, Reprise__Task *msg,
			     struct scratch *s)
{
	const struct mempolicy *mp = batch_at(b, q->mempolicy);

	/* ENOSYS without CONFIG_NUMA; mode 0 is the default policy */
	if (batch_result(b, q->mempolicy_call) < 0 || mp->mode == 0)
		return 0;
	msg->mempolicy.data = scratch_copy(s, mp, sizeof(*mp));
	msg->mempolicy.len = sizeof(*mp);
	return msg->mempolicy.data ? 0 : -ENOMEM;
}

static int read_personality(int proc_fd, pid_t pid, pid_t tid, uint32_t *ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t len = procfs_read(proc_fd, &text, e, "%d/task/%d/personality", pid, tid);

	if (len < 0)
		return (int)len;
	*ret = (uint32_t)strtoul(text, NULL, 16);
	return 0;
}

static int read_comm(int proc_fd, pid_t pid, pid_t tid, char **ret, struct scratch *s,
		     struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t len = procfs_read(proc_fd, &text, e, "%d/task/%d/comm", pid, tid);

	if (len < 0)
		return (int)len;
	if (len && text[len - 1] == '\n')
		text[len - 1] = '\0';
	*ret = scratch_string(s, text);
	return *ret ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a name");
}

/* The leader's has been read with its stat since it stopped; old kernels escape some there. */
static int save_comm(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		     Reprise__Task *msg, struct scratch *s, struct error *e)
{
	if (tid != p->frozen->pid || strchr(p->stat.comm, '\\'))
		return read_comm(c->proc_fd, p->frozen->pid, tid, &msg->comm, s, e);
	msg->comm = scratch_string(s, p->stat.comm);
	return msg->comm ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a name");
}

int task_outside(pid_t tid, const char *status, Reprise__Task *msg, struct scratch *s,
		 struct error *e)
{
	int r;

	msg->creds = scratch_message(s, Reprise__Credentials, reprise__credentials__init);
	msg->sched = scratch_message(s, Reprise__Scheduling, reprise__scheduling__init);
	if (!msg->creds || !msg->sched)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a task");
	r = cred_parse(status, msg->creds, s, e);
	if (r >= 0)
		r = sched_checkpoint(tid, msg->sched, s, e);
	return r;
}

static int save_user_pointers(const struct frozen_thread *t, Reprise__Task *msg, struct error *e)
{
	struct trace_rseq rseq = {};
	void *head = NULL;
	size_t len = 0;
	int r;

	if (arch_is_compat(&t->cpu->regs)) {
		r = arch_compat_robust_list(t->tid, &msg->robust_list, &msg->robust_list_len);
		if (r < 0)
			return error_errno(e, r, E_SYSTEM, "get_robust_list");
	} else {
		if (syscall(SYS_get_robust_list, t->tid, &head, &len) < 0)
			return error_errno(e, -errno, E_SYSTEM, "get_robust_list");
		msg->robust_list = (uint64_t)(uintptr_t)head;
		msg->robust_list_len = len;
	}
	if (t->in_vfork)
		return 0; /* vfork_task() has set the rest */
	r = trace_get_rseq(t->tid, &rseq, e);
	if (r < 0)
		return r;
	msg->rseq = rseq.address;
	msg->rseq_size = rseq.size;
	msg->rseq_signature = rseq.signature;
	msg->rseq_flags = rseq.flags;
	return 0;
}

static int save_namespaces(struct checkpoint *c, pid_t tid, Reprise__Task *msg, struct scratch *s,
			   struct error *e)
{
	const struct checkpoint_member *m = space_member(c, tid);

	if (!m)
		return 0;
	msg->next_time_namespace = m->next_time;
	msg->namespaces = scratch_alloc(s, sizeof(m->ids));
	if (!msg->namespaces)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a task");
	for (size_t k = 0; k < SPACE_KINDS; k++)
		if (m->ids[k])
			msg->namespaces[msg->n_namespaces++] = m->ids[k];
	return 0;
}

static int save_rest(struct checkpoint *c, struct checkpoint_process *p,
		     const struct frozen_thread *t, const char *status, Reprise__Task *msg,
		     struct scratch *s, struct error *e)
{
	pid_t tid = t->tid;
	uint64_t mode = 0;
	int r;

	ignore(proc_field_u64(status, "Seccomp", 10, &mode), "absent without CONFIG_SECCOMP");
	/* vfork_check() has seen to it that the filters are the same, and that no signal is pending
	 */
	r = seccomp_checkpoint(t->in_vfork ? p->speaker->tid : tid, (unsigned int)mode, msg, s, e);
	if (r >= 0 && !t->in_vfork)
		r = pending_checkpoint(tid, false, &msg->n_pending, &msg->pending, s, e);
	if (r >= 0)
		r = save_comm(c, p, tid, msg, s, e);
	if (r >= 0)
		r = save_user_pointers(t, msg, e);
	if (r >= 0)
		r = segments_checkpoint(t, msg, s, e);
	if (r >= 0)
		r = files_checkpoint(c, p, tid, &msg->files, e);
	if (r >= 0)
		r = fs_checkpoint(c, p, tid, &msg->fs, e);
	if (r >= 0)
		r = save_namespaces(c, tid, msg, s, e);
	if (r >= 0)
		r = levels_save_task(c, p, tid, msg, s, e);
	if (r >= 0)
		r = ipc_undo_identify(c, p, tid, &msg->sysvsem, e);
	if (r < 0 || p->files)
		return r;
	p->files = msg->files;
	p->fs = msg->fs;
	p->undo = msg->sysvsem;
	return 0;
}

int task_checkpoint(struct checkpoint *c, struct checkpoint_process *p, struct frozen_thread *t,
		    struct batch *b, const struct task_query *q, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Task msg = REPRISE__TASK__INIT;
	const char *status;
	int r = checkpoint_status(c, p, t->tid, &status, e);

	if (r < 0)
		return r;
	msg.tid = t->tid;
	msg.pid = p->frozen->pid;
	r = task_outside(t->tid, status, &msg, &s, e);
	msg.personality = (uint32_t)batch_result(b, q->personality);
	if (r >= 0 && (t->in_vfork || batch_result(b, q->personality) < 0))
		r = read_personality(c->proc_fd, p->frozen->pid, t->tid, &msg.personality, e);
	if (r < 0)
		return r;
	r = security_collect(b, &q->security, e);
	if (r >= 0)
		r = processor_task_collect(b, &q->processor, t->tid, &msg, e);
	if (r >= 0)
		r = altstack_collect(b, &q->altstack, &msg, e);
	if (r < 0)
		return r;
	prctl_task_collect(b, &q->prctl, &msg);
	if (batch_result(b, q->timerslack) > 0)
		msg.sched->timerslack_ns = (uint64_t)batch_result(b, q->timerslack);
	if (batch_result(b, q->securebits) >= 0)
		msg.creds->securebits = (uint32_t)batch_result(b, q->securebits);
	if (collect_mempolicy(b, q, &msg, &s) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a memory policy");
	if (t->in_vfork) /* its child has answered, which has no rings */
		vfork_task(t, &msg);
	else
		r = uring_numbers_collect(c, t->tid, b, q->rings, e);
	if (r < 0)
		return r;
	r = registers_checkpoint(c, p, t, &msg, &s, e);
	if (r >= 0)
		r = save_rest(c, p, t, status, &msg, &s, e);
	return r < 0 ? r : checkpoint_put(c, RECORD_TASK, objects_fresh(c->objects), &msg.base, e);
}

int task_checkpoint_exited(struct checkpoint *c, struct checkpoint_process *p, pid_t tid,
			   struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Task msg = REPRISE__TASK__INIT;
	int r;

	msg.tid = tid;
	msg.pid = p->frozen->pid;
	msg.is_zombie = true;
	r = read_comm(c->proc_fd, p->frozen->pid, tid, &msg.comm, &s, e);
	return r < 0 ? r : checkpoint_put(c, RECORD_TASK, objects_fresh(c->objects), &msg.base, e);
}

static int validate_pending(const Reprise__Task *m, struct error *e)
{
	for (size_t i = 0; i < m->n_pending; i++)
		if (m->pending[i]->raw.len != sizeof(siginfo_t))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a siginfo of %zu bytes",
					 m->pending[i]->raw.len);
	return 0;
}

int task_validate(const struct restart *r, const Reprise__Task *m, struct error *e)
{
	int res;

	if (m->is_zombie)
		return 0;
	res = registers_validate(m, e);
	if (res < 0)
		return res;
	if (m->mempolicy.len && m->mempolicy.len != sizeof(struct mempolicy))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a memory policy of %zu bytes",
				 m->mempolicy.len);
	if (!restart_find(r, RECORD_FILES, m->files) || !restart_find(r, RECORD_FS, m->fs))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a task without files");
	res = validate_pending(m, e);
	if (res >= 0)
		res = cred_validate(m->creds, e);
	if (res >= 0)
		res = sched_validate(m->sched, e);
	return res < 0 ? res : seccomp_validate(m, e);
}

static void set_rseq(struct batch *b, const Reprise__Task *m)
{
	if (m->rseq)
		batch_must(b, batch_call(b, SYS_rseq, VAL(m->rseq), VAL(m->rseq_size), VAL(0),
					 VAL(m->rseq_signature)));
}

/* A 32-bit task has one of its own beside the other, which nobody there sets. */
static void set_robust_list(struct batch *b, const struct restart_task *t)
{
	const Reprise__Task *m = t->msg;
	bool compat = t->process->mm->compat;
	int call = batch_call(b, compat ? I386_SET_ROBUST_LIST : SYS_set_robust_list,
			      VAL(m->robust_list), VAL(m->robust_list_len));

	if (compat)
		batch_compat(b, call);
	batch_must(b, call);
}

static void set_mempolicy(struct batch *b, const Reprise__Task *m)
{
	struct mempolicy mp;
	uint32_t at;

	if (!m->mempolicy.len)
		return;
	memcpy(&mp, m->mempolicy.data, sizeof(mp));
	at = batch_data(b, &mp, sizeof(mp));
	batch_must(b, batch_call(b, SYS_set_mempolicy, VAL(mp.mode),
				 DATA(at + (uint32_t)offsetof(struct mempolicy, nodes)),
				 VAL(MEMPOLICY_NODES)));
}

static int run(struct restart_task *t, struct batch *b, const char *what, struct error *e)
{
	int r = b->ncalls ? agent_run(t->process->agent, t->tid, NULL, b, e) : 0;
	int failed = r < 0 ? -1 : batch_failed(b);

	if (failed >= 0) {
		r = (int)batch_result(b, failed);
		return error_errno(e, r, r == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot restore %s (system call %ld)", what,
				   batch_number(b, failed));
	}
	return r;
}

static int restore_plain(struct restart_task *t, const Reprise__Task *now, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const Reprise__Task *m = t->msg;
	char comm[16] = "";

	strncpy(comm, m->comm ? m->comm : "", sizeof(comm) - 1);
	batch_must(&b,
		   batch_call(&b, SYS_prctl, VAL(PR_SET_NAME),
			      DATA(batch_data(&b, comm, sizeof(comm))), VAL(0), VAL(0), VAL(0)));
	altstack_restart(&b, m);
	prctl_task_restart(&b, m);
	processor_task_restart(&b, m);
	set_robust_list(&b, t);
	set_rseq(&b, m);
	batch_must(&b, batch_call(&b, SYS_prctl, VAL(PR_SET_TIMERSLACK),
				  VAL(m->sched->timerslack_ns), VAL(0), VAL(0), VAL(0)));
	set_mempolicy(&b, m);
	if (m->personality != now->personality)
		batch_must(&b, batch_call(&b, SYS_personality, VAL(m->personality)));
	return run(t, &b, "the state of a thread", e);
}

static int restore_identity(struct restart *r, struct restart_task *t, const Reprise__Task *now,
			    struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const Reprise__Task *m = t->msg;
	const Reprise__Process *p = t->process->msg;

	cred_restart(&b, m->creds, now->creds);
	/* The parent of the root would be who restarts it, and ends at once; with a pid namespace
	 * it is the init of that, unless the root is that itself. */
	if (m->pdeath_signal &&
	    (t->process->parent || !r->detached || (r->pidns && t->process->vpid != 1)))
		batch_must(&b, batch_call(&b, SYS_prctl, VAL(PR_SET_PDEATHSIG),
					  VAL(m->pdeath_signal), VAL(0), VAL(0), VAL(0)));
	/* 2 (dumpable by root only) cannot be asked for: it is what a change of credentials leaves
	 * where fs.suid_dumpable says so. */
	batch_must(&b, batch_call(&b, SYS_prctl, VAL(PR_SET_DUMPABLE), VAL(p->dumpable == 1),
				  VAL(0), VAL(0), VAL(0)));
	return run(t, &b, "credentials", e);
}

int task_restart(struct restart *r, struct restart_task *t, const Reprise__Task *now,
		 struct error *e)
{
	int res = restore_plain(t, now, e);

	if (res >= 0)
		res = sched_restart(t->tid, t->msg->sched, now->sched, e);
	if (res >= 0)
		res = pending_restart(r, t, false, t->msg->n_pending, t->msg->pending, e);
	/* Filters before credentials: without no_new_privs, installing them needs CAP_SYS_ADMIN. */
	if (res >= 0)
		res = seccomp_restart(t, now, e);
	return res < 0 ? res : restore_identity(r, t, now, e);
}
