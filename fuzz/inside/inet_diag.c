/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/net/inet_diag.c"

#include "../inside.h"

void fuzz_inet_diag(const void *message, size_t size)
{
	struct inet_table t = {};

	ignore(diag_take(message, size, take_socket, &t), "either will do");
	vec_free(&t.list);
}
