/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who restarts in a user namespace has no userfaultfd there that serves faults of the kernel, and
 * is not told of forks: both take CAP_SYS_PTRACE in the first one (userfaultfd_syscall_allowed(),
 * userfaultfd_api()). But /dev/userfaultfd (6.1) asks for nothing once it is open: each task makes
 * one of its own address space by a descriptor that we had before; and a process that stays outside
 * says what is to be told, and, since that is what a checkpoint asks for, that it is root who
 * serves.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mm/layout.h"
#include "mm/lazy.h"

union fd_message {
	char space[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

/* A descriptor, and what is to be done with it. */
static int send_fd(int socket, char what, int fd)
{
	union fd_message space = {.align = {.cmsg_level = SOL_SOCKET,
					    .cmsg_type = SCM_RIGHTS,
					    .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct iovec iov = {&what, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &space,
			   .msg_controllen = sizeof(space)};

	memcpy(CMSG_DATA(&space.align), &fd, sizeof(fd));
	return sendmsg(socket, &m, MSG_NOSIGNAL) == 1 ? 0 : -EPIPE;
}

static int receive_fd(int socket, char *what)
{
	union fd_message space;
	struct iovec iov = {what, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &space,
			   .msg_controllen = sizeof(space)};
	struct cmsghdr *h;
	ssize_t n;
	int fd = -1;

	do
		n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	h = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(h), sizeof(fd));
	return fd;
}

static void __attribute__((noreturn)) help(int socket)
{
	char what;
	int fd;

	while ((fd = receive_fd(socket, &what)) >= 0) {
		int r = what == LAZY_ASK_EVENTS ? lazy_begin(fd) : listen(fd, LAZY_WAITING);

		r = r < 0 && what != LAZY_ASK_EVENTS ? -errno : r;
		close(fd);
		if (send(socket, &r, sizeof(r), MSG_NOSIGNAL) != sizeof(r))
			break;
	}
	_exit(0);
}

int lazy_help_begin(struct mm_restart *mm)
{
	int pair[2];

	mm->lazy_device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (mm->lazy_device < 0)
		return 0; /* then without, as far as that goes */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	mm->lazy_helper_pid = fork();
	if (mm->lazy_helper_pid == 0) {
		close(pair[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		help(pair[1]);
	}
	close(pair[1]);
	mm->lazy_helper = pair[0];
	return mm->lazy_helper_pid < 0 ? -errno : 0;
}

int lazy_help(const struct mm_restart *mm, char what, int fd)
{
	int r = send_fd(mm->lazy_helper, what, fd);

	if (r >= 0 && recv(mm->lazy_helper, &r, sizeof(r), 0) != sizeof(r))
		r = -EPIPE;
	return r;
}

void lazy_help_end(struct mm_restart *mm)
{
	close_fd(&mm->lazy_device);
	/* whoever was forked by us since may have that end, too */
	if (mm->lazy_helper >= 0)
		shutdown(mm->lazy_helper, SHUT_RDWR);
	close_fd(&mm->lazy_helper);
	while (mm->lazy_helper_pid > 0 && waitpid(mm->lazy_helper_pid, NULL, 0) < 0 &&
	       errno == EINTR)
		continue;
	mm->lazy_helper_pid = 0;
}
