/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/kernel_memory.h"
#include "operation/features.h"

struct feature {
	const char *name;
	const char *for_what;
	bool needed;
	int (*probe)(void); /* 0, or a negative errno */
};

static int probe_kcmp(void)
{
	return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, 0, 0) < 0 && errno != EBADF ? -errno
											    : 0;
}

static int probe_pidfd_getfd(void)
{
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), fd, r = 0;

	if (pidfd < 0)
		return -errno;
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, pidfd, 0);
	if (fd < 0)
		r = -errno;
	close_fd(&fd);
	close_fd(&pidfd);
	return r;
}

static int probe_vm_readv(void)
{
	char from = 1, to = 0;
	const struct iovec local = {&to, 1}, remote = {&from, 1};

	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1 ? 0 : -errno;
}

static int probe_children(void)
{
	return access("/proc/thread-self/children", R_OK) < 0 ? -errno : 0;
}

static int probe_timers(void)
{
	return access("/proc/self/timers", R_OK) < 0 ? -errno : 0;
}

static int probe_set_mm_map(void)
{
	unsigned int size = 0;

	return prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) < 0 ? -errno : 0;
}

static int probe_tid_address(void)
{
	int *at;

	return prctl(PR_GET_TID_ADDRESS, &at) < 0 ? -errno : 0;
}

static int probe_pagemap_scan(void)
{
	uint64_t arg[12] = {sizeof(arg)};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = ioctl(fd, _IOWR('f', 16, uint64_t[12]), arg) < 0 ? -errno : 0;
	close_fd(&fd);
	return r;
}

/* Of a first thread it works since 5.3; the flag is what is new (6.9). */
static int probe_pidfd_thread(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), PIDFD_THREAD), r = fd < 0 ? -errno : 0;

	close_fd(&fd);
	return r;
}

static int probe_kernel_memory(void)
{
	struct kernel_memory *k = NULL;
	struct error e = {};
	int r = kernel_memory_open(-EBADF, &k, &e);

	kernel_memory_free(k);
	return r;
}

/* In a child of its own: a pid that is free with near certainty, chosen and given back. */
static int probe_set_tid(void)
{
	pid_t tid = 0;
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid_size = 1};
	long pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(0);
	waitpid((pid_t)pid, NULL, 0);
	tid = (pid_t)pid;
	args.set_tid = (uint64_t)(uintptr_t)&tid;
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		_exit(0);
	if (pid < 0)
		return errno == EEXIST ? 0 : -errno;
	waitpid((pid_t)pid, NULL, 0);
	return 0;
}

static int probe_userns(void)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS) < 0 ? errno : 0);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

static const struct feature features[] = {
	{"kcmp", "telling which objects are shared", true, probe_kcmp},
	{"pidfd_getfd", "looking at open files", true, probe_pidfd_getfd},
	{"process_vm_readv", "reading memory", true, probe_vm_readv},
	{"proc-children", "finding the tree", true, probe_children},
	{"proc-timers", "POSIX timers", true, probe_timers},
	{"set-mm-map", "restoring address space fields", true, probe_set_mm_map},
	{"get-tid-address", "threads", true, probe_tid_address},
	{"clone3-set-tid", "restart with the original pids", false, probe_set_tid},
	{"user-pid-namespaces", "restart with --pidns by an ordinary user", false, probe_userns},
	{"pagemap-scan", "finding pages quickly", false, probe_pagemap_scan},
	{"pidfd-thread", "threads with descriptors of their own, or whose leader has ended", false,
	 probe_pidfd_thread},
	{"kernel-memory", "what no interface tells, by BPF", false, probe_kernel_memory},
};

#define FEATURES (sizeof(features) / sizeof(features[0]))

int features_list(char **text)
{
	size_t size;
	FILE *f = open_memstream(text, &size);

	if (!f)
		return -ENOMEM;
	for (size_t i = 0; i < FEATURES; i++) {
		int r = features[i].probe();

		/* That says nothing about the kernel. */
		if (r == -ENOMEM) {
			ignore(text_end(f, text), "it is not told");
			free(*text);
			*text = NULL;
			return r;
		}
		fprintf(f, "%s\t%s\t%s\n", features[i].name, r < 0 ? "no" : "yes",
			features[i].for_what);
	}
	return text_end(f, text);
}

int features_check(struct report *rep)
{
	int missing = 0;

	for (size_t i = 0; i < FEATURES; i++) {
		struct error e = {};
		int r = features[i].needed ? features[i].probe() : 0;

		if (r >= 0)
			continue;
		error_errno(&e, r, E_KERNEL_TOO_OLD, "the kernel lacks %s, needed for %s",
			    features[i].name, features[i].for_what);
		report_problem(rep, &e);
		missing++;
	}
	return missing;
}
