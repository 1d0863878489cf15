/* SPDX-License-Identifier: Apache-2.0 */
/* The process that stays outside of a container, and what it is asked. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "ns/outside.h"
#include "ns/outsider.h"

#define KILL_TIMEOUT_MS 10000

enum question {
	ASK_KILL,
	ASK_COMPARE,
	ASK_SOCKETS,
	ASK_THREADS,
	ASK_PEEK,
	ASK_SCAN,
	ASK_EPOLL,
	ASK_MARKS
};

struct request {
	enum question what;
	int sig;
	pid_t a, b;
	int type;
	unsigned long index_a, index_b;
	union {
		struct outsider_sockets sockets;
		struct outsider_threads threads;
		struct kcmp_epoll_slot slot;
		char name[256];
	};
};

struct answer {
	int r;
	uint64_t inside, carriers, apart;
};

/* SIGKILL is due when the other process ends, and with it its hold on the tasks. */
static void await_end(int init)
{
	struct pollfd pfd = {.fd = init, .events = POLLIN};

	syscall(SYS_pidfd_send_signal, init, SIGKILL, NULL, 0);
	poll(&pfd, 1, KILL_TIMEOUT_MS);
}

/* Of a thread as well, from Linux 6.9 on. */
static int open_task(pid_t tid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, tid, 0);

	return pidfd < 0 ? (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD) : pidfd;
}

static int take(pid_t pid, int fd)
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

/* unix_show_fdinfo() counts what the messages in the queue carry. */
static bool carries(int proc_fd, int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	_cleanup_(free_ptr) char *text = NULL;
	struct error unused = {};
	uint64_t n = 0;

	if (!is_unix(fd) || poll(&pfd, 1, 0) != 1 || !(pfd.revents & POLLIN))
		return false;
	if (procfs_read(proc_fd, &text, &unused, "%d/fdinfo/%d", getpid(), fd) < 0)
		return false;
	return proc_field_u64(text, "scm_fds", 10, &n) == 0 && n;
}

/* What is accepted has the network of who connected (unix_stream_connect()): the other end of a
 * socket of the container, which says so itself. */
static bool may_be_accepted(int fd)
{
	struct sockaddr_un peer;
	socklen_t len = sizeof(peer);

	return is_unix(fd) && getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
}

static void look_at_socket(int proc_fd, int fd, const struct outsider_sockets *q, uint64_t bit,
			   struct answer *a)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (!may_be_accepted(fd) && getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) == 0)
		for (size_t i = 0; cookie && i < q->n_networks && i < OUTSIDER_NETWORKS; i++)
			a->inside |= q->networks[i] == cookie ? bit : 0;
	if (carries(proc_fd, fd))
		a->carriers |= bit;
}

static void look_at_sockets(int proc_fd, const struct outsider_sockets *q, struct answer *a)
{
	_cleanup_(close_fd) int pidfd = open_task(q->pid);

	for (size_t i = 0; pidfd >= 0 && i < q->n && i < OUTSIDER_SOCKETS; i++) {
		_cleanup_(close_fd) int fd = (int)syscall(SYS_pidfd_getfd, pidfd, q->fds[i], 0);

		if (fd >= 0)
			look_at_socket(proc_fd, fd, q, 1ULL << i, a);
	}
}

static bool apart(pid_t a, pid_t b)
{
	return syscall(SYS_kcmp, a, b, KCMP_FILES, 0, 0) > 0 ||
	       syscall(SYS_kcmp, a, b, KCMP_FS, 0, 0) > 0;
}

static void look_at_threads(const struct outsider_threads *q, struct answer *a)
{
	for (size_t i = 0; i < q->n && i < OUTSIDER_THREADS; i++)
		a->apart |= apart(q->pid, q->tids[i]) ? 1ULL << i : 0;
}

/* Where an application peeks itself, at a place that it has chosen, that would be moved. */
static bool peeks_itself(int fd)
{
	int offset = -1;
	socklen_t len = sizeof(offset);

	return getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &len) == 0 && offset >= 0;
}

union fds_message {
	char space[CMSG_SPACE(OUTSIDER_PEEKED * sizeof(int))];
	struct cmsghdr align;
};

static int received(struct msghdr *m, int *fds)
{
	struct cmsghdr *h = CMSG_FIRSTHDR(m);

	for (; h; h = CMSG_NXTHDR(m, h)) {
		size_t bytes = h->cmsg_len - CMSG_LEN(0);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS ||
		    bytes > OUTSIDER_PEEKED * sizeof(int))
			continue;
		memcpy(fds, CMSG_DATA(h), bytes);
		return (int)(bytes / sizeof(int));
	}
	return 0;
}

static int receive(int socket, void *buf, size_t size, int *fds, int flags)
{
	union fds_message space;
	struct iovec iov = {buf, size};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = space.space,
			   .msg_controllen = sizeof(space)};
	ssize_t n;

	do
		n = recvmsg(socket, &m, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : received(&m, fds);
}

static int peek(pid_t pid, int fd, int *fds)
{
	_cleanup_(close_fd) int local = take(pid, fd);
	char byte;

	if (local < 0 || peeks_itself(local))
		return 0;
	return receive(local, &byte, 1, fds, MSG_PEEK | MSG_DONTWAIT);
}

static int reply(int socket, const struct answer *a, const int *fds)
{
	union fds_message space = {};
	struct iovec iov = {(void *)a, sizeof(*a)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t bytes = fds && a->r > 0 ? (size_t)a->r * sizeof(int) : 0;

	if (bytes) {
		m.msg_control = space.space;
		m.msg_controllen = CMSG_SPACE(bytes);
		space.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
					       .cmsg_type = SCM_RIGHTS,
					       .cmsg_len = CMSG_LEN(bytes)};
		memcpy(CMSG_DATA(&space.align), fds, bytes);
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL) == sizeof(*a) ? 0 : -EPIPE;
}

static void scan(struct outside_scanner *s, struct outside *all, struct answer *a)
{
	int nice = getpriority(PRIO_PROCESS, 0);

	a->r = -EOPNOTSUPP;
	if (!s || !all)
		return;
	/* as who waits for it while the container stands still */
	ignore(setpriority(PRIO_PROCESS, 0, PRIO_MIN), "who may not does not");
	outside_scan(s, all);
	ignore(setpriority(PRIO_PROCESS, 0, nice), "it was so before");
	a->r = all->result;
}

static int read_marks(int parent, const char *name, char *buf)
{
	_cleanup_(free_ptr) char *list = malloc(OUTSIDER_MARKS);
	size_t used = 0;
	ssize_t n;

	if (!list || fchdir(parent) < 0)
		return list ? -errno : -ENOMEM;
	n = llistxattr(name, list, OUTSIDER_MARKS);
	if (n < 0)
		return errno == ENOTSUP || errno == ENOENT ? 0 : -errno;
	for (char *x = list; x < list + n; x += strlen(x) + 1) {
		const size_t head = strlen(x) + 1 + sizeof(uint32_t);
		ssize_t len = -1;
		uint32_t size;

		if (strncmp(x, "trusted.", 8))
			continue;
		if (used + head < OUTSIDER_MARKS)
			len = lgetxattr(name, x, buf + used + head, OUTSIDER_MARKS - used - head);
		if (len < 0)
			return -E2BIG;
		size = (uint32_t)len;
		memcpy(buf + used, x, strlen(x) + 1);
		memcpy(buf + used + strlen(x) + 1, &size, sizeof(size));
		used += head + size;
	}
	return (int)used;
}

/* The directory follows the question, and the attributes the answer. */
static int tell_marks(int socket, const struct request *q)
{
	_cleanup_(free_ptr) char *buf = malloc(OUTSIDER_MARKS);
	int fds[OUTSIDER_PEEKED], n, r;
	struct answer a = {.r = -ENOMEM};
	char byte;

	n = receive(socket, &byte, 1, fds, 0);
	if (n != 1)
		return -EPIPE;
	if (buf)
		a.r = read_marks(fds[0], q->name, buf);
	close(fds[0]);
	r = reply(socket, &(struct answer){.r = a.r}, NULL);
	if (r >= 0 && a.r > 0 && send(socket, buf, (size_t)a.r, MSG_NOSIGNAL) != a.r)
		r = -EPIPE;
	return r;
}

/* What serves needs: descriptors, and what looks at all, or NULL. */
struct server {
	int socket, proc_fd, init;
	struct outside_scanner *scanner;
	struct outside *all;
};

static int serve(const struct server *v, const struct request *q)
{
	int fds[OUTSIDER_PEEKED], r;
	struct answer a = {};
	long done = 0;

	if (q->what == ASK_MARKS)
		return tell_marks(v->socket, q);
	if (q->what == ASK_KILL && q->sig != SIGKILL)
		done = syscall(SYS_pidfd_send_signal, v->init, q->sig, NULL, 0);
	else if (q->what == ASK_COMPARE)
		done = syscall(SYS_kcmp, q->a, q->b, q->type, q->index_a, q->index_b);
	else if (q->what == ASK_EPOLL)
		done = syscall(SYS_kcmp, q->a, q->b, KCMP_EPOLL_TFD, q->index_a, &q->slot);
	a.r = done < 0 ? -errno : (int)done;
	if (q->what == ASK_SOCKETS)
		look_at_sockets(v->proc_fd, &q->sockets, &a);
	if (q->what == ASK_SCAN)
		scan(v->scanner, v->all, &a);
	if (q->what == ASK_THREADS)
		look_at_threads(&q->threads, &a);
	if (q->what != ASK_PEEK)
		return reply(v->socket, &a, NULL);
	a.r = peek(q->a, (int)q->index_a, fds);
	r = reply(v->socket, &a, fds);
	for (int i = 0; i < a.r; i++)
		close(fds[i]);
	return r;
}

void outsider_stay(int socket, int proc_fd, int init, pid_t first, pid_t child, struct outside *all)
{
	struct server v = {.socket = socket, .proc_fd = proc_fd, .init = init, .all = all};
	struct error unused = {};
	struct request q;
	bool kills = false;
	int status = 0;
	ssize_t n;

	/* While the other one looks at the container. */
	if (all)
		ignore(outside_scanner_new(&v.scanner, proc_fd, first, &unused),
		       "then each process is asked");
	while ((n = recv(socket, &q, sizeof(q), 0)) == sizeof(q) || (n < 0 && errno == EINTR)) {
		if (n < 0)
			continue; /* a signal that whoever called us catches */
		kills |= q.what == ASK_KILL && q.sig == SIGKILL;
		if (serve(&v, &q) < 0)
			break;
	}
	/* Nobody waits for an answer from here on. */
	close(socket);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	if (kills)
		await_end(init);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* ---- who asks ---- */

static int put(int socket, const struct request *q)
{
	ssize_t sent;

	do
		sent = send(socket, q, sizeof(*q), MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent == sizeof(*q) ? 0 : -EPIPE;
}

static int get(int socket, struct answer *a, int *fds)
{
	int n;

	a->r = -EPIPE;
	n = receive(socket, a, sizeof(*a), fds, 0);
	return n < 0 ? n : a->r;
}

static int ask(int socket, const struct request *q, struct answer *a, int *fds)
{
	int r = put(socket, q);

	return r < 0 ? r : get(socket, a, fds);
}

int outsider_begin_scan(int socket)
{
	return put(socket, &(struct request){.what = ASK_SCAN});
}

int outsider_end_scan(int socket)
{
	int fds[OUTSIDER_PEEKED];
	struct answer a;

	return get(socket, &a, fds);
}

int outsider_kill(int socket, int sig)
{
	const struct request q = {.what = ASK_KILL, .sig = sig};
	int fds[OUTSIDER_PEEKED];
	struct answer a;

	return ask(socket, &q, &a, fds);
}

int outsider_compare(int socket, int type, pid_t a, unsigned long index_a, pid_t b,
		     unsigned long index_b)
{
	const struct request q = {.what = ASK_COMPARE,
				  .a = a,
				  .b = b,
				  .type = type,
				  .index_a = index_a,
				  .index_b = index_b};
	int fds[OUTSIDER_PEEKED];
	struct answer answer;

	return ask(socket, &q, &answer, fds);
}

int outsider_marks(int socket, int parent, const char *name, char *buf)
{
	struct request q = {.what = ASK_MARKS};
	int fds[OUTSIDER_PEEKED], r;
	const struct answer with = {.r = 1};
	struct answer a;

	if (strlen(name) >= sizeof(q.name))
		return -ENAMETOOLONG;
	memcpy(q.name, name, strlen(name) + 1);
	r = put(socket, &q);
	if (r >= 0)
		r = reply(socket, &with, &parent);
	if (r >= 0)
		r = get(socket, &a, fds);
	return r <= 0 ? r : receive(socket, buf, OUTSIDER_MARKS, fds, 0) < 0 ? -EPIPE : r;
}

int outsider_compare_epoll(int socket, pid_t a, int fd, pid_t b, const struct kcmp_epoll_slot *slot)
{
	const struct request q = {
		.what = ASK_EPOLL, .a = a, .b = b, .index_a = (unsigned long)fd, .slot = *slot};
	int fds[OUTSIDER_PEEKED];
	struct answer answer;

	return ask(socket, &q, &answer, fds);
}

int outsider_look_at_sockets(int socket, struct outsider_sockets *s)
{
	const struct request q = {.what = ASK_SOCKETS, .sockets = *s};
	int fds[OUTSIDER_PEEKED], r;
	struct answer a;

	r = ask(socket, &q, &a, fds);
	s->inside = r < 0 ? 0 : a.inside;
	s->carriers = r < 0 ? 0 : a.carriers;
	return r;
}

int outsider_look_at_threads(int socket, struct outsider_threads *t)
{
	const struct request q = {.what = ASK_THREADS, .threads = *t};
	int fds[OUTSIDER_PEEKED], r;
	struct answer a;

	r = ask(socket, &q, &a, fds);
	t->apart = r < 0 ? 0 : a.apart;
	return r;
}

int outsider_peek(int socket, pid_t pid, int fd, int *ret)
{
	const struct request q = {.what = ASK_PEEK, .a = pid, .index_a = (unsigned long)fd};
	struct answer a;

	return ask(socket, &q, &a, ret);
}
