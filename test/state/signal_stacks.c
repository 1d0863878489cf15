/* SPDX-License-Identifier: Apache-2.0 */
/* Alternate stacks of several threads, in use or not, and SS_AUTODISARM. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define SIZE 32768
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static volatile int settled;
static __thread char *stack;
static __thread volatile int handled;

static void handler(int sig)
{
	char *here = __builtin_frame_address(0);

	handled = here >= stack && here < stack + SIZE ? 1 : -1;
}

static void *thread(void *arg)
{
	int i = (int)(intptr_t)arg;
	stack_t set = {.ss_size = SIZE}, is;

	stack = malloc(SIZE);
	set.ss_sp = stack;
	set.ss_flags = i == 1 ? (int)SS_AUTODISARM : 0;
	if (i < 3)
		CHECK(!sigaltstack(&set, NULL));
	__sync_fetch_and_add(&settled, 1);
	test_hold();
	if (test_break(1) && i == 2)
		set.ss_flags = SS_DISABLE, sigaltstack(&set, NULL);
	CHECK(!sigaltstack(NULL, &is));
	if (i < 3) {
		CHECK(is.ss_sp == stack && is.ss_size == SIZE);
		CHECK_EQUAL(is.ss_flags, i == 1 ? (int)SS_AUTODISARM : 0);
	} else {
		CHECK_EQUAL(is.ss_flags, SS_DISABLE);
	}
	pthread_kill(pthread_self(), SIGUSR1);
	CHECK_EQUAL(handled, i < 3 ? 1 : -1);
	return NULL;
}

int main(void)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
	pthread_t threads[4];

	test_init();
	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < 4; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread, (void *)(intptr_t)i));
	while (settled < 4)
		usleep(1000);
	test_wait();
	for (int i = 0; i < 4; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_pass();
}
