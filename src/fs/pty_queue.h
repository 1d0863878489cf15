/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_PTY_QUEUE_H
#define REPRISE_FS_PTY_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What is under way between the two sides of a pseudo-terminal. The kernel lets nobody look at
 * it without taking it, so it is taken and put back, by a process that goes on when we are killed.
 */
enum pty_end {			 /* numbers stand in images: for ever */
	       PTY_END_NONE = 0, /* half typed, or not by lines */
	       PTY_END_DELIMITER = 1,
	       PTY_END_EOF = 2,
	       PTY_END_RAW = 3, /* no room yet in the line discipline: not looked at */
};

/* One side holds 4095 bytes, and the buffers behind it less than 20000 (pty_common_install()). */
#define PTY_QUEUE_MAX 32768
#define PTY_LINES_MAX 8192

enum pty_stopped { PTY_RUNS = 0, PTY_STOPPED_BY_CHAR = 1, PTY_STOPPED_BY_CALL = 2 };

struct pty_line {
	uint32_t length, end;
};

struct pty_queue {
	uint32_t stopped; /* output of the slave */
	uint32_t n_lines, input_length, output_length;
	struct pty_line lines[PTY_LINES_MAX];
	uint8_t input[PTY_QUEUE_MAX];  /* to the slave, as lines[] divides it */
	uint8_t output[PTY_QUEUE_MAX]; /* to the master */
};

/* The two sides, while nobody else uses them. */
struct pty_sides {
	int master, slave;
	int exclusive; /* a slave in exclusive mode, where only root can open another; else -1 */
	bool locked, packet; /* what was so when it was begun */
	bool untouched;	     /* nobody ever opened the slave, and nobody shall see that we did */
};

/*
 * All return 0 or a negative errno, and may be called after a fork of a process with threads.
 * Between them, put is meant to follow take at once.
 */
int pty_sides_open(struct pty_sides *p);
void pty_sides_close(struct pty_sides *p);
int pty_queue_take(const struct pty_sides *p, struct pty_queue *q);
int pty_queue_put(const struct pty_sides *p, const struct pty_queue *q);

#endif
