/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_TYPES_H
#define REPRISE_FS_BPF_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "model/restart.h"

/* Type information of BPF (BTF), which maps and programs refer to by its number. */

/* A descriptor of it, or a negative errno. */
int bpf_types_open(uint32_t id);
int bpf_types_load(const void *data, size_t size);
/*
 * Is there a type of which a map has more than its bytes: a timer, a pointer to something in the
 * kernel? 1: *ret is its name.
 */
int bpf_types_special(uint32_t id, const char **ret) must_check;
/* Our descriptor of what a record refers to; -1 if it refers to nothing. */
int bpf_types_of(struct restart *r, uint64_t file, int *ret, struct error *e) must_check;
bool bpf_types_valid(const struct restart *r, uint64_t file);

#endif
