/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/zombie.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "kernel/levels.h"

/* ---- checkpoint ---- */

/* The first process of a pid namespace ignores what it has no handler for, but for its own faults
 * (SIGNAL_UNKILLABLE). */
static bool ends_like_init(const Reprise__Process *msg)
{
	return WIFEXITED(msg->exit_status) || WTERMSIG(msg->exit_status) == SIGKILL;
}

int zombie_validate(const Reprise__Process *msg, struct error *e)
{
	const struct restart_process as = {.msg = msg};

	if (!pid_space_is_init(&as) || ends_like_init(msg))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_TASK_STATE,
			 "was the first process of a pid namespace, and has ended by signal %d",
			 WTERMSIG(msg->exit_status));
}

int zombie_check(struct checkpoint *c, const struct checkpoint_process *p, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Process msg = REPRISE__PROCESS__INIT;
	char path[48], link[64];
	int r;

	/* It takes what the exit code in stat takes (PTRACE_MODE_READ), and says so. */
	snprintf(path, sizeof(path), "%d/ns/user", p->frozen->pid);
	if (readlinkat(c->proc_fd, path, link, sizeof(link)) >= 0 ||
	    (errno != EACCES && errno != EPERM))
		r = levels_save_process(c, p, &msg, &s, e);
	else
		return error_set(e, -EPERM, E_PERMISSION,
				 "has ended, and how it ended is not shown to us");
	msg.exit_status = p->frozen->exit_code;
	return r < 0 ? procfs_unless_gone(r, e) : zombie_validate(&msg, e);
}

/* ---- restart ---- */

#define DIRECTORIES_MAX 16
#define END_MS		60000

/* A pattern that leads into a file, below the root or the working directory of who dumps. */
static bool read_pattern(const struct restart *r, char **ret)
{
	struct error unused = {};

	if (procfs_read(r->proc_fd, ret, &unused, "sys/kernel/core_pattern") <= 0)
		return false;
	(*ret)[strcspn(*ret, "\n")] = '\0';
	return **ret && **ret != '|' && **ret != '@';
}

/* The directories of a pattern, as far as its name does not depend on the task. */
static void make_directories(struct batch *b, const char *pattern)
{
	char path[PATH_MAX];
	int n = 0;

	snprintf(path, sizeof(path), "%s", pattern);
	for (char *at = strchr(path + 1, '/'); at && n < DIRECTORIES_MAX;
	     at = strchr(at + 1, '/'), n++) {
		*at = '\0';
		batch_call(b, SYS_mkdirat, VAL(AT_FDCWD),
			   DATA(batch_data(b, path, (uint32_t)strlen(path) + 1)), VAL(0777));
		*at = '/';
	}
}

/*
 * The flag is set by a core file that was written, and by nothing else (coredump_finish()). It is
 * written into a file system that ends with the task, and nobody sees.
 */
static int go_where_nobody_sees(struct restart_process *p, const char *pattern, struct error *e)
{
	const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	_cleanup_(batch_free) struct batch b = {};
	uint32_t type = batch_data(&b, "tmpfs", sizeof("tmpfs"));
	uint32_t here = batch_data(&b, ".", sizeof("."));
	uint32_t limit = batch_data(&b, &all, sizeof(all));
	int fs, mount, r;

	fs = batch_call(&b, SYS_fsopen, DATA(type), VAL(0));
	batch_must(&b, fs);
	batch_must(&b, batch_call(&b, SYS_fsconfig, RESULT(fs), VAL(FSCONFIG_CMD_CREATE), VAL(0),
				  VAL(0), VAL(0)));
	mount = batch_call(&b, SYS_fsmount, RESULT(fs), VAL(0), VAL(0));
	batch_must(&b, mount);
	batch_must(&b, batch_call(&b, SYS_fchdir, RESULT(mount)));
	batch_must(&b, batch_call(&b, SYS_chroot, DATA(here)));
	batch_must(&b, batch_call(&b, SYS_setrlimit, VAL(RLIMIT_CORE), DATA(limit)));
	make_directories(&b, pattern);
	r = agent_run(p->agent, p->pid, NULL, &b, e);
	if (r < 0)
		return r;
	return batch_failed(&b) < 0 ? 0 : (int)batch_result(&b, batch_failed(&b));
}

/* Nothing of its memory: what ends here was never the application. */
static void dump_little(const struct restart *r, pid_t pid)
{
	struct error unused = {};
	_cleanup_(close_fd) int fd =
		procfs_open(r->proc_fd, O_WRONLY | O_CLOEXEC, &unused, "%d/coredump_filter", pid);

	if (fd >= 0)
		ignore(write(fd, "0", 1), "then it is larger");
}

static void warn(struct restart *r, const struct restart_process *p, const char *why)
{
	struct error warning = {};

	error_set(&warning, -EOPNOTSUPP, E_RESTORE,
		  "that it dumped core is not told to its parent any more: %s", why);
	error_object(&warning, -1, "task %d (zombie)", p->vpid);
	if (r->warn)
		r->warn(r->warn_arg, &warning);
}

/* 1: prepared. */
static int prepare_core(struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(free_ptr) char *pattern = NULL;
	int res;

	if (!read_pattern(r, &pattern)) {
		warn(r, p, "core files are given to a program here (kernel.core_pattern)");
		return 0;
	}
	res = go_where_nobody_sees(p, pattern, e);
	if (res < 0 && e->code != ERROR_NONE)
		return res;
	if (res < 0) {
		warn(r, p, "that takes CAP_SYS_ADMIN, and a core file that may be written");
		return 0;
	}
	dump_little(r, p->pid);
	return 1;
}

static int name_zombie(struct restart_process *p, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	char comm[16] = "";

	strncpy(comm, p->msg->comm ? p->msg->comm : "", sizeof(comm) - 1);
	batch_call(&b, SYS_prctl, VAL(PR_SET_NAME), DATA(batch_data(&b, comm, sizeof(comm))),
		   VAL(0), VAL(0), VAL(0));
	return agent_run(p->agent, p->pid, NULL, &b, e);
}

static int zombie_await(pid_t pid, struct error *e)
{
	struct trace_stop stop;
	int r;

	do {
		/* Its memory goes first; files and mounts may take a while (do_exit()). */
		r = trace_wait(pid, &stop, END_MS, e);
		if (r == -ETIMEDOUT)
			error_set(e, r, E_RESTORE, "task %d does not end", pid);
		if (r >= 0 && stop.kind != TRACE_EXITED)
			r = trace_cont(pid, stop.kind == TRACE_SIGNAL ? stop.signal : 0, e);
	} while (r >= 0 && stop.kind != TRACE_EXITED);
	return r;
}

/* Lets a captive end by itself: the registers of an exit_group(2), or of a deadly signal. */
int zombie_end(struct agent *agent, pid_t pid, int status, bool core, struct error *e)
{
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	int r;

	r = agent_exit(agent, pid, WIFEXITED(status) ? WEXITSTATUS(status) : 0, sig,
		       core ? AGENT_END_CORE : AGENT_END_PROCESS, e);
	if (r < 0)
		return r;
	return zombie_await(pid, e);
}

static int kill_init(struct restart_process *p, struct error *e)
{
	if (kill(p->pid, SIGKILL) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot end it");
	return zombie_await(p->pid, e);
}

static int make(struct restart *r, struct restart_process *p, struct error *e)
{
	int status = p->msg->exit_status, core = 0, res = name_zombie(p, e);
	struct proc_stat st;

	if (res >= 0 && WIFSIGNALED(status) && WCOREDUMP(status))
		res = core = prepare_core(r, p, e);
	if (res >= 0 && pid_space_is_init(p) && WIFSIGNALED(status))
		res = kill_init(p, e);
	else if (res >= 0)
		res = zombie_end(p->agent, p->pid, status, core > 0, e);
	if (res >= 0 && core > 0 &&
	    (proc_stat_read(r->proc_fd, p->pid, p->pid, &st, NULL) < 0 || !WCOREDUMP(st.exit_code)))
		warn(r, p, "no core file could be written");
	return res < 0 ? error_object(e, res, "task %d (zombie)", p->vpid) : 0;
}

int zombies_make(struct restart *r, struct error *e)
{
	int res = 0;

	for (size_t i = r->processes.n; i > 0 && res >= 0; i--)
		if (r->processes.v[i - 1].msg->zombie)
			res = make(r, &r->processes.v[i - 1], e);
	return res;
}
