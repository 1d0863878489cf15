/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "ns/network.h"
#include "ns/first.h"
#include "ns/run.h"
#include "ns/run_user.h"
#include "ns/userns.h"

#define PATH_SIZE 8192
#define SAFE	  (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* The writable layer of the root has the place of this mount. */
static const Reprise__Mount *root_mount(void)
{
	static const Reprise__Mount m = {.id = 1};

	return &m;
}

/* Whoever may not make them may make them in a user namespace. */
static int make_namespaces(struct run *run, int flags, struct error *e)
{
	run->own_user = run->user;
	if (!run->user && unshare(flags) == 0)
		return 0;
	if (!run->user && errno != EPERM)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make the namespaces");
	if (run->net)
		return error_set(e, -EPERM, E_NAMESPACE,
				 "an interface to the host takes root: --net=none and --net=host "
				 "do not");
	run->own_user = true;
	return userns_make_new(flags, run->user, e);
}

int run_begin(struct run *run, struct error *e)
{
	_cleanup_(network_free) struct network n = NETWORK_INIT;
	_cleanup_(close_fd) int proc_fd = -EBADF;
	int flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP, r;

	if (run->cgroups_file) {
		r = cgroups_make(run->cgroups_file, &run->limits, &run->cgroups, e);
		if (r < 0)
			return r;
	}
	/* That is made by who has entered its groups. */
	if (run->cgroups.n)
		flags &= ~CLONE_NEWCGROUP;
	if (!run->host_network)
		flags |= CLONE_NEWNET;
	r = procfs_open_root(&proc_fd, e);
	if (r < 0)
		return r;
	if (!run->host_network && network_begin(&n, proc_fd, e) < 0)
		return -EIO;
	r = make_namespaces(run, flags, e);
	if (r < 0)
		return r;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make the mounts private");
	if (sethostname(run->hostname, strlen(run->hostname)) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot set the host name %s",
				   run->hostname);
	return run->host_network ? 0 : network_make(&n, run->net, e);
}

static int mount_root(const struct run *run, struct error *e)
{
	static const char *const needed[] = {"proc", "sys", "dev", "tmp", "run"};
	_cleanup_(close_fd) int upper = mounts_upper(&run->place, root_mount(), e);
	char data[PATH_SIZE], path[PATH_SIZE];

	if (upper < 0)
		return upper;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", run->rootfs, needed[i]);
		if (lstat(path, &st) < 0 && mkdirat(upper, needed[i], 0755) < 0 && errno != EEXIST)
			return error_errno(e, -errno, E_NAMESPACE, "cannot make %s", path);
	}
	snprintf(data, sizeof(data), "lowerdir=%s,upperdir=%s/1/upper,workdir=%s/1/work",
		 run->rootfs, run->place.layers, run->place.layers);
	if (mount("overlay", run->place.root, "overlay", 0, data) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot mount the overlay (%s)", data);
	return 0;
}

struct plain_mount {
	const char *type, *point;
	unsigned long flags;
	const char *data;
};

static const struct plain_mount plain_mounts[] = {
	{"proc", "proc", SAFE, ""},
	{"sysfs", "sys", SAFE | MS_RDONLY, ""},
	{"tmpfs", "dev", MS_NOSUID, "mode=755,size=65536k"},
	{"devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5"},
	{"tmpfs", "dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"},
	{"mqueue", "dev/mqueue", SAFE, ""},
	{"tmpfs", "tmp", MS_NOSUID | MS_NODEV, "mode=1777"},
	{"tmpfs", "run", MS_NOSUID | MS_NODEV, "mode=755"},
	/* In a user namespace nothing can be made in a directory of root. */
	{"tmpfs", "var/tmp", MS_NOSUID | MS_NODEV, "mode=1777"},
};

/* Groups of the host are unknown in a user namespace. */
static const char *plain_data(const struct run *run, const struct plain_mount *m)
{
	return run->own_user && !strcmp(m->type, "devpts") ? "ptmxmode=0666,mode=0620" : m->data;
}

static int mount_plain(const struct run *run, struct error *e)
{
	for (size_t i = 0; i < sizeof(plain_mounts) / sizeof(plain_mounts[0]); i++) {
		const struct plain_mount *m = &plain_mounts[i];
		char path[PATH_SIZE];

		snprintf(path, sizeof(path), "%s/%s", run->place.root, m->point);
		/* which a --rootfs may lack */
		if (!strcmp(m->point, "var/tmp") && (!run->own_user || access(path, F_OK) < 0))
			continue;
		/* sysfs_init_fs_context(): who mounts it must have power over the network. */
		if (run->own_user && run->host_network && !strcmp(m->type, "sysfs"))
			continue;
		if (!strncmp(m->point, "dev/", 4) && mkdir(path, 0755) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot make /%s", m->point);
		if (mount(m->type, path, m->type, m->flags, plain_data(run, m)) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot mount /%s", m->point);
	}
	return 0;
}

static int make_devices(const struct run *run, int dev, struct error *e)
{
	static const struct {
		const char *name;
		unsigned int minor, major;
	} nodes[] = {{"null", 3, 1},   {"zero", 5, 1},	  {"full", 7, 1},
		     {"random", 8, 1}, {"urandom", 9, 1}, {"tty", 0, 5}};
	static const char *const links[][2] = {{"ptmx", "pts/ptmx"},
					       {"fd", "/proc/self/fd"},
					       {"stdin", "/proc/self/fd/0"},
					       {"stdout", "/proc/self/fd/1"},
					       {"stderr", "/proc/self/fd/2"}};

	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]) && run->own_user; i++) {
		int r = run_user_device(run, nodes[i].name, e);

		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]) && !run->own_user; i++)
		if (mknodat(dev, nodes[i].name, S_IFCHR | 0666,
			    makedev(nodes[i].major, nodes[i].minor)) < 0 ||
		    fchmodat(dev, nodes[i].name, 0666, 0) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot make /dev/%s",
					   nodes[i].name);
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		if (symlinkat(links[i][1], dev, links[i][0]) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot make /dev/%s",
					   links[i][0]);
	return 0;
}

/* The place for a volume is made where there is none: a directory or an empty file. */
static int make_place(const char *from, char *to, size_t root_len, struct error *e)
{
	struct stat st;
	bool is_dir = stat(from, &st) == 0 && S_ISDIR(st.st_mode);
	int fd;

	for (char *s = to + root_len + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		if (mkdir(to, 0755) < 0 && errno != EEXIST)
			return error_errno(e, -errno, E_NAMESPACE, "cannot make %s", to);
		*s = '/';
	}
	if (is_dir)
		return mkdir(to, 0755) < 0 && errno != EEXIST
			       ? error_errno(e, -errno, E_NAMESPACE, "cannot make %s", to)
			       : 0;
	fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	close_fd(&fd);
	return 0;
}

static int mount_volume(const struct run *run, const char *volume, struct error *e)
{
	_cleanup_(free_ptr) char *copy = strdup(volume);
	char *save = NULL, *from, *inside, *mode, to[PATH_SIZE];
	bool readonly;
	int r;

	from = copy ? strtok_r(copy, ":", &save) : NULL;
	inside = from ? strtok_r(NULL, ":", &save) : NULL;
	mode = inside ? strtok_r(NULL, ":", &save) : NULL;
	readonly = mode && !strcmp(mode, "ro");
	if (!inside || *from != '/' || *inside != '/' || (mode && !readonly && strcmp(mode, "rw")))
		return error_set(
			e, -EINVAL, E_USAGE,
			"a volume is HOST:INSIDE or HOST:INSIDE:ro, with paths from the root, "
			"not %s",
			volume);
	snprintf(to, sizeof(to), "%s%s", run->place.root, inside);
	r = make_place(from, to, strlen(run->place.root), e);
	if (r < 0)
		return r;
	if (mount(from, to, NULL, MS_BIND, NULL) < 0 ||
	    (readonly &&
	     mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, NULL) < 0))
		return error_errno(e, -errno, E_NAMESPACE, "cannot mount %s on %s", from, inside);
	return 0;
}

/* Those of version 2 alone: that is all that systemd asks for. */
static int mount_cgroups(const struct run *run, struct error *e)
{
	const struct cgroup_made *made = cgroup_made_find(&run->cgroups, "");
	char path[PATH_SIZE];

	if (!made)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_CGROUP,
				 "there are no control groups of version 2 that could be shown");
	snprintf(path, sizeof(path), "%s/sys/fs/cgroup", run->place.root);
	if (mount(made->path, path, NULL, MS_BIND, NULL) < 0 ||
	    mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | SAFE, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot mount /sys/fs/cgroup");
	return 0;
}

static int mount_all(const struct run *run, struct error *e)
{
	_cleanup_(close_fd) int dev = -EBADF;
	char path[PATH_SIZE];
	int r = run->own_user ? run_user_root(run, e) : mount_root(run, e);

	if (r >= 0)
		r = mount_plain(run, e);
	if (r < 0)
		return r;
	if (run->show_cgroups)
		r = mount_cgroups(run, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/dev", run->place.root);
	dev = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = make_devices(run, dev, e);
	for (const char *const *v = run->volumes; r >= 0 && v && *v; v++)
		r = mount_volume(run, *v, e);
	return r < 0 ? r : mounts_change_root(run->place.root, e);
}

struct report {
	int ret;
	struct error error;
};

/* Whoever is not heard ends, which is heard. */
static void tell(int channel, const struct error *error, int ret)
{
	const struct report rep = {ret, *error};

	if (write(channel, &rep, sizeof(rep)) != sizeof(rep))
		_exit(127);
}

static void __attribute__((noreturn)) fail(int channel, const struct error *error, int ret)
{
	tell(channel, error, ret);
	_exit(127);
}

static void reset_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * A pseudo-terminal of the container. The first process holds its master, and never uses it: so
 * both ends are saved, and whoever attaches to the terminal from outside shares that descriptor.
 */
static int make_terminal(int *slave, struct error *e)
{
	int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), unlock = 0;

	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 ||
	    (*slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY)) < 0 ||
	    fcntl(*slave, F_SETFD, FD_CLOEXEC) < 0 || dup2(master, RUN_TERMINAL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a terminal");
	if (master != RUN_TERMINAL)
		close(master);
	return 0;
}

static void take_terminal(int slave)
{
	for (int fd = 0; slave >= 0 && fd < 3; fd++)
		dup2(slave, fd);
	ioctl(0, TIOCSCTTY, 0);
	close(RUN_TERMINAL);
}

/* What is outside is none of its business: the terminal is all that there is. */
static void leave_streams(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	close(fd);
}

static void __attribute__((noreturn)) run_command(const struct run *run, int slave, int channel)
{
	struct error e = {};
	char go;

	/* Whoever made us may die before the container is known to anybody: then it ends here. */
	if (recv(channel, &go, 1, 0) != 1)
		_exit(127);
	setsid();
	if (run->terminal)
		take_terminal(slave);
	reset_signals();
	if (run->workdir && chdir(run->workdir) < 0)
		fail(channel, &e,
		     error_errno(&e, -errno, E_NAMESPACE, "cannot change to directory %s",
				 run->workdir));
	execvpe(run->argv[0], run->argv, run->envp);
	fail(channel, &e, error_errno(&e, -errno, E_USAGE, "cannot execute %s", run->argv[0]));
}

/* Before its descriptors are closed, among which are those of the groups. */
static int enter_cgroups(const struct run *run, struct error *e)
{
	int r = cgroups_join(&run->cgroups, e);

	if (r >= 0 && run->cgroups.n && unshare(CLONE_NEWCGROUP) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a cgroup namespace");
	return r;
}

static void __attribute__((noreturn)) first_process(const struct run *run, int channel)
{
	struct error e = {};
	int r = mount_all(run, &e), slave = -1, file;
	pid_t command;

	if (r >= 0 && run->terminal)
		r = make_terminal(&slave, &e);
	if (r < 0)
		fail(channel, &e, r);
	if (run->is_init) {
		tell(channel, &e, 0);
		run_command(run, slave, channel);
	}
	setsid();
	command = fork();
	if (command == 0)
		run_command(run, slave, channel);
	if (command < 0)
		fail(channel, &e, error_errno(&e, -errno, E_NAMESPACE, "cannot make a process"));
	if (run->terminal)
		leave_streams();
	file = first_open(&e);
	if (file < 0)
		fail(channel, &e, file);
	tell(channel, &e, 0);
	/*
	 * It keeps the standard streams, so that a checkpoint knows them as such
	 * wherever the command has put them: a shell that redirects its output has it elsewhere.
	 */
	file = fcntl(file, F_DUPFD_CLOEXEC, 10);
	fail(channel, &e,
	     error_errno(&e, first_become(file, command, false), E_NAMESPACE,
			 "cannot start the first process"));
}

/* What the processes of the container say; 1: they have all executed their programs. */
static int hear(int channel, struct error *e)
{
	struct report rep = {};
	ssize_t n;

	do
		n = read(channel, &rep, sizeof(rep));
	while (n < 0 && errno == EINTR);
	if (n == 0)
		return 1;
	if (n != sizeof(rep))
		return error_errno(e, n < 0 ? -errno : -EIO, E_NAMESPACE,
				   "nothing is heard of the first process");
	if (rep.ret < 0)
		*e = rep.error;
	return rep.ret;
}

static int first_ended(const struct run *run, struct error *e)
{
	return error_set(e, -ESRCH, E_NAMESPACE, "the first process has ended%s",
			 run->limits.memory ? ": the limit of memory is too small for it" : "");
}

/* Lets the command begin, once it is known that there is a container. */
static int let_begin(const struct run *run, int channel, pid_t init, struct error *e)
{
	int r = hear(channel, e);

	if (r == 1)
		return first_ended(run, e);
	if (r >= 0 && run->ready)
		r = run->ready(run->arg, init, e);
	if (r < 0)
		return r;
	if (send(channel, "", 1, MSG_NOSIGNAL) != 1)
		return first_ended(run, e);
	/* Nobody holds the other end any more when both programs have been executed. */
	return hear(channel, e);
}

int run_start(const struct run *run, pid_t *init, struct error *e)
{
	struct clone_args args = {.flags = CLONE_NEWPID | CLONE_NEWTIME | CLONE_PARENT,
				  .exit_signal = 0};
	_cleanup_(close_fd) int ours = -EBADF;
	int pair[2], r;
	long pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	ours = pair[0];
	/* Where the kernel has them: the clocks are those of the machine until it is restarted. */
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0 && errno == EINVAL) {
		args.flags &= ~(uint64_t)CLONE_NEWTIME;
		pid = syscall(SYS_clone3, &args, sizeof(args));
	}
	if (pid == 0) {
		struct error own = {};
		int joined = enter_cgroups(run, &own), channel = dup3(pair[1], 3, O_CLOEXEC);

		if (joined < 0)
			fail(pair[1], &own, joined);
		syscall(SYS_close_range, 4u, ~0u, 0u);
		first_process(run, channel < 0 ? pair[1] : channel);
	}
	close_fd(&pair[1]);
	if (pid < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a pid namespace");
	*init = (pid_t)pid;
	r = let_begin(run, ours, *init, e);
	if (r >= 0)
		return 0;
	kill(*init, SIGKILL);
	return r;
}
