/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_ARCH_X86_64_CHECKSUM_H
#define REPRISE_ARCH_X86_64_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Compiled for processors that have AVX2. */
uint64_t checksum_avx2(const void *data, size_t len);

#endif
