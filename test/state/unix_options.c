/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of Unix sockets, and what they have to do with what is queued: credentials that were not
 * wanted when a message was sent, a filter that would have dropped it, the offset of MSG_PEEK,
 * bytes out of band. Also what any other descriptor has: an owner, its flags, relatives that share
 * it.
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define SO_PASSPIDFD_	    76
#define SO_PASSRIGHTS_	    83
#define SO_TIMESTAMPNS_NEW_ 64

struct option {
	int name, value;
};

/* Those that a new socket does not have; the kernel may not know all. */
static struct option options[] = {
	{SO_PASSCRED, 1},	  {SO_PASSSEC, 1},   {SO_PASSPIDFD_, 1}, {SO_PASSRIGHTS_, 0},
	{SO_TIMESTAMPNS_NEW_, 1}, {SO_PRIORITY, 3},  {SO_RCVLOWAT, 5},	 {SO_BUF_LOCK, 3},
	{SO_INCOMING_CPU, 1},	  {SO_KEEPALIVE, 1}, {SO_OOBINLINE, 1},	 {SO_SELECT_ERR_QUEUE, 1},
};
#define NOPTIONS (sizeof(options) / sizeof(options[0]))

static int get(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, SOL_SOCKET, name, &value, &len));
	return value;
}

static void set(int fd, int name, int value)
{
	CHECK(!setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)));
}

static void put(int fd, const char *text)
{
	CHECK_EQUAL(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* A message, and who sent it. */
static struct ucred expect(int fd, const char *text, int flags)
{
	char buf[64] = "", control[256] __attribute__((aligned(8)));
	struct iovec iov = {buf, sizeof(buf)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct ucred cred = {.pid = -1};
	ssize_t n = recvmsg(fd, &msg, flags | MSG_DONTWAIT);

	CHECKF(n == (ssize_t)strlen(text) && !strcmp(buf, text), "%zd bytes '%s' instead of '%s'",
	       n, buf, text);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS)
			memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	return cred;
}

static void set_options(int fd)
{
	for (size_t i = 0; i < NOPTIONS; i++)
		if (setsockopt(fd, SOL_SOCKET, options[i].name, &options[i].value, sizeof(int)) < 0)
			options[i].name = 0;
}

static void check_options(int fd)
{
	for (size_t i = 0; i < NOPTIONS; i++)
		if (options[i].name)
			CHECKF(get(fd, options[i].name) == options[i].value,
			       "option %d is %d, not %d", options[i].name, get(fd, options[i].name),
			       options[i].value);
}

/* Drops all, or keeps at most `most` bytes. */
static void attach(int fd, unsigned int most)
{
	struct sock_filter insn = {BPF_RET | BPF_K, 0, 0, most};
	struct sock_fprog prog = {1, &insn};

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
	set(fd, SO_LOCK_FILTER, 1);
}

static int echo[2];

static int child(void *arg)
{
	char c;

	close(echo[0]);
	while (read(echo[1], &c, 1) == 1)
		CHECK_EQUAL(write(echo[1], &c, 1), 1);
	return 6;
}

/* Older kernels (6.1) lose what comes after an urgent byte that was received as such. */
static bool keeps_marks(void)
{
	char buf[4];
	int s[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	put(s[0], "a");
	CHECK_EQUAL(send(s[0], "X", 1, MSG_OOB), 1);
	put(s[0], "b");
	CHECK_EQUAL(recv(s[1], buf, 4, 0), 1);
	CHECK_EQUAL(recv(s[1], buf, 1, MSG_OOB), 1);
	return recv(s[1], buf, 4, MSG_DONTWAIT) == 1;
}

static void check_marks(int *mark, int *taken, int *begin, int *in)
{
	char buf[16];
	int at = 0;

	CHECK_EQUAL(recv(mark[1], buf, 1, MSG_OOB | MSG_PEEK), 1);
	CHECK_EQUAL(buf[0], 'X');
	expect(mark[1], "abc", 0);
	CHECK(!ioctl(mark[1], SIOCATMARK, &at) && at);
	CHECK_EQUAL(recv(mark[1], buf, 1, MSG_OOB), 1);
	expect(mark[1], "def", 0);
	CHECK(recv(taken[1], buf, 1, MSG_OOB) < 0 && errno == EINVAL);
	expect(taken[1], "abc", 0);
	CHECK(!ioctl(taken[1], SIOCATMARK, &at) && at);
	expect(taken[1], "def", 0);
	CHECK(!ioctl(begin[1], SIOCATMARK, &at) && at);
	CHECK_EQUAL(recv(begin[1], buf, 1, MSG_OOB), 1);
	CHECK_EQUAL(buf[0], 'Y');
	CHECK(recv(begin[1], buf, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	expect(in[1], "abc", 0);
	expect(in[1], "Zdef", 0);
}

int main(void)
{
	int all[2], plain[2], late[2], filtered[2], peeking[2], empty[2], mark[2], taken[2],
		begin[2], in[2];
	struct timeval timeout = {7, 500000}, got;
	struct f_owner_ex owner = {.type = F_OWNER_PID, .pid = getpid()};
	socklen_t len = sizeof(got);
	struct ucred cred;
	char byte;
	int on = 1;
	pid_t pid;

	test_init();
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, all));
	set_options(all[0]);
	CHECK(!setsockopt(all[0], SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, plain));
	set(plain[0], SO_SNDBUF, 10000);
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, late));
	put(late[0], "nobody's");
	set(late[1], SO_PASSCRED, 1);
	put(late[0], "mine");
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, filtered));
	put(filtered[0], "let through");
	attach(filtered[1], 3);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, peeking));
	put(peeking[0], "0123456789");
	set(peeking[1], SO_PEEK_OFF, 4);
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, empty));
	CHECK_EQUAL(send(empty[0], "", 0, 0), 0);
	CHECK_EQUAL(recv(empty[1], &byte, 1, MSG_PEEK), 0);
	CHECK_EQUAL(send(empty[0], "", 0, 0), 0);
	put(empty[0], "then");
	set(empty[1], SO_PEEK_OFF, 100);

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, mark));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, taken));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, begin));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, in));
	if (send(begin[0], "Y", 1, MSG_OOB) < 0)
		test_skip("no MSG_OOB on Unix sockets");
	set(in[1], SO_OOBINLINE, 1);
	for (int i = 0; i < 3; i++) {
		int to = (int[]){mark[0], taken[0], in[0]}[i];

		put(to, "abc");
		CHECK_EQUAL(send(to, i == 2 ? "Z" : "X", 1, MSG_OOB), 1);
		put(to, "def");
	}
	CHECK_EQUAL(recv(taken[1], &byte, 1, MSG_OOB), 1);

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, echo));
	pid = test_fork(child, NULL);
	close(echo[1]);
	CHECK(!fcntl(echo[0], F_SETOWN_EX, &owner) && !fcntl(echo[0], F_SETSIG, SIGUSR1));
	signal(SIGUSR1, SIG_IGN);
	CHECK(!fcntl(echo[0], F_SETFL, O_NONBLOCK | O_ASYNC));

	test_wait();
	if (test_break(1))
		set(all[0], SO_PRIORITY, 0);
	if (test_break(2))
		expect(late[1], "nobody's", 0);
	if (test_break(3))
		CHECK_EQUAL(recv(empty[1], &byte, 1, 0), 0);
	if (test_break(4))
		CHECK_EQUAL(recv(mark[1], &byte, 1, MSG_OOB), 1);
	check_options(all[0]);
	CHECK(!getsockopt(all[0], SOL_SOCKET, SO_SNDTIMEO, &got, &len));
	CHECK(got.tv_sec == 7 && got.tv_usec == 500000);
	CHECK_EQUAL(get(plain[0], SO_SNDBUF), 20000);
	CHECK_EQUAL(get(plain[1], SO_BUF_LOCK), 0);
	cred = expect(late[1], "nobody's", 0);
	CHECK_EQUAL(cred.pid, 0);
	cred = expect(late[1], "mine", 0);
	if (!test_mode_is("user"))
		CHECK_EQUAL(cred.pid, getpid());
	CHECK_EQUAL(cred.uid, getuid());
	expect(filtered[1], "let through", 0);
	CHECK_EQUAL(get(filtered[1], SO_LOCK_FILTER), 1);
	CHECK(setsockopt(filtered[1], SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof(on)) < 0 &&
	      errno == EPERM);
	put(filtered[0], "shortened");
	expect(filtered[1], "sho", 0);
	CHECK_EQUAL(get(peeking[1], SO_PEEK_OFF), 4);
	expect(peeking[1], "456789", MSG_PEEK);
	expect(peeking[1], "0123456789", 0);
	CHECK_EQUAL(get(empty[1], SO_PEEK_OFF), 100);
	expect(empty[1], "", 0);
	expect(empty[1], "", 0);
	expect(empty[1], "then", 0);
	if (keeps_marks())
		check_marks(mark, taken, begin, in);

	CHECK_EQUAL(fcntl(echo[0], F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(fcntl(echo[0], F_GETFL) & (O_NONBLOCK | O_ASYNC), O_NONBLOCK | O_ASYNC);
	CHECK(!fcntl(echo[0], F_GETOWN_EX, &owner));
	CHECK_EQUAL(owner.pid, getpid());
	CHECK_EQUAL(fcntl(echo[0], F_GETSIG), SIGUSR1);
	put(echo[0], "e");
	CHECK_EQUAL(poll(&(struct pollfd){echo[0], POLLIN, 0}, 1, -1), 1);
	expect(echo[0], "e", 0);
	close(echo[0]);
	test_reap(pid, 6);
	test_pass();
}
