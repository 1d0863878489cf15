/* SPDX-License-Identifier: Apache-2.0 */
/* What stays outside of a container, and what it does there. */
#include "ns/outsider.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "remote/hand.h"
#include "core/kernel_memory.h"
#include "ns/outside.h"
#include "remote/tracer.h"

#define KILL_TIMEOUT_MS 10000

struct outpost {
	struct hand *hand;
	int proc_fd, init;
	pid_t first;
	pid_t pids[2]; /* of ours */
	struct outside_scanner *scanner;
	struct outside *all;
	struct kernel_memory *kernel; /* without a scanner */
	bool kernel_asked;
};

/* SIGKILL is due when the process has ended, and with it its hold on the tasks. What it had open
 * is of the container, or waited for by others. */
static void await_end(void *arg)
{
	const struct outpost *o = arg;
	struct pollfd pfd = {.fd = o->init, .events = POLLIN};

	if (o->init > 3)
		syscall(SYS_close_range, 3u, (unsigned int)o->init - 1, 0u);
	syscall(SYS_close_range, (unsigned int)o->init + 1, ~0u, 0u);
	syscall(SYS_pidfd_send_signal, o->init, SIGKILL, NULL, 0);
	poll(&pfd, 1, KILL_TIMEOUT_MS);
}

/* Its descriptors stand among ours, of which there may be many. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	ignore(setrlimit(RLIMIT_NOFILE, &limit), "up to the hard limit it is allowed");
}

/* While we look at the container. */
static int prepare(void *arg)
{
	struct outpost *o = arg;
	struct error unused = {};

	raise_limit();
	o->all = outside_new();
	if (o->all)
		ignore(outside_scanner_new(&o->scanner, o->proc_fd, o->first, &unused),
		       "then each process is asked");
	return 0;
}

int outsider_new(struct outpost **ret, int proc_fd, int init, pid_t first, struct error *e)
{
	struct outpost *o = calloc(1, sizeof(*o));
	int r = o ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for what stays outside");

	if (r < 0)
		return r;
	o->proc_fd = proc_fd;
	o->first = first;
	o->pids[0] = getpid();
	o->init = fcntl(init, F_DUPFD_CLOEXEC, 3);
	if (o->init < 0)
		r = error_errno(e, -errno, E_SYSTEM, "cannot duplicate a descriptor");
	if (r >= 0)
		r = hand_new(&o->hand, e);
	if (r < 0) {
		close_fd(&o->init);
		free(o);
		return r;
	}
	hand_begin(o->hand, prepare, o);
	*ret = o;
	return 0;
}

int outsider_trace(struct outpost *o, struct error *e)
{
	return tracer_set(o->hand, true, e);
}

int outsider_do(struct outpost *o, int (*fn)(void *arg), void *arg)
{
	return hand_do(o->hand, fn, arg);
}

void outsider_note(struct outpost *o, pid_t pid)
{
	o->pids[1] = pid;
}

bool outsider_is(const struct outpost *o, pid_t pid)
{
	return pid == o->pids[0] || pid == o->pids[1];
}

pid_t outsider_pid(const struct outpost *o)
{
	return o->pids[0];
}

struct kernel_memory *outsider_kernel_memory(struct outpost *o)
{
	struct error unused = {};

	if (o->scanner)
		return outside_scanner_kernel(o->scanner);
	if (!o->kernel_asked)
		ignore(kernel_memory_open(o->proc_fd, &o->kernel, &unused), "then it stays NULL");
	o->kernel_asked = true;
	return o->kernel;
}

/* ---- asked by the process ---- */

struct signal {
	const struct outpost *o;
	int sig;
};

static int send_signal(void *arg)
{
	const struct signal *s = arg;

	return syscall(SYS_pidfd_send_signal, s->o->init, s->sig, NULL, 0) < 0 ? -errno : 0;
}

int outsider_kill(struct outpost *o, int sig)
{
	struct signal s = {o, sig};

	if (sig != SIGKILL)
		return hand_do(o->hand, send_signal, &s);
	hand_at_end(o->hand, await_end, o);
	return 0;
}

struct marks {
	int parent;
	const char *name;
	char *buf;
};

static int read_marks(void *arg)
{
	const struct marks *m = arg;
	const char *name = m->name;
	char *buf = m->buf;
	_cleanup_(free_ptr) char *list = malloc(OUTSIDER_MARKS);
	size_t used = 0;
	ssize_t n;

	if (!list || fchdir(m->parent) < 0)
		return list ? -errno : -ENOMEM;
	n = llistxattr(name, list, OUTSIDER_MARKS);
	if (n < 0)
		return errno == ENOTSUP || errno == ENOENT ? 0 : -errno;
	for (char *x = list; x < list + n; x += strlen(x) + 1) {
		const size_t head = strlen(x) + 1 + sizeof(uint32_t);
		ssize_t len = -1;
		uint32_t size;

		if (strncmp(x, "trusted.", 8))
			continue;
		if (used + head < OUTSIDER_MARKS)
			len = lgetxattr(name, x, buf + used + head, OUTSIDER_MARKS - used - head);
		if (len < 0)
			return -E2BIG;
		size = (uint32_t)len;
		memcpy(buf + used, x, strlen(x) + 1);
		memcpy(buf + used + strlen(x) + 1, &size, sizeof(size));
		used += head + size;
	}
	return (int)used;
}

int outsider_marks(struct outpost *o, int parent, const char *name, char *buf)
{
	struct marks m = {parent, name, buf};

	return hand_do(o->hand, read_marks, &m);
}

static int scan(void *arg)
{
	struct outpost *o = arg;
	int nice = getpriority(PRIO_PROCESS, 0);

	if (!o->scanner)
		return -EOPNOTSUPP;
	/* as who waits for it while the container stands still */
	ignore(setpriority(PRIO_PROCESS, 0, PRIO_MIN), "who may not does not");
	outside_scan(o->scanner, o->all);
	ignore(setpriority(PRIO_PROCESS, 0, nice), "it was so before");
	return o->all->result;
}

void outsider_begin_scan(struct outpost *o)
{
	hand_begin(o->hand, scan, o);
}

struct outside *outsider_end_scan(struct outpost *o)
{
	return hand_end(o->hand) == 0 ? o->all : NULL;
}

const struct outside *outsider_rings(struct outpost *o, pid_t pid)
{
	return o->scanner && outside_scan_rings(o->scanner, o->all, pid) >= 0 ? o->all : NULL;
}

uint64_t outsider_file(struct outpost *o, pid_t pid, int fd)
{
	uint64_t file = 0;

	return o->scanner && outside_file_of(o->scanner, pid, fd, &file) >= 0 ? file : 0;
}
