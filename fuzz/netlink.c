/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of the kernel by netlink: lists of sockets, of groups, of what interfaces are. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "inside.h"
#include "net/rtnl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_rtnl(const void *message, size_t size)
{
	size_t len = 0;

	(void)rtnl_valid(message, size, 16);
	for (uint16_t type = 0; type < 8; type++) {
		const uint8_t *found = rtnl_find(message, size, 16, type, &len);

		if (found && (found < (const uint8_t *)message ||
			      found + len > (const uint8_t *)message + size))
			__builtin_trap();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const parsers[])(const void *, size_t) = {
		fuzz_rtnl, fuzz_genl, fuzz_unix_diag, fuzz_inet_diag, fuzz_packet_diag};
	void *message;

	if (size < 1 || data[0] >= sizeof(parsers) / sizeof(parsers[0]))
		return -1;
	message = malloc(size);
	if (!message)
		return 0;
	memcpy(message, data + 1, size - 1);
	parsers[data[0]](message, size - 1);
	free(message);
	return 0;
}
