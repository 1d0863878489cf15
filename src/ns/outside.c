/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/outside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_scan.h"
#include "ns/outside_rings.h"

#define PF_KTHREAD 0x00200000 /* linux/sched.h */
#define MINOR_BITS 20	      /* linux/kdev_t.h */

/* What is read, in the order of each row. */
enum {
	T_PID,
	T_TID,
	T_NAMESPACES,
	T_USER,
	T_FILES,
	T_FLAGS,
	T_ROOT,
	T_CWD,
	T_LEVEL,
	T_PIDNS,
	T_URING,
	T_VALUES
};
enum {
	F_FILE,
	F_FD,
	F_TID,
	F_WATCHED,
	F_INODE,
	F_MODE,
	F_DEV,
	F_INO,
	F_RDEV,
	F_SOCK,
	F_FAMILY,
	F_QUEUE,
	F_NETWORK,
	F_NAME,
	F_VALUES
};
enum { M_FILE, M_TID, M_INODE, M_DEV, M_INO, M_USER, M_NAME, M_VALUES };

struct step {
	int value;
	const char *structure, *member;
};

static const struct step task_steps[] = {
	{T_PID, "task_struct", "group_leader"},
	{T_PID, "task_struct", "thread_pid"},
	{T_TID, "task_struct", "thread_pid"},
	{T_NAMESPACES, "task_struct", "nsproxy"},
	{T_USER, "task_struct", "real_cred"},
	{T_USER, "cred", "user_ns"},
	{T_FILES, "task_struct", "files"},
	{T_FLAGS, "task_struct", "flags"},
	{T_ROOT, "task_struct", "fs"},
	{T_ROOT, "fs_struct", "root.mnt"},
	{T_ROOT, "vfsmount", "mnt_sb"},
	{T_ROOT, "super_block", "s_dev"},
	{T_CWD, "task_struct", "fs"},
	{T_CWD, "fs_struct", "pwd.mnt"},
	{T_CWD, "vfsmount", "mnt_sb"},
	{T_CWD, "super_block", "s_dev"},
	{T_LEVEL, "task_struct", "thread_pid"},
	{T_LEVEL, "pid", "level"},
	{T_PIDNS, "task_struct", "thread_pid"},
	{T_URING, "task_struct", "io_uring"},
	{-1},
};

static const struct step file_steps[] = {
	{F_TID, "task_struct", "thread_pid"},
	{F_WATCHED, "file", "f_ep"},
	{F_WATCHED, "hlist_head", "first"},
	{F_INODE, "file", "f_inode"},
	{F_MODE, "inode", "i_mode"},
	{F_DEV, "inode", "i_sb"},
	{F_DEV, "super_block", "s_dev"},
	{F_INO, "inode", "i_ino"},
	{F_RDEV, "inode", "i_rdev"},
	{F_SOCK, "file", "private_data"},
	{F_SOCK, "socket", "sk"},
	{F_FAMILY, "sock", "__sk_common.skc_family"},
	{F_QUEUE, "sock", "sk_receive_queue.qlen"},
	{F_NETWORK, "sock", "__sk_common.skc_net"},
	{F_NETWORK, "net", "net_cookie"},
	{F_NAME, "file", "f_path.dentry"},
	{F_NAME, "dentry", "d_name.name"},
	{-1},
};

static const struct kernel_path file_begins[F_VALUES] = {
	[F_FILE] = {.from = KERNEL_FROM_OBJECT},
	[F_FD] = {.from = KERNEL_FROM_NUMBER},
	[F_WATCHED] = {.from = KERNEL_FROM_OBJECT},
	[F_INODE] = {.from = KERNEL_FROM_OBJECT},
	[F_MODE] = {.from = KERNEL_FROM_VALUE, .value = F_INODE},
	[F_DEV] = {.from = KERNEL_FROM_VALUE, .value = F_INODE},
	[F_INO] = {.from = KERNEL_FROM_VALUE, .value = F_INODE},
	[F_RDEV] = {.from = KERNEL_FROM_VALUE, .value = F_INODE},
	[F_SOCK] = {.from = KERNEL_FROM_OBJECT},
	[F_FAMILY] = {.from = KERNEL_FROM_VALUE, .value = F_SOCK},
	[F_QUEUE] = {.from = KERNEL_FROM_VALUE, .value = F_SOCK},
	[F_NETWORK] = {.from = KERNEL_FROM_VALUE, .value = F_SOCK},
	[F_NAME] = {.from = KERNEL_FROM_OBJECT},
};

static const struct step map_steps[] = {
	{M_FILE, "vm_area_struct", "vm_file"},
	{M_TID, "task_struct", "thread_pid"},
	{M_INODE, "file", "f_inode"},
	{M_DEV, "inode", "i_sb"},
	{M_DEV, "super_block", "s_dev"},
	{M_INO, "inode", "i_ino"},
	{M_NAME, "file", "f_path.dentry"},
	{M_NAME, "dentry", "d_name.name"},
	{-1},
};

static const struct kernel_path map_begins[M_VALUES] = {
	[M_FILE] = {.from = KERNEL_FROM_OBJECT},
	[M_INODE] = {.from = KERNEL_FROM_VALUE, .value = M_FILE},
	[M_DEV] = {.from = KERNEL_FROM_VALUE, .value = M_INODE},
	[M_INO] = {.from = KERNEL_FROM_VALUE, .value = M_INODE},
	[M_USER] = {.from = KERNEL_FROM_VALUE, .value = M_FILE},
	[M_NAME] = {.from = KERNEL_FROM_VALUE, .value = M_FILE},
};

struct outside_scanner {
	struct kernel_memory *k;
	struct kernel_scan *tasks, *files, *maps;
	struct outside_rings *rings;
	uint32_t level; /* of the pid namespace of the container */
	uint64_t pidns;
};

struct outside *outside_new(void)
{
	void *at = mmap(NULL, sizeof(struct outside), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

void outside_free(struct outside *o)
{
	if (o)
		munmap(o, sizeof(*o));
}

static void add_steps(struct kernel_memory *k, struct kernel_path *paths, const struct step *s)
{
	for (; s->value >= 0; s++)
		kernel_path_add(k, &paths[s->value], s->structure, s->member);
}

/* Without any one of them nothing can be said. */
static bool all_found(const struct kernel_path *paths, int from, int n)
{
	for (int i = from; i < n; i++)
		if (!paths[i].n)
			return false;
	return true;
}

/* Where the pid namespace stands in the struct pid of all that are in the container, or below. */
static int find_container(struct outside_scanner *s, pid_t init)
{
	int nr = kernel_offset(s->k, "upid", "nr"), ns = kernel_offset(s->k, "upid", "ns");
	int offsets[] = {kernel_offset(s->k, "task_struct", "thread_pid"), 0};
	uint64_t task;
	int r = kernel_task(s->k, init, &task);

	if (r >= 0)
		r = kernel_number_offset(s->k, task, &s->level);
	if (r < 0 || ns < 0)
		return r < 0 ? r : ns;
	offsets[1] = r - nr + ns;
	r = kernel_chase(s->k, task, offsets, 2, &s->pidns, sizeof(s->pidns));
	return r < 0 ? r : offsets[1];
}

static int new_tasks(struct outside_scanner *s, int number, int pidns)
{
	struct kernel_path paths[T_VALUES] = {};

	add_steps(s->k, paths, task_steps);
	kernel_path_add_offset(&paths[T_PID], number);
	kernel_path_add_offset(&paths[T_TID], number);
	kernel_path_add_offset(&paths[T_PIDNS], pidns);
	return all_found(paths, 0, T_VALUES) ? kernel_scan_new(&s->tasks, s->k, paths, T_VALUES)
					     : -ENOENT;
}

static int new_files(struct outside_scanner *s, int number)
{
	struct kernel_path paths[F_VALUES];

	memcpy(paths, file_begins, sizeof(paths));
	add_steps(s->k, paths, file_steps);
	kernel_path_add_offset(&paths[F_TID], number);
	kernel_path_add_offset(&paths[F_NAME], 0);
	return all_found(paths, F_TID, F_VALUES)
		       ? kernel_scan_new_over(&s->files, s->k, KERNEL_FILES, paths, F_VALUES)
		       : -ENOENT;
}

/* Since Linux 6.8 the path that was opened stands beside a file of an overlay, before in it. */
static void add_user(struct kernel_memory *k, struct kernel_path *p)
{
	int beside = kernel_offset(k, "backing_file", "user_path.mnt");

	kernel_path_add_offset(p, beside >= 0 ? beside : kernel_offset(k, "file", "f_path.mnt"));
	kernel_path_add(k, p, "vfsmount", "mnt_sb");
	kernel_path_add(k, p, "super_block", "s_dev");
}

static int new_maps(struct outside_scanner *s, int number)
{
	struct kernel_path paths[M_VALUES];

	memcpy(paths, map_begins, sizeof(paths));
	add_steps(s->k, paths, map_steps);
	kernel_path_add_offset(&paths[M_TID], number);
	kernel_path_add_offset(&paths[M_NAME], 0);
	add_user(s->k, &paths[M_USER]);
	return all_found(paths, 0, M_VALUES)
		       ? kernel_scan_new_over(&s->maps, s->k, KERNEL_MAPPINGS, paths, M_VALUES)
		       : -ENOENT;
}

int outside_scanner_new(struct outside_scanner **ret, int proc_fd, pid_t init, struct error *e)
{
	struct outside_scanner *s = calloc(1, sizeof(*s));
	uint64_t self;
	uint32_t level;
	int r = s ? kernel_memory_open(proc_fd, &s->k, e) : -ENOMEM, number = 0;
	int pidns = 0;

	if (r >= 0)
		r = kernel_task(s->k, (pid_t)syscall(SYS_gettid), &self);
	if (r >= 0)
		r = number = kernel_number_offset(s->k, self, &level);
	if (r >= 0)
		r = pidns = find_container(s, init);
	if (r >= 0)
		r = new_tasks(s, number, pidns);
	if (r >= 0)
		r = new_files(s, number);
	if (r >= 0)
		r = new_maps(s, number);
	if (r >= 0)
		r = outside_rings_new(&s->rings, s->k);
	if (r < 0) {
		outside_scanner_free(s);
		return error_errno(e, r, E_SYSTEM, "what runs outside cannot be read (BPF)");
	}
	*ret = s;
	return 0;
}

struct kernel_memory *outside_scanner_kernel(const struct outside_scanner *s)
{
	return s->k;
}

void outside_scanner_free(struct outside_scanner *s)
{
	if (!s)
		return;
	kernel_scan_free(s->tasks);
	kernel_scan_free(s->files);
	kernel_scan_free(s->maps);
	outside_rings_free(s->rings);
	kernel_memory_free(s->k);
	free(s);
}

/* Of what is shorter than a word the rest is what stands behind it. */
static dev_t device(uint64_t v)
{
	return makedev((uint32_t)v >> MINOR_BITS, (uint32_t)v & ((1 << MINOR_BITS) - 1));
}

struct noting {
	const struct outside_scanner *s;
	struct outside *o;
};

static bool is_inside(const struct outside_scanner *s, const uint64_t *v)
{
	return (uint32_t)v[T_LEVEL] >= s->level && v[T_PIDNS] == s->pidns;
}

static void note_rings_of_task(void *arg, const uint64_t *v)
{
	const struct noting *n = arg;

	if (v[T_URING] && !is_inside(n->s, v))
		outside_rings_see_numbers(n->s->rings, v[T_URING], (pid_t)(uint32_t)v[T_TID]);
}

static void note_ring(void *arg, const uint64_t *v)
{
	const struct noting *n = arg;

	if (outside_rings_is(n->s->rings, device(v[F_DEV]), v[F_NAME]))
		outside_rings_see(n->s->rings, v[F_FILE], (pid_t)(uint32_t)v[F_TID], (int)v[F_FD]);
}

static void note_mapped_ring(void *arg, const uint64_t *v)
{
	const struct noting *n = arg;

	if (outside_rings_is(n->s->rings, device(v[M_DEV]), v[M_NAME]))
		outside_rings_see(n->s->rings, v[M_FILE], (pid_t)(uint32_t)v[M_TID], RING_MAPPED);
}

static void note_task(void *arg, const uint64_t *v)
{
	const struct noting *n = arg;
	struct outside *o = n->o;

	note_rings_of_task(arg, v);

	if (o->n_tasks == OUTSIDE_TASKS) {
		o->result = -E2BIG;
		return;
	}
	o->tasks[o->n_tasks++] = (struct outside_task){
		.namespaces = v[T_NAMESPACES],
		.user = v[T_USER],
		.files = v[T_FILES],
		.pid = (pid_t)(uint32_t)v[T_PID],
		.tid = (pid_t)(uint32_t)v[T_TID],
		.root = device(v[T_ROOT]),
		.cwd = device(v[T_CWD]),
		.kernel = (uint32_t)v[T_FLAGS] & PF_KTHREAD,
		.inside = is_inside(n->s, v),
	};
}

static void note_file(void *arg, const uint64_t *v)
{
	struct outside *o = ((const struct noting *)arg)->o;
	mode_t mode = (uint16_t)v[F_MODE];

	note_ring(arg, v);
	if (o->n_files == OUTSIDE_FILES) {
		o->result = -E2BIG;
		return;
	}
	o->files[o->n_files++] = (struct outside_file){
		.file = v[F_FILE],
		.fd = (int)v[F_FD],
		.tid = (pid_t)(uint32_t)v[F_TID],
		.mode = mode,
		.dev = device(v[F_DEV]),
		.rdev = device(v[F_RDEV]),
		.ino = v[F_INO],
		.watched = v[F_WATCHED],
		.network = S_ISSOCK(mode) ? v[F_NETWORK] : 0,
		.waiting =
			S_ISSOCK(mode) && (uint16_t)v[F_FAMILY] == AF_UNIX && (uint32_t)v[F_QUEUE],
	};
}

static void note_map(void *arg, const uint64_t *v)
{
	struct outside *o = ((const struct noting *)arg)->o;
	struct outside_map map = {
		.tid = (pid_t)(uint32_t)v[M_TID],
		.dev = device(v[M_DEV]),
		.ino = v[M_INO],
		.user = device(v[M_USER]),
	};

	note_mapped_ring(arg, v);
	if (o->n_maps == OUTSIDE_MAPS)
		o->result = -E2BIG;
	else
		o->maps[o->n_maps++] = map;
}

static int by_tid(const void *a, const void *b)
{
	const struct outside_task *x = a, *y = b;

	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

static int by_tid_and_fd(const void *a, const void *b)
{
	const struct outside_file *x = a, *y = b;

	if (x->tid != y->tid)
		return x->tid < y->tid ? -1 : 1;
	return x->fd < y->fd ? -1 : x->fd > y->fd;
}

const struct outside_task *outside_find_task(const struct outside *o, pid_t tid)
{
	const struct outside_task key = {.tid = tid};

	return bsearch(&key, o->tasks, o->n_tasks, sizeof(key), by_tid);
}

const struct outside_file *outside_find_file(const struct outside *o, pid_t tid, int fd)
{
	const struct outside_file key = {.tid = tid, .fd = fd};

	return bsearch(&key, o->files, o->n_files, sizeof(key), by_tid_and_fd);
}

/* The kernel goes by the numbers that it knows us by. */
static void sort(struct outside *o)
{
	for (size_t i = 1; i < o->n_tasks; i++)
		if (by_tid(&o->tasks[i - 1], &o->tasks[i]) > 0) {
			qsort(o->tasks, o->n_tasks, sizeof(*o->tasks), by_tid);
			break;
		}
	for (size_t i = 1; i < o->n_files; i++)
		if (by_tid_and_fd(&o->files[i - 1], &o->files[i]) > 0) {
			qsort(o->files, o->n_files, sizeof(*o->files), by_tid_and_fd);
			break;
		}
}

void outside_scan(struct outside_scanner *s, struct outside *o)
{
	/* the fault point shows what is found without */
	const char *fault = getenv("REPRISE_FAULT");
	struct noting noting = {s, o};
	int r = fault && !strcmp(fault, "no-glance-outside") ? -EOPNOTSUPP : 0;

	o->result = 0;
	o->n_tasks = o->n_files = o->n_maps = o->n_held = 0;
	if (r >= 0)
		r = kernel_scan_all(s->tasks, note_task, &noting);
	if (r >= 0)
		r = kernel_scan_all(s->files, note_file, &noting);
	if (r >= 0)
		r = kernel_scan_all(s->maps, note_map, &noting);
	sort(o);
	if (r >= 0)
		r = outside_rings_read(s->rings, o, true);
	if (r < 0)
		o->result = r;
}

int outside_scan_rings(struct outside_scanner *s, struct outside *o, pid_t pid)
{
	struct noting noting = {s, o};
	int r = pid ? kernel_scan_process(s->tasks, pid, note_rings_of_task, &noting)
		    : kernel_scan_all(s->tasks, note_rings_of_task, &noting);

	if (pid && r >= 0)
		r = kernel_scan_process(s->files, pid, note_ring, &noting);
	if (pid && (r >= 0 || r == -ESRCH)) /* nothing is open */
		r = kernel_scan_process(s->maps, pid, note_mapped_ring, &noting);
	return r < 0 && r != -ESRCH ? r : outside_rings_read(s->rings, o, false);
}

int outside_file_of(struct outside_scanner *s, pid_t pid, int fd, uint64_t *ret)
{
	const int path[] = {kernel_offset(s->k, "task_struct", "files"),
			    kernel_offset(s->k, "files_struct", "fdt"),
			    kernel_offset(s->k, "fdtable", "fd"), fd * (int)sizeof(uint64_t)};
	uint64_t task;
	int r = kernel_task(s->k, pid, &task);

	return r < 0 ? r : kernel_chase(s->k, task, path, 4, ret, sizeof(*ret));
}
