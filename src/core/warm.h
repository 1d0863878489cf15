/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_WARM_H
#define REPRISE_CORE_WARM_H

#include <stddef.h>

/*
 * Page faults of our own, taken before they are in the way of others: one costs as much as some
 * system calls, and where several threads have our memory more, since a page that takes the place
 * of another one is told to all processors (ptep_clear_flush()).
 */

/* So much memory is there that the calling thread can have from malloc(). */
void warm_heap(size_t bytes);
/* What may be written to in small mappings, and is shared with whom we were forked from. */
void warm_data(int proc_fd);

#endif
