/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "image/image.h"

/*
 * How fast pages go into an image on tmpfs and come back, next to the limit: a
 * plain write() of the same memory to the same place, and a plain fill of as much memory.
 *
 *	bench-image [MiB [runs [group KiB [jobs [compress]]]]]
 */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what, const struct error *e)
{
	char line[2048] = "";

	if (e)
		error_format(e, line, sizeof(line));
	fprintf(stderr, "%s: %s\n", what, line);
	exit(1);
}

struct memory {
	char *base;
	uint64_t size, group;
	pid_t pid;
};

/* As memory of another process is read and written. */
static int source(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct memory *m = arg;
	struct iovec local = {buf, len}, remote = {m->base + address, len};

	if (process_vm_readv(m->pid, &local, 1, &remote, 1, 0) != (ssize_t)len)
		return error_set(e, -1, E_SYSTEM, "process_vm_readv");
	return 0;
}

static int sink(void *arg, uint64_t address, const void *data, size_t len, struct error *e)
{
	const struct memory *m = arg;
	struct iovec local = {(void *)data, len}, remote = {m->base + address, len};

	if (data && process_vm_writev(m->pid, &local, 1, &remote, 1, 0) != (ssize_t)len)
		return error_set(e, -1, E_SYSTEM, "process_vm_writev");
	return 0;
}

static int sink_nothing(void *arg, uint64_t address, const void *data, size_t len, struct error *e)
{
	return 0;
}

static int tmpfs_file(void)
{
	int fd = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);

	if (fd < 0)
		die("/dev/shm", NULL);
	return fd;
}

static double plain_write(const struct memory *m)
{
	double start = now();
	int fd = tmpfs_file();

	for (uint64_t at = 0; at < m->size;) {
		ssize_t n = write(fd, m->base + at, m->size - at);

		if (n <= 0)
			die("write", NULL);
		at += n;
	}
	start = now() - start;
	close(fd);
	return start;
}

static double image_write(struct memory *m, const struct image_writer_options *opt, int *ret_fd,
			  struct image_totals *t)
{
	double start = now();
	struct image_writer *w;
	struct image_info info;
	struct error e = {};

	*ret_fd = tmpfs_file();
	image_info_here(&info);
	if (image_writer_new(&w, *ret_fd, &info, opt, &e) || image_write_state(w, &e))
		die("image", &e);
	for (uint64_t at = 0; at < m->size; at += m->group) {
		struct page_group group = {1 + at / m->group, 0};
		struct page_run run = {at, m->size - at < m->group ? m->size - at : m->group};

		if (image_put_pages(w, &group, &run, 1, source, m, &e))
			die("pages", &e);
	}
	if (image_finish(w, t, &e))
		die("finish", &e);
	image_writer_free(w);
	return now() - start;
}

static double image_read(struct memory *m, int fd, int jobs, page_sink to)
{
	double start = now();
	struct page_group group;
	struct image_reader *r;
	struct error e = {};
	int err;

	lseek(fd, 0, SEEK_SET);
	if (image_reader_new(&r, fd, jobs, &e))
		die("image", &e);
	while ((err = image_next_group(r, &group, &e)) > 0) {
		if (image_read_pages(r, &group, to, m, &e))
			die("read", &e);
	}
	if (err || image_read_end(r, NULL, &e))
		die("end", &e);
	image_reader_free(r);
	return now() - start;
}

static char *memory_new(uint64_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap", NULL);
	return p;
}

static double plain_fill(uint64_t size)
{
	char *p = memory_new(size);
	double start = now();

	memset(p, 1, size);
	start = now() - start;
	munmap(p, size);
	return start;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void row(const char *name, double *t, int runs, uint64_t size, double limit)
{
	qsort(t, runs, sizeof(*t), compare);
	printf("%-28s %8.1f ms  (%.1f - %.1f)  %6.2f GiB/s", name, t[runs / 2] * 1e3, t[0] * 1e3,
	       t[runs - 1] * 1e3, size / t[runs / 2] / (1ull << 30));
	if (limit > 0)
		printf("  %5.2f x", t[runs / 2] / limit);
	printf("\n");
}

int main(int argc, char **argv)
{
	uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 0) : 1024;
	int runs = argc > 2 ? atoi(argv[2]) : 5;
	struct memory m = {.size = mib << 20, .pid = getpid()};
	struct image_writer_options opt = {.jobs = argc > 4 ? atoi(argv[4]) : 0,
					   .compress = argc > 5 ? atoi(argv[5]) : 0};
	double copy[100], fill[100], put[100], get[100], verify[100];
	struct image_totals t;

	m.group = argc > 3 && atoi(argv[3]) ? strtoull(argv[3], NULL, 0) << 10 : m.size;
	if (runs < 1 || runs > 100)
		die("runs", NULL);
	m.base = memory_new(m.size);
	for (uint64_t i = 0; i < m.size / 8; i++)
		((uint64_t *)m.base)[i] = i * 0x9e3779b97f4a7c15 >> 8 | 1;
	for (int i = 0; i < runs; i++) {
		struct memory to = m;
		int fd;

		copy[i] = plain_write(&m);
		fill[i] = plain_fill(m.size);
		put[i] = image_write(&m, &opt, &fd, &t);
		verify[i] = image_read(&m, fd, opt.jobs, sink_nothing);
		to.base = memory_new(m.size);
		get[i] = image_read(&to, fd, opt.jobs, sink);
		if (i == 0 && memcmp(to.base, m.base, m.size) != 0)
			die("memory differs", NULL);
		munmap(to.base, m.size);
		close(fd);
	}
	row("plain write to tmpfs", copy, runs, m.size, 0);
	row("image written", put, runs, m.size, copy[runs / 2]);
	row("plain fill of memory", fill, runs, m.size, 0);
	row("image read into memory", get, runs, m.size, fill[runs / 2]);
	row("image verified", verify, runs, m.size, 0);
	printf("%llu frames, %llu bytes\n", (unsigned long long)t.page_frames,
	       (unsigned long long)t.total_bytes);
	return 0;
}
