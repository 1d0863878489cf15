/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine itself needs for the work that cannot be avoided. Prints nanoseconds.
 *
 *	limit copy BYTES FILE THREADS	write memory to a new file
 *	limit fill BYTES FILE THREADS	map memory and fill it from a file
 *	limit fork N			make N processes, all there at once, and end them
 *	limit threads N			the same with threads
 *	limit descriptors N DIRECTORY	open N descriptors
 *	limit sockets N			open N sockets with data in their queues
 *	limit pipes N			make N pipes and write into them
 *	limit waits N			make N eventfds and add them to an epoll set
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

/* What each thread of a copy does on its own, in pieces small enough for the caches. */
#define PIECE ((size_t)1 << 20)

struct part {
	pthread_t thread;
	char *memory;
	const char *source; /* NULL: write */
	int fd;
	size_t start, end;
};

static void *write_part(void *arg)
{
	const struct part *p = arg;

	for (size_t at = p->start; at < p->end;) {
		size_t n = p->end - at < PIECE ? p->end - at : PIECE;
		ssize_t done = pwrite(p->fd, p->memory + at, n, (off_t)at);

		need(done > 0);
		at += (size_t)done;
	}
	return NULL;
}

static void *fill_part(void *arg)
{
	const struct part *p = arg;

	memcpy(p->memory + p->start, p->source + p->start, p->end - p->start);
	return NULL;
}

static void in_parts(struct part whole, size_t threads, void *(*work)(void *arg))
{
	size_t step = (whole.end / threads + PIECE - 1) / PIECE * PIECE;
	struct part parts[64];

	need(threads > 0 && threads <= 64);
	if (threads == 1) {
		work(&whole);
		return;
	}
	for (size_t i = 0; i < threads; i++) {
		parts[i] = whole;
		parts[i].start = i * step < whole.end ? i * step : whole.end;
		parts[i].end = (i + 1) * step < whole.end ? (i + 1) * step : whole.end;
		need(pthread_create(&parts[i].thread, NULL, work, &parts[i]) == 0);
	}
	for (size_t i = 0; i < threads; i++)
		pthread_join(parts[i].thread, NULL);
}

static uint64_t copy(size_t size, const char *path, size_t threads)
{
	struct part whole = {.end = size, .memory = map_memory(size)};
	uint64_t start;

	fill_memory(whole.memory, size);
	start = now_ns();
	whole.fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	need(whole.fd >= 0);
	in_parts(whole, threads, write_part);
	need(close(whole.fd) == 0);
	return now_ns() - start;
}

static uint64_t fill(size_t size, const char *path, size_t threads)
{
	struct part whole = {.end = size};
	uint64_t start = now_ns();
	struct stat st;

	whole.fd = open(path, O_RDONLY);
	need(whole.fd >= 0 && fstat(whole.fd, &st) == 0 && (size_t)st.st_size >= size);
	whole.source = mmap(NULL, size, PROT_READ, MAP_SHARED, whole.fd, 0);
	need(whole.source != MAP_FAILED);
	whole.memory = map_memory(size);
	in_parts(whole, threads, fill_part);
	return now_ns() - start;
}

static uint64_t make_processes(size_t n)
{
	uint64_t start = now_ns();
	int ends[2];
	char byte;

	need(pipe(ends) == 0);
	for (size_t i = 0; i < n; i++) {
		pid_t pid = fork();

		need(pid >= 0);
		if (pid == 0) {
			close(ends[1]);
			_exit(read(ends[0], &byte, 1) != 0);
		}
	}
	close(ends[1]);
	while (wait(NULL) > 0)
		;
	return now_ns() - start;
}

static void *wait_for_all(void *arg)
{
	pthread_barrier_wait(arg);
	return NULL;
}

static uint64_t make_threads(size_t n)
{
	pthread_t *threads = calloc(n, sizeof(*threads));
	uint64_t start = now_ns();
	pthread_attr_t attributes;
	pthread_barrier_t barrier;

	need(threads && pthread_attr_init(&attributes) == 0);
	need(pthread_attr_setstacksize(&attributes, 64 << 10) == 0);
	need(pthread_barrier_init(&barrier, NULL, (unsigned int)n + 1) == 0);
	for (size_t i = 0; i < n; i++)
		need(pthread_create(&threads[i], &attributes, wait_for_all, &barrier) == 0);
	wait_for_all(&barrier);
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	return now_ns() - start;
}

static uint64_t make_descriptors(size_t n, const char *directory)
{
	uint64_t start;

	raise_descriptors();
	start = now_ns();
	open_descriptors(n, directory);
	return now_ns() - start;
}

static void make_pipes(size_t n)
{
	open_pipes(n);
}

static void make_waits(size_t n)
{
	open_waits(n);
}

static void make_sockets(size_t n)
{
	open_sockets(n);
}

static uint64_t timed(void (*make)(size_t n), size_t n)
{
	uint64_t start;

	raise_descriptors();
	start = now_ns();
	make(n);
	return now_ns() - start;
}

int main(int argc, char **argv)
{
	uint64_t ns;

	need(argc >= 3);
	if (!strcmp(argv[1], "fork"))
		ns = make_processes(parse_size(argv[2]));
	else if (!strcmp(argv[1], "threads"))
		ns = make_threads(parse_size(argv[2]));
	else if (!strcmp(argv[1], "descriptors") && argc == 4)
		ns = make_descriptors(parse_size(argv[2]), argv[3]);
	else if (!strcmp(argv[1], "pipes"))
		ns = timed(make_pipes, parse_size(argv[2]));
	else if (!strcmp(argv[1], "waits"))
		ns = timed(make_waits, parse_size(argv[2]));
	else if (!strcmp(argv[1], "sockets"))
		ns = timed(make_sockets, parse_size(argv[2]));
	else if (!strcmp(argv[1], "copy") && argc == 5)
		ns = copy(parse_size(argv[2]), argv[3], parse_size(argv[4]));
	else if (!strcmp(argv[1], "fill") && argc == 5)
		ns = fill(parse_size(argv[2]), argv[3], parse_size(argv[4]));
	else
		need(!"one of the works that are listed at the top");
	printf("%llu\n", (unsigned long long)ns);
	return 0;
}
