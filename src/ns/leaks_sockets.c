/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets outside of a container: which network they belong to, and what is in their queues. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "ns/leaks.h"

/* Of a thread as well, from Linux 6.9 on. */
static int open_task(pid_t tid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, tid, 0);

	return pidfd < 0 ? (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD) : pidfd;
}

int leak_take(pid_t pid, int fd)
{
	_cleanup_(close_fd) int pidfd = open_task(pid);

	return pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}

static bool is_unix(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

/* What is accepted has the network of who connected (unix_stream_connect()): the other end of a
 * socket of the container, which says so itself. */
static bool may_be_accepted(int fd)
{
	struct sockaddr_un peer;
	socklen_t len = sizeof(peer);

	return is_unix(fd) && getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
}

bool leak_is_network(const struct leak_search *s, uint64_t cookie)
{
	vec_for_each (n, &s->networks)
		if (cookie && *n == cookie)
			return true;
	return false;
}

bool leak_is_in_network(const struct leak_search *s, int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (!s->networks.n || may_be_accepted(fd) ||
	    getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0)
		return false;
	return leak_is_network(s, cookie);
}

/* unix_show_fdinfo() counts what the messages in the queue carry. */
static bool carries(const struct leak_search *s, int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	_cleanup_(free_ptr) char *text = NULL;
	struct error unused = {};
	uint64_t n = 0;

	if (!is_unix(fd) || poll(&pfd, 1, 0) != 1 || !(pfd.revents & POLLIN))
		return false;
	if (procfs_read(s->ct->host_proc, &text, &unused, "self/fdinfo/%d", fd) < 0)
		return false;
	return proc_field_u64(text, "scm_fds", 10, &n) == 0 && n;
}

/* Where an application peeks itself, at a place that it has chosen, that would be moved. */
static bool peeks_itself(int fd)
{
	int offset = -1;
	socklen_t len = sizeof(offset);

	return getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &len) == 0 && offset >= 0;
}

union fds_message {
	char space[CMSG_SPACE(LEAK_PEEKED * sizeof(int))];
	struct cmsghdr align;
};

static int received(struct msghdr *m, int *fds)
{
	struct cmsghdr *h = CMSG_FIRSTHDR(m);

	for (; h; h = CMSG_NXTHDR(m, h)) {
		size_t bytes = h->cmsg_len - CMSG_LEN(0);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS ||
		    bytes > LEAK_PEEKED * sizeof(int))
			continue;
		memcpy(fds, CMSG_DATA(h), bytes);
		return (int)(bytes / sizeof(int));
	}
	return 0;
}

int leak_peek(const struct leak_search *s, int fd, int *ret)
{
	union fds_message space;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = space.space,
			   .msg_controllen = sizeof(space)};
	ssize_t n;

	if (!carries(s, fd) || peeks_itself(fd))
		return 0;
	do
		n = recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	return n < 0 ? 0 : received(&m, ret);
}
