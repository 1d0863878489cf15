/* SPDX-License-Identifier: Apache-2.0 */
/* Hundreds of mapped files, and a program of its own beside them. */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES                                                                                    \
	150	  /* fewer than a restart sends at once: it keeps them open for the next process \
		   */
#define MAPPERS 2 /* together more than it keeps */

struct child {
	pid_t pid;
	int to, from;
};

/* Another program, with pipes as its standard streams. */
static void begin(struct child *c, const char *program, const char *argument)
{
	int to[2], from[2];

	CHECK(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC));
	c->pid = fork();
	CHECK(c->pid >= 0);
	if (c->pid == 0) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		execl(program, program, argument, NULL);
		_exit(1);
	}
	close(to[0]);
	close(from[1]);
	c->to = to[1];
	c->from = from[0];
}

static void exe_of(pid_t pid, char *buf, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, buf, size - 1);
	CHECK(n > 0);
	buf[n] = 0;
}

static void await_exec(pid_t pid, char *exe, size_t size)
{
	char own[400];

	exe_of(getpid(), own, sizeof(own));
	do {
		usleep(1000);
		exe_of(pid, exe, size);
	} while (!strcmp(exe, own));
}

static int map_many(const char *prefix)
{
	volatile int *maps[FILES];
	char name[64], byte;

	for (int i = 0; i < FILES; i++) {
		int fd;

		snprintf(name, sizeof(name), "%s%d", prefix, i);
		fd = open(name, O_RDWR | O_CREAT, 0644);
		if (fd < 0 || write(fd, &i, sizeof(i)) != sizeof(i))
			return 1;
		maps[i] = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
		if (maps[i] == MAP_FAILED)
			return 1;
		close(fd);
	}
	if (write(1, "r", 1) != 1 || read(0, &byte, 1) != 1)
		return 1;
	for (int i = 0; i < FILES; i++)
		if (*maps[i] != i + (byte == 'b'))
			return 1;
	return 3;
}

static void check_cat(struct child *c, const char *exe)
{
	char now[400], buf[8];

	exe_of(c->pid, now, sizeof(now));
	CHECKF(!strcmp(now, exe), "the program is %s, it was %s", now, exe);
	CHECK(write(c->to, "hello", 5) == 5 && read(c->from, buf, 5) == 5);
	CHECK(!memcmp(buf, "hello", 5));
	close(c->to);
	test_reap(c->pid, 0);
}

int main(int argc, char **argv)
{
	static const char *const names[MAPPERS] = {"a", "b"};
	struct child cats[2], mappers[MAPPERS];
	char exe[400], byte;

	if (argc > 1)
		return map_many(argv[1]);
	test_init();
	/* One before and one after them, in whichever order they are made again. */
	begin(&cats[0], "/bin/cat", NULL);
	for (int i = 0; i < MAPPERS; i++)
		begin(&mappers[i], "/proc/self/exe", names[i]);
	begin(&cats[1], "/bin/cat", NULL);
	for (int i = 0; i < MAPPERS; i++)
		CHECK(read(mappers[i].from, &byte, 1) == 1);
	await_exec(cats[0].pid, exe, sizeof(exe));
	await_exec(cats[1].pid, exe, sizeof(exe));
	test_wait();
	for (int i = 0; i < MAPPERS; i++) {
		CHECK(write(mappers[i].to, test_break(1) ? "b" : "g", 1) == 1);
		test_reap(mappers[i].pid, 3);
	}
	for (int i = 0; i < 2; i++)
		check_cat(&cats[i], exe);
	test_pass();
}
