/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>

/*
 * What the programs of the bench have in common. Each sets up its state, makes the file READY, and
 * sleeps. At SIGUSR1 it looks whether its state is still as it was and makes READY.alive: a restart
 * that brought back something else must not count as a fast one.
 */

/* Ends the program with a message unless the condition holds. */
#define need(condition)                      \
	do {                                 \
		if (!(condition))            \
			give_up(#condition); \
	} while (0)
void give_up(const char *what) __attribute__((noreturn));

uint64_t now_ns(void);
size_t parse_size(const char *s);
/* Raises the soft limit of descriptors as far as it goes. */
void raise_descriptors(void);

/* Private anonymous memory, in 4 KiB pages whatever the system prefers. */
void *map_memory(size_t size);
/* Bytes that no compression makes smaller, and no two pages of them equal. */
void fill_memory(void *memory, size_t size);
/* Is it still what fill_memory() wrote? */
int memory_is_filled(const void *memory, size_t size);

/* Opens n descriptors of several kinds, some of them copies; files are made in the directory.
 * Returns the last one. */
int open_descriptors(size_t n, const char *directory);

/* Makes n pipes, each with so many bytes in it. Returns the end for reading of the last one. */
#define PIPE_HOLDS 100
int open_pipes(size_t n);

/* Makes n eventfds and adds them to an epoll set. */
struct waits {
	int set, last;
};
struct waits open_waits(size_t n);

/* Opens n sockets, each with data in its queue: pairs of Unix sockets, and UDP. Returns the first.
 */
int open_sockets(size_t n);
/* Is there something in the queue of a socket? */
int socket_is_filled(int fd);

/* Blocks SIGUSR1, so that it waits for sleep_and_answer(). Before threads are made. */
void answer_later(void);
/* Makes `ready`, then answers to SIGUSR1 for ever. */
void sleep_and_answer(const char *ready, int (*intact)(void *arg), void *arg)
	__attribute__((noreturn));

#endif
