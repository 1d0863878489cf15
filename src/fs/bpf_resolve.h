/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_RESOLVE_H
#define REPRISE_FS_BPF_RESOLVE_H

#include "fs/context.h"

/*
 * All tables have been seen: what maps and programs refer to, and was known by its number, gets
 * known by its description; what nobody has open is saved, too.
 */
int bpf_resolve(struct checkpoint *c, struct error *e) must_check;
/* How often maps and programs of the tree refer to one; `f`: its first description. */
int64_t bpf_references(const struct checkpoint *c, const struct file_entry *f);

#endif
