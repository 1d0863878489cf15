/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of processes that pass a token through pipes, each blocked in a read or a write. */
#include "harness.h"

#include <signal.h>
#include <unistd.h>

#define COUNT 8

static int ring[COUNT][2];
static volatile int *shared;

static int member(void *arg)
{
	int i = (int)(intptr_t)arg, next = (i + 1) % COUNT, token;

	for (int j = 0; j < COUNT; j++) {
		if (j != i)
			close(ring[j][0]);
		if (j != next)
			close(ring[j][1]);
	}
	while (read(ring[i][0], &token, sizeof(token)) == sizeof(token)) {
		if (token < 0)
			break;
		CHECK_EQUAL(token % COUNT, i);
		shared[i]++;
		token++;
		/* Slowly, before the checkpoint; as many as there may be afterwards. */
		if (!test_going())
			usleep(200);
		else if (shared[0] > 500)
			token = -1;
		CHECK_EQUAL(write(ring[next][1], &token, sizeof(token)), (int)sizeof(token));
		if (token < 0)
			break;
	}
	token = -1;
	(void)!write(ring[next][1], &token, sizeof(token));
	return 3;
}

int main(void)
{
	int token = 0, least, most;
	pid_t pids[COUNT];

	test_init();
	signal(SIGPIPE, SIG_IGN);
	shared = test_shared(4096);
	for (int i = 0; i < COUNT; i++)
		CHECK(!pipe(ring[i]));
	for (int i = 0; i < COUNT; i++)
		pids[i] = test_fork(member, (void *)(intptr_t)i);
	CHECK_EQUAL(write(ring[0][1], &token, sizeof(token)), (int)sizeof(token));
	for (int i = 0; i < COUNT; i++) {
		close(ring[i][0]);
		close(ring[i][1]);
	}
	while (shared[1] < 3)
		usleep(1000);
	test_wait();
	for (int i = 0; i < COUNT; i++)
		test_reap(pids[i], 3 + !!test_break(1));
	least = most = shared[0];
	for (int i = 1; i < COUNT; i++) {
		least = shared[i] < least ? shared[i] : least;
		most = shared[i] > most ? shared[i] : most;
	}
	/* No token was lost and none came twice. */
	CHECKF(most - least <= 1 && least >= 500, "from %d to %d rounds", least, most);
	test_pass();
}
