/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/user_ids.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "kernel/cred.h"

#define UNNAMED UINT32_MAX

static uint32_t name_of(size_t n, Reprise__IdMap *const *map, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (id >= map[i]->outside && id - map[i]->outside < map[i]->count)
			return map[i]->inside + (id - map[i]->outside);
	return UNNAMED;
}

static uint32_t uid_of(const Reprise__Container *user, uint32_t uid)
{
	return name_of(user->n_uid_map, user->uid_map, uid);
}

static uint32_t gid_of(const Reprise__Container *user, uint32_t gid)
{
	return name_of(user->n_gid_map, user->gid_map, gid);
}

/* Ids that are as they are need no name: -1 leaves them alone. False: another one has none. */
static bool translate_uids(const Reprise__Container *user, const Reprise__Credentials *want,
			   const Reprise__Credentials *now, Reprise__Credentials *to)
{
	to->ruid = to->euid = to->suid = to->fsuid = UNNAMED;
	if (want->ruid == now->ruid && want->euid == now->euid && want->suid == now->suid &&
	    want->fsuid == now->fsuid)
		return true;
	to->ruid = uid_of(user, want->ruid), to->euid = uid_of(user, want->euid);
	to->suid = uid_of(user, want->suid), to->fsuid = uid_of(user, want->fsuid);
	return to->ruid != UNNAMED && to->euid != UNNAMED && to->suid != UNNAMED &&
	       to->fsuid != UNNAMED;
}

static bool translate_gids(const Reprise__Container *user, const Reprise__Credentials *want,
			   const Reprise__Credentials *now, Reprise__Credentials *to)
{
	to->rgid = to->egid = to->sgid = to->fsgid = UNNAMED;
	if (want->rgid == now->rgid && want->egid == now->egid && want->sgid == now->sgid &&
	    want->fsgid == now->fsgid)
		return true;
	to->rgid = gid_of(user, want->rgid), to->egid = gid_of(user, want->egid);
	to->sgid = gid_of(user, want->sgid), to->fsgid = gid_of(user, want->fsgid);
	return to->rgid != UNNAMED && to->egid != UNNAMED && to->sgid != UNNAMED &&
	       to->fsgid != UNNAMED;
}

/* Groups are left as they are. */
static bool translate(const Reprise__Container *user, const Reprise__Credentials *want,
		      const Reprise__Credentials *now, Reprise__Credentials *to)
{
	bool all;

	*to = *want;
	all = translate_uids(user, want, now, to);
	return translate_gids(user, want, now, to) && all;
}

bool user_ids_reachable(const Reprise__Container *user, const Reprise__Credentials *want,
			const Reprise__Credentials *now)
{
	Reprise__Credentials unused;

	if (cred_same_ids(want, now))
		return true;
	if (!translate(user, want, now, &unused))
		return false;
	if (cred_same_groups(want, now))
		return true;
	for (size_t i = 0; i < want->n_groups; i++)
		if (gid_of(user, want->groups[i]) == UNNAMED)
			return false;
	return !user->setgroups_denied;
}

static int translate_groups(const Reprise__Container *user, Reprise__Credentials *creds,
			    struct scratch *s, struct error *e)
{
	uint32_t *names = scratch_alloc(s, (creds->n_groups + 1) * sizeof(*names));

	if (!names)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for credentials");
	for (size_t i = 0; i < creds->n_groups; i++)
		names[i] = gid_of(user, creds->groups[i]);
	creds->groups = names;
	return 0;
}

/* As it is called there; what is to be left as it is, is said to be had. */
static int translate_all(const Reprise__Container *user, Reprise__Credentials *want,
			 Reprise__Credentials *now, struct scratch *s, struct error *e)
{
	const Reprise__Credentials from = *want;
	const bool groups = !cred_same_groups(want, now);

	translate(user, &from, now, want);
	now->ruid = now->euid = now->suid = now->fsuid = UNNAMED;
	now->rgid = now->egid = now->sgid = now->fsgid = UNNAMED;
	if (!groups)
		return 0;
	now->n_groups = want->n_groups + 1;
	return translate_groups(user, want, s, e);
}

/* What the change of ids needs is taken back at once, and with it the way out of our reach. */
int user_ids_restart(struct restart *r, struct restart_task *t, const Reprise__Credentials *now,
		     struct error *e)
{
	const Reprise__Container *user = restart_find(r, RECORD_NAMESPACE, t->process->user_space);
	_cleanup_(batch_free) struct batch b = {};
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Credentials want = *t->msg->creds, have = *now;
	int failed, res;

	if (cred_same_ids(&want, now))
		return 0;
	if (!user || !user_ids_reachable(user, &want, now))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "task %d has ids without a name in its user namespace", t->vtid);
	res = translate_all(user, &want, &have, &s, e);
	if (res < 0)
		return res;
	cred_restart_ids(&b, &want, &have);
	batch_must(&b, batch_call(&b, SYS_prctl, VAL(PR_SET_SECUREBITS), VAL(0), VAL(0), VAL(0),
				  VAL(0)));
	batch_call(&b, SYS_prctl, VAL(PR_SET_DUMPABLE), VAL(1), VAL(0), VAL(0), VAL(0));
	res = agent_run(t->process->agent, t->tid, NULL, &b, e);
	failed = res < 0 ? -1 : batch_failed(&b);
	return failed < 0 ? res
			  : error_errno(e, (int)batch_result(&b, failed), E_CREDENTIALS,
					"task %d cannot take on its ids in its user namespace "
					"(system call %ld)",
					t->vtid, batch_number(&b, failed));
}
