/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/net/sock_diag.c"

#include "../inside.h"

void fuzz_unix_diag(const void *message, size_t size)
{
	struct unix_table t = {};

	ignore(diag_take(message, size, take_socket, &t), "either will do");
	unix_table_free(&t);
}
