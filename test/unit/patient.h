/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_TEST_UNIT_PATIENT_H
#define REPRISE_TEST_UNIT_PATIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

/*
 * A process that notices whatever is done to it: its threads look after their
 * registers, signal masks and alternate stacks, and sleep in many ways, of which none may
 * end early or with EINTR.
 */
#define PATIENT_THREADS 16

struct patient {
	pid_t pid;
	unsigned int nthreads;
	_Atomic bool quit;
	_Atomic unsigned long rounds[PATIENT_THREADS];
	_Atomic bool failed;
	char failure[256];
};

enum patient_size { PATIENT_SMALL, PATIENT_FULL };

/* NULL when it could not be started. It dies with its parent. */
struct patient *patient_start(enum patient_size size);
/* The same in threads of the calling process, which goes on beside them. */
struct patient *patient_inhabit(enum patient_size size);
/* To be called by a handler of the caller's: what the thread does is not expected to last. */
void patient_interrupted(void);
/* Do all threads go on and has none complained? Waits for a while. */
bool patient_is_well(struct patient *p);
/* Ends it; returns whether it was well until the end. */
bool patient_end(struct patient *p);

#endif
