/* SPDX-License-Identifier: Apache-2.0 */
/* The five sets of capabilities, securebits, and the flags about privileges.
 *
 * needs: root
 */
#include "harness.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const lines[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"};

struct state {
	char text[6][32];
	int securebits, keepcaps, dumpable, no_new_privs;
};

static void state_of(struct state *state)
{
	for (int i = 0; i < 6; i++)
		test_line("/proc/thread-self/status", lines[i], state->text[i], 32);
	state->securebits = prctl(PR_GET_SECUREBITS);
	state->keepcaps = prctl(PR_GET_KEEPCAPS);
	state->dumpable = prctl(PR_GET_DUMPABLE);
	state->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

static void set(uint64_t permitted, uint64_t effective, uint64_t inheritable)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];

	for (int i = 0; i < 2; i++) {
		data[i].permitted = permitted >> i * 32;
		data[i].effective = effective >> i * 32;
		data[i].inheritable = inheritable >> i * 32;
	}
	CHECK(!syscall(SYS_capset, &header, data));
}

#define BIT(cap) (1ULL << (cap))

static void arrange(int i)
{
	switch (i) {
	case 0: /* root with few capabilities */
		CHECK(!prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE, 0, 0, 0));
		CHECK(!prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0));
		set(BIT(CAP_CHOWN) | BIT(CAP_NET_RAW) | BIT(CAP_BPF), BIT(CAP_CHOWN),
		    BIT(CAP_NET_RAW));
		break;
	case 1: /* an ordinary user with ambient ones */
		CHECK(!prctl(PR_SET_KEEPCAPS, 1));
		CHECK(!setresgid(500, 500, 500) && !setresuid(500, 500, 500));
		set(BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_KILL), BIT(CAP_KILL),
		    BIT(CAP_NET_BIND_SERVICE));
		CHECK(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
		CHECK(!prctl(PR_SET_DUMPABLE, 1));
		break;
	case 2: /* no magic in being root, locked */
		CHECK(!prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED |
							SECBIT_NO_SETUID_FIXUP |
							SECBIT_KEEP_CAPS_LOCKED));
		break;
	case 3: /* nothing at all any more */
		CHECK(!prctl(PR_SET_SECUREBITS, SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_KEEP_CAPS));
		CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		for (int cap = 0; cap <= 40; cap++)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
		set(0, 0, 0);
		break;
	case 4: /* not to be traced by its owner */
		CHECK(!prctl(PR_SET_DUMPABLE, 0));
		break;
	}
}

#define COUNT 5

static volatile int *ready;

static int child(void *arg)
{
	int i = (int)(intptr_t)arg;
	struct state before, now;

	memset(&before, 0, sizeof(before));
	memset(&now, 0, sizeof(now));
	arrange(i);
	state_of(&before);
	__sync_fetch_and_add(ready, 1);
	test_hold();
	if (test_break(1) && i == 1)
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (test_break(2) && i == 4)
		prctl(PR_SET_DUMPABLE, 1);
	state_of(&now);
	for (int j = 0; j < 6; j++)
		CHECKF(!strcmp(now.text[j], before.text[j]), "task %d: %s is %s, was %s", i,
		       lines[j], now.text[j], before.text[j]);
	CHECK_EQUAL(now.securebits, before.securebits);
	CHECK_EQUAL(now.keepcaps, before.keepcaps);
	CHECK_EQUAL(now.dumpable, before.dumpable);
	CHECK_EQUAL(now.no_new_privs, before.no_new_privs);
	return 30 + i;
}

int main(void)
{
	pid_t pids[COUNT];

	test_init();
	ready = test_shared(4096);
	for (int i = 0; i < COUNT; i++)
		pids[i] = test_fork(child, (void *)(intptr_t)i);
	while (*ready < COUNT)
		usleep(1000);
	test_wait();
	for (int i = 0; i < COUNT; i++)
		test_reap(pids[i], 30 + i);
	test_pass();
}
