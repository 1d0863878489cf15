/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/survey.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"

#define PF_KTHREAD     0x00200000
#define PF_IO_WORKER   0x00000010
#define EXEC_TRIES     5
#define EXEC_PAUSE_NS  500000
#define VFORK_MS       1000 /* the application goes on meanwhile */
#define VFORK_SHORT_MS 50   /* where a task that waits in vfork() can be saved */
#define VFORK_POLL_US  10000

static size_t slot_of(const struct tid_map *m, pid_t tid)
{
	size_t i = (size_t)tid * 2654435761U % m->size;

	while (m->v[i].tid && m->v[i].tid != tid)
		i = (i + 1) % m->size;
	return i;
}

static int tid_map_grow(struct tid_map *m)
{
	struct tid_map bigger = {.size = m->size ? m->size * 2 + 1 : 127};

	bigger.v = calloc(bigger.size, sizeof(*bigger.v));
	if (!bigger.v)
		return -ENOMEM;
	for (size_t i = 0; i < m->size; i++)
		if (m->v[i].tid)
			bigger.v[slot_of(&bigger, m->v[i].tid)] = m->v[i];
	bigger.n = m->n;
	free(m->v);
	*m = bigger;
	return 0;
}

int tid_map_add(struct tid_map *m, pid_t tid, uint32_t value)
{
	size_t i;

	if (m->n * 2 >= m->size && tid_map_grow(m) < 0)
		return -ENOMEM;
	i = slot_of(m, tid);
	if (m->v[i].tid)
		return 0;
	m->v[i].tid = tid;
	m->v[i].value = value;
	m->n++;
	return 1;
}

bool tid_map_find(const struct tid_map *m, pid_t tid, uint32_t *ret)
{
	size_t i;

	if (!m->size)
		return false;
	i = slot_of(m, tid);
	if (!m->v[i].tid)
		return false;
	*ret = m->v[i].value;
	return true;
}

void tid_map_free(struct tid_map *m)
{
	free(m->v);
	*m = (struct tid_map){};
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot list the tasks of the tree");
}

static int by_tid(const void *a, const void *b)
{
	const struct frozen_thread *x = a, *y = b;

	return (x->tid > y->tid) - (x->tid < y->tid);
}

static bool is_worker(const struct freezer *f, pid_t tid)
{
	for (size_t i = 0; i < f->workers.n; i++)
		if (f->workers.v[i] == tid)
			return true;
	return false;
}

int freezer_note_worker(struct freezer *f, pid_t pid, pid_t tid)
{
	struct proc_stat st;
	pid_t *slot;
	int r = proc_stat_read(f->proc_fd, pid, tid, &st, NULL);

	if (r == -ENOMEM)
		return r;
	if (r < 0 || !(st.flags & PF_IO_WORKER))
		return 0;
	slot = is_worker(f, tid) ? NULL : vec_push(&f->workers);
	if (!slot)
		return -ENOMEM;
	*slot = tid;
	return 1;
}

static int add_thread(struct frozen_process *p, pid_t tid, struct error *e)
{
	struct frozen_thread *t = vec_push(&p->threads);

	if (!t)
		return no_memory(e);
	t->tid = tid;
	t->syscall_eintr = t->reissued = -1;
	return 0;
}

/* Threads, the leader first. Returns how many there are of the kernel, which are left out. */
static int list_threads(const struct freezer *now, struct frozen_process *p, struct error *e)
{
	_cleanup_(close_directory) DIR *d = NULL;
	struct dirent *entry;
	int fd = procfs_open(now->proc_fd, O_RDONLY | O_DIRECTORY, e, "%d/task", p->pid);
	int workers = 0, ended = 0;

	if (fd < 0)
		return fd;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return no_memory(e);
	}
	while ((entry = next_entry(d, &ended))) {
		pid_t tid = atoi(entry->d_name);

		if (tid <= 0)
			continue;
		if (is_worker(now, tid)) {
			workers++;
			continue;
		}
		if (add_thread(p, tid, e) < 0)
			return e->err;
	}
	/* A process that has ended has none any more (proc_task_readdir()). */
	if (ended < 0 && ended != -ENOENT)
		return error_errno(e, ended, E_SYSTEM, "cannot list the threads of task %d",
				   p->pid);
	if (p->threads.n)
		qsort(p->threads.v, p->threads.n, sizeof(*p->threads.v), by_tid);
	for (size_t i = 1; i < p->threads.n; i++) {
		struct frozen_thread leader = p->threads.v[i];

		if (leader.tid != p->pid)
			continue;
		memmove(p->threads.v + 1, p->threads.v, i * sizeof(leader));
		p->threads.v[0] = leader;
	}
	return workers;
}

/* Only the file of the whole process tells of its stop; that of the thread does not. */
static int unreported_stop(int proc_fd, pid_t pid, int *ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	struct proc_stat st;
	ssize_t len = procfs_read(proc_fd, &text, e, "%d/stat", pid);

	if (len < 0)
		return (int)len;
	*ret = proc_stat_parse(text, &st) < 0 ? 0 : st.exit_code;
	return 0;
}

/* A process without its leader's own thread, or with nothing but its exit status. */
static int look_at_process(struct freezer *now, struct frozen_process *p, bool *gone,
			   struct error *e)
{
	struct proc_stat st;
	int r = proc_stat_read(now->proc_fd, p->pid, p->pid, &st, e);
	bool dead;

	/* Where there is but one, and it has not ended, it is the leader. */
	if (r == 0 && st.num_threads == 1 && st.state != 'Z' && st.state != 'X')
		r = add_thread(p, p->pid, e);
	else if (r == 0)
		r = list_threads(now, p, e);
	if (r >= 0) {
		st.num_threads -= r;
		r = 0;
	}
	if (r == 0 && p->threads.n && st.state == 'T')
		r = unreported_stop(now->proc_fd, p->pid, &p->threads.v[0].unreported, e);
	*gone = r == -ESRCH;
	if (r < 0)
		return r;
	p->stat = st;
	p->start_time = st.start_time;
	p->ppid = st.ppid;
	p->exit_code = st.exit_code;
	dead = st.state == 'Z' || st.state == 'X';
	if (st.state == 'X' && p->threads.n < 2) {
		*gone = true;
		return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", p->pid);
	}
	if (dead && p->threads.n > 1)
		p->threads.v[0].zombie = true;
	else if (dead)
		p->zombie = true;
	if (p->zombie)
		p->threads.n = 0;
	else if (p->threads.n != (size_t)st.num_threads)
		now->moving = true;
	if (st.flags & PF_KTHREAD)
		return error_set(e, -EINVAL, E_PID_KERNEL, "task %d (%s) is a thread of the kernel",
				 p->pid, st.comm);
	return 0;
}

static int add_child(struct freezer *now, struct tid_map *seen, pid_t pid, pid_t ppid, pid_t ptid,
		     struct error *e)
{
	struct frozen_process *child;
	int r;

	if (pid == now->self)
		return 0;
	r = tid_map_add(seen, pid, 0);
	if (r == 0)
		return 0; /* it changed its parent while we went round */
	child = r < 0 ? NULL : vec_push(&now->processes);
	if (!child)
		return no_memory(e);
	child->pid = pid;
	child->ppid = ppid;
	child->ptid = ptid;
	return 0;
}

static int list_children(struct freezer *now, struct tid_map *seen, pid_t pid, pid_t tid,
			 struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t len = procfs_read(now->proc_fd, &text, e, "%d/task/%d/children", pid, tid);
	char *at;

	if (len == -ESRCH) {
		error_clear(e);
		now->moving = true;
		return 0;
	}
	if (len == -ENOENT) {
		error_clear(e);
		return error_set(
			e, -ENOSYS, E_KERNEL_TOO_OLD,
			"the kernel does not list the children of a task (CONFIG_PROC_CHILDREN)");
	}
	if (len < 0)
		return (int)len;
	at = text;
	while (*at) {
		pid_t child = (pid_t)strtol(at, &at, 10);
		int r = child > 0 ? add_child(now, seen, child, pid, tid, e) : 0;

		if (r < 0)
			return r;
		at += strspn(at, " \n");
	}
	return 0;
}

/* Looks at process i and puts its children at the end of the list. */
static int visit(struct freezer *now, struct tid_map *seen, size_t i, bool *gone, struct error *e)
{
	pid_t parent = now->processes.v[i].ppid, pid = now->processes.v[i].pid;
	int r = look_at_process(now, &now->processes.v[i], gone, e);

	if (r < 0)
		return r;
	if (i > 0)
		now->processes.v[i].ppid = parent;
	for (size_t j = 0; r == 0 && j < now->processes.v[i].threads.n; j++)
		r = list_children(now, seen, pid, now->processes.v[i].threads.v[j].tid, e);
	return r;
}

static int check_root(const struct freezer *f, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	uint64_t tgid;
	ssize_t len;

	if (f->root == f->self)
		return error_set(e, -EINVAL, E_PID_SELF, "task %d is reprise itself", f->root);
	len = procfs_read(f->proc_fd, &status, e, "%d/status", f->root);
	if (len == -ESRCH || len == -ENOENT) {
		error_clear(e);
		return error_set(e, -ESRCH, E_PID_NONE, "there is no process %d", f->root);
	}
	if (len < 0)
		return (int)len;
	if (proc_field_u64(status, "Tgid", 10, &tgid) == 0 && (pid_t)tgid != f->root)
		return error_set(e, -EINVAL, E_PID_THREAD, "task %d is a thread of process %d",
				 f->root, (pid_t)tgid);
	return 0;
}

static void forget(struct freezer *now, size_t i)
{
	vec_free(&now->processes.v[i].threads);
	now->processes.n--;
	memmove(now->processes.v + i, now->processes.v + i + 1,
		(now->processes.n - i) * sizeof(*now->processes.v));
}

static int walk(struct freezer *now, struct error *e)
{
	_cleanup_(tid_map_free) struct tid_map seen = {};
	int r = check_root(now, e);

	if (r == 0)
		r = add_child(now, &seen, now->root, 0, 0, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < now->processes.n;) {
		bool gone = false;

		r = visit(now, &seen, i, &gone, e);
		if (gone && i > 0) {
			/*
			 * The kernel finds the next child by the one before; by
			 * counting, if that is gone: then it misses one.
			 */
			error_clear(e);
			forget(now, i);
			now->moving = true;
			continue;
		}
		if (r < 0)
			return r;
		i++;
	}
	if (now->processes.v[0].zombie)
		return error_set(e, -EINVAL, E_PID_ZOMBIE, "process %d has ended and is a zombie",
				 now->root);
	return 0;
}

int survey_walk(struct freezer *now, struct error *e)
{
	int r = walk(now, e);

	/* When a thread calls exec there is a moment in which its process seems to have ended. */
	for (int i = 0;
	     i < EXEC_TRIES && r < 0 && e && (e->code == E_PID_ZOMBIE || e->code == E_TASK_GONE);
	     i++) {
		error_clear(e);
		survey_free(now);
		nanosleep(&(struct timespec){.tv_nsec = EXEC_PAUSE_NS}, NULL);
		r = walk(now, e);
		now->moving = true;
	}
	return r;
}

void survey_free(struct freezer *f)
{
	vec_for_each (p, &f->processes) {
		vec_for_each (t, &p->threads) {
			free(t->cpu);
			free(t->kernel);
		}
		vec_free(&p->threads);
	}
	vec_free(&f->processes);
}

static bool any_in_vfork(struct freezer *f, bool *readable)
{
	struct proc_stat st;
	bool any = false;

	*readable = true;
	vec_for_each (p, &f->processes)
		vec_for_each (t, &p->threads)
			if (proc_stat_read(f->proc_fd, p->pid, t->tid, &st, NULL) == 0 &&
			    freezer_in_vfork(f, p->pid, t->tid, st.state)) {
				t->in_vfork = any = true;
				*readable = *readable && vfork_holds(f, p->pid, t->tid);
			}
	return any;
}

/* 1: there are some that were not known, so that the list is not right. */
static int find_workers(struct freezer *f, struct error *e)
{
	int found = 0;

	vec_for_each (p, &f->processes)
		for (size_t i = 1; i < p->threads.n; i++) {
			int r = freezer_note_worker(f, p->pid, p->threads.v[i].tid);

			if (r < 0)
				return no_memory(e);
			found |= r;
		}
	return found;
}

int freezer_survey(struct freezer *f, struct error *e)
{
	uint64_t begun = monotonic_ns();
	bool readable;
	int r;

	for (;;) {
		survey_free(f);
		r = survey_walk(f, e);
		if (r >= 0)
			r = find_workers(f, e);
		if (r > 0)
			continue;
		if (r < 0 || !any_in_vfork(f, &readable))
			return r;
		if (monotonic_ns() - begun > (readable ? VFORK_SHORT_MS : VFORK_MS) * 1000000ULL)
			return r;
		usleep(VFORK_POLL_US);
	}
}
