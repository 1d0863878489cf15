/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_ADDRESSES_H
#define REPRISE_FS_ADDRESSES_H

#include "core/kernel_memory.h"
#include "core/vec.h"
#include "model/checkpoint.h"

/*
 * Open files by the kernel's own addresses, for what refers to them in its memory. They are good
 * while the tasks stand still.
 */
struct file_address {
	uint64_t file; /* struct file */
	uint64_t id;
	bool eventfd;
};

struct file_addresses {
	VEC(struct file_address) of;
};

/* When all descriptions have been seen. */
int file_addresses_list(struct checkpoint *c, struct kernel_memory *k, struct file_addresses *ret,
			struct error *e) must_check;
void file_addresses_free(struct file_addresses *a);
/* Open file id of a struct file; 0: nobody has it as a descriptor. */
uint64_t file_addresses_id(const struct file_addresses *a, uint64_t file);
/* The same for an eventfd, of which the kernel refers to the struct eventfd_ctx. */
uint64_t file_addresses_eventfd(const struct file_addresses *a, struct kernel_memory *k,
				uint64_t ctx);

#endif
