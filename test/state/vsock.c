/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets of AF_VSOCK that need no peer.
 *
 * not-in: both: the ports are those of the original
 */
#include "harness.h"

#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static struct sockaddr_vm address(int fd)
{
	struct sockaddr_vm a = {};
	socklen_t len = sizeof(a);

	CHECK(!getsockname(fd, (struct sockaddr *)&a, &len));
	return a;
}

static uint64_t size(int fd, int name)
{
	uint64_t value = 0;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, AF_VSOCK, name, &value, &len));
	return value;
}

int main(void)
{
	struct sockaddr_vm any = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = VMADDR_PORT_ANY};
	const uint64_t sizes[3] = {3000, 1000000, 500000};
	struct timeval timeout = {.tv_sec = 7};
	socklen_t len = sizeof(timeout);
	unsigned int ports[2];
	int unbound, bound, listening, on = 0;

	test_init();
	unbound = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (unbound < 0)
		test_skip("no AF_VSOCK here: %s", strerror(errno));
	CHECK(!setsockopt(unbound, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &sizes[1], 8));
	CHECK(!setsockopt(unbound, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MIN_SIZE, &sizes[0], 8));
	CHECK(!setsockopt(unbound, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &sizes[2], 8));
	CHECK(!setsockopt(unbound, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout, len));
	bound = socket(AF_VSOCK, SOCK_STREAM, 0);
	CHECK(!bind(bound, (struct sockaddr *)&any, sizeof(any)));
	ports[0] = address(bound).svm_port;
	listening = socket(AF_VSOCK, SOCK_STREAM, 0);
	CHECK(!bind(listening, (struct sockaddr *)&any, sizeof(any)));
	CHECK(!listen(listening, 3));
	ports[1] = address(listening).svm_port;

	test_wait();
	if (test_break(1))
		CHECK(!bind(unbound, (struct sockaddr *)&any, sizeof(any)));
	CHECK_EQUAL(address(unbound).svm_port, VMADDR_PORT_ANY);
	CHECK_EQUAL(size(unbound, SO_VM_SOCKETS_BUFFER_MIN_SIZE), sizes[0]);
	CHECK_EQUAL(size(unbound, SO_VM_SOCKETS_BUFFER_MAX_SIZE), sizes[1]);
	CHECK_EQUAL(size(unbound, SO_VM_SOCKETS_BUFFER_SIZE), sizes[2]);
	timeout.tv_sec = 0;
	CHECK(!getsockopt(unbound, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout, &len));
	CHECK_EQUAL(timeout.tv_sec, 7);
	CHECK_EQUAL(address(bound).svm_port, ports[0]);
	CHECK_EQUAL(address(listening).svm_port, ports[1]);
	len = sizeof(on);
	CHECK(!getsockopt(listening, SOL_SOCKET, SO_ACCEPTCONN, &on, &len));
	CHECK_EQUAL(on, 1);
	test_pass();
}
