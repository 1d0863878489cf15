/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "kernel/rlimit.h"

static const struct {
	const char *name, *label; /* for messages; as /proc/PID/limits calls it */
} limits[RLIMIT_NLIMITS] = {
	[RLIMIT_CPU] = {"cpu", "Max cpu time"},
	[RLIMIT_FSIZE] = {"fsize", "Max file size"},
	[RLIMIT_DATA] = {"data", "Max data size"},
	[RLIMIT_STACK] = {"stack", "Max stack size"},
	[RLIMIT_CORE] = {"core", "Max core file size"},
	[RLIMIT_RSS] = {"rss", "Max resident set"},
	[RLIMIT_NPROC] = {"nproc", "Max processes"},
	[RLIMIT_NOFILE] = {"nofile", "Max open files"},
	[RLIMIT_MEMLOCK] = {"memlock", "Max locked memory"},
	[RLIMIT_AS] = {"as", "Max address space"},
	[RLIMIT_LOCKS] = {"locks", "Max file locks"},
	[RLIMIT_SIGPENDING] = {"sigpending", "Max pending signals"},
	[RLIMIT_MSGQUEUE] = {"msgqueue", "Max msgqueue size"},
	[RLIMIT_NICE] = {"nice", "Max nice priority"},
	[RLIMIT_RTPRIO] = {"rtprio", "Max realtime priority"},
	[RLIMIT_RTTIME] = {"rttime", "Max realtime timeout"},
};

static const char *parse_value(const char *at, uint64_t *ret)
{
	char *end;

	at += strspn(at, " ");
	if (strncmp(at, "unlimited", 9) == 0) {
		*ret = RLIM64_INFINITY;
		return at + 9;
	}
	*ret = strtoull(at, &end, 10);
	return end == at ? NULL : end;
}

int rlimits_parse(const char *text, Reprise__Process *msg, struct scratch *s, struct error *e)
{
	msg->rlimits = scratch_alloc(s, RLIMIT_NLIMITS * sizeof(*msg->rlimits));
	if (!msg->rlimits)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for limits");
	for (unsigned int i = 0; i < RLIMIT_NLIMITS; i++) {
		Reprise__Rlimit *m = scratch_message(s, Reprise__Rlimit, reprise__rlimit__init);
		const char *at = strstr(text, limits[i].label);

		if (!m)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for limits");
		at = at ? parse_value(at + strlen(limits[i].label), &m->soft) : NULL;
		at = at ? parse_value(at, &m->hard) : NULL;
		if (!at)
			return error_set(e, -EINVAL, E_INTERNAL, "the limit %s is not understood",
					 limits[i].name);
		m->resource = i;
		msg->rlimits[msg->n_rlimits++] = m;
	}
	return 0;
}

/* prlimit(2) of another user's process needs CAP_SYS_RESOURCE even to read; the file does not. */
int rlimits_checkpoint(struct checkpoint *c, const struct checkpoint_process *p,
		       Reprise__Process *msg, struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t len = checkpoint_text(c, p, LOOK_LIMITS, &text, e);

	return len < 0 ? (int)len : rlimits_parse(text, msg, s, e);
}

int rlimits_validate(const Reprise__Process *msg, struct error *e)
{
	for (size_t i = 0; i < msg->n_rlimits; i++)
		if (msg->rlimits[i]->resource >= RLIMIT_NLIMITS ||
		    msg->rlimits[i]->soft > msg->rlimits[i]->hard)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "limit %u is impossible",
					 msg->rlimits[i]->resource);
	return 0;
}

int rlimits_restart(const struct restart_process *p, struct error *e)
{
	for (size_t i = 0; i < p->msg->n_rlimits; i++) {
		const Reprise__Rlimit *m = p->msg->rlimits[i];
		const struct rlimit64 want = {m->soft, m->hard};
		struct rlimit64 now;

		if (prlimit64(p->pid, m->resource, NULL, &now) < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot read the limit %s",
					   limits[m->resource].name);
		if (now.rlim_cur == want.rlim_cur && now.rlim_max == want.rlim_max)
			continue;
		if (prlimit64(p->pid, m->resource, &want, NULL) < 0)
			return error_errno(e, -errno, errno == EPERM ? E_CREDENTIALS : E_RESTORE,
					   "cannot set the limit %s to %llu (hard %llu)",
					   limits[m->resource].name, (unsigned long long)m->soft,
					   (unsigned long long)m->hard);
	}
	return 0;
}

/* prlimit(2), which may not be ours to call, only if there is something to raise. */
int rlimits_raise(const struct restart *r, const struct restart_process *p, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	_cleanup_(free_ptr) char *text = NULL;
	Reprise__Process has = REPRISE__PROCESS__INIT;
	ssize_t len = procfs_read(r->proc_fd, &text, e, "%d/limits", p->pid);
	int res = len < 0 ? (int)len : rlimits_parse(text, &has, &s, e);

	for (size_t i = 0; i < p->msg->n_rlimits && res >= 0; i++) {
		const Reprise__Rlimit *m = p->msg->rlimits[i], *now = has.rlimits[m->resource];
		const struct rlimit64 want = {now->soft, m->hard};

		if (now->hard < m->hard && prlimit64(p->pid, m->resource, &want, NULL) < 0)
			res = error_errno(e, -errno, errno == EPERM ? E_CREDENTIALS : E_RESTORE,
					  "cannot raise the limit %s to %llu",
					  limits[m->resource].name, (unsigned long long)m->hard);
	}
	return res;
}

int rlimits_restart_inside(const struct restart_process *p, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	int failed, r;

	for (size_t i = 0; i < p->msg->n_rlimits; i++) {
		const struct rlimit64 want = {p->msg->rlimits[i]->soft, p->msg->rlimits[i]->hard};

		batch_must(&b,
			   batch_call(&b, SYS_prlimit64, VAL(0), VAL(p->msg->rlimits[i]->resource),
				      DATA(batch_data(&b, &want, sizeof(want))), VAL(0)));
	}
	r = agent_run(p->agent, p->tasks.v[0].tid, NULL, &b, e);
	failed = r < 0 ? -1 : batch_failed(&b);
	if (failed < 0)
		return r;
	r = (int)batch_result(&b, failed);
	return error_errno(e, r, r == -EPERM ? E_CREDENTIALS : E_RESTORE, "cannot set the limit %s",
			   limits[p->msg->rlimits[failed]->resource].name);
}
