/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors in flight: every kind of file that can be passed over a Unix socket, held by nobody
 * but the queue; shared with who still has it open; with the boundaries of what they were sent
 * with; sockets in their own queue and in each other's.
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int carrier[2]; /* one message for each kind */

static void send_fds(int to, const char *text, const int *fds, size_t n)
{
	char control[CMSG_SPACE(253 * sizeof(int))] __attribute__((aligned(8))) = {};
	struct iovec iov = {(char *)(uintptr_t)text, strlen(text)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	CHECK_EQUAL(sendmsg(to, &msg, 0), (ssize_t)strlen(text));
}

/* Sends it and keeps nothing. */
static void give(int to, const char *text, int fd)
{
	CHECKF(fd >= 0, "%s: errno %d", text, errno);
	send_fds(to, text, &fd, 1);
	close(fd);
}

/* Receives at most `size` bytes, which must be `text`; how many descriptors came along. */
static size_t receive(int from, const char *text, size_t size, int *fds)
{
	char control[CMSG_SPACE(253 * sizeof(int)) + 64] __attribute__((aligned(8)));
	char buf[256] = "";
	struct iovec iov = {buf, size};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(from, &msg, MSG_DONTWAIT);
	size_t nfds = 0;

	CHECKF(n == (ssize_t)strlen(text) && !memcmp(buf, text, strlen(text)),
	       "%zd bytes '%s' instead of '%s'", n, buf, text);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_type == SCM_RIGHTS) {
			nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(c), nfds * sizeof(int));
		}
	return nfds;
}

static int take(int from, const char *text)
{
	int fds[253];

	CHECKF(receive(from, text, 256, fds) == 1, "no descriptor with '%s'", text);
	CHECK_EQUAL(fcntl(fds[0], F_GETFD), 0);
	return fds[0];
}

static void put(int fd, const char *data, size_t size)
{
	CHECK_EQUAL(write(fd, data, size), (ssize_t)size);
}

static void expect(int fd, const char *text)
{
	char buf[256] = "";

	CHECK_EQUAL(read(fd, buf, sizeof(buf) - 1), (ssize_t)strlen(text));
	CHECKF(!strcmp(buf, text), "'%s' instead of '%s'", buf, text);
}

/* ---- all kinds ---- */

static int shared_file, kept_end;

static void give_files(void)
{
	int fd = open("plain", O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK, 0600);

	put(fd, "plain text", 10);
	CHECK_EQUAL(lseek(fd, 6, SEEK_SET), 6);
	CHECK(!flock(fd, LOCK_SH));
	give(carrier[0], "plain", fd);
	fd = open("deleted", O_RDWR | O_CREAT, 0600);
	put(fd, "gone", 4);
	CHECK(!unlink("deleted"));
	give(carrier[0], "deleted", fd);
	shared_file = open("shared", O_RDWR | O_CREAT, 0600);
	put(shared_file, "both have it", 12);
	send_fds(carrier[0], "shared", &shared_file, 1);
	give(carrier[0], "path", open("plain", O_PATH));
	give(carrier[0], "directory", open(".", O_RDONLY | O_DIRECTORY));
	give(carrier[0], "null", open("/dev/null", O_RDWR));
	fd = memfd_create("memory", MFD_ALLOW_SEALING);
	put(fd, "memfd", 5);
	CHECK(!fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	give(carrier[0], "memfd", fd);
	fd = open("/proc/self/status", O_RDONLY);
	give(carrier[0], "proc", fd);
}

static void take_files(void)
{
	int fd = take(carrier[1], "plain"), other;
	struct stat st;
	char buf[256];

	CHECK_EQUAL(fcntl(fd, F_GETFL) & (O_APPEND | O_NONBLOCK | O_ACCMODE),
		    O_APPEND | O_NONBLOCK | O_RDWR);
	expect(fd, "text");
	other = open("plain", O_RDWR);
	CHECK(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	fd = take(carrier[1], "deleted");
	CHECK(!fstat(fd, &st) && !st.st_nlink);
	CHECK_EQUAL(lseek(fd, 0, SEEK_SET), 0);
	expect(fd, "gone");
	fd = take(carrier[1], "shared");
	CHECK_EQUAL(lseek(shared_file, 5, SEEK_SET), 5);
	expect(fd, "have it");
	fd = take(carrier[1], "path");
	CHECK(read(fd, buf, 1) < 0 && errno == EBADF);
	fd = take(carrier[1], "directory");
	CHECK(openat(fd, "plain", O_RDONLY) >= 0);
	CHECK_EQUAL(write(take(carrier[1], "null"), "x", 1), 1);
	fd = take(carrier[1], "memfd");
	CHECK_EQUAL(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK);
	CHECK_EQUAL(lseek(fd, 0, SEEK_SET), 0);
	expect(fd, "memfd");
	fd = take(carrier[1], "proc");
	CHECK(read(fd, buf, sizeof(buf)) > 0);
}

static void give_pipes(void)
{
	int both[2], one[2];

	CHECK(!pipe2(both, O_NONBLOCK));
	put(both[1], "in a pipe", 9);
	give(carrier[0], "read end", both[0]);
	give(carrier[0], "write end", both[1]);
	CHECK(!pipe(one));
	kept_end = one[0];
	give(carrier[0], "other end", one[1]);
	CHECK(!mkfifo("fifo", 0600));
	give(carrier[0], "fifo", open("fifo", O_RDWR | O_NONBLOCK));
	/* One with a name is the same for original and copy, who would read what the other writes.
	 */
	if (test_mode_is("both"))
		CHECK(!unlink("fifo"));
	one[0] = posix_openpt(O_RDWR | O_NOCTTY);
	CHECK(!grantpt(one[0]) && !unlockpt(one[0]));
	one[1] = open(ptsname(one[0]), O_RDWR | O_NOCTTY);
	give(carrier[0], "master", one[0]);
	give(carrier[0], "slave", one[1]);
}

static void take_pipes(void)
{
	int reader = take(carrier[1], "read end"), writer = take(carrier[1], "write end");
	char byte;

	CHECK_EQUAL(fcntl(reader, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	expect(reader, "in a pipe");
	CHECK(read(reader, &byte, 1) < 0 && errno == EAGAIN);
	close(writer);
	CHECK_EQUAL(read(reader, &byte, 1), 0);
	writer = take(carrier[1], "other end");
	put(writer, "kept", 4);
	expect(kept_end, "kept");
	close(writer);
	CHECK_EQUAL(read(kept_end, &byte, 1), 0);
	writer = take(carrier[1], "fifo");
	put(writer, "in a fifo", 9);
	expect(writer, "in a fifo");
	writer = take(carrier[1], "master");
	reader = take(carrier[1], "slave");
	put(writer, "line\n", 5);
	expect(reader, "line\n");
}

static void give_anonymous(pid_t child)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
	struct itimerspec far = {.it_value.tv_sec = 100000};
	int fd = eventfd(5, EFD_NONBLOCK), set = epoll_create1(0);
	sigset_t usr1;

	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
	give(carrier[0], "eventfd", fd);
	give(carrier[0], "epoll", set);
	fd = timerfd_create(CLOCK_MONOTONIC, 0);
	CHECK(!timerfd_settime(fd, 0, &far, NULL));
	give(carrier[0], "timerfd", fd);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	give(carrier[0], "signalfd", signalfd(-1, &usr1, SFD_NONBLOCK));
	fd = inotify_init1(IN_NONBLOCK);
	CHECK_EQUAL(inotify_add_watch(fd, ".", IN_CREATE), 1);
	give(carrier[0], "inotify", fd);
	give(carrier[0], "pidfd", (int)syscall(SYS_pidfd_open, child, 0));
}

static void take_anonymous(void)
{
	int fd = take(carrier[1], "eventfd"), set = take(carrier[1], "epoll");
	struct epoll_event event = {};
	struct itimerspec left;
	struct signalfd_siginfo info;
	eventfd_t count;
	char buf[512];

	CHECK_EQUAL(epoll_wait(set, &event, 1, 0), 1);
	CHECK_EQUAL(event.data.u64, 77);
	CHECK(!eventfd_read(fd, &count));
	CHECK_EQUAL(count, 5);
	CHECK_EQUAL(epoll_wait(set, &event, 1, 0), 0);
	CHECK(!timerfd_gettime(take(carrier[1], "timerfd"), &left));
	CHECK(left.it_value.tv_sec > 90000 && left.it_value.tv_sec <= 100000);
	fd = take(carrier[1], "signalfd");
	raise(SIGUSR1);
	CHECK_EQUAL(read(fd, &info, sizeof(info)), (ssize_t)sizeof(info));
	CHECK_EQUAL(info.ssi_signo, SIGUSR1);
	fd = take(carrier[1], "inotify");
	test_write("new", "", 0);
	CHECK(read(fd, buf, sizeof(buf)) > 0);
	fd = take(carrier[1], "pidfd");
	CHECK(!syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
}

static void give_sockets(void)
{
	struct f_owner_ex owner = {.type = F_OWNER_PID, .pid = getpid()};
	int pair[2], fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	give(carrier[0], "tcp", fd);
	give(carrier[0], "udp", socket(AF_INET, SOCK_DGRAM, 0));
	give(carrier[0], "netlink", socket(AF_NETLINK, SOCK_RAW, 0));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	put(pair[0], "in a pair", 9);
	CHECK(!fcntl(pair[0], F_SETOWN_EX, &owner));
	CHECK(!fcntl(pair[0], F_SETSIG, SIGUSR2));
	give(carrier[0], "one", pair[0]);
	give(carrier[0], "two", pair[1]);
}

static void take_sockets(void)
{
	struct f_owner_ex owner;
	int fd = take(carrier[1], "tcp"), value, other;
	socklen_t len = sizeof(value);
	char byte;

	CHECK(!getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &len));
	CHECK_EQUAL(value, 1);
	CHECK(!getsockopt(take(carrier[1], "udp"), SOL_SOCKET, SO_TYPE, &value, &len));
	CHECK_EQUAL(value, SOCK_DGRAM);
	CHECK(!getsockopt(take(carrier[1], "netlink"), SOL_SOCKET, SO_DOMAIN, &value, &len));
	CHECK_EQUAL(value, AF_NETLINK);
	fd = take(carrier[1], "one");
	other = take(carrier[1], "two");
	CHECK(!fcntl(fd, F_GETOWN_EX, &owner));
	CHECK_EQUAL(owner.pid, getpid());
	CHECK_EQUAL(fcntl(fd, F_GETSIG), SIGUSR2);
	expect(other, "in a pair");
	close(fd);
	CHECK_EQUAL(read(other, &byte, 1), 0);
}

/* ---- boundaries ---- */

static int stream[2], packets[2], datagrams[2];

static void fill_boundaries(void)
{
	int fds[253], event = eventfd(1, 0);

	for (int i = 0; i < 253; i++)
		fds[i] = event;
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
	put(stream[0], "abc", 3);
	send_fds(stream[0], "de", fds, 2);
	send_fds(stream[0], "f", fds, 1);
	put(stream[0], "g", 1);
	put(stream[0], "hi", 2);
	send_fds(stream[0], "j", fds, 253);
	put(stream[0], "k", 1);
	send_fds(stream[0], "lm", fds, 3);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));
	put(packets[0], "none", 4);
	send_fds(packets[0], "four", fds, 4);
	send_fds(packets[0], "", fds, 1);
	put(packets[0], "last", 4);
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams));
	send_fds(datagrams[0], "", fds, 2);
	send_fds(datagrams[0], "", fds, 1);
	put(datagrams[0], "last", 4);
	close(event);
}

static void check_boundaries(void)
{
	int fds[256];

	CHECK_EQUAL(receive(stream[1], "abc", 3, fds), 0);
	CHECK_EQUAL(receive(stream[1], "d", 1, fds), 2);
	CHECK_EQUAL(receive(stream[1], "ef", 256, fds), 1);
	CHECK_EQUAL(receive(stream[1], "gh", 2, fds), 0);
	CHECK_EQUAL(receive(stream[1], "ij", 256, fds), 253);
	CHECK_EQUAL(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[0], fds[252]), 0);
	CHECK_EQUAL(receive(stream[1], "k", 1, fds), 0);
	CHECK_EQUAL(receive(stream[1], "lm", 256, fds), 3);
	CHECK_EQUAL(receive(packets[1], "none", 256, fds), 0);
	CHECK_EQUAL(receive(packets[1], "four", 256, fds), 4);
	CHECK_EQUAL(receive(packets[1], "", 256, fds), 1);
	CHECK_EQUAL(receive(packets[1], "last", 256, fds), 0);
	CHECK_EQUAL(receive(datagrams[1], "", 256, fds), 2);
	CHECK_EQUAL(receive(datagrams[1], "", 256, fds), 1);
	CHECK_EQUAL(receive(datagrams[1], "last", 256, fds), 0);
}

/* ---- cycles ---- */

static int own[2], ring[2], deep;

static void make_cycles(void)
{
	int a[2], b[2];

	/* One end carries itself and the other; a ring that hangs on one end; a chain of queues. */
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, own));
	send_fds(own[0], "both", (int[]){own[1], own[0]}, 2);
	close(own[0]);
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, a) && !socketpair(AF_UNIX, SOCK_DGRAM, 0, b));
	send_fds(a[0], "b", (int[]){b[0], b[1]}, 2);
	send_fds(b[0], "a", (int[]){a[0]}, 1);
	close(a[0]);
	close(b[0]);
	close(b[1]);
	ring[1] = a[1];
	deep = eventfd(9, 0);
	for (int i = 0; i < 3; i++) {
		CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, a));
		give(a[0], "inside", deep);
		close(a[0]);
		deep = a[1];
	}
}

static void check_cycles(void)
{
	int fds[4], more[4], at = deep;
	eventfd_t count;

	CHECK_EQUAL(receive(own[1], "both", 256, fds), 2);
	CHECK_EQUAL(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[0], own[1]), 0);
	put(fds[1], "again", 5);
	expect(own[1], "again");
	CHECK_EQUAL(receive(ring[1], "b", 256, fds), 2);
	CHECK_EQUAL(receive(fds[1], "a", 256, more), 1);
	put(more[0], "round", 5);
	expect(ring[1], "round");
	for (int i = 0; i < 3; i++)
		at = take(at, "inside");
	CHECK(!eventfd_read(at, &count));
	CHECK_EQUAL(count, 9);
}

static int child(void *arg)
{
	test_hold();
	return 0;
}

int main(void)
{
	int fds[8], size = 1 << 20;
	pid_t pid;

	test_init();
	pid = test_fork(child, NULL);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, carrier));
	CHECK(!setsockopt(carrier[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
	give_files();
	give_pipes();
	give_anonymous(pid);
	give_sockets();
	fill_boundaries();
	make_cycles();

	test_wait();
	if (test_break(1))
		receive(own[1], "both", 256, fds);
	if (test_break(2))
		receive(carrier[1], "plain", 256, fds);
	take_files();
	take_pipes();
	take_anonymous();
	take_sockets();
	check_boundaries();
	check_cycles();
	test_reap(pid, 0);
	test_pass();
}
