/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mm/lazy.h"

/*
 * When the last descriptor of a userfaultfd is closed, the kernel forgets that pages are missing:
 * they would be zero, and the application would go on with that. So a second process has the same
 * table of descriptors (CLONE_FILES), and waits for the end of the first. If that comes too early,
 * it ends the tasks, while it still holds what they wait for. The server watches it in turn.
 *
 * Nothing here allocates memory: the keeper may be a copy of a process with several threads, one of
 * which was about to.
 */

#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

enum { TASKS_MAX = 1 << 15, DESCRIPTORS_MAX = 1 << 16, POLL_MS = 20 };

void lazy_tell(int messages, const struct error *e)
{
	_cleanup_(close_fd) int kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	char cause[1800], text[2000];

	error_format(e, cause, sizeof(cause));
	snprintf(text, sizeof(text), "the restarted tasks are ended, for lack of their memory: %s",
		 cause);

	if (messages >= 0)
		ignore(write(messages, text, strlen(text)), "nobody may listen");
	snprintf(cause, sizeof(cause), "<3>reprise: %.900s\n", text);
	if (kmsg >= 0)
		ignore(write(kmsg, cause, strlen(cause)), "there is nothing else to tell it to");
}

/* ---- ending the tasks ---- */

struct tasks {
	pid_t v[TASKS_MAX];
	size_t n;
};

static void add_task(struct tasks *t, pid_t pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->v[i] == pid)
			return;
	if (pid > 0 && t->n < TASKS_MAX)
		t->v[t->n++] = pid;
}

static void add_listed(struct tasks *t, int fd)
{
	char buf[4096];
	pid_t pid = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] >= '0' && buf[i] <= '9') {
				pid = pid * 10 + (buf[i] - '0');
				continue;
			}
			add_task(t, pid);
			pid = 0;
		}
}

/* getdents64(2) as it is, for readdir() allocates. */
struct entry {
	uint64_t ino, off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static void add_children(struct tasks *t, int proc_fd, pid_t pid)
{
	char path[64], buf[4096] __attribute__((aligned(8)));
	_cleanup_(close_fd) int dir = -EBADF;
	long n;

	snprintf(path, sizeof(path), "%d/task", pid);
	dir = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (dir >= 0 && (n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			const struct entry *entry = (const struct entry *)(buf + at);
			_cleanup_(close_fd) int fd = -EBADF;

			at += entry->reclen;
			if (entry->name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%.16s/children", entry->name);
			fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
			if (fd >= 0)
				add_listed(t, fd);
		}
}

void lazy_kill(int proc_fd, const struct lazy_task *tasks, size_t n)
{
	static struct tasks t; /* too large for a stack; in a process of our own */

	t.n = 0;
	/* The pid of one that has ended may be had by another one. */
	for (size_t i = 0; i < n; i++)
		if (syscall(SYS_pidfd_send_signal, tasks[i].pidfd, 0, NULL, 0) == 0)
			add_task(&t, tasks[i].pid);
	/* All before the first is ended, whose children would go to another parent. */
	for (size_t i = 0; i < t.n; i++)
		add_children(&t, proc_fd, t.v[i]);
	for (size_t i = 0; i < t.n; i++)
		kill(t.v[i], SIGKILL);
}

/* ---- whoever is left ---- */

/* Somewhere where nothing is ever mapped: only whether there is an address space left is asked. */
static bool gone(int uffd)
{
	struct uffdio_zeropage z = {.range = {USER_SPACE_END - PAGE_BYTES, PAGE_BYTES}};

	return ioctl(uffd, UFFDIO_ZEROPAGE, &z) < 0 && errno == ESRCH;
}

static void poison(int uffd)
{
	struct uffd_msg m;

	/* A fork brings another descriptor, found in the next round. */
	while (read(uffd, &m, sizeof(m)) == sizeof(m)) {
		struct uffdio_poison p = {
			.range = {m.arg.pagefault.address & ~(PAGE_BYTES - 1), PAGE_BYTES}};

		if (m.event != UFFD_EVENT_PAGEFAULT)
			continue;
		/* Where the kernel cannot do that (before 6.6), it waits for ever. */
		ioctl(uffd, UFFDIO_POISON, &p);
	}
}

/* What had been read already by whoever is gone is asked again. */
static void wake_all(int uffd)
{
	struct uffdio_range range = {1 << 16, USER_SPACE_END - (1 << 17)};

	ioctl(uffd, UFFDIO_WAKE, &range);
}

static bool is_uffd(int proc_fd, int fd)
{
	static const char name[] = "anon_inode:[userfaultfd]";
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "self/fd/%d", fd);
	n = readlinkat(proc_fd, path, link, sizeof(link));
	return n == sizeof(name) - 1 && !memcmp(link, name, sizeof(name) - 1);
}

void lazy_poison(int proc_fd)
{
	bool left = true;

	while (left) {
		int none = 0;

		left = false;
		/* Numbers are given from below: behind a long gap there are none. */
		for (int fd = 3; fd < DESCRIPTORS_MAX && none < 4096; fd++) {
			if (fcntl(fd, F_GETFD) < 0) {
				none++;
				continue;
			}
			none = 0;
			if (!is_uffd(proc_fd, fd))
				continue;
			wake_all(fd);
			poison(fd);
			if (gone(fd))
				close(fd);
			else
				left = true;
		}
		if (left)
			poll(NULL, 0, POLL_MS);
	}
}

/* ---- the keeper ---- */

static void __attribute__((noreturn)) keep(const struct lazy_keeper *k)
{
	struct pollfd end = {.fd = k->server, .events = POLLIN};
	struct error e = {};

	prctl(PR_SET_NAME, "lazy-keeper");
	while (poll(&end, 1, -1) <= 0 || !(end.revents & (POLLIN | POLLHUP)))
		continue;
	if (atomic_load(&k->shared->over))
		_exit(0);
	error_set(&e, -ESRCH, E_LAZY_ENDED, "the process that served it was killed");
	lazy_tell(k->messages, &e);
	lazy_kill(k->proc_fd, k->tasks, k->n);
	lazy_poison(k->proc_fd);
	_exit(1);
}

int lazy_keeper_start(const struct lazy_keeper *k)
{
	int pidfd = -EBADF;
	struct clone_args args = {
		.flags = CLONE_FILES | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0)
		keep(k);
	return pid < 0 ? -errno : pidfd;
}
