/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/file.h"
#include "fs/inode.h"
#include "image/chain.h"
#include "ipc/ipc.h"
#include "kernel/clone.h"
#include "kernel/levels.h"
#include "kernel/process.h"
#include "kernel/registers.h"
#include "kernel/sharing.h"
#include "kernel/task.h"
#include "kernel/user_task.h"
#include "kernel/vfork.h"
#include "mm/mm.h"
#include "model/records.h"
#include "ns/container.h"
#include "ns/spaces.h"
#include "operation/load.h"
#include "operation/target.h"

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

static struct restart_process *by_vpid(struct restart *r, pid_t vpid)
{
	vec_for_each (p, &r->processes)
		if (p->vpid == vpid)
			return p;
	return NULL;
}

/* Reserves the whole array first: processes point to each other. */
static int list_processes(struct restart *r, struct error *e)
{
	const Reprise__Process *msg;
	size_t n = 0;

	while (restart_nth(r, RECORD_PROCESS, n, NULL))
		n++;
	r->processes.v = calloc(n + 1, sizeof(*r->processes.v));
	if (!r->processes.v)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the tree");
	r->processes.cap = n + 1;
	for (size_t i = 0; (msg = restart_nth(r, RECORD_PROCESS, i, NULL)); i++) {
		struct restart_process *p = &r->processes.v[i];

		p->vpid = msg->pid;
		p->msg = msg;
		p->mm_id = msg->zombie ? 0 : msg->mm;
		p->mm = msg->zombie ? NULL : restart_find(r, RECORD_MM, msg->mm);
		p->mm_owner = p->mm != NULL;
		for (size_t j = 0; j < i && p->mm_owner; j++)
			p->mm_owner = r->processes.v[j].mm_id != p->mm_id;
		p->parent = msg->ppid ? by_vpid(r, msg->ppid) : NULL;
		if ((i == 0) != (p->parent == NULL))
			return invalid(e, "a process has no parent in the tree");
		if (by_vpid(r, msg->pid))
			return invalid(e, "two processes have the same pid");
		r->processes.n++;
	}
	return n ? 0 : invalid(e, "there is no process in the image");
}

static int list_tasks(struct restart *r, struct error *e)
{
	struct restart_process *p = &r->processes.v[0];
	const Reprise__Task *msg;

	for (size_t i = 0; (msg = restart_nth(r, RECORD_TASK, i, NULL)); i++) {
		struct restart_task *t;

		if (p->vpid != msg->pid)
			p = by_vpid(r, msg->pid);
		if (!p || p->msg->zombie)
			return invalid(e, "a thread belongs to no process");
		t = vec_push(&p->tasks);
		if (!t)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the tree");
		t->vtid = msg->tid;
		t->msg = msg;
		t->process = p;
	}
	return 0;
}

static int validate_threads(const struct restart *r, const struct restart_process *p,
			    struct error *e)
{
	const Reprise__Mm *mm = restart_find(r, RECORD_MM, p->msg->mm);

	/* Whatever is done for all of them begins with the root. */
	if (p->msg->zombie)
		return p == r->processes.v ? invalid(e, "the root is a zombie") : 0;
	if (!p->tasks.n || p->tasks.v[0].vtid != p->vpid)
		return invalid(e, "a process has no leader");
	if (p->tasks.v[0].msg->is_zombie && p->tasks.n < 2)
		return invalid(e, "the leader of a process has exited, but no thread is left");
	vec_for_each (t, &p->tasks) {
		int res;

		if (t->vtid <= 0 || (t != p->tasks.v && t->msg->is_zombie))
			return invalid(e, "a thread is impossible");
		res = task_validate(r, t->msg, e);
		if (res >= 0)
			res = registers_validate_width(t->msg, mm->compat, e);
		if (res < 0)
			return error_object(e, res, "thread %d", t->vtid);
	}
	return 0;
}

static int compare_pids(const void *a, const void *b)
{
	return (*(const pid_t *)a > *(const pid_t *)b) - (*(const pid_t *)a < *(const pid_t *)b);
}

static int validate_ids(const struct restart *r, struct error *e)
{
	_cleanup_(free_ptr) pid_t *ids = NULL;
	size_t n = 0;

	vec_for_each (p, &r->processes)
		n += p->tasks.n + 1;
	ids = calloc(n, sizeof(*ids));
	if (!ids)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the tree");
	n = 0;
	vec_for_each (p, &r->processes) {
		if (p->msg->zombie)
			ids[n++] = p->vpid;
		vec_for_each (t, &p->tasks)
			ids[n++] = t->vtid;
	}
	qsort(ids, n, sizeof(*ids), compare_pids);
	for (size_t i = 1; i < n; i++)
		if (ids[i] == ids[i - 1])
			return invalid(e, "two tasks have the same id");
	return 0;
}

static int validate(struct restart *r, struct error *e)
{
	int res = validate_ids(r, e);

	vec_for_each (p, &r->processes) {
		if (res >= 0)
			res = process_validate(r, p->msg, e);
		if (res >= 0)
			res = validate_threads(r, p, e);
		if (res >= 0)
			res = vfork_validate(r, p, e);
		if (res < 0)
			return error_object(e, res, "task %d of the image", p->vpid);
	}
	if (res >= 0)
		res = container_validate(r, e);
	if (res >= 0)
		res = levels_validate(r, e);
	if (res >= 0)
		res = spaces_validate(r, e);
	if (res >= 0)
		res = user_tasks_validate(r, e);
	if (res >= 0)
		res = files_restart_validate(r, e);
	if (res >= 0)
		res = ipc_restart_validate(r, e);
	return res < 0 ? res : mm_restart_validate(r, e);
}

int restart_load(struct loaded *l, int fd, int jobs, struct error *e)
{
	struct restart *r = &l->r;
	int res;

	memset(l, 0, sizeof(*l));
	r->proc_fd = r->tty_fd = r->control = -EBADF;
	r->stdio[0] = r->stdio[1] = r->stdio[2] = -1;
	r->jobs = jobs;
	res = procfs_open_root(&r->proc_fd, e);
	if (res >= 0)
		res = image_reader_new(&r->image, fd, jobs, e);
	if (res >= 0)
		res = records_load(&r->records, r->image, e);
	if (res < 0)
		return res;
	l->tree = restart_nth(r, RECORD_TREE, 0, NULL);
	if (!l->tree || restart_nth(r, RECORD_TREE, 1, NULL))
		return invalid(e, "there is not exactly one tree record");
	res = list_processes(r, e);
	if (res >= 0)
		res = list_tasks(r, e);
	if (res >= 0)
		res = validate(r, e);
	if (res >= 0)
		res = mm_restart_begin(r, e);
	if (res >= 0)
		res = tree_nodes(r, &l->nodes, e);
	if (res >= 0)
		res = tree_plan_make(&l->plan, l->nodes, r->processes.n, e);
	return res < 0 ? res : tree_check_sharing(r, &l->plan, e);
}

void restart_unload(struct loaded *l)
{
	struct restart *r = &l->r;

	vec_for_each (p, &r->processes) {
		ignore(agent_return(p->agent, NULL), "frees the handle");
		vec_free(&p->tasks);
	}
	vec_free(&r->processes);
	spaces_restart_end(r);
	mm_restart_end(r);
	files_restart_end(r);
	files_restart_watch_end(r);
	ipc_restart_end(r);
	records_free(r->records);
	image_reader_free(r->image);
	tree_plan_free(&l->plan);
	page_chain_free(l->parents);
	free(l->nodes);
	free(r->groups);
	vec_free(&r->addresses);
	vec_free(&r->replacements);
	close_fd(&r->proc_fd);
	close_fd(&r->control);
}

static const char *const xfeatures[] = {
	"x87",
	"SSE",
	"AVX",
	"MPX bndregs",
	"MPX bndcsr",
	"AVX-512 opmask",
	"AVX-512 ZMM_Hi256",
	"AVX-512 Hi16_ZMM",
	"PT",
	"PKRU",
	"PASID",
	"CET_U",
	"CET_S",
	"HDC",
	"UINTR",
	"LBR",
	"HWP",
	"AMX tile config",
	"AMX tile data",
};

int restart_check_machine(const struct loaded *l, struct error *e)
{
	const struct image_info *info = image_reader_info(l->r.image);
	_cleanup_(free_ptr) char *here_flags = NULL, *missing = NULL;
	struct image_info here;
	uint64_t lacking;
	int r;

	image_info_here(&here);
	lacking = info->xfeatures & ~here.xfeatures;
	if (lacking) {
		int bit = __builtin_ctzll(lacking);

		return error_set(e, -ENOEXEC, E_IMAGE_CPU,
				 "the processor here has no %s state, the image is from %s",
				 bit < (int)(sizeof(xfeatures) / sizeof(xfeatures[0]))
					 ? xfeatures[bit]
					 : "such extended",
				 info->cpu);
	}
	r = target_cpu_flags(l->r.proc_fd, &here_flags, e);
	if (r < 0)
		return r;
	missing = target_missing_cpu_flag(l->tree->cpu_flags, here_flags);
	if (missing)
		return error_set(e, -ENOEXEC, E_IMAGE_CPU,
				 "the processor here lacks the feature %s, the image is from %s",
				 missing, info->cpu);
	if (l->tree->page_size != 4096)
		return error_set(e, -ENOEXEC, E_IMAGE_ARCH, "pages of %u bytes",
				 l->tree->page_size);
	return 0;
}
