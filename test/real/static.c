/* SPDX-License-Identifier: Apache-2.0 */
/* A statically linked program: two threads and a child compute, a line for each step. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS 50
#define SIZE  200000

static uint64_t work(uint64_t seed)
{
	uint64_t *table = malloc(SIZE * sizeof(*table)), sum = seed;

	for (size_t i = 0; i < SIZE; i++)
		table[i] = seed * i ^ i << 7;
	for (size_t i = 0; i < SIZE; i++)
		sum = (sum ^ table[(sum ^ i) % SIZE]) * 0x9e3779b97f4a7c15;
	free(table);
	return sum;
}

static void *thread(void *arg)
{
	uint64_t *value = arg;

	*value = work(*value);
	return NULL;
}

int main(void)
{
	uint64_t values[2] = {1, 2}, sum;
	pthread_t threads[2];
	int request[2], answer[2];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (pipe(request) || pipe(answer))
		return 1;
	if (fork() == 0) {
		close(request[1]);
		while (read(request[0], &sum, sizeof(sum)) == sizeof(sum)) {
			sum = work(sum);
			if (write(answer[1], &sum, sizeof(sum)) != sizeof(sum))
				return 1;
		}
		return 0;
	}
	close(request[0]);
	for (int step = 0; step < STEPS; step++) {
		sum = values[0] ^ step;
		for (int i = 0; i < 2; i++)
			pthread_create(&threads[i], NULL, thread, &values[i]);
		if (write(request[1], &sum, sizeof(sum)) != sizeof(sum) ||
		    read(answer[0], &sum, sizeof(sum)) != sizeof(sum))
			return 1;
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		printf("%d %016llx\n", step,
		       (unsigned long long)(values[0] ^ values[1] << 1 ^ sum << 2));
	}
	close(request[1]);
	return wait(NULL) > 0 ? 0 : 1;
}
