/* SPDX-License-Identifier: Apache-2.0 */
/* Kinds of descriptor that real programs cannot do without: eventfd, epoll, listening TCP. */
#include "harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 11}, events[8];
	socklen_t length = sizeof(address);
	int counter, semaphore, epoll, listener, client, server, value, ends[2];
	uint64_t number;

	test_init();
	counter = eventfd(7, EFD_NONBLOCK);
	semaphore = eventfd(3, EFD_SEMAPHORE | EFD_CLOEXEC);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	CHECK(!pipe(ends));
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event));
	event = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.u64 = 12};
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	value = 1;
	CHECK(!setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &value, sizeof(value)));
	/* Beside the original, both need the port. */
	CHECK(!setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &value, sizeof(value)));
	CHECK(!bind(listener, (struct sockaddr *)&address, length));
	CHECK(!getsockname(listener, (struct sockaddr *)&address, &length));
	CHECK(!listen(listener, 5));
	event = (struct epoll_event){.events = EPOLLIN, .data.u64 = 13};
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event));

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(read(counter, &number, 8), 8);
	CHECK_EQUAL(epoll_wait(epoll, events, 8, 0), 1);
	CHECK_EQUAL(events[0].data.u64, 11);
	CHECK_EQUAL(read(counter, &number, 8), 8);
	CHECK_EQUAL(number, 7);
	CHECK(read(counter, &number, 8) < 0 && errno == EAGAIN);
	CHECK_EQUAL(read(semaphore, &number, 8), 8);
	CHECK_EQUAL(number, 1);
	CHECK_EQUAL(fcntl(epoll, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(epoll_wait(epoll, events, 8, 0), 0);
	CHECK_EQUAL(write(ends[1], "x", 1), 1);
	CHECK_EQUAL(epoll_wait(epoll, events, 8, 0), 1);
	CHECK(events[0].data.u64 == 12 && events[0].events == EPOLLIN);
	CHECK_EQUAL(epoll_wait(epoll, events, 8, 0), 0); /* edge-triggered */
	if (test_mode_is("both"))
		test_pass(); /* who of the two gets a connection is open */
	client = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!connect(client, (struct sockaddr *)&address, length));
	CHECK_EQUAL(epoll_wait(epoll, events, 8, 5000), 1);
	CHECK_EQUAL(events[0].data.u64, 13);
	server = accept(listener, NULL, NULL);
	CHECK(server >= 0);
	CHECK_EQUAL(send(client, "hello", 5, 0), 5);
	CHECK_EQUAL(recv(server, events, 5, MSG_WAITALL), 5);
	test_pass();
}
