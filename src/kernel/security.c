/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/security.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "kernel/cred.h"
#include "ns/first.h"

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
	pid_t pid, called; /* there */
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

/*
 * user: its user namespace, or -1. Whose ids it has may look into it, as may the task: so nothing
 * of ours may be left in it, memory, descriptors, keys or groups.
 */
static _Noreturn void be_probe(uint32_t uid, uint32_t gid, int user, int parent, int program)
{
	struct pollfd pfd = {.fd = parent, .events = POLLIN};

	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {};

	/* In there its ids may have no names: they are put on before. */
	if (user >= 0)
		prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS);
	/* System calls themselves: another thread may hold locks of the C library. */
	ignore(syscall(SYS_setgroups, 0, NULL), "those of an ordinary user are his own");
	ignore(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "a kernel without keys");
	if (syscall(SYS_setresgid, gid, gid, gid) < 0 ||
	    syscall(SYS_setresuid, uid, uid, uid) < 0 ||
	    (user >= 0 && syscall(SYS_setns, user, CLONE_NEWUSER) < 0) ||
	    syscall(SYS_capset, &head, none) < 0)
		_exit(1);
	/* User 0 would get all capabilities again from the program, see cap_bprm_creds_from_file().
	 */
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (chdir("/") < 0 || poll(&pfd, 1, 0) != 0)
		_exit(1);
	ignore(first_stand(program), "then there is none");
	_exit(1);
}

/* In a pid namespace below ours our next child is born there. */
static pid_t fork_in(const struct checkpoint *c, const struct probe *p, int self, int program)
{
	const struct checkpoint_space *s = space_by_id(c, p->space);
	const struct checkpoint_space *user = p->user ? space_by_id(c, p->user) : NULL;
	pid_t pid;

	if (s && setns(s->ns, CLONE_NEWPID) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		be_probe(p->uid, p->gid, user ? user->ns : -1, self, program);
	if (pid < 0)
		pid = -errno;
	if (s && setns(self, CLONE_NEWPID) < 0)
		return -errno;
	return pid;
}

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
	_cleanup_(close_fd) int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct error unused = {};
	_cleanup_(close_fd) int program = self < 0 ? -errno : first_open(&unused);
	int status;

	p->pid = program < 0 ? program : fork_in(c, p, self, program);
	if (p->pid < 0)
		return p->pid;
	/* It stops when it is what it should be. */
	if (waitpid(p->pid, &status, WUNTRACED) < 0 || !WIFSTOPPED(status))
		return -EPERM;
	p->called = last_pid(c, p->pid);
	return p->called ? 0 : -ESRCH;
}

void security_probes_free(struct security_probes *probes)
{
	if (!probes)
		return;
	vec_for_each (p, &probes->all) {
		kill(p->pid, SIGKILL);
		waitpid(p->pid, NULL, 0);
	}
	vec_free(&probes->all);
	free(probes);
}

static int find_probe(struct checkpoint *c, struct probe want, pid_t *ret)
{
	struct probe *new;
	int r;

	vec_for_each (p, &c->probes->all)
		if (p->uid == want.uid && p->gid == want.gid && p->space == want.space &&
		    p->user == want.user) {
			*ret = p->called;
			return 0;
		}
	r = make_probe(c, &want);
	if (r < 0)
		return r;
	new = vec_push(&c->probes->all);
	if (new)
		*new = want;
	*ret = want.called;
	return new ? 0 : -ENOMEM;
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

int security_query(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		   struct batch *b, struct security_query *q, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Credentials creds = REPRISE__CREDENTIALS__INIT;
	const char *status;
	struct probe want;
	pid_t probe = c->self;
	uint32_t data;
	int r = checkpoint_status(c, p, tid, &status, e);

	if (r >= 0)
		r = cred_parse(status, &creds, &s, e);
	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++)
		q->keyrings[i] = batch_call(
			b, SYS_keyctl, VAL(KEYCTL_GET_KEYRING_ID),
			VAL(i ? KEY_SPEC_PROCESS_KEYRING : KEY_SPEC_THREAD_KEYRING), VAL(0));
	q->probe = -1;
	if (!c->probes)
		c->probes = calloc(1, sizeof(*c->probes));
	if (!c->probes)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a process");
	want = (struct probe){.uid = creds.ruid,
			      .gid = creds.rgid,
			      .space = space_of_process(c, p->frozen->pid),
			      .user = space_of_user(c, p->frozen->pid)};
	if ((want.space || want.user || !like_us(&c->probes->own, &creds)) &&
	    find_probe(c, want, &probe) < 0)
		return 0;
	data = batch_data(b, NULL, 16);
	q->probe = batch_call(b, SYS_get_robust_list, VAL(probe), DATA(data), DATA(data + 8));
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
	/* -ESRCH: it does not see us, in another pid namespace */
	if (q->probe >= 0 && batch_result(b, q->probe) == -EPERM)
		return security_landlock(e);
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
