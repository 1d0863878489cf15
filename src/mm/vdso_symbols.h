/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_VDSO_SYMBOLS_H
#define REPRISE_MM_VDSO_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The functions of a vDSO of either width. */
struct vdso_symbols {
	const uint8_t *image;
	size_t len;
	bool narrow;   /* ELFCLASS32 */
	uint64_t base; /* address of the first byte, as linked */
	const uint8_t *table;
	size_t n;
	const char *names;
	size_t names_len;
};

/* -EINVAL: it is malformed. Nothing is copied. */
int vdso_symbols_read(struct vdso_symbols *s, const uint8_t *image, size_t len, bool narrow);
/* Offset of a function in its image, with 16 bytes from there on at least; 0 if it has none of that
 * name. */
uint64_t vdso_symbols_find(const struct vdso_symbols *s, const char *name);

#endif
