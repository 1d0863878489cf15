/* SPDX-License-Identifier: Apache-2.0 */
#include <xxhash.h>

#include "arch/arch.h"
#include "arch/x86_64/checksum.h"

/* The library takes the vectors that every processor has: a third of the speed. */
uint64_t arch_checksum(const void *data, size_t len)
{
	return __builtin_cpu_supports("avx2") ? checksum_avx2(data, len) : XXH3_64bits(data, len);
}
