/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_SELFSAVE_H
#define REPRISE_OPERATION_SELFSAVE_H

#include "operation/worker.h"

/*
 * A process that checkpoints itself. The worker is its child and is left out of
 * the tree; in a restarted copy there is neither the child nor its report.
 * Returns 1 in the original, 0 in a restarted copy, or a negative errno.
 */
int selfsave(worker_fn work, void *arg, struct reprise_stats *stats, struct reprise_error *error);

#endif
