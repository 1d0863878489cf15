/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials that are registered with an io_uring (IORING_REGISTER_PERSONALITY), for requests that
 * are carried out with them. They are those of whoever registers. At the restart that is a thread
 * of ours, which takes them on, by dropping what it has, and ends: it has nothing that we have not.
 *
 * They are called by numbers, which are given in turn (xa_alloc_cyclic()): what was registered once
 * and is no more is registered again for a moment.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/uring.h"
#include "kernel/cred.h"

#define GROUPS_MAX  65536
#define LABELS_MAX  256 /* of all security modules, in bytes */
#define MODULES_MAX 32
#define FIRST_ID    1
#define LAST_ID	    UINT16_MAX
#define MEMBER(m, to)                \
	{                            \
		m, &(to), sizeof(to) \
	}

/* ---- checkpoint ---- */

static int add(struct kernel_memory *k, uint64_t id, uint64_t cred, struct uring_seen *s)
{
	struct uring_personality *p =
		id >= FIRST_ID && id <= LAST_ID ? vec_push(&s->personalities) : NULL;

	if (!p)
		return id > LAST_ID ? -EOPNOTSUPP : -ENOMEM;
	*p = (struct uring_personality){(uint32_t)id, cred};
	return 0;
}

int uring_personality_look(struct kernel_memory *k, uint64_t ctx, struct uring_seen *s)
{
	uint64_t head = 0;
	int r = kernel_member(k, ctx, "io_ring_ctx", "personalities.xa_head", &head, sizeof(head));

	if (r >= 0)
		r = kernel_member(k, ctx, "io_ring_ctx", "pers_next", &s->personality_next,
				  sizeof(s->personality_next));
	return r < 0 ? r : uring_array(k, head, add, s);
}

uint32_t uring_personality_of(const struct uring_seen *s, uint64_t cred)
{
	vec_for_each (p, &s->personalities)
		if (p->cred == cred)
			return p->id;
	return 0;
}

/*
 * What all security modules together keep of credentials, in bytes. Each has a part of one
 * allocation, of the size of its own structure (struct lsm_blob_sizes). 0: nothing.
 */
static int size_of_labels(struct kernel_memory *k)
{
	static const struct {
		uint64_t module;
		const char *type, *older;
	} known[] = {{KERNEL_LSM_ID_LANDLOCK, "landlock_cred_security", NULL},
		     {KERNEL_LSM_ID_SELINUX, "cred_security_struct", "task_security_struct"},
		     {KERNEL_LSM_ID_SMACK, "task_smack", NULL},
		     {KERNEL_LSM_ID_APPARMOR, NULL, NULL}}; /* a pointer */
	uint64_t modules[MODULES_MAX];
	uint32_t bytes = sizeof(modules);
	long n = syscall(KERNEL_SYS_LSM_LIST_MODULES, modules, &bytes, 0);
	int sum = 0;

	if (n < 0)
		return errno == ENOSYS || errno == E2BIG ? -EOPNOTSUPP : -errno;
	for (long i = 0; i < n; i++) {
		if (modules[i] > KERNEL_LSM_ID_IPE)
			return -EOPNOTSUPP;
		for (size_t j = 0; j < sizeof(known) / sizeof(known[0]); j++) {
			int size = (int)sizeof(uint64_t);

			if (modules[i] != known[j].module)
				continue;
			if (known[j].type)
				size = kernel_size(k, known[j].type);
			if (size < 0 && known[j].older)
				size = kernel_size(k, known[j].older);
			if (size < 0)
				return size;
			sum += (size + 7) & ~7;
		}
	}
	return sum <= LABELS_MAX ? sum : -EOPNOTSUPP;
}

/* Rules of Landlock and labels are those of ours, as those of the tasks are. */
static int has_our_labels(struct kernel_memory *k, uint64_t cred, uint64_t own)
{
	uint8_t is[LABELS_MAX], ours[LABELS_MAX];
	uint64_t at[2] = {};
	int size = size_of_labels(k), r = size;

	if (size <= 0)
		return size < 0 ? size : 1;
	r = kernel_member(k, cred, "cred", "security", &at[0], sizeof(at[0]));
	if (r >= 0)
		r = kernel_member(k, own, "cred", "security", &at[1], sizeof(at[1]));
	if (r >= 0)
		r = kernel_read(k, at[0], is, (size_t)size);
	if (r >= 0)
		r = kernel_read(k, at[1], ours, (size_t)size);
	return r < 0 ? r : !memcmp(is, ours, (size_t)size);
}

/* What cannot be had again; NULL: nothing. */
static int find_obstacle(struct kernel_memory *k, uint64_t cred, const char **ret)
{
	uint64_t own = 0, task = 0, keyrings[2] = {}, ns[2] = {};
	int32_t level = 0;
	int r = kernel_task(k, (pid_t)syscall(SYS_gettid), &task);

	*ret = NULL;
	if (r >= 0)
		r = kernel_member(k, task, "task_struct", "cred", &own, 8);
	if (r >= 0)
		r = kernel_member(k, own, "cred", "user_ns", &ns[0], 8);
	if (r >= 0)
		r = kernel_member(k, cred, "cred", "user_ns", &ns[1], 8);
	if (r >= 0)
		r = kernel_member(k, ns[1], "user_namespace", "level", &level, sizeof(level));
	if (r >= 0)
		r = kernel_member(k, cred, "cred", "thread_keyring", &keyrings[0], 8);
	if (r >= 0)
		r = kernel_member(k, cred, "cred", "process_keyring", &keyrings[1], 8);
	if (r < 0)
		return r;
	if (ns[0] != ns[1] || level)
		*ret = "is of a user namespace other than the first one";
	else if (keyrings[0] || keyrings[1])
		*ret = "has a thread or process keyring";
	if (*ret)
		return 0;
	r = has_our_labels(k, cred, own);
	if (r == -EOPNOTSUPP || r == -ENOENT)
		*ret = "belongs to a system with a security module that is not known";
	else if (!r)
		*ret = "is confined by rules of Landlock, or by a security module, in another way "
		       "than reprise";
	return r == -EOPNOTSUPP || r == -ENOENT || r >= 0 ? 0 : r;
}

static int read_groups(struct kernel_memory *k, uint64_t cred, Reprise__Credentials *to,
		       struct scratch *s)
{
	int at = kernel_offset(k, "group_info", "gid");
	uint64_t info = 0;
	int32_t n = 0;
	int r = kernel_member(k, cred, "cred", "group_info", &info, sizeof(info));

	if (r >= 0)
		r = kernel_member(k, info, "group_info", "ngroups", &n, sizeof(n));
	if (r < 0 || at < 0 || n < 0 || n > GROUPS_MAX)
		return r < 0 ? r : at < 0 ? at : -EOPNOTSUPP;
	to->groups = scratch_alloc(s, ((size_t)n + 1) * sizeof(*to->groups));
	to->n_groups = (size_t)n;
	if (!to->groups)
		return -ENOMEM;
	return n ? kernel_read(k, info + (uint32_t)at, to->groups, (size_t)n * sizeof(*to->groups))
		 : 0;
}

/* Of the first user namespace, where ids are what the kernel calls them. */
static int read_credentials(struct kernel_memory *k, uint64_t cred, Reprise__Credentials *to,
			    struct scratch *s)
{
	Reprise__Capabilities *caps = to->caps;
	const struct {
		const char *name;
		void *to;
		size_t size;
	} members[] = {MEMBER("uid", to->ruid),
		       MEMBER("euid", to->euid),
		       MEMBER("suid", to->suid),
		       MEMBER("fsuid", to->fsuid),
		       MEMBER("gid", to->rgid),
		       MEMBER("egid", to->egid),
		       MEMBER("sgid", to->sgid),
		       MEMBER("fsgid", to->fsgid),
		       MEMBER("securebits", to->securebits),
		       MEMBER("cap_effective", caps->effective),
		       MEMBER("cap_permitted", caps->permitted),
		       MEMBER("cap_inheritable", caps->inheritable),
		       MEMBER("cap_bset", caps->bounding),
		       MEMBER("cap_ambient", caps->ambient)};
	int r = 0;

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]) && r >= 0; i++)
		r = kernel_member(k, cred, "cred", members[i].name, members[i].to, members[i].size);
	return r < 0 ? r : read_groups(k, cred, to, s);
}

static int save(struct kernel_memory *k, const struct uring_personality *p,
		Reprise__IoUringPersonality *to, struct scratch *s, struct error *e)
{
	const char *obstacle = NULL;
	int r = find_obstacle(k, p->cred, &obstacle);

	if (r >= 0 && obstacle)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE, "its personality %u %s", p->id,
				 obstacle);
	to->id = p->id;
	to->creds = scratch_message(s, Reprise__Credentials, reprise__credentials__init);
	if (to->creds)
		to->creds->caps =
			scratch_message(s, Reprise__Capabilities, reprise__capabilities__init);
	if (r >= 0)
		r = to->creds && to->creds->caps ? read_credentials(k, p->cred, to->creds, s)
						 : -ENOMEM;
	if (r == -ENOMEM)
		return error_set(e, r, E_NO_MEMORY, "no memory for an io_uring");
	return r >= 0 ? 0
		      : error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				  "this kernel keeps credentials in a way that is not known");
}

int uring_personality_save(struct kernel_memory *k, const struct uring_seen *s, Reprise__IoUring *m,
			   struct scratch *scratch, struct error *e)
{
	m->personality_next = s->personality_next;
	m->personalities =
		scratch_alloc(scratch, (s->personalities.n + 1) * sizeof(*m->personalities));
	if (!m->personalities)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
	vec_for_each (p, &s->personalities) {
		Reprise__IoUringPersonality *to = scratch_message(
			scratch, Reprise__IoUringPersonality, reprise__io_uring_personality__init);
		int r = to ? save(k, p, to, scratch, e)
			   : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");

		if (r < 0)
			return r;
		m->personalities[m->n_personalities++] = to;
	}
	return 0;
}

/* ---- restart ---- */

static bool is_registered(const Reprise__IoUring *m, uint32_t id)
{
	for (size_t i = 0; i < m->n_personalities; i++)
		if (m->personalities[i]->id == id)
			return true;
	return false;
}

bool uring_personality_fits(const Reprise__IoUring *m)
{
	uint32_t last = 0;
	struct error unused = {};

	for (size_t i = 0; i < m->n_personalities; last = m->personalities[i++]->id)
		if (m->personalities[i]->id <= last || m->personalities[i]->id > LAST_ID ||
		    cred_validate(m->personalities[i]->creds, &unused) < 0)
			return false;
	for (size_t i = 0; i < m->n_requests; i++) {
		struct io_uring_sqe sqe;

		memcpy(&sqe, m->requests[i]->sqe.data, sizeof(sqe));
		if (sqe.personality && !is_registered(m, sqe.personality))
			return false;
	}
	return m->personality_next <= LAST_ID + 1u &&
	       (m->personality_next > FIRST_ID || !m->n_personalities);
}

bool uring_personality_first(const Reprise__IoUring *m)
{
	return m->personality_next && (m->flags & IORING_SETUP_SINGLE_ISSUER) &&
	       !(m->flags & IORING_SETUP_R_DISABLED);
}

/* A thread that registers what it is. */
struct registering {
	int proc_fd, ring;
	const Reprise__Credentials *as;
	int result; /* the number */
	struct error *error;
};

static int add_to(int ring)
{
	long id = syscall(SYS_io_uring_register, ring, IORING_REGISTER_PERSONALITY, NULL, 0);

	return id < 0 ? -errno : (int)id;
}

static bool same(const Reprise__Credentials *a, const Reprise__Credentials *b)
{
	return cred_same_ids(a, b) && a->securebits == b->securebits &&
	       a->caps->effective == b->caps->effective &&
	       a->caps->permitted == b->caps->permitted &&
	       a->caps->inheritable == b->caps->inheritable &&
	       a->caps->bounding == b->caps->bounding && a->caps->ambient == b->caps->ambient;
}

static int look_at_own(int proc_fd, Reprise__Credentials *ret, struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	int bits = prctl(PR_GET_SECUREBITS),
	    r = (int)procfs_read(proc_fd, &status, e, "thread-self/status");

	if (r < 0)
		return r;
	*ret = (Reprise__Credentials)REPRISE__CREDENTIALS__INIT;
	r = cred_parse(status, ret, s, e);
	ret->securebits = (uint32_t)bits;
	return bits < 0 ? error_errno(e, -errno, E_SYSTEM, "prctl") : r;
}

static int take_on(struct registering *x, struct scratch *s)
{
	_cleanup_(batch_free) struct batch b = {};
	Reprise__Credentials now, wanted = *x->as;
	int r = look_at_own(x->proc_fd, &now, s, x->error);

	if (r < 0)
		return r;
	wanted.no_new_privs = now.no_new_privs; /* is not among credentials */
	cred_restart(&b, &wanted, &now);
	r = batch_run_here(&b, x->error);
	if (r >= 0)
		r = look_at_own(x->proc_fd, &now, s, x->error);
	if (r < 0 || same(&now, x->as))
		return r;
	return error_set(x->error, -EPERM, E_CREDENTIALS,
			 "credentials of user %u, group %u that are registered with an io_uring "
			 "are not for whoever restarts it to take on",
			 x->as->euid, x->as->egid);
}

static void *run(void *arg)
{
	_cleanup_(scratch_free) struct scratch s = {};
	struct registering *x = arg;

	x->result = take_on(x, &s);
	if (x->result >= 0)
		x->result = add_to(x->ring);
	if (x->result < 0)
		error_errno(x->error, x->result, E_RESTORE,
			    "cannot register credentials with an io_uring");
	return NULL;
}

/* In a thread, which ends with its credentials; the process becomes undumpable by the change
 * (commit_creds()). */
static int register_as(struct registering *x)
{
	int dumpable = prctl(PR_GET_DUMPABLE), r;
	pthread_t thread;

	r = pthread_create(&thread, NULL, run, x);
	if (r)
		return error_errno(x->error, -r, E_SYSTEM, "cannot make a thread");
	pthread_join(thread, NULL);
	if (dumpable == 1)
		prctl(PR_SET_DUMPABLE, 1);
	return x->result;
}

/* Until the next one would be called `to`, if nothing else is. *next: what it is called now. */
static int fill_up(int ring, uint32_t to, uint32_t *next)
{
	while (*next != to) {
		int id = add_to(ring);

		if (id < 0)
			return id;
		if (syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_PERSONALITY, NULL, id) <
		    0)
			return -errno;
		*next = (uint32_t)id + 1;
	}
	return 0;
}

/* Those from one number to another. */
static int register_range(struct registering *x, const Reprise__IoUring *m, uint32_t from,
			  uint32_t to, uint32_t *next)
{
	int r = 0;

	for (size_t i = 0; i < m->n_personalities && r >= 0; i++) {
		const Reprise__IoUringPersonality *p = m->personalities[i];

		if (p->id < from || p->id >= to)
			continue;
		r = fill_up(x->ring, p->id, next);
		x->as = p->creds;
		if (r >= 0)
			r = register_as(x);
		if (r >= 0 && (uint32_t)r != p->id)
			return error_set(x->error, -EIO, E_RESTORE,
					 "credentials got the number %d with an io_uring, not %u",
					 r, p->id);
		*next = p->id + 1;
	}
	return r;
}

/* Numbers begin anew after the last one: those that are behind the next one came before that. */
int uring_personality_restart(const struct restart *r, const Reprise__IoUring *m, int fd,
			      struct error *e)
{
	struct registering x = {.proc_fd = r->proc_fd, .ring = fd, .error = e};
	const uint32_t end = m->personality_next;
	uint32_t next = FIRST_ID;
	int res;

	if (end <= FIRST_ID)
		return 0;
	res = register_range(&x, m, end, LAST_ID + 1u, &next);
	if (res >= 0 && next != FIRST_ID) {
		res = fill_up(fd, LAST_ID + 1u, &next);
		next = FIRST_ID;
	}
	if (res >= 0)
		res = register_range(&x, m, FIRST_ID, end, &next);
	if (res >= 0)
		res = fill_up(fd, end, &next);
	return res >= 0 ? 0
			: error_errno(e, res, E_RESTORE,
				      "cannot register credentials with an io_uring");
}
