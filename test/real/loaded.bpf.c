/* SPDX-License-Identifier: Apache-2.0 */
/* As compilers and libbpf make programs: with types, lines, functions, data and constants. */
#include <linux/bpf.h>

#define SEC(name)	  __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) __typeof__(val) *name

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value,
				   __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;

struct seen {
	__u64 count, last;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct seen);
} by_length SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct seen);
} by_processor SEC(".maps");

const volatile __u32 longest = 1000;
__u64 total, too_long = 5;

static __attribute__((noinline)) __u64 note(struct seen *s)
{
	s->last = bpf_ktime_get_ns();
	return ++s->count;
}

SEC("socket") int count(struct __sk_buff *skb)
{
	__u32 length = skb->len, one = 1;
	struct seen first = {.count = 1}, *s = bpf_map_lookup_elem(&by_processor, &one);

	total++;
	if (s)
		note(s);
	if (length > longest)
		too_long++;
	s = bpf_map_lookup_elem(&by_length, &length);
	if (s)
		return (int)note(s);
	bpf_map_update_elem(&by_length, &length, &first, 0);
	return 1;
}

char licence[] SEC("license") = "GPL";
