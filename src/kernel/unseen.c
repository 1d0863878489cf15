/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/unseen.h"

#include <errno.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/kernel_scan.h"
#include "kernel/landlock.h"
#include "kernel/ldt.h"
#include "kernel/processor.h"
#include "kernel/seccomp.h"
#include "kernel/security.h"

enum value {
	THREAD_KEYRING,
	PROCESS_KEYRING,
	DOMAIN,
	WORK,
	LDT,
	FILTER,
	TAGS,
	PORTS,
	LEVEL,
	VALUES
};

struct unseen {
	struct kernel_memory *kernel; /* of the pass */
	struct kernel_scan *scan;     /* NULL: cannot be looked for */
	uint64_t own_domain;	      /* rules that reprise is under as well */
	uint64_t dispatched;	      /* in WORK */
	VEC(uint64_t) filters;	      /* that have been looked at */
};

void unseen_free(struct unseen *u)
{
	if (!u)
		return;
	kernel_scan_free(u->scan);
	vec_free(&u->filters);
	free(u);
}

static void find_paths(struct unseen *u, struct kernel_path *paths)
{
	static const struct {
		enum value value;
		const char *structure, *member;
	} steps[] = {
		{THREAD_KEYRING, "task_struct", "cred"},
		{THREAD_KEYRING, "cred", "thread_keyring"},
		{PROCESS_KEYRING, "task_struct", "cred"},
		{PROCESS_KEYRING, "cred", "process_keyring"},
		{DOMAIN, "task_struct", "cred"},
		{DOMAIN, "cred", "security"},
		{WORK, "task_struct", "thread_info.syscall_work"},
		{LDT, "task_struct", "mm"},
		{LDT, "mm_struct", "context.ldt"},
		{LDT, "ldt_struct", "nr_entries"},
		{FILTER, "task_struct", "seccomp.filter"},
		{TAGS, "task_struct", "mm"},
		{TAGS, "mm_struct", "context.untag_mask"},
		{PORTS, "task_struct", "thread.io_bitmap"},
		{LEVEL, "task_struct", "thread.iopl_emul"},
	};
	int offset;

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
		kernel_path_add(u->kernel, &paths[steps[i].value], steps[i].structure,
				steps[i].member);
	if (landlock_place(u->kernel, &offset, &u->own_domain) < 0)
		paths[DOMAIN] = (struct kernel_path){};
	else
		kernel_path_add_offset(&paths[DOMAIN], offset);
}

static struct unseen *get(struct checkpoint *c)
{
	struct kernel_path paths[VALUES] = {};
	struct error unused = {};
	struct unseen *u = c->unseen;
	int bit;

	if (u || geteuid() != 0)
		return u;
	u = c->unseen = calloc(1, sizeof(*u));
	if (!u || checkpoint_kernel_memory(c, &u->kernel, &unused) < 0)
		return u;
	bit = kernel_enumerator(u->kernel, "SYSCALL_WORK_BIT_SYSCALL_USER_DISPATCH");
	u->dispatched = bit >= 0 && bit < 64 ? 1ull << bit : 0;
	find_paths(u, paths);
	if (kernel_scan_new(&u->scan, u->kernel, paths, VALUES) < 0)
		checkpoint_trace(c, "the memory of the kernel cannot be searched");
	return u;
}

/* What was found, of one thread or of several. */
struct found {
	const struct unseen *u;
	uint64_t keyrings[2], domain, dispatched, filter, tags, ports;
	uint32_t ldt;
};

static void note(void *arg, const uint64_t *v)
{
	struct found *f = arg;

	f->keyrings[0] |= v[THREAD_KEYRING];
	f->keyrings[1] |= v[PROCESS_KEYRING];
	if (v[DOMAIN] != f->u->own_domain)
		f->domain |= v[DOMAIN];
	f->dispatched |= v[WORK] & f->u->dispatched;
	f->ldt = (uint32_t)v[LDT]; /* a signed number of 32 bits */
	if (v[FILTER])
		f->filter = v[FILTER];
	f->tags |= v[TAGS] ? ~v[TAGS] : 0;
	f->ports |= v[PORTS] | v[LEVEL];
}

static bool is_known(const struct unseen *u, uint64_t filter)
{
	vec_for_each (known, &u->filters)
		if (*known == filter)
			return true;
	return false;
}

/* Most have them from their parent. */
static int check_filters(struct unseen *u, uint64_t filter, struct error *e)
{
	uint64_t *known;

	if (!filter || is_known(u, filter))
		return 0;
	known = vec_push(&u->filters);
	if (known)
		*known = filter;
	return seccomp_look(u->kernel, filter, e);
}

static int refuse(struct checkpoint *c, int r, pid_t tid, struct error *e)
{
	if (r < 0)
		error_object(e, r, "thread %d", tid);
	return checkpoint_refuse(c, r, e);
}

static int check_thread(struct checkpoint *c, pid_t tid, struct error *e)
{
	struct found f = {.u = c->unseen};
	int r = 0;

	/* What is not found any more has ended. */
	if (kernel_scan_thread(c->unseen->scan, tid, note, &f) < 0)
		return 0;
	if (f.domain)
		r = refuse(c, security_landlock(e), tid, e);
	for (int i = 0; i < 2 && r >= 0; i++)
		if (f.keyrings[i])
			r = refuse(c, security_keyring(i, e), tid, e);
	if (r >= 0 && f.dispatched)
		r = refuse(c,
			   error_set(e, -ENOTSUP, E_TASK_STATE,
				     "has its system calls dispatched to itself "
				     "(PR_SET_SYSCALL_USER_DISPATCH)"),
			   tid, e);
	return r < 0 ? r : refuse(c, check_filters(c->unseen, f.filter, e), tid, e);
}

int unseen_check(struct checkpoint *c, const struct checkpoint_process *p, struct error *e)
{
	struct unseen *u = get(c);
	struct found f = {.u = u};
	int r = 0;

	if (!u || !u->scan || kernel_scan_process(u->scan, p->frozen->pid, note, &f) < 0)
		return 0;
	if (f.ldt >= LDT_ENTRIES_MAX)
		r = checkpoint_refuse(c, ldt_too_large(e), e);
	if (r >= 0 && f.tags)
		r = checkpoint_refuse(c, processor_tags(e), e);
	if (r >= 0 && f.ports)
		r = checkpoint_refuse(c, processor_ports(e), e);
	if (!f.keyrings[0] && !f.keyrings[1] && !f.domain && !f.dispatched && !f.filter)
		return r;
	vec_for_each (t, &p->frozen->threads)
		if (r >= 0 && !t->zombie)
			r = check_thread(c, t->tid, e);
	return r;
}
