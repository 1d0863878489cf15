/* SPDX-License-Identifier: Apache-2.0 */
#include "core/kernel_percpu.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"

#define CPUS_MAX 8192

/* Addresses of pointers in structures, which may be missing in a kernel. */
static uint64_t follow(struct kernel_memory *k, uint64_t at, const char *structure,
		       const char *member)
{
	int offset = kernel_offset(k, structure, member);

	return at && offset >= 0 ? kernel_pointer(k, at + (uint64_t)offset) : 0;
}

/*
 * The run queue of a processor is a variable of its own, as is the offset of its
 * variables (this_cpu_off): the way from the one to the other is the same everywhere.
 */
static int offset_here(struct kernel_memory *k, int cpu, uint64_t *ret)
{
	int queues = kernel_percpu_offset(k, "runqueues");
	int offsets = kernel_percpu_offset(k, "this_cpu_off");
	int number = kernel_offset(k, "rq", "cpu"), is = -1;
	uint64_t task, queue;
	int r = kernel_task(k, (pid_t)syscall(SYS_gettid), &task);

	if (r < 0)
		return r;
	if (queues < 0 || offsets < 0 || number < 0)
		return -EOPNOTSUPP;
	queue = follow(k, follow(k, task, "task_struct", "se.cfs_rq"), "cfs_rq", "rq");
	if (!queue)
		return -EOPNOTSUPP;
	r = kernel_read(k, queue + (uint64_t)number, &is, sizeof(is));
	if (r < 0 || is != cpu)
		return r < 0 ? r : -EOPNOTSUPP;
	*ret = kernel_pointer(k, queue - (uint64_t)queues + (uint64_t)offsets);
	return *ret ? 0 : -EFAULT;
}

static int visit(struct kernel_memory *k, int cpu, struct kernel_percpu *ret)
{
	uint64_t *offset = vec_push(&ret->offsets);
	cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
	size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
	int r;

	if (!offset || !set) {
		CPU_FREE(set);
		return -ENOMEM;
	}
	CPU_ZERO_S(size, set);
	CPU_SET_S((size_t)cpu, size, set);
	r = sched_setaffinity(0, size, set) < 0 ? -errno : offset_here(k, cpu, offset);
	CPU_FREE(set);
	return r;
}

/* "0-3,5" */
static int visit_all(struct kernel_memory *k, struct kernel_percpu *ret)
{
	_cleanup_(close_stream) FILE *f = fopen("/sys/devices/system/cpu/online", "re");
	int first, last, end = ',', r = f ? 0 : -errno;

	while (r >= 0 && end == ',') {
		if (fscanf(f, "%d", &first) != 1 || first < 0)
			return -EINVAL;
		last = first;
		end = fgetc(f);
		if (end == '-') {
			if (fscanf(f, "%d", &last) != 1 || last < first)
				return -EINVAL;
			end = fgetc(f);
		}
		if (last >= CPUS_MAX)
			return -EINVAL;
		for (int cpu = first; cpu <= last && r >= 0; cpu++)
			r = visit(k, cpu, ret);
	}
	return r;
}

int kernel_percpu_find(struct kernel_memory *k, struct kernel_percpu *ret)
{
	cpu_set_t *before = CPU_ALLOC(CPUS_MAX);
	size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
	int r;

	if (!before)
		return -ENOMEM;
	r = sched_getaffinity(0, size, before) < 0 ? -errno : visit_all(k, ret);
	if (sched_setaffinity(0, size, before) < 0 && r >= 0)
		r = -errno;
	CPU_FREE(before);
	return r;
}

void kernel_percpu_free(struct kernel_percpu *p)
{
	vec_free(&p->offsets);
}

#define REF_ATOMIC 1u /* __PERCPU_REF_ATOMIC: counted in one place */
#define REF_FLAGS  3u

int kernel_percpu_ref(struct kernel_memory *k, const struct kernel_percpu *p, uint64_t ref,
		      int64_t *ret)
{
	int count = kernel_offset(k, "percpu_ref", "percpu_count_ptr");
	int total = kernel_offset(k, "percpu_ref_data", "count");
	uint64_t at, data = follow(k, ref, "percpu_ref", "data");
	int64_t sum = 0;

	if (count < 0 || total < 0 || !data)
		return -EOPNOTSUPP;
	at = kernel_pointer(k, ref + (uint64_t)count);
	if (at & REF_ATOMIC) {
		if (kernel_read(k, data + (uint64_t)total, &sum, sizeof(sum)) < 0)
			return -EFAULT;
		*ret = sum - 1;
		return 0;
	}
	vec_for_each (offset, &p->offsets) {
		int64_t part;

		if (kernel_read(k, (at & ~(uint64_t)REF_FLAGS) + *offset, &part, sizeof(part)) < 0)
			return -EFAULT;
		sum += part;
	}
	*ret = sum;
	return 0;
}
