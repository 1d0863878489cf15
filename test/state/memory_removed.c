/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a tmpfs that are mapped by several processes, and that nobody has a descriptor of:
 * removed ones, as of semaphores of Python's multiprocessing, one that has another name, and one
 * that was removed under two names.
 *
 * not-in: both: what has a name is shared with the original
 */
#include "harness.h"

#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE 8192

static char name[2][64];
static volatile char *twice, *again, *more;
static sem_t *removed, *named;

static volatile char *map(const char *of, int flags)
{
	int fd = shm_open(of, O_RDWR | flags, 0600);
	void *at;

	CHECK(fd >= 0 && (!flags || !ftruncate(fd, SIZE)));
	at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED);
	close(fd);
	return at;
}

static sem_t *semaphore(const char *of)
{
	sem_t *s = sem_open(of, O_CREAT | O_EXCL, 0600, 0);

	CHECK(s != SEM_FAILED);
	return s;
}

/* Takes the one and gives the other back. */
static int child(void *arg)
{
	char path[160];

	(void)arg;
	snprintf(path, sizeof(path), "/sem.%s", name[0] + 1);
	for (int i = 0; i < 3; i++) {
		while (sem_wait(removed))
			;
		twice[1]++;
		if (i == 1) /* what has that name now; sem_open() would give what it knows */
			CHECK(!sem_post((sem_t *)map(path, 0)));
		else
			CHECK(!sem_post(named));
	}
	return 3;
}

static void in_turn(int n)
{
	CHECK(!sem_post(removed));
	while (sem_wait(named))
		;
	CHECK_EQUAL(twice[1], n);
}

/* The second name of the file, and none after it. */
static volatile char *with_two_names(void)
{
	char path[2][80];
	volatile char *first = map(name[1], O_CREAT | O_EXCL), *second;

	snprintf(path[0], sizeof(path[0]), "/dev/shm%s", name[1]);
	snprintf(path[1], sizeof(path[1]), "/dev/shm%s.b", name[1]);
	CHECK(!link(path[0], path[1]));
	strcat(name[1], ".b");
	second = map(name[1], 0);
	CHECK(!unlink(path[0]) && !unlink(path[1]));
	again = second;
	return first;
}

int main(void)
{
	pid_t pid;

	test_init();
	for (int i = 0; i < 2; i++)
		snprintf(name[i], sizeof(name[i]), "/reprise-%d-%s-%d", i,
			 test_dir() + strlen(test_dir()) / 2, getpid());
	for (int i = 0; i < 2; i++)
		for (char *c = name[i] + 1; *c; c++)
			if (*c == '/')
				*c = '-';
	removed = semaphore(name[0]);
	CHECK(!sem_unlink(name[0]));
	named = semaphore(name[0]);
	twice = with_two_names();
	more = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(more != MAP_FAILED);
	twice[0] = 'x';
	more[0] = 'm';
	pid = test_fork(child, NULL);
	in_turn(1);
	test_wait();
	if (test_break(1))
		twice[1] = 7;
	in_turn(2);
	again[SIZE - 1] = 'y';
	CHECK(twice[0] == 'x' && again[0] == 'x' && twice[SIZE - 1] == 'y' && more[0] == 'm');
	in_turn(3);
	test_reap(pid, 3);
	CHECK(!sem_unlink(name[0]));
	test_pass();
}
