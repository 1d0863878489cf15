/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_PARTS_H
#define REPRISE_FS_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/scratch.h"
#include "fs.pb-c.h"

/* Memory that a kind of file shares with the application: what is not zero, in parts. */

int parts_save(const uint8_t *at, uint64_t size, size_t *ret_n, Reprise__MemoryPart ***ret,
	       struct scratch *s) must_check;
/* Are they one behind the other, and within that size? */
bool parts_fit(size_t n, Reprise__MemoryPart *const *parts, uint64_t size);
/* Of memory that they fit into, all is written. */
void parts_fill(uint8_t *at, uint64_t size, size_t n, Reprise__MemoryPart *const *parts);

#endif
