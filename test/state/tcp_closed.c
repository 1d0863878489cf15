/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP connections come back closed: what had been received can be read, then comes the end, or
 * ECONNRESET. Clients that were not accepted are gone, and what listens listens.
 *
 * network: own
 * checkpoint: --tcp=closed
 * not-in: both: the original keeps its connections
 */
#include "harness.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
	int client, server;
};

static int port_of(int fd)
{
	struct sockaddr_in6 a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, (struct sockaddr *)&a, &len));
	return ntohs(a.sin6_port);
}

static int listener_of(int family, int backlog)
{
	struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family};
	int fd = socket(family, SOCK_STREAM, 0);

	CHECK(fd >= 0);
	/* As servers do, against what lingers of connections that had ended before. */
	CHECK(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
	CHECK(!bind(fd, (struct sockaddr *)&a,
		    family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(a)));
	CHECK(!listen(fd, backlog));
	return fd;
}

static int connect_to(int family, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6,
				  .sin6_port = htons((uint16_t)port),
				  .sin6_addr = in6addr_loopback};
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), r;

	CHECK(fd >= 0);
	r = family == AF_INET ? connect(fd, (struct sockaddr *)&a, sizeof(a))
			      : connect(fd, (struct sockaddr *)&a6, sizeof(a6));
	CHECK(r == 0 || errno == EINPROGRESS);
	return fd;
}

static struct pair connection(int listener, int family)
{
	struct pair p = {.client = connect_to(family, port_of(listener))};
	struct pollfd out = {.fd = p.client, .events = POLLOUT};

	p.server = accept(listener, NULL, NULL);
	CHECK(p.server >= 0);
	CHECK_EQUAL(poll(&out, 1, 5000), 1);
	CHECK(!fcntl(p.client, F_SETFL, 0));
	return p;
}

static void send_text(int fd, const char *text)
{
	CHECK_EQUAL(send(fd, text, strlen(text), 0), strlen(text));
}

static void until_event(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	CHECK_EQUAL(poll(&p, 1, 5000), 1);
}

static void expect_text(int fd, const char *text)
{
	char buf[64] = "";

	CHECK_EQUAL(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), strlen(text));
	CHECK(!strcmp(buf, text));
}

static void expect_reset(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char c;

	CHECK_EQUAL(poll(&p, 1, 0), 1);
	CHECK_EQUAL(p.revents, POLLIN | POLLERR | POLLHUP);
	CHECK(recv(fd, &c, 1, 0) < 0 && errno == ECONNRESET);
	CHECK_EQUAL(recv(fd, &c, 1, 0), 0);
	CHECK(send(fd, &c, 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
}

static void expect_end(int fd)
{
	char c;

	CHECK_EQUAL(recv(fd, &c, 1, 0), 0);
	CHECK_EQUAL(recv(fd, &c, 1, 0), 0);
	CHECK(send(fd, &c, 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
}

/* As much as goes in. */
static int stuff(const struct pair *p)
{
	static char data[4096];
	int queued = 0;

	test_fill(data, sizeof(data), 7);
	while (send(p->client, data, sizeof(data), MSG_DONTWAIT) == sizeof(data))
		;
	CHECK(!ioctl(p->server, FIONREAD, &queued));
	CHECK(queued > 4096);
	return queued;
}

/* At the least: more may have come before the checkpoint. Then comes the error. */
static void expect_stuffed(int fd, int queued)
{
	char is, data[4096];
	ssize_t n;
	int i = 0;

	test_fill(data, sizeof(data), 7);
	while ((n = recv(fd, &is, 1, 0)) == 1)
		CHECK_EQUAL(is, data[i++ % 4096]);
	CHECK(n < 0 && errno == ECONNRESET);
	CHECKF(i >= queued, "%d bytes of %d", i, queued);
}

static int read_blocking(void *arg)
{
	int fd = *(int *)arg;
	char c;

	return recv(fd, &c, 1, 0) < 0 && errno == ECONNRESET ? 7 : 8;
}

static void cut(int fd)
{
	struct linger now = {1, 0};

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(fd);
}

int main(void)
{
	struct pair plain, six, half, both, full, broken, blocked;
	int four, dual, narrow, waiting, connecting, queued, value = 0, accepted;
	socklen_t len = sizeof(value);
	pid_t reader;

	test_init();
	four = listener_of(AF_INET, 5);
	dual = listener_of(AF_INET6, 5);
	plain = connection(four, AF_INET);
	send_text(plain.server, "unread");
	CHECK(!setsockopt(plain.client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
	six = connection(dual, AF_INET6);
	half = connection(dual, AF_INET);
	send_text(half.server, "last");
	CHECK(!shutdown(half.server, SHUT_WR));
	until_event(half.client, POLLRDHUP);
	both = connection(four, AF_INET);
	send_text(both.server, "bye");
	CHECK(!shutdown(both.server, SHUT_WR));
	until_event(both.client, POLLRDHUP);
	CHECK(!shutdown(both.client, SHUT_WR));
	full = connection(four, AF_INET);
	queued = stuff(&full);
	broken = connection(four, AF_INET);
	send_text(broken.server, "rest");
	until_event(broken.client, POLLIN);
	cut(broken.server);
	until_event(broken.client, POLLRDHUP);
	blocked = connection(four, AF_INET);
	reader = test_fork(read_blocking, &blocked.client);
	/* One client in the backlog, and one that does not get in. */
	narrow = listener_of(AF_INET, 0);
	waiting = connect_to(AF_INET, port_of(narrow));
	until_event(waiting, POLLOUT);
	connecting = connect_to(AF_INET, port_of(narrow));
	test_until_in(reader, 45 /* recvfrom */);

	test_wait();
	if (test_mode_is("plain")) {
		CHECK(!kill(reader, SIGKILL));
		test_pass();
	}
	if (test_break(1))
		expect_text(plain.client, "unread");
	if (test_break(2))
		expect_text(half.client, "last");
	expect_text(plain.client, "unread");
	expect_reset(plain.client);
	CHECK(!getsockopt(plain.client, IPPROTO_TCP, TCP_NODELAY, &value, &len));
	CHECK_EQUAL(value, 1);
	expect_reset(plain.server);
	expect_reset(six.client);
	expect_reset(six.server);
	expect_text(half.client, "last");
	expect_end(half.client);
	expect_text(both.client, "bye");
	expect_end(both.client);
	expect_stuffed(full.server, queued);
	expect_text(broken.client, "rest");
	expect_reset(broken.client);
	test_reap(reader, 7);
	expect_reset(waiting);
	CHECK(!getsockopt(connecting, SOL_SOCKET, SO_ERROR, &value, &len));
	CHECK_EQUAL(value, ECONNREFUSED);
	CHECK(!fcntl(narrow, F_SETFL, O_NONBLOCK));
	CHECK(accept(narrow, NULL, NULL) < 0 && errno == EAGAIN);
	waiting = connect_to(AF_INET, port_of(narrow));
	until_event(narrow, POLLIN);
	accepted = accept(narrow, NULL, NULL);
	CHECK(accepted >= 0);
	send_text(accepted, "new");
	until_event(waiting, POLLIN);
	expect_text(waiting, "new");
	test_pass();
}
