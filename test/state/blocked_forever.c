/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for something that comes only after the restart: no call ends before, none with EINTR. */
#include "harness.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <fcntl.h>
#include <unistd.h>

enum { READ, READV, WRITE, FUTEX, PAUSE, SUSPEND, SIGWAIT, POLL, SELECT, EPOLL, ACCEPT, COUNT };

static volatile pid_t tids[COUNT];
static volatile int early = 1, word;
static int in[2], full[2], watched[2], listener, epoll;
static volatile sig_atomic_t handled[COUNT];
static __thread int me;

static void handler(int sig)
{
	handled[me]++;
}

static long wait_for(int what)
{
	struct epoll_event event = {0};
	struct pollfd fd = {.fd = watched[0], .events = POLLIN};
	struct iovec part;
	char c[2] = "?";
	sigset_t set;
	fd_set fds;
	int sig;

	switch (what) {
	case READ:
		return read(in[0], c, 1) == 1 && c[0] == 'r';
	case READV:
		part = (struct iovec){c, 1};
		return readv(in[0], &part, 1) == 1 && c[0] == 'r';
	case WRITE:
		return write(full[1], c, 1) == 1;
	case FUTEX:
		return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL) == 0;
	case PAUSE:
		return pause() == -1 && errno == EINTR && handled[me] == 1;
	case SUSPEND:
		sigfillset(&set);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		sigdelset(&set, SIGUSR1);
		return sigsuspend(&set) == -1 && errno == EINTR && handled[me] == 1;
	case SIGWAIT:
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		return sigwait(&set, &sig) == 0 && sig == SIGUSR1;
	case POLL:
		return poll(&fd, 1, -1) == 1 && fd.revents == POLLIN;
	case SELECT:
		FD_ZERO(&fds);
		FD_SET(watched[0], &fds);
		return select(watched[0] + 1, &fds, NULL, NULL, NULL) == 1;
	case EPOLL:
		return epoll_wait(epoll, &event, 1, -1) == 1 &&
		       event.data.u64 == 0x1234567890abcdef;
	case ACCEPT:
		return accept(listener, NULL, NULL) < 0 && errno == EINVAL;
	}
	return 0;
}

static void *run(void *arg)
{
	me = (int)(intptr_t)arg;
	tids[me] = syscall(SYS_gettid);
	CHECKF(wait_for(me), "wait %d: errno %d, %s", me, errno, strerror(errno));
	CHECKF(!early, "wait %d ended before its time", me);
	return NULL;
}

static const long calls[COUNT] = {SYS_read,	SYS_readv,	   SYS_write,		SYS_futex,
				  SYS_pause,	SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_poll,
				  SYS_pselect6, SYS_epoll_wait,	   SYS_accept};

static void wake_all(void)
{
	char buffer[4096];

	CHECK_EQUAL(write(in[1], "rr", 2), 2);
	CHECK_EQUAL(read(full[0], buffer, sizeof(buffer)), 4096);
	word = 1;
	while (syscall(SYS_futex, &word, FUTEX_WAKE, 1) == 0)
		usleep(1000);
	tgkill(getpid(), tids[PAUSE], SIGUSR1);
	tgkill(getpid(), tids[SUSPEND], SIGUSR1);
	tgkill(getpid(), tids[SIGWAIT], SIGUSR1);
	CHECK_EQUAL(write(watched[1], "w", 1), 1);
	/* Ends an accept() with EINVAL. */
	CHECK(!shutdown(listener, SHUT_RDWR));
}

int main(void)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdef};
	pthread_t threads[COUNT];
	int one = 1;
	char c = 0;

	test_init();
	signal(SIGUSR1, handler);
	CHECK(!pipe(in) && !pipe(full) && !pipe(watched));
	listener = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)));
	CHECK(listener >= 0 && !listen(listener, 1));
	epoll = epoll_create1(0);
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, watched[0], &event));
	CHECK(!fcntl(full[1], F_SETFL, O_NONBLOCK));
	while (write(full[1], &c, 1) == 1)
		;
	CHECK(!fcntl(full[1], F_SETFL, 0));
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_create(&threads[i], NULL, run, (void *)(intptr_t)i));
	for (int i = 0; i < COUNT; i++) {
		while (!tids[i])
			usleep(100);
		test_until_in(tids[i], calls[i]);
	}
	test_wait();
	if (test_break(1))
		tgkill(getpid(), tids[PAUSE], SIGUSR1);
	test_sleep(0.02);
	early = 0;
	wake_all();
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_pass();
}
