/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has caused an event of fanotify: the kernel keeps the struct pid of the process (or thread),
 * also when that has ended, and a reader is told the number that it has in his pid namespace
 * (pid_vnr()). So whoever has that number can cause it again: the task itself if it lives, else a
 * stand-in. Of whom the reader sees no number anybody may take the place that he does not see.
 */
#include <errno.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include "fs/fanotify_events.h"

int fanotify_refuse(const struct fanotify_raw *raw, const char *why, struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_FILE_EVENTS, "it holds an unread event (%#x) %s",
			 raw->mask, why);
}

int fanotify_pid(struct kernel_memory *k, pid_t tid, uint64_t *ret)
{
	uint64_t task;
	int r = kernel_task(k, tid, &task);

	*ret = 0;
	return r < 0 ? r : kernel_member(k, task, "task_struct", "thread_pid", ret, sizeof(*ret));
}

/* struct upid at a level */
static int read_number(struct kernel_memory *k, uint64_t pid, uint32_t level, pid_t *ret_number,
		       uint64_t *ret_space)
{
	const int numbers = kernel_offset(k, "pid", "numbers"), size = kernel_size(k, "upid");
	const int space = kernel_offset(k, "upid", "ns");
	uint64_t at = pid + (uint64_t)numbers + level * (uint64_t)size;
	int r;

	if (numbers < 0 || size < 0 || space < 0)
		return -EOPNOTSUPP;
	r = kernel_member(k, at, "upid", "nr", ret_number, sizeof(*ret_number));
	return r < 0 ? r : kernel_read(k, at + (uint64_t)space, ret_space, sizeof(*ret_space));
}

/* The thread that has it; 0: it has ended, and nobody waits for it any more. */
static uint64_t task_of(struct kernel_memory *k, uint64_t pid)
{
	const int tasks = kernel_offset(k, "pid", "tasks");
	const int links = kernel_offset(k, "task_struct", "pid_links");
	uint64_t first = tasks < 0 || links < 0 ? 0 : kernel_pointer(k, pid + (uint64_t)tasks);

	return first ? first - (uint64_t)links : 0;
}

/* Shared by those that were made by fork(), until one executes another. */
static uint64_t program_of(struct kernel_memory *k, uint64_t task)
{
	const int offsets[2] = {kernel_offset(k, "task_struct", "mm"),
				kernel_offset(k, "mm_struct", "exe_file")};
	uint64_t file = 0;

	return kernel_chase(k, task, offsets, 2, &file, sizeof(file)) < 0 ? 0 : file;
}

static int add_causer(struct fanotify_causers *s, pid_t tid, struct error *e)
{
	struct fanotify_causer *causer = vec_push(&s->all);

	if (!causer)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for events");
	causer->tid = tid;
	if (fanotify_pid(s->c->kernel, tid, &causer->pid) < 0)
		return error_set(e, -EOPNOTSUPP, E_FILE_EVENTS,
				 "it holds unread events, and who has caused them is not known");
	return 0;
}

/* We are in the pid namespace of the tree. */
static int find_space(struct fanotify_causers *s, struct error *e)
{
	struct kernel_memory *k = s->c->kernel;
	uint64_t task, pid;
	pid_t number = 0;
	int r = fanotify_pid(k, getpid(), &pid);

	if (r >= 0)
		r = kernel_member(k, pid, "pid", "level", &s->level, sizeof(s->level));
	if (r >= 0)
		r = read_number(k, pid, s->level, &number, &s->space);
	if (r >= 0 && kernel_task(k, getpid(), &task) >= 0)
		s->program = program_of(k, task);
	return r < 0 || number != getpid()
		       ? error_set(e, -EOPNOTSUPP, E_FILE_EVENTS,
				   "it holds unread events, and who has caused them is not known")
		       : 0;
}

int fanotify_causers_list(struct checkpoint *c, const Reprise__Fanotify *m,
			  struct fanotify_causers *ret, struct error *e)
{
	int r;

	*ret = (struct fanotify_causers){.c = c, .m = m};
	r = find_space(ret, e);
	/* Threads count if they are what is told. */
	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads)
			if (r >= 0 && !t->zombie && (t->tid == p->tid || m->flags & FAN_REPORT_TID))
				r = add_causer(ret, t->tid, e);
	return r;
}

void fanotify_causers_free(struct fanotify_causers *s)
{
	vec_free(&s->all);
}

static pid_t in_tree(const struct fanotify_causers *s, uint64_t pid)
{
	vec_for_each (c, &s->all)
		if (pid && c->pid == pid)
			return c->tid;
	return 0;
}

bool fanotify_causers_own(const struct fanotify_causers *s, const struct fanotify_raw *raw)
{
	uint64_t task;

	if (!raw->pid || in_tree(s, raw->pid))
		return false;
	task = task_of(s->c->kernel, raw->pid);
	return task && s->program && program_of(s->c->kernel, task) == s->program;
}

/* The number of a task that has ended must be free for whoever stands in. */
static const char *why_taken(const struct fanotify_causers *s, pid_t number)
{
	vec_for_each (p, &s->c->processes) {
		vec_for_each (t, &p->frozen->threads) {
			if (t->tid != number)
				continue;
			if (t->zombie || s->m->flags & FAN_REPORT_PIDFD ||
			    (t->tid != p->tid && !(s->m->flags & FAN_REPORT_TID)))
				return "of a task that has ended, and whose number another one has";
			return NULL;
		}
		if (p->stat.pgrp == number || p->stat.session == number)
			return "of a task that has ended, and whose number is that of a process "
			       "group or session";
	}
	return NULL;
}

int fanotify_causer_save(const struct fanotify_causers *s, const struct fanotify_raw *raw,
			 Reprise__FanotifyEvent *m, struct error *e)
{
	struct kernel_memory *k = s->c->kernel;
	uint64_t space = 0;
	uint32_t level = 0;
	pid_t number = 0;
	const char *why;
	int r;

	m->pid = in_tree(s, raw->pid);
	if (m->pid || m->type == FANOTIFY_OVERFLOW)
		return 0;
	if (s->m->unprivileged) /* nobody is told who else it was */
		return 0;
	r = raw->pid ? kernel_member(k, raw->pid, "pid", "level", &level, sizeof(level)) : -EFAULT;
	if (r >= 0 && level >= s->level)
		r = read_number(k, raw->pid, s->level, &number, &space);
	if (r < 0)
		return fanotify_refuse(raw, "of a task that is not known", e);
	/* The parent of ours that is not seen is outside: so a restart will be. */
	if ((level < s->level || space != s->space) && !getppid())
		return 0;
	if (!number || space != s->space)
		return fanotify_refuse(raw, "of a task in another pid namespace", e);
	if (level > s->level)
		return fanotify_refuse(
			raw, "of a task that has ended, in a pid namespace of its own", e);
	why = why_taken(s, number);
	if (!why && task_of(k, raw->pid))
		why = "of a task that runs outside the tree";
	if (why)
		return fanotify_refuse(raw, why, e);
	m->pid = number;
	m->gone = true;
	return 0;
}
