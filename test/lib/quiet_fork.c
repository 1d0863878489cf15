// SPDX-License-Identifier: Apache-2.0
/*
 * Workers are forked from a program with threads. The thread sanitizer (of gcc 12) takes its own
 * locks for that, but not those of its allocator, and a worker would wait for them without end. So
 * nobody is in the sanitizer while one of us forks: the others are stopped by a signal until each
 * is seen outside of its library. Nothing of this may be known to the sanitizer, or it would order
 * what is not ordered.
 */
#include "quiet_fork.h"

#ifdef __SANITIZE_THREAD__
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define UNKNOWN	    __attribute__((no_sanitize("thread")))
#define SEATS	    32
#define STOP	    60
#define LOAD(p)	    __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define STORE(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

pid_t __interceptor_fork(void);
/* sigaction() as it is, without the sanitizer in between (glibc's other name). */
int __sigaction(int sig, const struct sigaction *new, struct sigaction *old);

struct seat {
	int tid, waits;
	unsigned int stopped;
	uintptr_t pc;
};

static struct seat seats[SEATS];
static __thread struct seat *mine;
static int taken, turn, process;
static unsigned int stop;
static uintptr_t library_start, library_end;

UNKNOWN static void yield(void)
{
	syscall(SYS_sched_yield);
}

UNKNOWN static void on_stop(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;
	unsigned int now = LOAD(&stop);

	if (!now || !mine)
		return;
	STORE(&mine->pc, (uintptr_t)uc->uc_mcontext.gregs[REG_RIP]);
	STORE(&mine->stopped, now);
	while (LOAD(&stop) == now)
		yield();
}

static int find_library(struct dl_phdr_info *info, size_t size, void *arg)
{
	if (!strstr(info->dlpi_name, "libtsan"))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
			continue;
		library_start = info->dlpi_addr + p->p_vaddr;
		library_end = library_start + p->p_memsz;
	}
	return 1;
}

void quiet_fork_sit(void)
{
	const struct sigaction act = {.sa_sigaction = on_stop, .sa_flags = SA_SIGINFO | SA_RESTART};
	int at = __atomic_fetch_add(&taken, 1, __ATOMIC_SEQ_CST);

	if (at >= SEATS)
		abort();
	if (!at) {
		process = getpid();
		if (!dl_iterate_phdr(find_library, NULL) || __sigaction(STOP, &act, NULL))
			abort();
	}
	mine = &seats[at];
	STORE(&mine->tid, (int)syscall(SYS_gettid));
}

UNKNOWN static int gone(const struct seat *s)
{
	return syscall(SYS_tgkill, process, s->tid, 0) < 0;
}

/* Whether thread S is outside of the sanitizer, and stays there. */
UNKNOWN static int outside(struct seat *s, unsigned int now)
{
	while (LOAD(&s->stopped) != now) {
		if (LOAD(&s->waits) || gone(s))
			return 1;
		yield();
	}
	return s->pc < library_start || s->pc >= library_end;
}

UNKNOWN static void stop_others(void)
{
	static unsigned int turns;

	for (int quiet = 0; !quiet;) {
		unsigned int now = ++turns;

		quiet = 1;
		STORE(&stop, now);
		for (int i = 0; i < LOAD(&taken); i++)
			if (&seats[i] != mine)
				syscall(SYS_tgkill, process, seats[i].tid, STOP);
		for (int i = 0; i < LOAD(&taken); i++)
			if (&seats[i] != mine && !outside(&seats[i], now))
				quiet = 0;
		if (!quiet) {
			STORE(&stop, 0);
			yield();
		}
	}
}

UNKNOWN __attribute__((visibility("default"))) pid_t fork(void)
{
	pid_t pid;

	/* A worker has one thread. */
	if (syscall(SYS_getpid) != process)
		return __interceptor_fork();
	STORE(&mine->waits, 1);
	while (__atomic_exchange_n(&turn, 1, __ATOMIC_SEQ_CST))
		yield();
	STORE(&mine->waits, 0);
	stop_others();
	pid = __interceptor_fork();
	STORE(&stop, 0);
	STORE(&turn, 0);
	return pid;
}
#else
void quiet_fork_sit(void)
{
}
#endif
