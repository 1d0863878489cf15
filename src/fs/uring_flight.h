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

/* Members of structures of the kernel; 0, and f->failed, where there is no such thing. */
uint64_t uring_get(struct flying *f, uint64_t at, const char *type, const char *name, size_t size);
/* Of the part that each kind has for itself, at the beginning of the request. */
uint64_t uring_of_kind(struct flying *f, const char *type, const char *name, size_t size);
uint64_t uring_of_request(struct flying *f, const char *name, size_t size);
/* Can it be submitted again? opcode and flags are known. */
bool uring_take(struct flying *f);

/* What comes with a request. Returns where it stands in the memory of the request. */
uint32_t uring_put(struct flying *f, const void *data, size_t size);
/* `size` bytes from `at` of that memory have to stand at `address` in the task. */
void uring_put_patch(struct flying *f, uint64_t address, uint32_t at, uint32_t size);

/* Those that wait for something else than a file. */
bool uring_take_epoll(struct flying *f, struct io_uring_sqe *sqe);
bool uring_take_futex(struct flying *f, struct io_uring_sqe *sqe);
bool uring_take_futexes(struct flying *f, struct io_uring_sqe *sqe);
bool uring_take_waitid(struct flying *f, struct io_uring_sqe *sqe);
bool uring_take_timeout(struct flying *f, struct io_uring_sqe *sqe);

#endif
