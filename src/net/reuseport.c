/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that share a port, and the program that may choose among them. */
#include "net/reuseport.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "net/kernel_sock.h"

static int find_program(struct kernel_memory *k, int fd, uint64_t *ret)
{
	uint64_t sk = 0, group = 0;
	int r = kernel_sock(k, fd, &sk);

	if (r >= 0)
		r = kernel_member(k, sk, "sock", "sk_reuseport_cb", &group, sizeof(group));
	return r < 0 || !group
		       ? r
		       : kernel_member(k, group, "sock_reuseport", "prog", ret, sizeof(*ret));
}

int reuseport_check(struct checkpoint *c, int fd, struct error *e)
{
	struct kernel_memory *k = NULL;
	uint64_t program = 0;
	int shared = 0;
	socklen_t len = sizeof(shared);

	if (getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, &len) < 0 || !shared)
		return 0;
	/* Who may not look there cannot know. */
	if (kernel_sock_memory(c, &k) < 0 || find_program(k, fd, &program) < 0)
		return 0;
	if (program)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a program chooses among the sockets of its port "
				 "(SO_ATTACH_REUSEPORT_CBPF or _EBPF), and cannot be read");
	return 0;
}
