/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/sleep.h"

/* What is asked of a task that nobody has stopped: 32-bit programs count their system calls in
 * another way. */

#define LOW_END (1ULL << 32)

enum arch_program freezer_program(int proc_fd, pid_t tid)
{
	uint8_t header[ARCH_PROGRAM_HEADER];
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%d/exe", tid);
	ssize_t n = fd < 0 ? 0 : pread(fd, header, sizeof(header), 0);

	return arch_program(header, n < 0 ? 0 : (size_t)n);
}

bool freezer_is_compat(int proc_fd, pid_t tid, uint64_t sp)
{
	return sp < LOW_END && freezer_program(proc_fd, tid) == ARCH_PROGRAM_32;
}

bool freezer_call(int proc_fd, pid_t pid, pid_t tid, struct task_call *ret)
{
	_cleanup_(free_ptr) char *text = NULL;

	/* "running", or the number and arguments of the call that it sleeps in. */
	if (procfs_read(proc_fd, &text, NULL, "%d/task/%d/syscall", pid, tid) <= 0 ||
	    sscanf(text, "%ld %lx %lx %lx %lx %lx %lx %lx %lx", &ret->nr, &ret->args[0],
		   &ret->args[1], &ret->args[2], &ret->args[3], &ret->args[4], &ret->args[5],
		   &ret->sp, &ret->ip) != 9)
		return false;
	if (ret->nr >= 0 && freezer_is_compat(proc_fd, tid, ret->sp))
		ret->nr = ARCH_COMPAT_CALL(ret->nr);
	return true;
}

long sleeping_plain(long nr)
{
#ifdef __x86_64__
	static const long pairs[][2] = {
		{I386_NANOSLEEP, SYS_nanosleep},
		{I386_CLOCK_NANOSLEEP, SYS_clock_nanosleep},
		{I386_CLOCK_NANOSLEEP_TIME64, SYS_clock_nanosleep},
		{I386_FUTEX, SYS_futex},
		{I386_FUTEX_TIME64, SYS_futex},
		{I386_POLL, SYS_poll},
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++)
		if (pairs[i][0] == nr)
			return pairs[i][1];
#endif
	return nr < ARCH_COMPAT ? nr : -1;
}

bool sleeping_is_poll(long nr)
{
#ifdef SYS_poll
	return sleeping_plain(nr) == SYS_poll;
#else
	return false;
#endif
}

bool freezer_has_restart_block(long nr)
{
	long call = sleeping_plain(nr);

	return call == SYS_nanosleep || call == SYS_clock_nanosleep || call == SYS_futex ||
	       sleeping_is_poll(nr);
}
