/* SPDX-License-Identifier: Apache-2.0 */
#include "model/glance.h"

#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_files.h"
#include "core/kernel_scan.h"
#include "model/checkpoint.h"

#define WORTH	 4  /* threads: it takes as long as to ask so many */
#define A_THREAD 64 /* descriptors take as long */

/*
 * All threads of our pid namespace are gone through, and all that they have open: 0.1 us each of
 * which is lost where most of them are not of the tree.
 */
#define MOST_THREADS(n) (1000 + 100 * (n))
#define MOST_TABLES(n)	(200 + 8 * (n))

#define PIDNS_ADDING (1u << 31) /* include/linux/pid_namespace.h */

/* What is read of a thread, in this order: the first decides whether it is one of the tree. */
enum {
	TRACER,
	ADDRESSES,
	NUMBER = ADDRESSES + GLANCE_KINDS, /* what we call it */
	LEVEL,				   /* of its own pid namespace below the initial one */
	USER,				   /* namespace */
	CHILDREN,			   /* the pid namespace of those that it makes */
	VALUES
};

struct thread {
	pid_t tid;
	bool at_home;
	uint64_t addresses[GLANCE_KINDS];
};

struct glance {
	struct kernel_scan *scan;
	struct kernel_files *files; /* NULL: cannot be read */
	uint64_t user, pids;	    /* namespaces of reprise */
	uint32_t level;
	bool taken, failed;
	VEC(struct thread) threads; /* sorted */
	VEC(struct glance_fd) fds;  /* sorted */
};

static const struct {
	int value;
	const char *structure, *member;
} steps[] = {
	{TRACER, "task_struct", "parent"}, /* ptrace_link() */
	{ADDRESSES + GLANCE_MM, "task_struct", "mm"},
	{ADDRESSES + GLANCE_FILES, "task_struct", "files"},
	{ADDRESSES + GLANCE_FS, "task_struct", "fs"},
	{ADDRESSES + GLANCE_UNDO, "task_struct", "sysvsem.undo_list"},
	{ADDRESSES + GLANCE_NAMESPACES, "task_struct", "nsproxy"},
	{ADDRESSES + GLANCE_ROOT_MOUNT, "task_struct", "fs"},
	{ADDRESSES + GLANCE_ROOT_MOUNT, "fs_struct", "root.mnt"},
	{ADDRESSES + GLANCE_ROOT, "task_struct", "fs"},
	{ADDRESSES + GLANCE_ROOT, "fs_struct", "root.dentry"},
	{ADDRESSES + GLANCE_CWD_MOUNT, "task_struct", "fs"},
	{ADDRESSES + GLANCE_CWD_MOUNT, "fs_struct", "pwd.mnt"},
	{ADDRESSES + GLANCE_CWD, "task_struct", "fs"},
	{ADDRESSES + GLANCE_CWD, "fs_struct", "pwd.dentry"},
	{ADDRESSES + GLANCE_EXE, "task_struct", "mm"},
	{ADDRESSES + GLANCE_EXE, "mm_struct", "exe_file"},
	{NUMBER, "task_struct", "thread_pid"},
	{LEVEL, "task_struct", "thread_pid"},
	{LEVEL, "pid", "level"},
	{USER, "task_struct", "real_cred"},
	{USER, "cred", "user_ns"},
	{CHILDREN, "task_struct", "nsproxy"},
	{CHILDREN, "nsproxy", "pid_ns_for_children"},
};

/* Ourselves, and where the number that we give to a task stands in its struct pid. */
static int ask_own(struct glance *g, struct kernel_memory *k, uint64_t *ret_task, int *ret_number)
{
	const int to_user[] = {kernel_offset(k, "task_struct", "real_cred"),
			       kernel_offset(k, "cred", "user_ns")};
	int nr = kernel_offset(k, "upid", "nr"), ns = kernel_offset(k, "upid", "ns");
	int to_pids[2] = {kernel_offset(k, "task_struct", "thread_pid")};
	int r = kernel_task(k, (pid_t)syscall(SYS_gettid), ret_task);

	if (r >= 0)
		r = kernel_number_offset(k, *ret_task, &g->level);
	if (r < 0)
		return r;
	*ret_number = r;
	to_pids[1] = r - nr + ns;
	r = ns < 0 ? ns : kernel_chase(k, *ret_task, to_user, 2, &g->user, sizeof(g->user));
	return r < 0 ? r : kernel_chase(k, *ret_task, to_pids, 2, &g->pids, sizeof(g->pids));
}

/* How many pids there are in our pid namespace; with a kernel that cannot be asked too many. */
static size_t all_pids(const struct glance *g, struct kernel_memory *k)
{
	const int offset = kernel_offset(k, "pid_namespace", "pid_allocated");
	uint32_t n;

	return kernel_chase(k, g->pids, &offset, 1, &n, sizeof(n)) < 0 ? SIZE_MAX
								       : n & ~PIDNS_ADDING;
}

void glance_prepare(struct checkpoint *c, size_t threads, size_t descriptors)
{
	struct kernel_path paths[VALUES] = {};
	const size_t weight = threads + descriptors / A_THREAD;
	struct glance *g = c->kernel && weight >= WORTH ? calloc(1, sizeof(*g)) : NULL;
	uint64_t self;
	int number;

	if (!g)
		return;
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
		kernel_path_add(c->kernel, &paths[steps[i].value], steps[i].structure,
				steps[i].member);
	if (ask_own(g, c->kernel, &self, &number) >= 0) {
		size_t all = all_pids(g, c->kernel);

		kernel_path_add_offset(&paths[NUMBER], number);
		/* without System V IPC nobody has such a list */
		for (int i = 0; i < VALUES; i++)
			g->failed |= !paths[i].n && i != ADDRESSES + GLANCE_UNDO;
		if (!g->failed && all <= MOST_THREADS(weight) &&
		    kernel_scan_new_only(&g->scan, c->kernel, paths, VALUES, self) >= 0) {
			if (all > MOST_TABLES(weight) ||
			    kernel_files_new(&g->files, c->kernel, self, number) < 0)
				g->files = NULL;
			c->glance = g;
			return;
		}
	}
	glance_free(g);
}

static void note(void *arg, const uint64_t *v)
{
	struct glance *g = arg;
	struct thread *t = vec_push(&g->threads);

	if (!t) {
		g->failed = true;
		return;
	}
	t->tid = (pid_t)(uint32_t)v[NUMBER];
	t->at_home = v[USER] == g->user && (uint32_t)v[LEVEL] == g->level && v[CHILDREN] == g->pids;
	for (int i = 0; i < GLANCE_KINDS; i++)
		t->addresses[i] = v[ADDRESSES + i];
}

/* One that is missing is asked for. */
static void note_fd(void *arg, const struct kernel_descriptor *d)
{
	struct glance *g = arg;
	struct glance_fd *f = vec_push(&g->fds);

	if (f)
		*f = (struct glance_fd){.tid = (pid_t)(uint32_t)d->tid,
					.fd = (int)d->fd,
					.file = d->file,
					.cloexec = d->execs >> d->fd % 64 & 1,
					.locks = d->locks};
}

static int by_fd(const void *a, const void *b)
{
	const struct glance_fd *x = a, *y = b;

	if (x->tid != y->tid)
		return x->tid < y->tid ? -1 : 1;
	return x->fd < y->fd ? -1 : x->fd > y->fd;
}

static int by_tid(const void *a, const void *b)
{
	const struct thread *x = a, *y = b;

	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

static const struct thread *find(const struct glance *g, pid_t tid)
{
	const struct thread key = {.tid = tid};

	return bsearch(&key, g->threads.v, g->threads.n, sizeof(key), by_tid);
}

/* Whatever cannot be read shows as 0. */
static bool is_complete(const struct thread *t)
{
	for (int i = 0; i < GLANCE_KINDS; i++)
		if (i != GLANCE_UNDO && i != GLANCE_EXE && !t->addresses[i])
			return false;
	return true;
}

/* Threads that wait in vfork() are not traced by anybody: a tree with such is not known. */
static bool knows_all(const struct checkpoint *c, const struct glance *g)
{
	vec_for_each (p, &c->freezer.processes)
		vec_for_each (t, &p->threads) {
			const struct thread *x = t->zombie ? NULL : find(g, t->tid);

			if (!t->zombie && (!x || !is_complete(x)))
				return false;
		}
	return true;
}

void glance_take(struct checkpoint *c)
{
	struct glance *g = c->glance;

	if (!g || kernel_scan_all(g->scan, note, g) < 0 || g->failed)
		return;
	qsort(g->threads.v, g->threads.n, sizeof(*g->threads.v), by_tid);
	g->taken = knows_all(c, g);
	if (g->taken && g->files && kernel_files_read(g->files, note_fd, g) >= 0)
		qsort(g->fds.v, g->fds.n, sizeof(*g->fds.v), by_fd);
	else
		g->fds.n = 0;
}

void glance_free(struct glance *g)
{
	if (!g)
		return;
	kernel_scan_free(g->scan);
	kernel_files_free(g->files);
	vec_free(&g->threads);
	vec_free(&g->fds);
	free(g);
}

bool glance_taken(const struct checkpoint *c)
{
	return c->glance && c->glance->taken;
}

uint64_t glance_of(const struct checkpoint *c, pid_t tid, enum glance_kind kind)
{
	const struct thread *t = glance_taken(c) ? find(c->glance, tid) : NULL;

	return t ? t->addresses[kind] : 0;
}

const struct glance_fd *glance_descriptor(const struct checkpoint *c, pid_t tid, int fd)
{
	const struct glance_fd key = {.tid = tid, .fd = fd};

	if (!glance_taken(c))
		return NULL;
	return bsearch(&key, c->glance->fds.v, c->glance->fds.n, sizeof(key), by_fd);
}

size_t glance_descriptors(const struct checkpoint *c, pid_t tid, const struct glance_fd **ret)
{
	size_t low = 0, high = glance_taken(c) ? c->glance->fds.n : 0, n = 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (c->glance->fds.v[middle].tid < tid)
			low = middle + 1;
		else
			high = middle;
	}
	*ret = glance_taken(c) ? c->glance->fds.v + low : NULL;
	while (*ret && low + n < c->glance->fds.n && (*ret)[n].tid == tid)
		n++;
	return n;
}

bool glance_at_home(const struct checkpoint *c, pid_t tid)
{
	const struct thread *t = glance_taken(c) ? find(c->glance, tid) : NULL;

	return t && t->at_home;
}
