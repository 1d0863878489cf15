/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internet sockets that need no peer: options, addresses, listening on v6, UDP connected and not, a
 * connection that is over.
 *
 * not-in: both: the ports are those of the original
 */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons((uint16_t)port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int port_of(int fd)
{
	struct sockaddr_in6 a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, (struct sockaddr *)&a, &len));
	return ntohs(a.sin6_port);
}

static void set(int fd, int level, int name, int value)
{
	CHECK(!setsockopt(fd, level, name, &value, sizeof(value)));
}

static int get(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, level, name, &value, &len));
	return value;
}

int main(void)
{
	struct sockaddr_in a = loopback(0), b;
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
	int fresh, listener, udp, connected, over, server, client, ports[4], buffer;
	socklen_t len = sizeof(b);
	char buf[16];

	test_init();
	fresh = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	set(fresh, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fresh, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	set(fresh, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fresh, SOL_SOCKET, SO_RCVBUF, 50000);
	buffer = get(fresh, SOL_SOCKET, SO_RCVBUF);
	listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	set(listener, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	set(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
	CHECK(!bind(listener, (struct sockaddr *)&any, sizeof(any)));
	CHECK(!listen(listener, 9));
	ports[0] = port_of(listener);
	udp = socket(AF_INET, SOCK_DGRAM, 0);
	set(udp, IPPROTO_IP, IP_TTL, 33);
	set(udp, SOL_SOCKET, SO_BROADCAST, 1);
	CHECK(!bind(udp, (struct sockaddr *)&a, sizeof(a)));
	ports[1] = port_of(udp);
	connected = socket(AF_INET, SOCK_DGRAM, 0);
	b = loopback(ports[1]);
	CHECK(!connect(connected, (struct sockaddr *)&b, sizeof(b)));
	ports[2] = port_of(connected);
	over = socket(AF_INET, SOCK_STREAM, 0);
	server = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!bind(server, (struct sockaddr *)&a, sizeof(a)));
	CHECK(!listen(server, 1));
	b = loopback(port_of(server));
	CHECK(!connect(over, (struct sockaddr *)&b, sizeof(b)));
	client = accept(server, NULL, NULL);
	set(client, SOL_SOCKET, SO_KEEPALIVE, 1);
	{
		struct linger now = {1, 0};

		CHECK(!setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	}
	close(client);
	CHECK(recv(over, buf, 1, 0) < 0 && errno == ECONNRESET);
	CHECK_EQUAL(recv(over, buf, 1, 0), 0);
	close(server);

	test_wait();
	if (test_break(1))
		CHECK(!setsockopt(udp, IPPROTO_IP, IP_TTL, &(int){34}, sizeof(int)));
	CHECK_EQUAL(get(fresh, IPPROTO_TCP, TCP_NODELAY), 1);
	CHECK_EQUAL(get(fresh, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	CHECK_EQUAL(get(fresh, SOL_SOCKET, SO_KEEPALIVE), 1);
	CHECK_EQUAL(get(fresh, SOL_SOCKET, SO_RCVBUF), buffer);
	CHECK_EQUAL(get(fresh, SOL_SOCKET, SO_REUSEADDR), 0);
	CHECK_EQUAL(get(listener, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	CHECK_EQUAL(get(listener, SOL_SOCKET, SO_ACCEPTCONN), 1);
	CHECK_EQUAL(get(listener, SOL_SOCKET, SO_REUSEADDR), 0);
	CHECK_EQUAL(port_of(listener), ports[0]);
	any.sin6_port = htons((uint16_t)ports[0]);
	client = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK(!connect(client, (struct sockaddr *)&any, sizeof(any)));
	CHECK_EQUAL(send(client, "hello", 5, 0), 5);
	server = accept(listener, NULL, NULL);
	CHECK_EQUAL(recv(server, buf, 5, MSG_WAITALL), 5);
	CHECK_EQUAL(port_of(udp), ports[1]);
	CHECK_EQUAL(get(udp, IPPROTO_IP, IP_TTL), 33);
	CHECK_EQUAL(get(udp, SOL_SOCKET, SO_BROADCAST), 1);
	CHECK_EQUAL(port_of(connected), ports[2]);
	CHECK_EQUAL(send(connected, "udp", 3, 0), 3);
	CHECK_EQUAL(recvfrom(udp, buf, sizeof(buf), 0, (struct sockaddr *)&b, &len), 3);
	CHECK_EQUAL(ntohs(b.sin_port), ports[2]);
	CHECK_EQUAL(recv(over, buf, 1, 0), 0);
	CHECK(send(over, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	test_pass();
}
