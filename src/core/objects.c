/* SPDX-License-Identifier: Apache-2.0 */
#include "core/objects.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/scratch.h"
#include "core/vec.h"

struct object {
	uint32_t kind;
	uint64_t a, b;
	uint64_t users;
};

struct objects {
	VEC(struct object) list; /* object `id` is list.v[id - 1] */
	uint64_t *slots;	 /* ids by open addressing, 0 empty; size a power of two */
	size_t nslots;
	size_t used;
};

static uint64_t mix(uint64_t x)
{
	/* The finalizer of splitmix64: every input bit reaches every output bit. */
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static uint64_t identity_hash(uint32_t kind, uint64_t a, uint64_t b)
{
	return mix(mix(mix(kind) + a) + b);
}

int objects_new(struct objects **ret)
{
	struct objects *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	o->nslots = 256;
	o->slots = calloc(o->nslots, sizeof(*o->slots));
	if (!o->slots) {
		free(o);
		return -ENOMEM;
	}
	*ret = o;
	return 0;
}

void objects_free(struct objects *o)
{
	if (!o)
		return;
	vec_free(&o->list);
	free(o->slots);
	free(o);
}

/* The slot that holds <kind, a, b>, or the empty one where it belongs. */
static uint64_t *find_slot(const struct objects *o, uint32_t kind, uint64_t a, uint64_t b)
{
	size_t i = identity_hash(kind, a, b) & (o->nslots - 1);

	for (;; i = (i + 1) & (o->nslots - 1)) {
		const struct object *x;

		if (!o->slots[i])
			return &o->slots[i];
		x = &o->list.v[o->slots[i] - 1];
		if (x->kind == kind && x->a == a && x->b == b)
			return &o->slots[i];
	}
}

static int grow(struct objects *o)
{
	uint64_t *old = o->slots;
	size_t n = o->nslots;
	uint64_t *bigger = calloc(n * 2, sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	o->slots = bigger;
	o->nslots = n * 2;
	for (size_t i = 0; i < n; i++) {
		if (old[i]) {
			const struct object *x = &o->list.v[old[i] - 1];

			*find_slot(o, x->kind, x->a, x->b) = old[i];
		}
	}
	free(old);
	return 0;
}

int objects_get(struct objects *o, uint32_t kind, uint64_t a, uint64_t b, uint64_t *ret_id,
		bool *ret_new)
{
	uint64_t *slot = find_slot(o, kind, a, b);
	struct object *x;

	if (*slot) {
		o->list.v[*slot - 1].users++;
		*ret_id = *slot;
		*ret_new = false;
		return 0;
	}
	if (o->used >= o->nslots / 2) {
		if (grow(o) < 0)
			return -ENOMEM;
		slot = find_slot(o, kind, a, b);
	}
	x = vec_push(&o->list);
	if (!x)
		return -ENOMEM;
	*x = (struct object){.kind = kind, .a = a, .b = b, .users = 1};
	*slot = o->list.n;
	o->used++;
	*ret_id = *slot;
	*ret_new = true;
	return 0;
}

uint64_t objects_find(const struct objects *o, uint32_t kind, uint64_t a, uint64_t b)
{
	return *find_slot(o, kind, a, b);
}

uint64_t objects_users(const struct objects *o, uint64_t id)
{
	return id && id <= o->list.n ? o->list.v[id - 1].users : 0;
}

uint64_t objects_fresh(struct objects *o)
{
	/* In the list, so that ids stay dense, but in no slot: nothing finds it by identity. */
	struct object *x = vec_push(&o->list);

	return x ? o->list.n : 0;
}

/*
 * The kernel orders two things of a class by their addresses, obfuscated with a
 * random number (kernel/kcmp.c, kptr_obfuscate). The order is total and stable
 * while the kernel runs, and random enough that a plain search tree stays flat.
 */
struct kcmp_node {
	struct kcmp_node *less, *greater;
	pid_t tid;
	unsigned long index;
	uint64_t class;
};

struct kcmp_bucket {
	uint64_t hash;
	struct kcmp_node *root;
	struct kcmp_node *apart; /* linked by `less`: different from each other, not in order yet */
	bool searched; /* some are there that were compared, and are not known to differ */
};

struct kcmp_index {
	int type;
	uint64_t classes;
	struct kcmp_bucket *buckets; /* by open addressing */
	size_t nbuckets, used;
	struct scratch nodes;
};

int kcmp_index_new(struct kcmp_index **ret, int type)
{
	struct kcmp_index *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->type = type;
	k->nbuckets = 64;
	k->buckets = calloc(k->nbuckets, sizeof(*k->buckets));
	if (!k->buckets) {
		free(k);
		return -ENOMEM;
	}
	*ret = k;
	return 0;
}

void kcmp_index_free(struct kcmp_index *k)
{
	if (!k)
		return;
	scratch_free(&k->nodes);
	free(k->buckets);
	free(k);
}

static bool is_used(const struct kcmp_bucket *b)
{
	return b->root || b->apart;
}

static struct kcmp_bucket *find_bucket(struct kcmp_bucket *v, size_t n, uint64_t hash)
{
	size_t i = mix(hash) & (n - 1);

	while (is_used(&v[i]) && v[i].hash != hash)
		i = (i + 1) & (n - 1);
	return &v[i];
}

static int grow_buckets(struct kcmp_index *k)
{
	size_t n = k->nbuckets * 2;
	struct kcmp_bucket *v = calloc(n, sizeof(*v));

	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < k->nbuckets; i++)
		if (is_used(&k->buckets[i]))
			*find_bucket(v, n, k->buckets[i].hash) = k->buckets[i];
	free(k->buckets);
	k->buckets = v;
	k->nbuckets = n;
	return 0;
}

/* Where a thing stands in the tree, or belongs. */
static int find_place(const struct kcmp_index *k, struct kcmp_bucket *bucket, pid_t tid,
		      unsigned long index, struct kcmp_node ***ret)
{
	struct kcmp_node **at = &bucket->root;

	while (*at) {
		struct kcmp_node *n = *at;
		long r = syscall(SYS_kcmp, tid, n->tid, k->type, index, n->index);

		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		/* 1 less, 2 greater; 3 (not equal, order unknown) is not returned by any kernel for
		 * these types. */
		if (r > 2)
			return -EIO;
		at = r == 1 ? &n->less : &n->greater;
	}
	*ret = at;
	return 0;
}

static int put_in_order(const struct kcmp_index *k, struct kcmp_bucket *bucket)
{
	while (bucket->apart) {
		struct kcmp_node *n = bucket->apart, **at;
		int r = find_place(k, bucket, n->tid, n->index, &at);

		if (r < 0)
			return r;
		if (*at)
			return -EIO;
		bucket->apart = n->less;
		n->less = NULL;
		*at = n;
	}
	return 0;
}

static struct kcmp_node *new_node(struct kcmp_index *k, struct kcmp_bucket *bucket, uint64_t hash,
				  pid_t tid, unsigned long index)
{
	struct kcmp_node *n = scratch_alloc(&k->nodes, sizeof(*n));

	if (!n)
		return NULL;
	*n = (struct kcmp_node){.tid = tid, .index = index, .class = ++k->classes};
	if (!is_used(bucket)) {
		bucket->hash = hash;
		k->used++;
	}
	return n;
}

int kcmp_index_get(struct kcmp_index *k, uint64_t hash, pid_t tid, unsigned long index,
		   uint64_t *ret_class, bool *ret_new)
{
	struct kcmp_bucket *bucket;
	struct kcmp_node **at, *n;
	int r;

	if (k->used >= k->nbuckets / 2 && grow_buckets(k) < 0)
		return -ENOMEM;
	bucket = find_bucket(k->buckets, k->nbuckets, hash);
	r = put_in_order(k, bucket);
	if (r >= 0)
		r = find_place(k, bucket, tid, index, &at);
	if (r < 0)
		return r;
	*ret_new = !*at;
	if (!*at) {
		n = new_node(k, bucket, hash, tid, index);
		if (!n)
			return -ENOMEM;
		bucket->searched = true;
		*at = n;
	}
	*ret_class = (*at)->class;
	return 0;
}

int kcmp_index_get_apart(struct kcmp_index *k, uint64_t hash, pid_t tid, unsigned long index,
			 uint64_t *ret_class, bool *ret_new)
{
	struct kcmp_bucket *bucket;
	struct kcmp_node *n;

	if (k->used >= k->nbuckets / 2 && grow_buckets(k) < 0)
		return -ENOMEM;
	bucket = find_bucket(k->buckets, k->nbuckets, hash);
	if (bucket->searched)
		return kcmp_index_get(k, hash, tid, index, ret_class, ret_new);
	n = new_node(k, bucket, hash, tid, index);
	if (!n)
		return -ENOMEM;
	n->less = bucket->apart;
	bucket->apart = n;
	*ret_class = n->class;
	*ret_new = true;
	return 0;
}
