/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/resident.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/mounts.h"

enum request_kind { REQUEST_MOUNT, REQUEST_FLAGS, REQUEST_GIVE };

struct request {
	enum request_kind kind;
	unsigned long flags;
	size_t i;
	char point[4096];
};

struct answer {
	int ret;
	pid_t pid;
	struct error error;
};

static int send_answer(int socket, const struct answer *a, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {};
	struct iovec iov = {(void *)a, sizeof(*a)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *h;

		m.msg_control = control.buf;
		m.msg_controllen = sizeof(control.buf);
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &fd, sizeof(fd));
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL) == sizeof(*a) ? 0 : -EPIPE;
}

/* *ret: the descriptor that came with it, -1 if none did. */
static int receive_answer(int socket, struct answer *a, int *ret)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {};
	struct iovec iov = {a, sizeof(*a)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *h;

	*ret = -1;
	if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) != sizeof(*a))
		return -ESRCH;
	h = CMSG_FIRSTHDR(&m);
	if (h && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret, CMSG_DATA(h), sizeof(int));
	return 0;
}

static void __attribute__((noreturn)) serve(const struct resident_begin *how, int socket)
{
	struct request req;

	while (recv(socket, &req, sizeof(req), 0) == sizeof(req)) {
		struct answer a = {};
		int fd = -1, kept = -1;

		if (req.kind == REQUEST_MOUNT)
			a.ret = fd = mounts_open_alone(req.point);
		else if (req.kind == REQUEST_GIVE)
			a.ret = kept = how->give ? how->give(how->arg, req.i) : -EINVAL;
		else if (mount(NULL, req.point, NULL, MS_REMOUNT | MS_BIND | req.flags, NULL) < 0)
			a.ret = -errno;
		if (send_answer(socket, &a, kept >= 0 ? kept : fd) < 0)
			break;
		close_fd(&fd);
	}
	_exit(0);
}

/* "self" is who reads it, by the number of that /proc. */
static pid_t own_pid(int proc_fd)
{
	_cleanup_(free_ptr) char *link = NULL;

	return procfs_readlink(proc_fd, &link, NULL, "self") < 0 ? 0 : (pid_t)atoi(link);
}

static int enter(const struct resident_begin *how, struct error *e)
{
	for (size_t i = 0; i < how->n; i++)
		if (setns(how->enter[i], 0) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot enter a namespace");
	return how->first ? how->first(how->arg, e) : 0;
}

static void __attribute__((noreturn)) live(const struct resident_begin *how, int socket)
{
	struct answer a = {};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	a.ret = enter(how, &a.error);
	a.pid = own_pid(how->proc_fd);
	if (send_answer(socket, &a, -1) < 0 || a.ret < 0)
		_exit(1);
	serve(how, socket);
}

/* A pid namespace is entered by children only. */
static void __attribute__((noreturn)) live_deeper(const struct resident_begin *how, int socket)
{
	struct answer a = {};
	pid_t child;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	child = setns(how->pidns, CLONE_NEWPID) < 0 ? -1 : fork();
	if (child == 0)
		live(how, socket);
	if (child < 0) {
		a.ret = error_errno(&a.error, -errno, E_NAMESPACE, "cannot enter a pid namespace");
		ignore(send_answer(socket, &a, -1), "nobody listens");
		_exit(1);
	}
	close(socket);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		continue;
	_exit(0);
}

int resident_begin(struct resident *ret, const struct resident_begin *how, struct error *e)
{
	struct answer a = {};
	int pair[2], unused, r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	ret->child = fork();
	if (ret->child == 0) {
		close(pair[0]);
		if (how->pidns >= 0)
			live_deeper(how, pair[1]);
		live(how, pair[1]);
	}
	close(pair[1]);
	ret->socket = pair[0];
	if (ret->child < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot make a process");
	r = receive_answer(ret->socket, &a, &unused);
	if (r < 0)
		return error_set(e, r, E_NAMESPACE, "a process in a mount namespace has ended");
	if (a.ret < 0)
		*e = a.error;
	ret->pid = a.pid;
	return a.ret;
}

static int ask(struct resident *r, struct request *req, const char *point, int *fd)
{
	struct answer a = {};
	int res;

	if (strlen(point) >= sizeof(req->point))
		return -ENAMETOOLONG;
	strcpy(req->point, point);
	if (send(r->socket, req, sizeof(*req), MSG_NOSIGNAL) != sizeof(*req))
		return -ESRCH;
	res = receive_answer(r->socket, &a, fd);
	return res < 0 ? res : a.ret;
}

int resident_mount(struct resident *r, const char *point, struct error *e)
{
	struct request req = {.kind = REQUEST_MOUNT};
	int fd = -1, res = ask(r, &req, point, &fd);

	return res < 0 || fd < 0 ? error_errno(e, res < 0 ? res : -EIO, E_CONTAINER_MOUNT,
					       "cannot open mount %s", point)
				 : fd;
}

int resident_flags(struct resident *r, const char *point, unsigned long flags, struct error *e)
{
	struct request req = {.kind = REQUEST_FLAGS, .flags = flags};
	int unused, res = ask(r, &req, point, &unused);

	return res < 0 ? error_errno(e, res, E_CONTAINER_MOUNT, "cannot set the flags of %s", point)
		       : 0;
}

int resident_give(struct resident *r, size_t i)
{
	struct request req = {.kind = REQUEST_GIVE, .i = i};
	int fd = -1, res = ask(r, &req, "", &fd);

	return res < 0 ? res : fd < 0 ? -EIO : fd;
}

void resident_end(struct resident *r)
{
	/* Those that came later have it, too. */
	if (r->socket >= 0)
		shutdown(r->socket, SHUT_RDWR);
	close_fd(&r->socket);
	while (r->child > 0 && waitpid(r->child, NULL, __WALL) < 0 && errno == EINTR)
		continue;
	r->child = 0;
}
