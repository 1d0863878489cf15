/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_BTF_H
#define REPRISE_CORE_BTF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The kernel's description of its own types (/sys/kernel/btf/vmlinux): where the
 * members of a structure stand. Only what is needed of it is understood.
 */
struct btf;

/*
 * Takes the bytes, which free() (mapped: munmap()) must release. -EINVAL if they make no sense.
 * Those of a module go on where those of the kernel (its base, which has to stay) end.
 */
int btf_new(struct btf **ret, const struct btf *base, void *data, size_t size, bool mapped);
void btf_free(struct btf *b); /* accepts NULL */

/* The id of a function or of a structure (or union), -ENOENT if there is none. */
int btf_function(const struct btf *b, const char *name);
int btf_structure(const struct btf *b, const char *name);
int btf_size(const struct btf *b, int structure);
/* Offset of a member in bytes. "a.b" goes into member structures; unnamed ones are searched. */
int btf_offset(const struct btf *b, int structure, const char *member);
/* The same, and its size: 0 for an array of unknown length. -ENOENT for a bit-field. */
int btf_member(const struct btf *b, int structure, const char *member, int *ret_size);
/* The same in bits from the beginning, of a bit field as well. */
int btf_bit(const struct btf *b, int structure, const char *member);
/* The value of an enumerator, which is not negative. */
int btf_enumerator(const struct btf *b, const char *name);
/* Offset of a variable in its section. */
int btf_variable(const struct btf *b, const char *section, const char *name);

#endif
