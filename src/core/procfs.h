/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_PROCFS_H
#define REPRISE_CORE_PROCFS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * /proc of other tasks, always through a descriptor of the proc file system in
 * which their pids are valid: a restart mounts another one over /proc.
 */
int procfs_open_root(int *ret_fd, struct error *e) must_check;
/* printf-like path below that root, e.g. procfs_open(fd, O_RDONLY, e, "%d/maps", pid). Returns a
 * descriptor. -ESRCH when the task has gone. */
int procfs_open(int proc_fd, int flags, struct error *e, const char *fmt, ...)
	__attribute__((format(printf, 4, 5))) must_check;
/* A whole file as a string, *ret to be freed. Returns its length. */
ssize_t procfs_read(int proc_fd, char **ret, struct error *e, const char *fmt, ...)
	__attribute__((format(printf, 4, 5))) must_check;
/* The same with reads of at most so many bytes. */
ssize_t procfs_read_by(int proc_fd, size_t piece, char **ret, struct error *e, const char *fmt, ...)
	__attribute__((format(printf, 5, 6))) must_check;
/* A symbolic link's text, *ret to be freed. */
int procfs_readlink(int proc_fd, char **ret, struct error *e, const char *fmt, ...)
	__attribute__((format(printf, 4, 5))) must_check;

/* Sets mode and owner of what a descriptor of ours refers to, which may be one of O_PATH (that
 * fchmod(2) refuses): a negative errno. */
int procfs_give(int proc_fd, int fd, mode_t mode, uid_t uid, gid_t gid) must_check;

/* For what may have gone, or is not there with every kernel: 0 then, and *e is cleared; else r. */
int procfs_unless_gone(ssize_t r, struct error *e) must_check;

struct proc_stat {
	pid_t pid, ppid, pgrp, session;
	char comm[64];
	char state;
	int tty_nr, tpgid;
	unsigned long flags; /* PF_* */
	int num_threads;
	long nice, priority;
	uint64_t start_time;
	uint64_t start_code, end_code, start_stack, start_data, end_data, start_brk;
	uint64_t arg_start, arg_end, env_start, env_end;
	int exit_signal, exit_code;
	unsigned int rt_priority, policy;
};
/* Parses the text of /proc/PID/stat; a comm with spaces and parentheses is understood. Pure:
 * fuzzed. */
int proc_stat_parse(const char *text, struct proc_stat *ret);
int proc_stat_read(int proc_fd, pid_t pid, pid_t tid, struct proc_stat *ret,
		   struct error *e) must_check;

/* The value of "Name:\tvalue" in a status-like text, or NULL; *len is its length without the
 * newline. */
const char *proc_field(const char *text, const char *name, size_t *len);
/* The same as a number in the given base; -ENOENT if absent, -EINVAL if it is no number. */
int proc_field_u64(const char *text, const char *name, int base, uint64_t *ret);

#endif
