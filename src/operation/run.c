/* SPDX-License-Identifier: Apache-2.0 */
/* Containers: started, and entered by further commands. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/run.h"
#include "ns/spaces.h"
#include "ns/userns.h"
#include "operation/operation.h"

static pid_t only_child(int proc_fd, pid_t parent)
{
	_cleanup_(free_ptr) char *list = NULL;
	struct error unused = {};

	if (procfs_read(proc_fd, &list, &unused, "%d/task/%d/children", parent, parent) < 0)
		return 0;
	return (pid_t)atoi(list);
}

struct started {
	int proc_fd;
	bool is_init;
	struct report *rep;
	struct reprise_restarted *result;
};

/* Nothing of the command has run: the caller notes that there is a container. */
static int note(void *arg, pid_t init, struct error *e)
{
	struct started *s = arg;
	int r;

	s->result->init = init;
	s->result->pid = s->is_init ? init : only_child(s->proc_fd, init);
	r = report_ready(s->rep, s->result);
	return r < 0 ? error_set(e, r, E_INTERRUPTED, "the caller gave the container up") : 0;
}

int operation_run(char *const argv[], const struct reprise_run_options *opt, struct report *rep,
		  struct reprise_restarted *result, struct error *e)
{
	struct started started = {.rep = rep, .result = result, .is_init = opt->is_init != 0};
	struct run run = {
		.ready = note,
		.arg = &started,
		.place = {.root = opt->root, .layers = opt->layers},
		.rootfs = opt->rootfs ? opt->rootfs : "/",
		.hostname = opt->hostname ? opt->hostname : "reprise",
		.workdir = opt->workdir,
		.volumes = opt->volumes,
		.host_network = opt->host_network != 0,
		.net = opt->net,
		.user = opt->user != 0,
		.terminal = opt->terminal != 0,
		.is_init = opt->is_init != 0,
		.cgroups_file = opt->cgroups,
		.limits = {opt->memory, opt->pids, opt->cpu_thousandths},
		.show_cgroups = opt->show_cgroups != 0,
		.argv = argv,
		.envp = opt->env ? opt->env : environ,
	};
	_cleanup_(close_fd) int proc_fd = -EBADF;
	pid_t init = 0;
	int r;

	if (!run.place.root || !run.place.layers)
		return error_set(e, -EINVAL, E_USAGE, "a container needs two directories");
	/* Soon our root is that of the container, and so is /proc. */
	r = procfs_open_root(&proc_fd, e);
	started.proc_fd = proc_fd;
	if (r >= 0)
		r = run_begin(&run, e);
	if (r >= 0)
		r = run_start(&run, &init, e);
	cgroups_made_free(&run.cgroups);
	result->init = init;
	return r;
}

/* Those that it has for itself: one cannot enter the user namespace in which one is, nor, as an
 * ordinary user, others that are the host's. */
static int namespaces_of(pid_t pid)
{
	static const struct {
		const char *name;
		int flag;
	} kinds[] = {{"user", CLONE_NEWUSER},	  {"mnt", CLONE_NEWNS},	  {"pid", CLONE_NEWPID},
		     {"uts", CLONE_NEWUTS},	  {"ipc", CLONE_NEWIPC},  {"net", CLONE_NEWNET},
		     {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}};
	int flags = 0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		char path[64], own[64];
		struct stat theirs, ours;

		snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kinds[i].name);
		snprintf(own, sizeof(own), "/proc/self/ns/%s", kinds[i].name);
		if (stat(path, &theirs) == 0 && stat(own, &ours) == 0 &&
		    theirs.st_ino != ours.st_ino)
			flags |= kinds[i].flag;
	}
	return flags;
}

/* It may be in a user namespace below that to which its other namespaces belong. */
static int enter_all(pid_t init, int pidfd, int flags, struct error *e)
{
	_cleanup_(close_fd) int proc_fd = -EBADF, user = -EBADF;
	struct stat own;
	uint64_t its;
	int r;

	if (!(flags & CLONE_NEWUSER))
		return !flags || setns(pidfd, flags) == 0 ? 0 : -errno;
	r = procfs_open_root(&proc_fd, e);
	if (r >= 0)
		r = user = userns_open(proc_fd, init, e);
	if (r < 0)
		return r;
	its = space_number(proc_fd, e, "%d/ns/user", init);
	if (!its)
		return e->err;
	flags &= ~CLONE_NEWUSER;
	if (fstat(user, &own) < 0 || setns(user, CLONE_NEWUSER) < 0 ||
	    (flags && setns(pidfd, flags) < 0) ||
	    (own.st_ino != its && setns(pidfd, CLONE_NEWUSER) < 0))
		return -errno;
	return 0;
}

static int enter(pid_t init, struct error *e)
{
	_cleanup_(close_fd) int pidfd = (int)syscall(SYS_pidfd_open, init, 0);
	int r;

	if (pidfd < 0)
		return error_errno(e, -errno, E_PID_NONE, "task %d", init);
	r = enter_all(init, pidfd, namespaces_of(init), e);
	if (r >= 0 || e->err)
		return r;
	if (r == -ESRCH)
		return error_set(e, -ESRCH, E_CONTAINER_STATE, "the container has ended");
	return error_errno(e, r, E_NAMESPACE, "cannot enter the container");
}

static void __attribute__((noreturn))
execute(int channel, char *const argv[], const struct reprise_run_options *opt)
{
	struct error e = {};

	setsid();
	if (opt->terminal)
		ioctl(STDIN_FILENO, TIOCSCTTY, 0);
	if (opt->workdir && chdir(opt->workdir) < 0)
		error_errno(&e, -errno, E_NAMESPACE, "cannot change to directory %s", opt->workdir);
	else if (execvpe(argv[0], argv, opt->env ? opt->env : environ) < 0)
		error_errno(&e, -errno, E_USAGE, "cannot execute %s", argv[0]);
	ignore(write(channel, &e, sizeof(e)) == sizeof(e) ? 0 : -EPIPE, "nobody listens");
	_exit(127);
}

int operation_exec(pid_t init, char *const argv[], const struct reprise_run_options *opt,
		   struct reprise_restarted *result, struct error *e)
{
	_cleanup_(close_fd) int ours = -EBADF;
	struct error told = {};
	int pipe_fds[2], r;
	long pid;

	cgroups_follow(init);
	r = enter(init, e);
	if (r < 0)
		return r;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_errno(e, -errno, E_SYSTEM, "pipe");
	ours = pipe_fds[0];
	/* A child of whoever waits for it, which is not us. */
	{
		struct clone_args args = {.flags = CLONE_PARENT};

		pid = syscall(SYS_clone3, &args, sizeof(args));
	}
	if (pid == 0)
		execute(pipe_fds[1], argv, opt);
	close(pipe_fds[1]);
	if (pid < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a process");
	result->pid = (pid_t)pid;
	if (read(ours, &told, sizeof(told)) == sizeof(told)) {
		*e = told;
		return told.err < 0 ? told.err : -EIO;
	}
	return 0;
}
