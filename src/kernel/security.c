/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/security.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/kernel_memory.h"
#include "core/procfs.h"
#include "kernel/cred.h"
#include "kernel/landlock.h"
#include "kernel/likeness.h"

/*
 * Nothing shows that a task has put itself under rules of Landlock. But it may then no longer look
 * into processes that are not under these rules (hook_ptrace_access_check() in
 * security/landlock/task.c). So each task asks for the robust list of a process into which it could
 * look otherwise, since that has its ids, no more capabilities than it, and is dumpable
 * (__ptrace_may_access()): ourselves, or a child of ours, the probe. A task in a pid namespace
 * below ours sees such a child only if it is there, too; and from a user namespace below ours it
 * may look into nobody who is not in that one.
 */

struct probe {
	uint32_t uid, gid;
	uint64_t space;	   /* id of its pid namespace; 0: ours */
	uint64_t user;	   /* the same of its user namespace */
	pid_t pid, called; /* there; pid 0: it is known only that it can be made */
};

/* Ourselves, as a task may look into us; nothing of it changes within a checkpoint. */
struct own {
	bool asked, dumpable; /* with the same ids, all of them */
	uid_t uid;
	gid_t gid;
	uint64_t permitted;
};

struct security_probes {
	VEC(struct probe) all;
	struct own own;
};

static pid_t last_pid(const struct checkpoint *c, pid_t pid)
{
	_cleanup_(free_ptr) char *status = NULL;
	const char *v = NULL;
	size_t len;

	if (procfs_read(c->proc_fd, &status, NULL, "%d/status", pid) >= 0)
		v = proc_field(status, "NSpid", &len);
	while (v && len && v[len - 1] != '\t')
		len--;
	return v ? (pid_t)atoi(v + len) : 0;
}

static int make_probe(const struct checkpoint *c, struct probe *p)
{
	const struct checkpoint_space *s = space_by_id(c, p->space);
	const struct checkpoint_space *user = p->user ? space_by_id(c, p->user) : NULL;
	const struct likeness like = {
		.uid = p->uid,
		.gid = p->gid,
		.space = s ? s->ns : -1,
		.user = user ? user->ns : -1,
	};

	p->pid = likeness_begin(&like);
	if (p->pid < 0)
		return p->pid;
	p->called = last_pid(c, p->pid);
	return p->called ? 0 : -ESRCH;
}

static void end_probe(struct probe *p)
{
	if (p->pid)
		likeness_end(p->pid);
	p->pid = 0;
}

void security_probes_free(struct security_probes *probes)
{
	if (!probes)
		return;
	vec_for_each (p, &probes->all)
		end_probe(p);
	vec_free(&probes->all);
	free(probes);
}

static int find_probe(struct checkpoint *c, struct probe want, struct probe **ret)
{
	struct probe *new;
	int r;

	vec_for_each (p, &c->probes->all)
		if (p->uid == want.uid && p->gid == want.gid && p->space == want.space &&
		    p->user == want.user) {
			*ret = p;
			return 0;
		}
	r = make_probe(c, &want);
	if (r < 0)
		return r;
	new = vec_push(&c->probes->all);
	if (!new) {
		end_probe(&want);
		return -ENOMEM;
	}
	*new = want;
	*ret = new;
	return 0;
}

static void ask_own(struct own *own)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2] = {};
	uid_t r, e, s;
	gid_t rg, eg, sg;

	own->asked = true;
	if (getresuid(&r, &e, &s) < 0 || getresgid(&rg, &eg, &sg) < 0 ||
	    prctl(PR_GET_DUMPABLE) != 1 || syscall(SYS_capget, &head, caps) < 0)
		return;
	own->uid = r;
	own->gid = rg;
	own->dumpable = e == r && s == r && eg == rg && sg == rg;
	own->permitted = caps[0].permitted | (uint64_t)caps[1].permitted << 32;
}

/* The task may look into ourselves unless something else hinders it. */
static bool like_us(struct own *own, const Reprise__Credentials *t)
{
	if (!own->asked)
		ask_own(own);
	return own->dumpable && own->uid == t->ruid && own->gid == t->rgid &&
	       !(own->permitted & ~t->caps->permitted);
}

/* Whom the task is to look at: *ret is NULL if that is ourselves. */
static int choose_probe(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
			struct probe **ret, int *ret_failed, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Credentials creds = REPRISE__CREDENTIALS__INIT;
	const char *status;
	struct probe want;
	int r = checkpoint_status(c, p, tid, &status, e);

	if (r >= 0)
		r = cred_parse(status, &creds, &s, e);
	if (r < 0)
		return r;
	if (!c->probes)
		c->probes = calloc(1, sizeof(*c->probes));
	if (!c->probes)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a process");
	want = (struct probe){.uid = creds.ruid,
			      .gid = creds.rgid,
			      .space = space_of_process(c, p->frozen->pid),
			      .user = space_of_user(c, p->frozen->pid)};
	*ret = NULL;
	*ret_failed = 0;
	if (want.space || want.user || !like_us(&c->probes->own, &creds))
		*ret_failed = find_probe(c, want, ret);
	return 0;
}

/* Where there is nobody to look at, the memory of the kernel tells, for who may read it. */
static int ask_kernel(struct checkpoint *c, pid_t tid, int failed, struct error *e)
{
	struct kernel_memory *k = NULL;
	struct error unused = {};
	uint64_t own, at, domain;
	int offset, r;

	if (!landlock_available())
		return 0;
	r = checkpoint_kernel_memory(c, &k, &unused);
	if (r >= 0)
		r = landlock_place(k, &offset, &own);
	if (r >= 0)
		r = kernel_task(k, tid, &at);
	if (r >= 0)
		r = kernel_member(k, at, "task_struct", "cred", &at, sizeof(at));
	if (r >= 0)
		r = kernel_member(k, at, "cred", "security", &at, sizeof(at));
	if (r >= 0)
		r = kernel_read(k, at + (uint64_t)offset, &domain, sizeof(domain));
	if (r < 0)
		return error_set(e, -EPERM, E_PERMISSION,
				 "whether rules of Landlock confine it cannot be asked: that takes "
				 "a process with its ids, which cannot be made (%s)",
				 strerrordesc_np(-failed));
	return domain && domain != own ? security_landlock(e) : 0;
}

int security_check(struct checkpoint *c, const struct checkpoint_process *p, struct error *e)
{
	struct probe *probe;
	int failed, r = choose_probe(c, p, p->tid, &probe, &failed, e);

	if (r < 0)
		return r;
	if (failed < 0)
		return ask_kernel(c, p->tid, failed, e);
	/* What it is needed for is asked when the task stands still. */
	if (probe)
		end_probe(probe);
	return 0;
}

int security_query(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		   struct batch *b, struct security_query *q, struct error *e)
{
	struct probe *probe;
	uint32_t data;
	int failed, r = choose_probe(c, p, tid, &probe, &failed, e);

	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++)
		q->keyrings[i] = batch_call(
			b, SYS_keyctl, VAL(KEYCTL_GET_KEYRING_ID),
			VAL(i ? KEY_SPEC_PROCESS_KEYRING : KEY_SPEC_THREAD_KEYRING), VAL(0));
	q->probe = -1;
	if (failed < 0)
		return ask_kernel(c, tid, failed, e);
	data = batch_data(b, NULL, 16);
	q->probe = batch_call(b, SYS_get_robust_list, VAL(probe ? probe->called : c->self),
			      DATA(data), DATA(data + 8));
	return 0;
}

int security_landlock(struct error *e)
{
	return error_set(e, -EPERM, E_TASK_SECURITY,
			 "is confined by rules of Landlock or another security module, which "
			 "cannot be read");
}

int security_keyring(bool of_process, struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_TASK_SECURITY, "has a %s keyring",
			 of_process ? "process" : "thread");
}

int security_collect(const struct batch *b, const struct security_query *q, struct error *e)
{
	int64_t r = q->probe < 0 ? 0 : batch_result(b, q->probe);

	if (r == -EPERM)
		return security_landlock(e);
	/* Whoever has the ids of a probe can end it; nobody may get rid of his rules by that. */
	if (r < 0)
		return error_errno(e, (int)r, E_PERMISSION,
				   "whether rules of Landlock confine it cannot be asked");
	for (int i = 0; i < 2; i++)
		if (batch_result(b, q->keyrings[i]) > 0)
			return security_keyring(i, e);
	return 0;
}

/* ---- labels ---- */

int security_label_own(const struct checkpoint *c, char **ret)
{
	struct error unused = {};

	return (int)procfs_read(c->proc_fd, ret, &unused, "%d/attr/current", c->self);
}

int security_compare_labels(const struct checkpoint *c, const char *own,
			    const struct checkpoint_process *p, struct error *e)
{
	if (!own)
		return 0;
	vec_for_each (t, &p->frozen->threads) {
		_cleanup_(free_ptr) char *label = NULL;
		ssize_t n;

		if (t->zombie)
			continue;
		n = procfs_read(c->proc_fd, &label, e, "%d/task/%d/attr/current", p->frozen->pid,
				t->tid);
		if (n < 0)
			return (int)n;
		if (strcmp(label, own) == 0)
			continue;
		label[strcspn(label, "\n")] = '\0';
		return error_set(e, -EPERM, E_TASK_SECURITY,
				 "is confined by a security module as '%s', and reprise is not",
				 label);
	}
	return 0;
}
