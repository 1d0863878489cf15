/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/procfs.h"
#include "kernel/cred.h"

static int parse_ids(const char *status, const char *name, uint32_t ids[4])
{
	size_t len;
	const char *v = proc_field(status, name, &len);

	if (!v || sscanf(v, "%u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
		return -EINVAL;
	return 0;
}

static int parse_groups(const char *status, Reprise__Credentials *c, struct scratch *s)
{
	size_t len, room;
	const char *v = proc_field(status, "Groups", &len), *end;

	if (!v)
		return -EINVAL;
	end = v + len;
	room = len / 2 + 1;
	c->groups = scratch_alloc(s, room * sizeof(*c->groups));
	if (!c->groups)
		return -ENOMEM;
	while (v < end) {
		char *next;
		unsigned long g = strtoul(v, &next, 10);

		if (next == v || next > end)
			break;
		if (c->n_groups < room)
			c->groups[c->n_groups++] = (uint32_t)g;
		v = next;
	}
	return 0;
}

static int parse_caps(const char *status, Reprise__Capabilities *caps)
{
	uint64_t *const where[] = {&caps->effective, &caps->permitted, &caps->inheritable,
				   &caps->bounding, &caps->ambient};
	static const char *const names[] = {"CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"};

	for (size_t i = 0; i < 5; i++)
		if (proc_field_u64(status, names[i], 16, where[i]) < 0)
			return -EINVAL;
	return 0;
}

int cred_parse(const char *status, Reprise__Credentials *c, struct scratch *s, struct error *e)
{
	uint32_t uids[4], gids[4];
	uint64_t nnp = 0;

	c->caps = scratch_message(s, Reprise__Capabilities, reprise__capabilities__init);
	if (!c->caps)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for credentials");
	if (parse_ids(status, "Uid", uids) < 0 || parse_ids(status, "Gid", gids) < 0 ||
	    parse_groups(status, c, s) < 0 || parse_caps(status, c->caps) < 0 ||
	    proc_field_u64(status, "NoNewPrivs", 10, &nnp) < 0)
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/PID/status is not understood");
	c->ruid = uids[0], c->euid = uids[1], c->suid = uids[2], c->fsuid = uids[3];
	c->rgid = gids[0], c->egid = gids[1], c->sgid = gids[2], c->fsgid = gids[3];
	c->no_new_privs = nnp != 0;
	return 0;
}

/* -1 is no id: setresuid() and its like take it for "as it is". */
static bool are_ids(const Reprise__Credentials *c)
{
	const uint32_t ids[] = {c->ruid, c->euid, c->suid, c->fsuid,
				c->rgid, c->egid, c->sgid, c->fsgid};

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		if (ids[i] == UINT32_MAX)
			return false;
	return true;
}

int cred_validate(const Reprise__Credentials *c, struct error *e)
{
	if (!c || !c->caps)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a task without credentials");
	if (!are_ids(c))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an id of a user or group is -1");
	if (c->n_groups > 65536)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%zu supplementary groups",
				 c->n_groups);
	return 0;
}

static bool same_ids(const Reprise__Credentials *a, const Reprise__Credentials *b)
{
	return a->ruid == b->ruid && a->euid == b->euid && a->suid == b->suid &&
	       a->fsuid == b->fsuid && a->rgid == b->rgid && a->egid == b->egid &&
	       a->sgid == b->sgid && a->fsgid == b->fsgid;
}

bool cred_same_groups(const Reprise__Credentials *a, const Reprise__Credentials *b)
{
	return a->n_groups == b->n_groups &&
	       (a->n_groups == 0 ||
		memcmp(a->groups, b->groups, a->n_groups * sizeof(uint32_t)) == 0);
}

bool cred_same_ids(const Reprise__Credentials *a, const Reprise__Credentials *b)
{
	return same_ids(a, b) && cred_same_groups(a, b);
}

static void set_caps(struct batch *b, uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	const struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct data[2] = {
		{(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
		{(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32),
		 (uint32_t)(inheritable >> 32)},
	};

	batch_must(b, batch_call(b, SYS_capset, DATA(batch_data(b, &header, sizeof(header))),
				 DATA(batch_data(b, data, sizeof(data)))));
}

static void set_ids(struct batch *b, const Reprise__Credentials *want)
{
	batch_must(b,
		   batch_call(b, SYS_setresgid, VAL(want->rgid), VAL(want->egid), VAL(want->sgid)));
	batch_must(b,
		   batch_call(b, SYS_setresuid, VAL(want->ruid), VAL(want->euid), VAL(want->suid)));
	/* setfsuid(2) never reports failure: it returns the previous id */
	if (want->fsgid != want->egid)
		batch_call(b, SYS_setfsgid, VAL(want->fsgid));
	if (want->fsuid != want->euid)
		batch_call(b, SYS_setfsuid, VAL(want->fsuid));
}

static void drop_bounding(struct batch *b, uint64_t want, uint64_t now)
{
	for (unsigned int cap = 0; cap < 64; cap++)
		if ((now & ~want) & (1ull << cap))
			batch_must(b, batch_call(b, SYS_prctl, VAL(PR_CAPBSET_DROP), VAL(cap),
						 VAL(0), VAL(0), VAL(0)));
}

static void set_securebits(struct batch *b, uint32_t bits)
{
	batch_must(b, batch_call(b, SYS_prctl, VAL(PR_SET_SECUREBITS), VAL(bits), VAL(0), VAL(0),
				 VAL(0)));
}

static void raise_ambient(struct batch *b, uint64_t ambient)
{
	for (unsigned int cap = 0; cap < 64; cap++)
		if (ambient & (1ull << cap))
			batch_must(b,
				   batch_call(b, SYS_prctl, VAL(PR_CAP_AMBIENT),
					      VAL(PR_CAP_AMBIENT_RAISE), VAL(cap), VAL(0), VAL(0)));
}

void cred_restart_ids(struct batch *b, const Reprise__Credentials *want,
		      const Reprise__Credentials *now)
{
	bool ids = !same_ids(want, now);

	if (!cred_same_groups(want, now))
		batch_must(b, batch_call(b, SYS_setgroups, VAL(want->n_groups),
					 DATA(batch_data(
						 b, want->groups,
						 (uint32_t)(want->n_groups * sizeof(uint32_t))))));
	if (ids && (now->caps->effective & (1ull << CAP_SETPCAP)))
		set_securebits(b, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS);
	if (ids)
		set_ids(b, want);
}

/*
 * All capabilities are kept over the change of ids (SECBIT_NO_SETUID_FIXUP), so
 * that the final sets, which may be any, are reached by dropping alone. Without CAP_SETPCAP there
 * is nothing to drop but what the change of ids takes away.
 */
void cred_restart(struct batch *b, const Reprise__Credentials *want,
		  const Reprise__Credentials *now)
{
	const Reprise__Capabilities *caps = want->caps;
	bool keep = !same_ids(want, now) && (now->caps->effective & (1ull << CAP_SETPCAP));

	cred_restart_ids(b, want, now);
	drop_bounding(b, caps->bounding, now->caps->bounding);
	if (caps->ambient) {
		set_caps(b, now->caps->permitted, now->caps->permitted, caps->inheritable);
		raise_ambient(b, caps->ambient);
	}
	if (keep || want->securebits != now->securebits)
		set_securebits(b, want->securebits);
	if (caps->effective != now->caps->effective || caps->permitted != now->caps->permitted ||
	    caps->inheritable != now->caps->inheritable)
		set_caps(b, caps->effective, caps->permitted, caps->inheritable);
	if (want->no_new_privs && !now->no_new_privs)
		batch_must(b, batch_call(b, SYS_prctl, VAL(PR_SET_NO_NEW_PRIVS), VAL(1), VAL(0),
					 VAL(0), VAL(0)));
}
