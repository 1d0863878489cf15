/* SPDX-License-Identifier: Apache-2.0 */
#include "core/procfs.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "core/cleanup.h"

#define PATH_SIZE  256
#define PF_EXITING 0x4 /* include/linux/sched.h */

int procfs_open_root(int *ret_fd, struct error *e)
{
	_cleanup_(close_fd) int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;

	if (fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot open /proc");
	if (fstatfs(fd, &fs) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot look at /proc");
	if (fs.f_type != PROC_SUPER_MAGIC)
		return error_set(e, -ENOSYS, E_SYSTEM, "/proc is not a proc file system");
	*ret_fd = take_fd(&fd);
	return 0;
}

/* The length of what names the task in a path "PID/..." or "PID/task/TID/..."; 0: no task. */
static int task_part(const char *path)
{
	size_t n = strspn(path, "0123456789");

	if (n && !strncmp(path + n, "/task/", 6))
		n += 6 + strspn(path + n + 6, "0123456789");
	return (int)n;
}

/* Is it still there? */
static bool task_exists(int proc_fd, const char *path)
{
	char prefix[PATH_SIZE];

	snprintf(prefix, sizeof(prefix), "%.*s", task_part(path), path);
	return !*prefix || faccessat(proc_fd, prefix, F_OK, 0) == 0;
}

/* Does it end just now? What it had is no longer there then, though it is. */
static bool task_ends(int proc_fd, const char *path)
{
	char stat[PATH_SIZE], text[1024];
	_cleanup_(close_fd) int fd = -EBADF;
	struct proc_stat st;
	ssize_t n;

	snprintf(stat, sizeof(stat), "%.*s/stat", task_part(path), path);
	fd = openat(proc_fd, stat, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
	if (n <= 0)
		return true;
	text[n] = '\0';
	return proc_stat_parse(text, &st) == 0 &&
	       (st.state == 'Z' || st.state == 'X' || st.flags & PF_EXITING);
}

/* The command of the task that a path is about: readable for everybody, whatever else is not. */
static void read_comm(int proc_fd, int pid, char *buf, size_t size)
{
	char path[32];
	_cleanup_(close_fd) int fd = -EBADF;
	ssize_t n;

	snprintf(path, sizeof(path), "%d/comm", pid);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, buf, size - 1) : 0;
	if (n < 0)
		n = 0;
	while (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = '\0';
}

/* Turns the errno of an access to `path` into an error that names the task. */
static int access_error(struct error *e, int proc_fd, int err, const char *verb, const char *path)
{
	int pid = atoi(path);
	char comm[64];

	if ((err == -ENOENT || err == -ESRCH) && pid > 0 &&
	    (!task_exists(proc_fd, path) || (strstr(path, "/ns/") && task_ends(proc_fd, path))))
		err = -ESRCH;
	if (err == -ESRCH && pid > 0)
		return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", pid);
	if ((err == -EACCES || err == -EPERM) && pid > 0) {
		read_comm(proc_fd, pid, comm, sizeof(comm));
		return error_set(e, err, E_PERMISSION,
				 "no permission to %s /proc/%s of task %d (%s)", verb, path, pid,
				 comm);
	}
	return error_errno(e, err, E_SYSTEM, "cannot %s /proc/%s", verb, path);
}

/*
 * Was there no namespace since another thread has called exec, and was that about to take the place
 * of the leader (de_thread())? Then the path leads to the new one now.
 */
static bool is_replaced(int proc_fd, const char *path, int err)
{
	return err == -ENOENT && strstr(path, "/ns/") && task_exists(proc_fd, path) &&
	       !task_ends(proc_fd, path);
}

static int make_path(char *path, const char *fmt, va_list ap, struct error *e)
{
	int n = vsnprintf(path, PATH_SIZE, fmt, ap);

	if (n < 0 || n >= PATH_SIZE)
		return error_set(e, -ENAMETOOLONG, E_INTERNAL, "a path below /proc is too long");
	return 0;
}

static int open_path(int proc_fd, int flags, const char *path, struct error *e)
{
	int fd = openat(proc_fd, path, flags | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;

	if (is_replaced(proc_fd, path, r)) {
		fd = openat(proc_fd, path, flags | O_CLOEXEC);
		r = fd < 0 ? -errno : 0;
	}
	return r < 0 ? access_error(e, proc_fd, r, "open", path) : fd;
}

int procfs_open(int proc_fd, int flags, struct error *e, const char *fmt, ...)
{
	char path[PATH_SIZE];
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = make_path(path, fmt, ap, e);
	va_end(ap);
	return r < 0 ? r : open_path(proc_fd, flags, path, e);
}

/*
 * Is it made in one piece, so that a read has come to the end that ends a line and does not fill
 * its buffer?
 */
static bool is_whole(const char *path)
{
	static const char *const names[] = {"stat",	     "status",	       "statm",
					    "limits",	     "comm",	       "personality",
					    "oom_score_adj", "coredump_filter"};
	const char *base = strrchr(path, '/');

	for (size_t i = 0; base && i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(base + 1, names[i]))
			return true;
	return false;
}

/* Of what is kept no more than there is: most is small, and memory is zeroed by the page. */
static ssize_t keep(char **ret, const char *path, const char *text, size_t len, struct error *e)
{
	char *copy = malloc(len + 1);

	if (!copy)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot read /proc/%s", path);
	memcpy(copy, text, len);
	copy[len] = '\0';
	*ret = copy;
	return (ssize_t)len;
}

static ssize_t read_path(int proc_fd, size_t piece, char **ret, const char *path, struct error *e)
{
	_cleanup_(close_fd) int fd = open_path(proc_fd, O_RDONLY, path, e);
	_cleanup_(free_ptr) char *text = NULL;
	char small[4096], *at = small;
	size_t used = 0, size = sizeof(small);
	bool whole = is_whole(path), end = false;

	if (fd < 0)
		return fd;
	while (!end) {
		size_t left;
		ssize_t n;

		if (size - used < 2048) {
			char *bigger = realloc(text, size * 2);

			if (!bigger)
				return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot read /proc/%s",
						 path);
			if (!text)
				memcpy(bigger, small, used);
			at = text = bigger;
			size *= 2;
		}
		left = size - used - 1;
		left = left < piece ? left : piece;
		n = read(fd, at + used, left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return access_error(e, proc_fd, -errno, "read", path);
		used += (size_t)n;
		end = n == 0 || (whole && (size_t)n < left && at[used - 1] == '\n');
	}
	if (!text)
		return keep(ret, path, small, used, e);
	text[used] = '\0';
	*ret = take_ptr(&text);
	return (ssize_t)used;
}

static ssize_t read_named(int proc_fd, size_t piece, char **ret, struct error *e, const char *fmt,
			  va_list ap)
{
	char path[PATH_SIZE];
	int r = make_path(path, fmt, ap, e);

	return r < 0 ? r : read_path(proc_fd, piece, ret, path, e);
}

ssize_t procfs_read(int proc_fd, char **ret, struct error *e, const char *fmt, ...)
{
	va_list ap;
	ssize_t n;

	va_start(ap, fmt);
	n = read_named(proc_fd, SIZE_MAX, ret, e, fmt, ap);
	va_end(ap);
	return n;
}

ssize_t procfs_read_by(int proc_fd, size_t piece, char **ret, struct error *e, const char *fmt, ...)
{
	va_list ap;
	ssize_t n;

	va_start(ap, fmt);
	n = read_named(proc_fd, piece, ret, e, fmt, ap);
	va_end(ap);
	return n;
}

int procfs_readlink(int proc_fd, char **ret, struct error *e, const char *fmt, ...)
{
	/* The kernel prints the target of such a link into one page at most. */
	char target[PATH_MAX + 1];
	char path[PATH_SIZE];
	va_list ap;
	ssize_t n;
	char *s;
	int r;

	va_start(ap, fmt);
	r = make_path(path, fmt, ap, e);
	va_end(ap);
	if (r < 0)
		return r;
	n = readlinkat(proc_fd, path, target, sizeof(target) - 1);
	r = n < 0 ? -errno : 0;
	if (is_replaced(proc_fd, path, r)) {
		n = readlinkat(proc_fd, path, target, sizeof(target) - 1);
		r = n < 0 ? -errno : 0;
	}
	if (r < 0)
		return access_error(e, proc_fd, r, "read the link", path);
	if ((size_t)n >= sizeof(target) - 1)
		return error_set(e, -ENAMETOOLONG, E_SYSTEM, "the target of /proc/%s is too long",
				 path);
	s = strndup(target, (size_t)n);
	if (!s)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot read /proc/%s", path);
	*ret = s;
	return 0;
}

int procfs_give(int proc_fd, int fd, mode_t mode, uid_t uid, gid_t gid)
{
	char link[32];

	snprintf(link, sizeof(link), "self/fd/%d", fd);
	/* A new owner takes bits off the mode (chown(2)). */
	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 || fchmodat(proc_fd, link, mode, 0) < 0
		       ? -errno
		       : 0;
}

int procfs_unless_gone(ssize_t r, struct error *e)
{
	if (r != -ESRCH && r != -ENOENT)
		return (int)r;
	error_clear(e);
	return 0;
}

/* Field numbers of /proc/PID/stat as in proc_pid_stat(5), from the first after the state. */
enum {
	FIELD_PPID = 4,
	FIELD_PGRP = 5,
	FIELD_SESSION = 6,
	FIELD_TTY_NR = 7,
	FIELD_TPGID = 8,
	FIELD_FLAGS = 9,
	FIELD_PRIORITY = 18,
	FIELD_NICE = 19,
	FIELD_NUM_THREADS = 20,
	FIELD_START_TIME = 22,
	FIELD_START_CODE = 26,
	FIELD_END_CODE = 27,
	FIELD_START_STACK = 28,
	FIELD_EXIT_SIGNAL = 38,
	FIELD_RT_PRIORITY = 40,
	FIELD_POLICY = 41,
	FIELD_START_DATA = 45,
	FIELD_END_DATA = 46,
	FIELD_START_BRK = 47,
	FIELD_ARG_START = 48,
	FIELD_ARG_END = 49,
	FIELD_ENV_START = 50,
	FIELD_ENV_END = 51,
	FIELD_EXIT_CODE = 52,
	FIELD_COUNT = 53,
};

/* A number with an optional sign, as a 64-bit pattern; NULL if there is none. */
static const char *parse_number(const char *s, uint64_t *ret)
{
	char *end;

	if (*s != '-' && !isdigit((unsigned char)*s))
		return NULL;
	errno = 0;
	*ret = *s == '-' ? (uint64_t)strtoll(s, &end, 10) : strtoull(s, &end, 10);
	if (errno || end == s || (*end && *end != ' ' && *end != '\n'))
		return NULL;
	return end;
}

static void fill_stat(struct proc_stat *st, const uint64_t *f)
{
	st->ppid = (pid_t)f[FIELD_PPID];
	st->pgrp = (pid_t)f[FIELD_PGRP];
	st->session = (pid_t)f[FIELD_SESSION];
	st->tty_nr = (int)f[FIELD_TTY_NR];
	st->tpgid = (int)f[FIELD_TPGID];
	st->flags = f[FIELD_FLAGS];
	st->priority = (long)f[FIELD_PRIORITY];
	st->nice = (long)f[FIELD_NICE];
	st->num_threads = (int)f[FIELD_NUM_THREADS];
	st->start_time = f[FIELD_START_TIME];
	st->start_code = f[FIELD_START_CODE];
	st->end_code = f[FIELD_END_CODE];
	st->start_stack = f[FIELD_START_STACK];
	st->exit_signal = (int)f[FIELD_EXIT_SIGNAL];
	st->rt_priority = (unsigned int)f[FIELD_RT_PRIORITY];
	st->policy = (unsigned int)f[FIELD_POLICY];
	st->start_data = f[FIELD_START_DATA];
	st->end_data = f[FIELD_END_DATA];
	st->start_brk = f[FIELD_START_BRK];
	st->arg_start = f[FIELD_ARG_START];
	st->arg_end = f[FIELD_ARG_END];
	st->env_start = f[FIELD_ENV_START];
	st->env_end = f[FIELD_ENV_END];
	st->exit_code = (int)f[FIELD_EXIT_CODE];
}

int proc_stat_parse(const char *text, struct proc_stat *ret)
{
	/* A command may hold spaces, newlines and parentheses; no field after it does. */
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	uint64_t f[FIELD_COUNT] = {}, pid;
	struct proc_stat st = {};
	size_t n;

	if (!open || !close || close < open || !parse_number(text, &pid) || open == text ||
	    open[-1] != ' ')
		return -EINVAL;
	st.pid = (pid_t)pid;
	n = (size_t)(close - open - 1);
	if (n >= sizeof(st.comm))
		return -EINVAL;
	memcpy(st.comm, open + 1, n);
	if (close[1] != ' ' || !isalpha((unsigned char)close[2]))
		return -EINVAL;
	st.state = close[2];
	text = close + 3;
	for (int i = FIELD_PPID; i < FIELD_COUNT; i++) {
		if (*text != ' ')
			return -EINVAL;
		text = parse_number(text + 1, &f[i]);
		if (!text)
			return -EINVAL;
	}
	fill_stat(&st, f);
	*ret = st;
	return 0;
}

int proc_stat_read(int proc_fd, pid_t pid, pid_t tid, struct proc_stat *ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t r;

	r = procfs_read(proc_fd, &text, e, "%d/task/%d/stat", pid, tid);
	if (r < 0)
		return (int)r;
	if (proc_stat_parse(text, ret) < 0)
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/%d/task/%d/stat is not understood",
				 pid, tid);
	return 0;
}

const char *proc_field(const char *text, const char *name, size_t *len)
{
	size_t n = strlen(name);

	while (*text) {
		const char *end = strchrnul(text, '\n');

		if (!strncmp(text, name, n) && text[n] == ':') {
			const char *value = text + n + 1;

			while (value < end && (*value == ' ' || *value == '\t'))
				value++;
			*len = (size_t)(end - value);
			return value;
		}
		text = *end ? end + 1 : end;
	}
	return NULL;
}

int proc_field_u64(const char *text, const char *name, int base, uint64_t *ret)
{
	size_t len;
	const char *value = proc_field(text, name, &len);
	unsigned long long number;
	char *end;

	if (!value)
		return -ENOENT;
	/* strtoull would skip white space, newlines included, and take a sign. */
	if (!len || !isxdigit((unsigned char)*value))
		return -EINVAL;
	errno = 0;
	number = strtoull(value, &end, base);
	if (errno || end == value || end > value + len)
		return -EINVAL;
	/* A unit may follow, as in "12 kB". */
	if (end < value + len && *end != ' ' && *end != '\t')
		return -EINVAL;
	*ret = number;
	return 0;
}
