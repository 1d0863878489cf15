/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_PROGRESS_H
#define REPRISE_IMAGE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

/* Reports to the caller, from the calling thread, now and then. */
struct progress {
	int (*report)(void *arg, uint64_t done, uint64_t total);
	void *arg;
	uint64_t done, total;
	uint64_t reported, at_ns;
};

/* Is it time for a report? */
bool progress_due(struct progress *p, uint64_t done);
/* Returns what the caller said, with its sentence if it ends the operation. */
int progress_report(struct progress *p, struct error *e) must_check;

#endif
