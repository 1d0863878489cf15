/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/first.h"
#include "ns/mount_table.h"
#include "ns/pidns.h"

struct request {
	pid_t vpid;
};

struct answer {
	int ret;
	struct error error;
};

static int write_file(const char *path, const char *text)
{
	_cleanup_(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
}

static int map_ids(uid_t uid, gid_t gid, struct error *e)
{
	char map[64];
	int r;

	/* setgroups must be given up before an unprivileged gid map is taken (user_namespaces(7))
	 */
	r = write_file("/proc/self/setgroups", "deny");
	if (r < 0)
		return error_errno(e, r, E_NAMESPACE, "cannot write /proc/self/setgroups");
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	r = write_file("/proc/self/uid_map", map);
	if (r < 0)
		return error_errno(e, r, E_NAMESPACE, "cannot map the user id");
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	r = write_file("/proc/self/gid_map", map);
	return r < 0 ? error_errno(e, r, E_NAMESPACE, "cannot map the group id") : 0;
}

/* Where message queues are mounted, those of the new IPC namespace are. */
static int mount_queues(struct error *e)
{
	_cleanup_(close_fd) int proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(mount_table_free) struct mount_table mounts = {};
	int r = mount_table_read(proc_fd, getpid(), &mounts, e);

	if (r < 0)
		return r;
	vec_for_each (m, &mounts)
		if (!strcmp(m->type, "mqueue") &&
		    mount("mqueue", m->point, "mqueue", mount_flags(m->options), NULL) < 0)
			return error_errno(e, -errno, E_NAMESPACE,
					   "cannot mount the message queues on %s", m->point);
	return 0;
}

int pidns_enter(bool ipc, struct error *e)
{
	const int flags = CLONE_NEWNS | (ipc ? CLONE_NEWIPC : 0);
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r;

	if (unshare(flags) < 0) {
		if (errno != EPERM)
			return error_errno(e, -errno, E_NAMESPACE,
					   "cannot make a mount namespace%s",
					   ipc ? " and an IPC namespace" : "");
		if (unshare(CLONE_NEWUSER | flags) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot make a user namespace");
		r = map_ids(uid, gid, e);
		if (r < 0)
			return r;
	}
	/* What is mounted from now on is seen by nobody else. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make the mounts private");
	return ipc ? mount_queues(e) : 0;
}

int pidns_mount_proc(void *arg, struct error *e)
{
	(void)arg;
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE,
				   "cannot mount /proc in the new pid namespace");
	return 0;
}

static void tell(int channel, const struct answer *a)
{
	if (write(channel, a, sizeof(*a)) != sizeof(*a))
		_exit(1);
}

static void mount_and_tell(int channel, mounts_fn mounts, void *arg)
{
	struct answer a = {};

	a.ret = mounts(arg, &a.error);
	tell(channel, &a);
}

static long raw_clone3(const struct clone_args *args)
{
	return syscall(SYS_clone3, args, sizeof(*args));
}

/* Signals are not lost until it is another program, which collects them. */
static void __attribute__((noreturn)) go_on(int channel, int file, pid_t root)
{
	struct answer a = {};
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGURG);
	sigprocmask(SIG_SETMASK, &all, NULL);
	/* What a terminal sends to the caller is for the tree, not for us to hand on. */
	setpgid(0, 0);
	a.ret = error_errno(&a.error, first_become(file, root, true), E_NAMESPACE,
			    "cannot start the first process");
	tell(channel, &a);
	_exit(1);
}

static void __attribute__((noreturn))
init_main(int channel, mounts_fn mounts, void *mounts_arg, stub_main stub, void *arg)
{
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid_size = 1};
	struct answer made = {};
	struct request req;
	pid_t tid;
	long pid;
	int file;

	prctl(PR_SET_NAME, "reprise-init");
	mount_and_tell(channel, mounts, mounts_arg);
	if (read(channel, &req, sizeof(req)) != sizeof(req))
		_exit(1);
	tid = req.vpid;
	file = first_open(&made.error);
	args.set_tid = (uint64_t)(uintptr_t)&tid;
	pid = file < 0 ? file : raw_clone3(&args);
	if (pid == 0)
		stub(arg);
	if (file < 0)
		made.ret = file;
	else if (pid < 0)
		made.ret =
			error_errno(&made.error, -errno, E_NAMESPACE, "cannot make the root task");
	/* Of what the coordinator has opened nothing may be held by us when the tasks run. */
	channel = dup3(channel, 0, O_CLOEXEC);
	if (file >= 0)
		file = dup3(file, 1, O_CLOEXEC);
	syscall(SYS_close_range, 2u, ~0u, 0u);
	tell(channel, &made);
	if (pid < 0)
		_exit(1);
	/*
	 * Until the restart is complete its end ends us, and with us the namespace:
	 * the coordinator closes its side without a word only when it dies.
	 */
	if (read(channel, &req, sizeof(req)) != sizeof(req))
		_exit(1);
	go_on(channel, file, (pid_t)pid);
}

static int ask(int channel, struct error *e)
{
	struct answer a;

	if (read(channel, &a, sizeof(a)) != sizeof(a))
		return error_set(e, -ESRCH, E_NAMESPACE,
				 "the init of the new pid namespace has ended");
	if (a.ret < 0)
		*e = a.error;
	return a.ret;
}

int pidns_make_init(struct pidns *ns, bool root_is_init, mounts_fn mounts, void *mounts_arg,
		    stub_main stub, void *arg, struct error *e)
{
	struct clone_args args = {.flags = CLONE_NEWPID | CLONE_PARENT | CLONE_CLEAR_SIGHAND};
	int pair[2], r;
	long pid;

	ns->channel = -EBADF;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	pid = raw_clone3(&args);
	if (pid == 0) {
		close(pair[0]);
		if (!root_is_init)
			init_main(pair[1], mounts, mounts_arg, stub, arg);
		mount_and_tell(pair[1], mounts, mounts_arg);
		stub(arg);
	}
	close_fd(&pair[1]);
	ns->channel = pair[0];
	if (pid < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a pid namespace");
	ns->init = (pid_t)pid;
	r = ask(ns->channel, e);
	/* A stub has nothing more to say there. */
	if (root_is_init)
		close_fd(&ns->channel);
	return r;
}

#define COUNTER "sys/kernel/ns_last_pid"

/* The file stands for the namespace of who reads or writes. */
uint32_t pidns_counter(int proc_fd)
{
	_cleanup_(free_ptr) char *text = NULL;

	return procfs_read(proc_fd, &text, NULL, COUNTER) > 0 ? (uint32_t)strtoul(text, NULL, 10)
							      : 0;
}

/*
 * Choosing a pid does not move it on (idr_alloc() in alloc_pid()). A number that is not possible
 * here (kernel.pid_max) cannot have been the last one here either.
 */
int pidns_restart_counter(struct restart *r, struct error *e)
{
	const Reprise__Tree *tree = restart_nth(r, RECORD_TREE, 0, NULL);
	struct restart_task *root = &r->processes.v[0].tasks.v[0];
	_cleanup_(batch_free) struct batch b = {};
	_cleanup_(close_fd) int fd = -EBADF;
	int len, remote, call, res;
	char text[16];

	if (!r->pidns || !tree->last_pid)
		return 0;
	len = snprintf(text, sizeof(text), "%u", tree->last_pid);
	fd = procfs_open(r->proc_fd, O_WRONLY | O_CLOEXEC, e, COUNTER);
	res = fd < 0 ? fd : restart_send_fds(r, root, &fd, 1, &remote, e);
	if (res < 0)
		return res;
	call = batch_call(&b, SYS_write, VAL(remote), DATA(batch_data(&b, text, (uint32_t)len)),
			  VAL(len));
	batch_call(&b, SYS_close, VAL(remote));
	res = agent_run(root->process->agent, root->tid, NULL, &b, e);
	if (res >= 0 && batch_result(&b, call) < 0 && batch_result(&b, call) != -EINVAL)
		res = error_errno(e, (int)batch_result(&b, call), E_NAMESPACE,
				  "cannot set the number from which pids are given");
	return res;
}

static pid_t only_child(struct restart *r, pid_t parent, struct error *e)
{
	_cleanup_(free_ptr) char *list = NULL;
	ssize_t n = procfs_read(r->proc_fd, &list, e, "%d/task/%d/children", parent, parent);

	return n < 0 ? (pid_t)n : (pid_t)atoi(list);
}

/* The restart is complete: init goes on by itself. */
int pidns_release(struct pidns *ns, struct error *e)
{
	const struct request req = {};
	struct answer a;
	ssize_t n;

	if (ns->channel < 0)
		return 0;
	n = send(ns->channel, &req, sizeof(req), MSG_NOSIGNAL);
	/* The end of the channel: it has executed another program. */
	if (n == sizeof(req))
		n = read(ns->channel, &a, sizeof(a));
	if (n == sizeof(a)) {
		*e = a.error;
		return a.ret;
	}
	return n == 0 ? 0
		      : error_set(e, -ESRCH, E_NAMESPACE,
				  "the init of the new pid namespace has ended");
}

int pidns_make_root(struct pidns *ns, struct restart *r, pid_t vpid, pid_t *ret, struct error *e)
{
	const struct request req = {vpid};
	int res;

	if (send(ns->channel, &req, sizeof(req), MSG_NOSIGNAL) != sizeof(req))
		return error_set(e, -ESRCH, E_NAMESPACE,
				 "the init of the new pid namespace has ended");
	res = ask(ns->channel, e);
	if (res < 0)
		return res;
	*ret = only_child(r, ns->init, e);
	if (*ret < 0)
		return *ret;
	return *ret > 0 ? 0 : error_set(e, -ESRCH, E_RESTORE, "the root task is not found");
}
