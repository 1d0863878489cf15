/* SPDX-License-Identifier: Apache-2.0 */
/* The actions of all 64 signals: handler, flags, mask, restorer. */
#include "harness.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As the kernel has it. */
struct kernel_action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static void handler(int sig)
{
}

static void other(int sig, siginfo_t *info, void *context)
{
}

static void action_of(int sig, struct kernel_action *action)
{
	CHECK(!syscall(SYS_rt_sigaction, sig, NULL, action, 8));
}

int main(void)
{
	static const int flags[] = {0, SA_RESTART, SA_NODEFER | SA_RESETHAND,
				    SA_ONSTACK | SA_NOCLDSTOP, SA_NOCLDWAIT};
	struct kernel_action before[65], now;

	test_init();
	for (int sig = 1; sig < 65; sig++) {
		struct sigaction action = {.sa_flags = flags[sig % 5]};

		sigemptyset(&action.sa_mask);
		for (int other_sig = 1; other_sig < 65; other_sig++)
			if (other_sig * 7 % (sig + 1) == 1)
				sigaddset(&action.sa_mask, other_sig);
		action.sa_handler = sig % 4 == 0 ? SIG_IGN : sig % 4 == 1 ? SIG_DFL : handler;
		if (sig % 4 == 3) {
			action.sa_flags |= SA_SIGINFO;
			action.sa_sigaction = other;
		}
		sigaction(sig, &action, NULL); /* fails for KILL, STOP and libc's own */
	}
	for (int sig = 1; sig < 65; sig++)
		action_of(sig, &before[sig]);

	test_wait();
	if (test_break(1))
		signal(SIGRTMIN + 5, handler);
	if (test_break(2))
		signal(SIGHUP, SIG_IGN);
	for (int sig = 1; sig < 65; sig++) {
		action_of(sig, &now);
		CHECKF(now.handler == before[sig].handler && now.flags == before[sig].flags &&
			       now.restorer == before[sig].restorer && now.mask == before[sig].mask,
		       "signal %d: handler %p (%p), flags %lx (%lx), mask %llx (%llx)", sig,
		       now.handler, before[sig].handler, now.flags, before[sig].flags,
		       (long long)now.mask, (long long)before[sig].mask);
	}
	test_pass();
}
