/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts to a number, in two threads of this process, and sends each count
 * through a pipe to a child, which adds them up. At the end everybody's result
 * is compared: what was lost or done twice on the way would show.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_uint_fast64_t count;
static uint64_t last;

/* The second thread: follows the count by itself, and remembers the steps that it saw. */
static void *follow(void *arg)
{
	uint64_t *steps = arg, seen = 0;

	while (seen < last) {
		uint64_t now = atomic_load(&count);

		if (now != seen) {
			*steps += now - seen;
			seen = now;
		}
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return NULL;
}

/* The child: adds up what comes through the pipe, and answers when it ends. */
static int add_up(int from, int to)
{
	uint64_t n, sum = 0;

	while (read(from, &n, sizeof(n)) == sizeof(n))
		sum += n;
	return write(to, &sum, sizeof(sum)) == sizeof(sum) ? 0 : 1;
}

int main(int argc, char **argv)
{
	int there[2], back[2], status = 1;
	uint64_t steps = 0, sum = 0;
	pthread_t thread;
	pid_t child;

	/* What a make -j or a terminal multiplexer lets us inherit is not ours, and not to be
	 * saved. */
	close_range(3, ~0U, 0);
	last = argc > 1 ? strtoull(argv[1], NULL, 10) : 30;
	if (pipe(there) || pipe(back))
		return 1;
	child = fork();
	if (child == 0) {
		close(there[1]);
		return add_up(there[0], back[1]);
	}
	close(there[0]);
	if (child < 0 || pthread_create(&thread, NULL, follow, &steps))
		return 1;
	for (uint64_t n = 1; n <= last; n++) {
		nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
		atomic_store(&count, n);
		if (write(there[1], &n, sizeof(n)) != sizeof(n))
			return 1;
		printf("%" PRIu64 "\n", n);
		fflush(stdout);
	}
	close(there[1]);
	pthread_join(thread, NULL);
	if (read(back[0], &sum, sizeof(sum)) != sizeof(sum) || waitpid(child, &status, 0) != child)
		return 1;
	printf("the thread saw %" PRIu64 " steps, the child added up %" PRIu64 "\n", steps, sum);
	return status == 0 && steps == last && sum == last * (last + 1) / 2 ? 0 : 1;
}
