/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_PROGRAM_H
#define REPRISE_FS_BPF_PROGRAM_H

#include "fs/context.h"

/* How many programs of the tree use a map, by its number or its first description. */
int64_t bpf_program_uses(const struct checkpoint *c, uint64_t map, const struct file_entry *entry);

#endif
