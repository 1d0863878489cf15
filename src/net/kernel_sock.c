/* SPDX-License-Identifier: Apache-2.0 */
#include "net/kernel_sock.h"

int kernel_sock(struct kernel_memory *k, int fd, uint64_t *ret)
{
	uint64_t file = 0, socket = 0;
	int r = kernel_file(k, fd, &file);

	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &socket, sizeof(socket));
	return r < 0 ? r : kernel_member(k, socket, "socket", "sk", ret, sizeof(*ret));
}
