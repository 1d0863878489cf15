/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

void give_up(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	_exit(1);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

size_t parse_size(const char *s)
{
	char *end;
	size_t n = strtoull(s, &end, 10);

	need(end != s && !*end);
	return n;
}

void raise_descriptors(void)
{
	struct rlimit limit;

	need(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = limit.rlim_max;
	need(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

void *map_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED);
	/* Fails only where there are no huge pages to be kept out. */
	madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

/* splitmix64: the n-th word can be had without those before it, and no word comes twice. */
static uint64_t word(uint64_t n)
{
	uint64_t z = (n + 1) * 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

void fill_memory(void *memory, size_t size)
{
	uint64_t *p = memory;

	for (size_t i = 0; i < size / sizeof(*p); i++)
		p[i] = word(i);
}

int memory_is_filled(const void *memory, size_t size)
{
	const uint64_t *p = memory;

	for (size_t i = 0; i < size / sizeof(*p); i++)
		if (p[i] != word(i))
			return 0;
	return 1;
}

static int open_file(const char *directory, size_t i)
{
	char path[4096];

	/* A hundred files, each opened many times over. */
	snprintf(path, sizeof(path), "%s/file.%zu", directory, i % 100);
	return open(path, O_RDWR | O_CREAT, 0600);
}

int open_descriptors(size_t n, const char *directory)
{
	int last = -1, ends[2];
	size_t i = 0;

	while (i < n) {
		switch (i % 8) {
		case 0:
			last = open("/dev/null", O_RDWR);
			break;
		case 2:
			need(pipe(ends) == 0);
			last = ends[1];
			i++;
			break;
		case 4:
		case 6:
			last = dup(last);
			break;
		default:
			last = open_file(directory, i);
		}
		need(last >= 0);
		i++;
	}
	return last;
}

int open_pipes(size_t n)
{
	static const char contents[PIPE_HOLDS];
	int ends[2] = {-1, -1};

	for (size_t i = 0; i < n; i++) {
		need(pipe(ends) == 0);
		need(write(ends[1], contents, sizeof(contents)) == sizeof(contents));
	}
	return ends[0];
}

struct waits open_waits(size_t n)
{
	struct waits w = {.set = epoll_create1(EPOLL_CLOEXEC), .last = -1};

	need(w.set >= 0);
	for (size_t i = 0; i < n; i++) {
		struct epoll_event event = {.events = EPOLLIN};

		w.last = event.data.fd = eventfd(0, EFD_NONBLOCK);
		need(w.last >= 0);
		need(epoll_ctl(w.set, EPOLL_CTL_ADD, w.last, &event) == 0);
	}
	return w;
}

static const char queued[] = "what waits to be read in the queue of a socket";

static int open_udp(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	need(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 &&
	     getsockname(fd, (struct sockaddr *)&at, &len) == 0);
	need(sendto(fd, queued, sizeof(queued), 0, (struct sockaddr *)&at, len) == sizeof(queued));
	return fd;
}

int open_sockets(size_t n)
{
	int pair[2], first = -1;

	for (size_t i = 0; i < n; i += 4) {
		need(socketpair(AF_UNIX, i % 8 ? SOCK_DGRAM : SOCK_STREAM, 0, pair) == 0);
		for (int end = 0; end < 2; end++)
			need(send(pair[end], queued, sizeof(queued), 0) == sizeof(queued));
		first = first < 0 ? pair[0] : first;
		need(open_udp() >= 0 && open_udp() >= 0);
	}
	return first;
}

int socket_is_filled(int fd)
{
	char is[sizeof(queued)];

	return recv(fd, is, sizeof(is), MSG_PEEK | MSG_DONTWAIT) == sizeof(queued) &&
	       !memcmp(is, queued, sizeof(is));
}

void answer_later(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	need(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
}

static void answered(int sig)
{
	(void)sig;
}

static void make_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	need(fd >= 0);
	close(fd);
}

void sleep_and_answer(const char *ready, int (*intact)(void *arg), void *arg)
{
	struct sigaction action = {.sa_handler = answered};
	char alive[4096];
	sigset_t none;

	need(snprintf(alive, sizeof(alive), "%s.alive", ready) < (int)sizeof(alive));
	need(sigaction(SIGUSR1, &action, NULL) == 0);
	sigemptyset(&none);
	make_file(ready);
	for (;;) {
		sigsuspend(&none);
		need(intact(arg));
		make_file(alive);
	}
}
