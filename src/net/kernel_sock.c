/* SPDX-License-Identifier: Apache-2.0 */
#include "net/kernel_sock.h"

#include <errno.h>

int kernel_sock_memory(struct checkpoint *c, struct kernel_memory **ret)
{
	struct error ignored = {};

	if (!c->files->kernel_hidden && files_kernel_memory(c, ret, &ignored) < 0)
		c->files->kernel_hidden = true;
	return c->files->kernel_hidden ? -EPERM : 0;
}

int kernel_of_sock(struct kernel_memory *k, int fd, int offset, void *buf, size_t len)
{
	const int offsets[] = {kernel_offset(k, "file", "private_data"),
			       kernel_offset(k, "socket", "sk"), offset};

	return kernel_of_file(k, fd, offsets, 3, buf, len);
}

int kernel_sock(struct kernel_memory *k, int fd, uint64_t *ret)
{
	const int offsets[] = {kernel_offset(k, "file", "private_data"),
			       kernel_offset(k, "socket", "sk")};

	return kernel_of_file(k, fd, offsets, 2, ret, sizeof(*ret));
}

int kernel_sock_error(struct checkpoint *c, int fd)
{
	struct kernel_memory *k = NULL;
	uint32_t more = 1;
	uint64_t sk = 0;
	int pending = 0;

	if (kernel_sock_memory(c, &k) < 0 || kernel_sock(k, fd, &sk) < 0 ||
	    kernel_member(k, sk, "sock", "sk_err", &pending, sizeof(pending)) < 0 ||
	    kernel_member(k, sk, "sock", "sk_error_queue.qlen", &more, sizeof(more)) < 0 || more)
		return 0;
	return pending;
}

uint64_t kernel_sock_group(struct checkpoint *c, int fd)
{
	struct kernel_memory *k = NULL;
	uint64_t at = 0, id = 0;
	int r = kernel_sock_memory(c, &k);

	if (r >= 0)
		r = kernel_sock(k, fd, &at);
	if (r >= 0)
		r = kernel_member(k, at, "sock", "sk_cgrp_data.cgroup", &at, sizeof(at));
	if (r >= 0 && at)
		r = kernel_member(k, at, "cgroup", "kn", &at, sizeof(at));
	if (r >= 0 && at)
		r = kernel_member(k, at, "kernfs_node", "id", &id, sizeof(id));
	return r < 0 ? 0 : id;
}
