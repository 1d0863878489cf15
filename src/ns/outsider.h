/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_OUTSIDER_H
#define REPRISE_NS_OUTSIDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * What stays outside of a container that is being saved, where it can do what cannot be done from
 * within: its pids are those of the host, and it has the power that we had there (remote/hand.h).
 */
struct outpost;

/*
 * This process goes on as a child of the one before (hand_new()). proc_fd is of the pid namespace
 * in which we are still; init and first are the first process of the container. It ends with us,
 * and is never freed.
 */
int outsider_new(struct outpost **ret, int proc_fd, int init, pid_t first,
		 struct error *e) must_check;
/* By it tasks are traced from now on. */
int outsider_trace(struct outpost *o, struct error *e) must_check;
/* Calls it there (hand_do()). */
int outsider_do(struct outpost *o, int (*fn)(void *arg), void *arg);
/* Those of ours that are not in the container, by their pids outside: one before, and the next. */
void outsider_note(struct outpost *o, pid_t pid);
bool outsider_is(const struct outpost *o, pid_t pid);
pid_t outsider_pid(const struct outpost *o);
/* By which it reads there: asked for by what is called there. NULL where it may not. */
struct kernel_memory;
struct kernel_memory *outsider_kernel_memory(struct outpost *o);

/* As kill(2) of the first process. SIGKILL is sent when we have ended. */
int outsider_kill(struct outpost *o, int sig);

/*
 * The attributes of a file by its name in a directory that only root of the machine sees
 * (`trusted.`), one behind the other: the name with its zero, a uint32_t with the length, the
 * value. Returns how many bytes.
 */
#define OUTSIDER_MARKS 65536
int outsider_marks(struct outpost *o, int parent, const char *name, char *buf);

/* Looks at all that runs outside (outside_scan()), while the caller goes on. The end returns NULL
 * if nothing can be said. */
struct outside;
void outsider_begin_scan(struct outpost *o);
struct outside *outsider_end_scan(struct outpost *o);

/* In the hand: what the rings of a process hold, or those that have only numbers (0), stands in
 * `held`. NULL where the memory of the kernel cannot be read. */
const struct outside *outsider_rings(struct outpost *o, pid_t pid);
/* In the hand: the struct file of a descriptor of a process; 0: it cannot be told. */
uint64_t outsider_file(struct outpost *o, pid_t pid, int fd);

#endif
