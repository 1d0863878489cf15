/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/net/genl.c"

#include "../inside.h"

void fuzz_genl(const void *message, size_t size)
{
	struct genl_groups g = {};

	(void)diag_take(message, size, take_family, &g);
	genl_groups_free(&g);
}
