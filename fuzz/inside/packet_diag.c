/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/net/packet_diag.c"

#include "../inside.h"

void fuzz_packet_diag(const void *message, size_t size)
{
	struct packet_table t = {};

	ignore(diag_take(message, size, take_socket, &t), "either will do");
	packet_table_free(&t);
}
