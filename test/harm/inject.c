/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a command under ptrace, and does something to it at one of its system calls:
 *
 *	inject -o REPORT [-n N] [-a ACTION] [-s SEED] [-d DEPTH] [-t SECONDS]
 *	       [-y NUMBER] [-p REQUEST] [-k SIGNAL] [-e PATH] [-c] [-r] -- COMMAND...
 *
 * Calls are counted from 1, over all threads and processes down to DEPTH generations below the
 * command, from the moment at which its own code begins (of calls in which one waits only the
 *first). At call N, before it is executed, ACTION:
 *
 *	none	nothing: REPORT tells how many there are
 *	this	kill the process that makes it
 *	root	kill the first process
 *	all	kill all processes
 *	task	kill the process that was made last of those that are not followed
 *	fail	it is not executed, and fails with an errno that SEED chooses of those that it may
 *give short	it moves but a part of its bytes
 *
 * With -e the command is asked to end (SIGTERM) as soon as PATH is there.
 *
 * With -c calls do not count that nobody else can notice: to be killed before one of them is to be
 * killed before the next. With -r the fourth and later calls with the same arguments from the same
 * place do not count.
 *
 * With -y only calls of that number count.
 *
 * With -p only ptrace calls of that REQUEST count, each twice: its beginning, and its end. With -k
 * the task that is the object of that call gets a SIGNAL before anybody is killed.
 *
 * REPORT gets one line: CALLS PROCESSES STATUS HIT, where STATUS is an exit status, 128 + a signal,
 * or -1 if the command was ended by us after SECONDS, and HIT says what was done to what.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"

#define MAX_TASKS 512
#define SEEN	  (1 << 16) /* a power of two */
#define REPEATS	  3
#define OPTIONS                                                                                   \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | \
	 PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

enum action { NONE, THIS, ROOT, ALL, TASK, FAIL, SHORT };
static const char *const action_names[] = {"none", "this", "root", "all", "task", "fail", "short"};

struct task {
	pid_t tid, tgid;
	int depth;
	bool failing; /* at the end of its call */
	bool looking; /* its last calls were those of one that waits */
	bool counted; /* the end of its call counts as well */
	struct __ptrace_syscall_info call;
};

static struct {
	enum action action;
	long n, calls, processes;
	unsigned long seed;
	int depth, err, signal;
	long only;	  /* -y, -1: all calls count */
	long request;	  /* 0: the same */
	bool changes;	  /* -c */
	bool distinct;	  /* -r */
	const char *end;  /* a path, or NULL */
	pid_t root, made; /* made: the last that is not followed */
	uint64_t entry;	  /* where the code of the command begins */
	long patched;	  /* what stands there */
	struct task tasks[MAX_TASKS];
	int ntasks;
	pid_t early[MAX_TASKS]; /* that have stopped before their makers told of them */
	int nearly;
	char hit[128];
	struct {
		uint64_t key;
		unsigned int times;
	} seen[SEEN];
} in;

static volatile sig_atomic_t late;

static void die(const char *what)
{
	perror(what);
	exit(125);
}

/* ---- tasks ---- */

static struct task *find(pid_t tid)
{
	for (int i = 0; i < in.ntasks; i++)
		if (in.tasks[i].tid == tid)
			return &in.tasks[i];
	return NULL;
}

static void add(pid_t tid, pid_t tgid, int depth)
{
	if (in.ntasks == MAX_TASKS)
		die("too many tasks");
	in.tasks[in.ntasks++] = (struct task){.tid = tid, .tgid = tgid, .depth = depth};
	in.processes += tid == tgid;
}

static void drop(pid_t tid)
{
	struct task *t = find(tid);

	if (t)
		*t = in.tasks[--in.ntasks];
}

static pid_t tgid_of(pid_t tid)
{
	char path[64], line[256];
	int tgid = tid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Tgid: %d", &tgid) == 1)
			break;
	if (f)
		fclose(f);
	return tgid;
}

/* ---- where the code of the command begins ---- */

static uint64_t entry_of(pid_t pid)
{
	Elf64_auxv_t aux[64];
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, aux, sizeof(aux));
	if (fd >= 0)
		close(fd);
	for (ssize_t i = 0; i < n / (ssize_t)sizeof(aux[0]); i++)
		if (aux[i].a_type == AT_ENTRY)
			return aux[i].a_un.a_val;
	die("no entry");
	return 0;
}

static void put_breakpoint(pid_t pid)
{
	in.entry = entry_of(pid);
	errno = 0;
	in.patched = ptrace(PTRACE_PEEKTEXT, pid, in.entry, 0);
	if (errno || ptrace(PTRACE_POKETEXT, pid, in.entry, (in.patched & ~0xffL) | 0xcc) < 0)
		die("breakpoint");
}

static void take_breakpoint(pid_t pid)
{
	if (ptrace(PTRACE_POKETEXT, pid, in.entry, in.patched) < 0 ||
	    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rip), in.entry) < 0)
		die("breakpoint");
}

static pid_t start(char **argv)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		raise(SIGSTOP);
		execv(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	if (waitpid(pid, &status, WUNTRACED) != pid || ptrace(PTRACE_SEIZE, pid, 0, OPTIONS) < 0)
		die("seize");
	kill(pid, SIGCONT);
	for (;;) {
		if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
			die("exec");
		if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8))
			put_breakpoint(pid);
		else if (in.entry && WSTOPSIG(status) == SIGTRAP && status >> 16 == 0)
			break;
		ptrace(PTRACE_CONT, pid, 0, 0);
	}
	take_breakpoint(pid);
	return pid;
}

/* ---- what is done ---- */

static void kill_all(void)
{
	/* the last first, or the first first: as chance will have it */
	for (int i = 0; i < in.ntasks; i++)
		kill(in.tasks[in.seed & 1 ? i : in.ntasks - 1 - i].tgid, SIGKILL);
}

static void act(struct task *t, const struct __ptrace_syscall_info *info)
{
	long nr = (long)info->entry.nr;
	const struct failure *f = failure(nr);
	char detail[48] = "";
	int n = 0;

	if (in.signal)
		syscall(SYS_tkill, (pid_t)info->entry.args[1], in.signal);
	switch (in.action) {
	case NONE:
		break;
	case THIS:
		kill(t->tgid, SIGKILL);
		break;
	case ROOT:
		kill(in.root, SIGKILL);
		break;
	case ALL:
		kill_all();
		break;
	case TASK:
		if (in.made)
			kill(in.made, SIGKILL);
		else
			snprintf(detail, sizeof(detail), " skipped");
		break;
	case FAIL:
		if (f && !may_fail(info))
			f = NULL;
		while (f && n < 6 && f->errs[n])
			n++;
		if (!n) {
			snprintf(detail, sizeof(detail), " skipped");
			break;
		}
		in.err = f->errs[in.seed % (unsigned long)n];
		t->failing = true;
		ptrace(PTRACE_POKEUSER, t->tid, offsetof(struct user, regs.orig_rax), -1L);
		snprintf(detail, sizeof(detail), " %s", strerrorname_np(in.err));
		break;
	case SHORT:
		if (!moves_bytes(nr) || info->entry.args[0] == 2 || info->entry.args[2] < 2) {
			snprintf(detail, sizeof(detail), " skipped");
			break;
		}
		ptrace(PTRACE_POKEUSER, t->tid, offsetof(struct user, regs.rdx),
		       1 + in.seed % (info->entry.args[2] - 1));
		break;
	}
	snprintf(in.hit, sizeof(in.hit), "%s %s(%ld, %#lx, %#lx, %#lx) generation %d%s",
		 action_names[in.action], f ? f->name : "call", nr, (long)info->entry.args[0],
		 (long)info->entry.args[1], (long)info->entry.args[2], t->depth, detail);
}

/* One that waits looks again and again, as often as chance will have it: only the first counts. */
static bool counts(struct task *t, uint64_t nr)
{
	bool looks = nr == SYS_sched_yield || nr == SYS_nanosleep || nr == SYS_clock_nanosleep ||
		     nr == SYS_waitid;
	bool again = looks && t->looking;

	t->looking = looks;
	return !again;
}

static uint64_t mixed(uint64_t key, uint64_t word)
{
	key = (key ^ word) * 0x9e3779b97f4a7c15;
	return key ^ key >> 29;
}

/* Paths and messages stand in memory, and their beginning is compared. */
static bool is_repeated(const struct task *t, const struct __ptrace_syscall_info *info)
{
	uint64_t key = mixed((uint64_t)t->depth, info->entry.nr);
	size_t slot;

	key = mixed(mixed(key, info->instruction_pointer), info->stack_pointer);
	for (int i = 0; i < 4; i++)
		key = mixed(key, info->entry.args[i]);
	for (unsigned int i = 0; i < 8; i++)
		key = mixed(key, (uint64_t)ptrace(PTRACE_PEEKDATA, t->tid,
						  info->entry.args[1] + 8 * i, 0));
	key |= 1;
	for (slot = key >> 8 & (SEEN - 1); in.seen[slot].key && in.seen[slot].key != key;)
		slot = (slot + 1) & (SEEN - 1);
	in.seen[slot].key = key;
	return ++in.seen[slot].times > REPEATS;
}

static bool is_passed_over(const struct task *t, const struct __ptrace_syscall_info *info)
{
	if (in.only >= 0 && info->entry.nr != (uint64_t)in.only)
		return true;
	return (in.changes && is_unseen(t->tid, info)) || (in.distinct && is_repeated(t, info));
}

static void ask_to_end(void)
{
	if (in.end && access(in.end, F_OK) == 0) {
		in.end = NULL;
		kill(in.root, SIGTERM);
	}
}

static void at_syscall(struct task *t)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, t->tid, sizeof(info), &info) <= 0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY && in.request) {
		t->counted = info.entry.nr == SYS_ptrace && (long)info.entry.args[0] == in.request;
		t->call = info;
		if (t->counted && ++in.calls == in.n)
			act(t, &info);
	} else if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
		if (counts(t, info.entry.nr) && !is_passed_over(t, &info) && ++in.calls == in.n)
			act(t, &info);
	} else if (t->counted) {
		if (++in.calls == in.n)
			act(t, &t->call);
	} else if (t->failing) {
		t->failing = false;
		ptrace(PTRACE_POKEUSER, t->tid, offsetof(struct user, regs.rax), (long)-in.err);
	}
}

/* Waits for the first stop of a task. */
static bool came(pid_t tid)
{
	int status;

	for (int i = 0; i < in.nearly; i++) {
		if (in.early[i] == tid) {
			in.early[i] = in.early[--in.nearly];
			return true;
		}
	}
	return waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status);
}

/* A new task; its maker waits until it is known whether it is followed. */
static void at_birth(const struct task *maker)
{
	pid_t tid, tgid, maker_tgid = maker->tgid;
	int depth = maker->depth;
	unsigned long id = 0;

	if (ptrace(PTRACE_GETEVENTMSG, maker->tid, 0, &id) < 0)
		return;
	tid = (pid_t)id;
	if (!came(tid))
		return; /* killed already */
	tgid = tgid_of(tid);
	if (tgid != maker_tgid)
		depth++;
	if (depth > in.depth) {
		in.made = tid;
		ptrace(PTRACE_DETACH, tid, 0, 0);
		return;
	}
	add(tid, tgid, depth);
	ptrace(PTRACE_SYSCALL, tid, 0, 0);
}

static int deliver(struct task *t, int status)
{
	int sig = WSTOPSIG(status), event = status >> 16;

	if (sig == (SIGTRAP | 0x80)) {
		ask_to_end();
		at_syscall(t);
		return 0;
	}
	switch (event) {
	case 0:
		return sig;
	case PTRACE_EVENT_FORK:
	case PTRACE_EVENT_VFORK:
	case PTRACE_EVENT_CLONE:
		at_birth(t);
		return 0;
	default:
		return 0;
	}
}

static int run(void)
{
	int result = -1;

	while (in.ntasks) {
		int status, sig;
		pid_t tid = waitpid(-1, &status, __WALL);
		struct task *t;

		if (late) {
			kill_all();
			late = 0;
			result = -2;
			alarm(2);
			continue;
		}
		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			break;
		if (!WIFSTOPPED(status)) {
			if (tid == in.root && result != -2)
				result = WIFEXITED(status) ? WEXITSTATUS(status)
							   : 128 + WTERMSIG(status);
			drop(tid);
			continue;
		}
		t = find(tid);
		if (!t) {
			if (in.nearly < MAX_TASKS)
				in.early[in.nearly++] = tid;
			continue;
		}
		sig = deliver(t, status);
		if (WSTOPSIG(status) != (SIGTRAP | 0x80) && status >> 16 == PTRACE_EVENT_STOP &&
		    WSTOPSIG(status) != SIGTRAP)
			ptrace(PTRACE_LISTEN, tid, 0, 0);
		else
			ptrace(PTRACE_SYSCALL, tid, 0, sig);
	}
	return result == -2 ? -1 : result;
}

static void on_alarm(int sig)
{
	late = sig;
}

static enum action action_of(const char *name)
{
	for (size_t i = 0; i < sizeof(action_names) / sizeof(action_names[0]); i++)
		if (!strcmp(name, action_names[i]))
			return (enum action)i;
	fprintf(stderr, "no such action: %s\n", name);
	exit(125);
}

int main(int argc, char **argv)
{
	const struct sigaction act = {.sa_handler = on_alarm};
	const char *report = NULL;
	unsigned int seconds = 20;
	int c, status;
	FILE *f;

	in.depth = 16;
	in.only = -1;
	while ((c = getopt(argc, argv, "+o:n:a:s:d:t:y:p:k:e:cr")) >= 0) {
		if (c == 'o')
			report = optarg;
		else if (c == 'n')
			in.n = atol(optarg);
		else if (c == 'a')
			in.action = action_of(optarg);
		else if (c == 's')
			in.seed = strtoul(optarg, NULL, 10);
		else if (c == 'd')
			in.depth = atoi(optarg);
		else if (c == 't')
			seconds = (unsigned int)atoi(optarg);
		else if (c == 'y')
			in.only = strtol(optarg, NULL, 0);
		else if (c == 'p')
			in.request = strtol(optarg, NULL, 0);
		else if (c == 'k')
			in.signal = atoi(optarg);
		else if (c == 'e')
			in.end = optarg;
		else if (c == 'c')
			in.changes = true;
		else if (c == 'r')
			in.distinct = true;
		else
			return 125;
	}
	if (!report || optind == argc)
		return 125;
	sigaction(SIGALRM, &act, NULL);
	in.root = start(argv + optind);
	add(in.root, in.root, 0);
	alarm(seconds);
	ptrace(PTRACE_SYSCALL, in.root, 0, 0);
	status = run();
	f = fopen(report, "we");
	if (!f)
		die(report);
	fprintf(f, "%ld %ld %d %s\n", in.calls, in.processes, status, *in.hit ? in.hit : "-");
	fclose(f);
	return 0;
}
