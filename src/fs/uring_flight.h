/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_URING_FLIGHT_H
#define REPRISE_FS_URING_FLIGHT_H

#include "fs/uring.h"

/* One request in flight that is looked at. */
struct flying {
	struct kernel_memory *k;
	uint64_t at; /* struct io_kiocb */
	const struct uring_seen *seen;
	struct uring_request *to;
	bool issued; /* it waits; else its turn comes when those before it in its chain have ended
		      */
	int failed;
};

uint64_t uring_of_request(struct flying *f, const char *name, size_t size);
/* Can it be submitted again? opcode and flags are known. */
bool uring_take(struct flying *f);

#endif
