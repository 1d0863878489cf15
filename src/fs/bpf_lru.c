/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps that give up what was not used lately. The kernel keeps room for each processor, and gives
 * up entries where that of the processor which adds one is used up, though there is room elsewhere
 * (bpf_common_lru_pop_free(), bpf_percpu_lru_pop_free()). So entries are spread, and what others
 * have driven out is put back, until all are there.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "fs/bpf_map.h"

#define ROUNDS 64

struct filling {
	int fd;
	const struct bpf_contents *all;
	uint8_t *value; /* room for one */
};

static int put_missing(const struct filling *x, uint64_t i, uint64_t *missing)
{
	const uint8_t *key = x->all->keys + i * x->all->key_size;
	int r = bpf_map_element(BPF_MAP_LOOKUP_ELEM, x->fd, key, x->value);

	if (r != -ENOENT)
		return r;
	++*missing;
	return bpf_map_element(BPF_MAP_UPDATE_ELEM, x->fd, key,
			       x->all->values + i * x->all->value_size);
}

static int run_on(int cpu)
{
	cpu_set_t only;

	CPU_ZERO(&only);
	CPU_SET(cpu, &only);
	return sched_setaffinity(0, sizeof(only), &only) < 0 ? -errno : 0;
}

/* Every n-th of them from one processor each; in the next round from another one. */
static int spread(const struct filling *x, const int *cpus, uint64_t n, uint64_t round,
		  uint64_t *missing)
{
	int r = 0;

	for (uint64_t turn = 0; turn < n && r >= 0; turn++) {
		r = run_on(cpus[turn]);
		for (uint64_t i = (turn + round) % n; i < x->all->count && r >= 0; i += n)
			r = put_missing(x, i, missing);
	}
	return r;
}

static int fill_from(const struct filling *x, const int *cpus, uint64_t n)
{
	uint64_t missing = 1;
	int r = 0;

	for (uint64_t round = 0; missing && r >= 0; round++) {
		if (round == ROUNDS)
			return -ENOSPC;
		missing = 0;
		r = spread(x, cpus, n, round, &missing);
	}
	return r;
}

bool bpf_map_gives_up(uint32_t type)
{
	return type == BPF_MAP_TYPE_LRU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

int bpf_lru_fill(int fd, const struct bpf_contents *all, uint32_t flags)
{
	_cleanup_(free_ptr) uint8_t *value = malloc(all->value_size + 1);
	const struct filling x = {.fd = fd, .all = all, .value = value};
	int cpus[CPU_SETSIZE], r;
	uint64_t n = 0;
	cpu_set_t own;

	if (!value)
		return -ENOMEM;
	if (sched_getaffinity(0, sizeof(own), &own) < 0)
		return -errno;
	/* One room for all, of which one processor takes its share, or a room for each. */
	for (int i = 0; i < CPU_SETSIZE && (!n || flags & BPF_F_NO_COMMON_LRU); i++)
		if (CPU_ISSET(i, &own))
			cpus[n++] = i;
	r = fill_from(&x, cpus, n);
	if (sched_setaffinity(0, sizeof(own), &own) < 0 && r >= 0)
		r = -errno;
	return r;
}
