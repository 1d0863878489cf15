/* SPDX-License-Identifier: Apache-2.0 */
/* A program with a descriptor in a state that cannot be saved: which, its argument says. */
#include "harness.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int linked = -1, watcher = -1, group = -1;

static int break_lease(void *arg)
{
	test_write("breaking", "", 0);
	return open("leased", O_RDWR) < 0;
}

/* Without privilege, writing to such a file takes its set-uid bit: two changes in one event. */
static int write_to_setuid(void *arg)
{
	CHECK(!seteuid(65534) && !chmod("setuid", 04777) && !truncate("setuid", 1));
	return 0;
}

/* Events that nobody can cause again; by default, of a file that has gone, told by a descriptor. */
static void set_up_fanotify(const char *how)
{
	bool names = *how == '+', thread = !strcmp(how, "=thread");

	group = fanotify_init(FAN_NONBLOCK | (*how == '-' ? FAN_UNLIMITED_QUEUE
					      : names	  ? FAN_REPORT_DFID_NAME
					      : thread	  ? FAN_REPORT_TID
							  : 0),
			      O_RDONLY);
	CHECK(!fanotify_mark(group, FAN_MARK_ADD, FAN_MODIFY | FAN_EVENT_ON_CHILD, AT_FDCWD, "."));
	if (thread) {
		test_write("new", "contents", 8);
		return;
	}
	/* where handles are not as on a disk */
	CHECK(!mkdir("memory", 0700) && !mount("none", "memory", "tmpfs", 0, NULL));
	CHECK(!fanotify_mark(group, FAN_MARK_ADD,
			     names ? FAN_CREATE : FAN_MODIFY | FAN_EVENT_ON_CHILD, AT_FDCWD,
			     "memory"));
	test_write("memory/new", "contents", 8);
	CHECK(names || !unlink("memory/new"));
}

/* When its parent has ended it is outside of our tree. */
static int open_outside(void *arg)
{
	pid_t parent = getpid();

	if (fork())
		return 0;
	while (getppid() == parent)
		usleep(1000);
	test_write("waiting", "", 0);
	_exit(open("guarded", O_RDONLY) < 0);
}

/* Somebody waits for an answer: not yet told, or told. */
static void set_up_permission(const char *how)
{
	struct fanotify_event_metadata event;
	int queued = 0;

	test_write("guarded", "", 0);
	group = fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
	CHECK(group >= 0);
	CHECK(!fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, "guarded"));
	test_reap(test_fork(open_outside, NULL), 0);
	while (!queued)
		CHECK(!ioctl(group, FIONREAD, &queued));
	if (*how)
		CHECK_EQUAL(read(group, &event, sizeof(event)), (ssize_t)sizeof(event));
}

/* It allows whatever it is asked for. */
static int allow(void *arg)
{
	struct fanotify_event_metadata event;

	while (read(group, &event, sizeof(event)) == (ssize_t)sizeof(event)) {
		const struct fanotify_response yes = {.fd = event.fd, .response = FAN_ALLOW};

		CHECK_EQUAL(write(group, &yes, sizeof(yes)), (ssize_t)sizeof(yes));
		close(event.fd);
	}
	return 0;
}

/* A group decides about a removed file that its own tree has open. */
static void set_up_decided(void)
{
	CHECK(!mkdir("guarded", 0700));
	linked = test_file("guarded/here", 5000, 3);
	group = fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
	CHECK(group >= 0);
	CHECK(!fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD, AT_FDCWD,
			     "guarded"));
	test_fork(allow, NULL);
	CHECK(!unlink("guarded/here"));
	linked = -1;
}

static void set_up(const char *what)
{
	int fd;

	if (!strcmp(what, "linked")) {
		CHECK(!mkdir("there", 0700));
		linked = test_file("here", 5000, 3);
		CHECK(!link("here", "there/other") && !unlink("here"));
	} else if (!strcmp(what, "linked-far")) {
		CHECK(!mkdir("there", 0700) && !mkdir("near", 0700));
		linked = test_file("near/here", 5000, 3);
		CHECK(!link("near/here", "there/other") && !unlink("near/here"));
		CHECK(!rmdir("near"));
	} else if (!strcmp(what, "detached-tree")) {
		CHECK(syscall(SYS_open_tree, AT_FDCWD, "/",
			      0x8001 /* OPEN_TREE_CLONE, AT_RECURSIVE */) >= 0);
	} else if (!strcmp(what, "detached-file")) {
		int tree;

		fd = (int)syscall(SYS_fsopen, "tmpfs", 0);
		CHECK(!syscall(SYS_fsconfig, fd, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0));
		tree = (int)syscall(SYS_fsmount, fd, 0, 0);
		CHECK(!mknodat(tree, "null", S_IFCHR | 0600, makedev(1, 3)) &&
		      openat(tree, "null", O_RDWR) >= 0 && !close(tree) && !close(fd));
	} else if (!strcmp(what, "detached-user")) {
		close(test_file("file", 100, 1));
		CHECK(!unshare(CLONE_NEWUSER | CLONE_NEWNS));
		test_write("/proc/self/uid_map", "65534 65534 1", 13);
		test_write("/proc/self/setgroups", "deny", 4);
		test_write("/proc/self/gid_map", "65534 65534 1", 13);
		fd = (int)syscall(SYS_open_tree, AT_FDCWD, ".", 1 /* OPEN_TREE_CLONE */);
		CHECK(openat(fd, "file", O_RDONLY) >= 0 && !close(fd));
	} else if (!strcmp(what, "detached-given-up")) {
		char path[4096];

		/* the same path leads to the same file, on a mount that is there */
		close(test_file("file", 100, 1));
		fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */);
		CHECK(getcwd(path, sizeof(path) - 5) && strcat(path, "/file"));
		CHECK(!chmod("file", 0666) && openat(fd, path + 1, O_RDONLY) >= 0 && !close(fd));
		CHECK(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534) &&
		      !setresuid(65534, 65534, 65534) && !prctl(PR_SET_DUMPABLE, 1));
	} else if (!strcmp(what, "fscontext")) {
		CHECK(syscall(SYS_fsopen, "tmpfs", 0) >= 0);
	} else if (!strcmp(what, "notify")) {
		CHECK(!fcntl(open(".", O_RDONLY), F_NOTIFY, DN_CREATE | DN_MULTISHOT));
	} else if (!strcmp(what, "inotify")) {
		watcher = inotify_init1(IN_NONBLOCK);
		CHECK_EQUAL(inotify_add_watch(watcher, ".", IN_CREATE), 1);
		test_write("setuid", "", 0);
		CHECK(!chown("setuid", 65534, 65534));
		CHECK_EQUAL(inotify_add_watch(watcher, "setuid", IN_MODIFY | IN_ATTRIB), 2);
		test_reap(test_fork(write_to_setuid, NULL), 0);
	} else if (!strcmp(what, "inotify-plain")) {
		watcher = inotify_init1(IN_NONBLOCK);
		CHECK_EQUAL(inotify_add_watch(watcher, ".", IN_CREATE), 1);
		test_write("new", "", 0);
	} else if (!strncmp(what, "fanotify", 8)) {
		set_up_fanotify(what + 8);
	} else if (!strcmp(what, "decided")) {
		set_up_decided();
	} else if (!strncmp(what, "permission", 10)) {
		set_up_permission(what + 10);
	} else if (!strcmp(what, "mounts")) {
		/* FAN_REPORT_MNT, FAN_MARK_MNTNS, FAN_MNT_ATTACH of 6.15 */
		fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
		if (fanotify_mark(fanotify_init(0x4000, 0), FAN_MARK_ADD | 0x110, 0x01000000, fd,
				  NULL))
			test_skip("the kernel does not watch mounts (errno %d)", errno);
		close(fd);
	} else if (!strcmp(what, "breaking")) {
		signal(SIGIO, SIG_IGN);
		test_write("leased", "", 0);
		CHECK(!fcntl(open("leased", O_RDONLY), F_SETLEASE, F_RDLCK));
		test_fork(break_lease, NULL);
		while (access("breaking", F_OK))
			usleep(1000);
	} else if (!strcmp(what, "lease")) {
		fd = test_file("leased", 10, 1);
		CHECK(!unlink("leased"));
		CHECK(!fcntl(fd, F_SETLEASE, F_WRLCK));
	} else if (!strcmp(what, "covered")) {
		CHECK(!mkdir("covered", 0700));
		test_file("covered/file", 10, 1);
		CHECK(!mount("none", "covered", "tmpfs", 0, NULL));
	} else if (!strcmp(what, "secret")) {
		fd = (int)syscall(447, 0); /* memfd_secret(): not in the headers of 2022 */
		if (fd < 0)
			test_skip("memfd_secret: %s", strerror(errno));
		CHECK(!ftruncate(fd, 4096));
	} else if (!strcmp(what, "proc")) {
		CHECK(open("/proc/1/status", O_RDONLY) >= 0);
	} else if (!strcmp(what, "proc-cwd")) {
		CHECK(!chdir("/proc/1"));
	} else if (!strcmp(what, "proc-fd")) {
		CHECK(open("/proc/self/fd/0", O_PATH | O_NOFOLLOW) >= 0);
	} else {
		CHECKF(0, "what is '%s'?", what);
	}
}

int main(int argc, char **argv)
{
	struct stat st, other;
	char data[5000];

	test_init();
	set_up(argv[1]);
	test_wait();
	if (linked >= 0) {
		CHECK_EQUAL(pread(linked, data, sizeof(data), 0), (ssize_t)sizeof(data));
		CHECK_FILLED(data, sizeof(data), 3);
		CHECK(!fstat(linked, &st) && !stat("there/other", &other));
		CHECK_EQUAL(st.st_ino == other.st_ino, argc < 3 || atoi(argv[2]));
	}
	if (watcher >= 0 && argc > 2) {
		struct inotify_event event;

		CHECK_EQUAL(read(watcher, &event, sizeof(event)), (ssize_t)sizeof(event));
		CHECK_EQUAL(event.wd, -1);
		CHECK_EQUAL(event.mask, IN_Q_OVERFLOW);
		CHECK(read(watcher, data, sizeof(data)) < 0 && errno == EAGAIN);
		test_write("newer", "", 0);
		CHECK(read(watcher, data, sizeof(data)) > 0);
		memcpy(&event, data, sizeof(event));
		CHECK_EQUAL(event.wd, 1);
		CHECK_EQUAL(event.mask, IN_CREATE);
	}
	if (group >= 0 && argc > 2) {
		struct fanotify_event_metadata event;

		CHECK(read(group, data, sizeof(data)) >= (ssize_t)sizeof(event));
		memcpy(&event, data, sizeof(event));
		CHECK_EQUAL(event.mask, FAN_Q_OVERFLOW);
		CHECK_EQUAL(event.fd, FAN_NOFD);
		CHECK(read(group, data, sizeof(data)) < 0 && errno == EAGAIN);
		test_write("newer", "contents", 8);
		CHECK(read(group, data, sizeof(data)) > 0);
		memcpy(&event, data, sizeof(event));
		CHECK(event.mask & FAN_MODIFY);
	}
	/* A child of ours may be waiting for long yet. */
	test_pass();
}
