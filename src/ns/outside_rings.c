/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an io_uring keeps open: fdinfo tells names of registered files and nothing else, and no
 * iterator of BPF goes through them, so they are read from the memory of the kernel (struct
 * io_ring_ctx), as far as this kernel's is known.
 */
#include "ns/outside_rings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/vec.h"

#define MINOR_BITS    20      /* linux/kdev_t.h */
#define FILE_MASK     (~3ull) /* what kind of file it is stands below (FFS_MASK) */
#define NUMBERS	      16      /* IO_RINGFD_REG_MAX */
#define SLOTS_AT_ONCE 512     /* 4 KiB */
#define SLOTS_MAX     (1u << 20)
#define HASH_BITS_MAX 12
#define WAITING_MAX   65536 /* in a list that may change while we look */

struct seen {
	uint64_t file;
	pid_t tid;
	int ring;
};

/* There are few file systems, and many files. */
struct known_fs {
	uint64_t sb;
	dev_t dev;
};

struct outside_rings {
	struct kernel_memory *k;
	VEC(struct known_fs) fs; /* in this reading */
	bool named;		 /* names are read, too */
	VEC(struct seen) seen;
	bool failed; /* no memory */
	dev_t anonymous;
	bool known; /* this kernel's structures */
	int private, inode, dentry, name, sb, s_dev, mode, ino, rdev;
	int sk, family, peer, network, cookie;
	int n, nodes, file_ptr, buckets, bits, node, file, numbers, inode_size, bucket_size;
};

static bool find_places(struct outside_rings *s)
{
	const struct kernel_place places[] = {
		{&s->private, "file", "private_data"},
		{&s->inode, "file", "f_inode"},
		{&s->dentry, "file", "f_path.dentry"},
		{&s->name, "dentry", "d_name.name"},
		{&s->sk, "socket", "sk"},
		{&s->family, "sock", "__sk_common.skc_family"},
		{&s->peer, "unix_sock", "peer"},
		{&s->network, "sock", "__sk_common.skc_net"},
		{&s->cookie, "net", "net_cookie"},
		{&s->sb, "inode", "i_sb"},
		{&s->s_dev, "super_block", "s_dev"},
		{&s->mode, "inode", "i_mode"},
		{&s->ino, "inode", "i_ino"},
		{&s->rdev, "inode", "i_rdev"},
		{&s->n, "io_ring_ctx", "file_table.data.nr"},
		{&s->nodes, "io_ring_ctx", "file_table.data.nodes"},
		{&s->file_ptr, "io_rsrc_node", "file_ptr"},
		{&s->buckets, "io_ring_ctx", "cancel_table.hbs"},
		{&s->bits, "io_ring_ctx", "cancel_table.hash_bits"},
		{&s->node, "io_kiocb", "hash_node"},
		{&s->file, "io_kiocb", "file"},
		{&s->numbers, "io_uring_task", "registered_rings"},
	};

	s->inode_size = kernel_size(s->k, "inode");
	s->bucket_size = kernel_size(s->k, "io_hash_bucket");
	return kernel_places(s->k, places, sizeof(places) / sizeof(places[0])) >= 0 &&
	       s->inode_size > 0 && s->inode_size <= 4096 && s->bucket_size >= 8;
}

static dev_t anonymous_inodes(void)
{
	_cleanup_(close_fd) int fd = eventfd(0, EFD_CLOEXEC);
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 ? st.st_dev : 0;
}

int outside_rings_new(struct outside_rings **ret, struct kernel_memory *k)
{
	struct outside_rings *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->k = k;
	s->anonymous = anonymous_inodes();
	s->known = s->anonymous && find_places(s);
	*ret = s;
	return 0;
}

void outside_rings_free(struct outside_rings *s)
{
	if (!s)
		return;
	vec_free(&s->seen);
	vec_free(&s->fs);
	free(s);
}

bool outside_rings_is(const struct outside_rings *s, dev_t dev, uint64_t name)
{
	return s->known && dev == s->anonymous && !memcmp(&name, "[io_uring]", sizeof(name));
}

void outside_rings_see(struct outside_rings *s, uint64_t file, pid_t tid, int ring)
{
	struct seen *at = vec_push(&s->seen);

	if (at)
		*at = (struct seen){file, tid, ring};
	else
		s->failed = true;
}

void outside_rings_see_numbers(struct outside_rings *s, uint64_t at, pid_t tid)
{
	uint64_t rings[NUMBERS];

	if (!s->known || kernel_read(s->k, at + (uint64_t)s->numbers, rings, sizeof(rings)) < 0)
		return;
	for (int i = 0; i < NUMBERS; i++)
		if (rings[i])
			outside_rings_see(s, rings[i], tid, RING_NUMBERED);
}

/* ---- a file that one keeps ---- */

static dev_t device(uint32_t v)
{
	return makedev(v >> MINOR_BITS, v & ((1 << MINOR_BITS) - 1));
}

static dev_t device_of(struct outside_rings *s, uint64_t sb)
{
	struct known_fs *known;
	uint32_t dev;

	vec_for_each (x, &s->fs)
		if (x->sb == sb)
			return x->dev;
	if (kernel_read(s->k, sb + (uint64_t)s->s_dev, &dev, sizeof(dev)) < 0)
		return 0;
	known = vec_push(&s->fs);
	if (known)
		*known = (struct known_fs){sb, device(dev)};
	return device(dev);
}

static void look_at_inode(struct outside_rings *s, const uint8_t *inode, struct outside_file *f)
{
	uint32_t rdev;
	uint16_t mode;
	uint64_t sb;

	memcpy(&mode, inode + s->mode, sizeof(mode));
	memcpy(&f->ino, inode + s->ino, sizeof(f->ino));
	memcpy(&rdev, inode + s->rdev, sizeof(rdev));
	memcpy(&sb, inode + s->sb, sizeof(sb));
	f->mode = mode;
	f->rdev = device(rdev);
	f->dev = device_of(s, sb);
}

/* What is accepted has the network of who connected, as the one outside says (ns/outsider.c). */
static bool may_be_accepted(const struct outside_rings *s, uint64_t file)
{
	const int to_family[] = {s->private, s->sk, s->family};
	const int to_peer[] = {s->private, s->sk, s->peer};
	uint16_t family = AF_UNIX;
	uint64_t peer = 0;

	return kernel_chase(s->k, file, to_family, 3, &family, sizeof(family)) < 0 ||
	       (family == AF_UNIX &&
		(kernel_chase(s->k, file, to_peer, 3, &peer, sizeof(peer)) < 0 || peer));
}

/* What cannot be read is not known. */
static void look_at_name(const struct outside_rings *s, struct outside_held *h)
{
	const int to_cookie[] = {s->private, s->sk, s->network, s->cookie};
	const int to_name[] = {s->dentry, s->name, 0};

	if (s->named && !S_ISSOCK(h->f.mode) &&
	    kernel_chase(s->k, h->f.file, to_name, 3, h->name, sizeof(h->name) - 1) < 0)
		h->name[0] = '\0';
	if (S_ISSOCK(h->f.mode) && !may_be_accepted(s, h->f.file) &&
	    kernel_chase(s->k, h->f.file, to_cookie, 4, &h->f.network, 8) < 0)
		h->f.network = 0;
}

/* One that has gone meanwhile is none. */
static int hold(struct outside_rings *s, struct outside *o, const struct seen *by, uint64_t file,
		bool waits)
{
	const int to_inode[] = {s->inode, 0};
	_cleanup_(free_ptr) uint8_t *inode = malloc((size_t)s->inode_size);
	struct outside_held h = {.f = {.file = file, .tid = by->tid, .fd = -1},
				 .by = by->file,
				 .ring = by->ring,
				 .waits = waits};

	if (!inode)
		return -ENOMEM;
	if (o->n_held && o->held[o->n_held - 1].f.file == file &&
	    o->held[o->n_held - 1].f.tid == by->tid)
		return 0;
	if (kernel_chase(s->k, file, to_inode, 2, inode, (size_t)s->inode_size) < 0)
		return 0;
	if (o->n_held == OUTSIDE_HELD)
		return -E2BIG;
	look_at_inode(s, inode, &h.f);
	look_at_name(s, &h);
	o->held[o->n_held++] = h;
	return 0;
}

/* ---- those of a ring ---- */

static int hold_registered(struct outside_rings *s, struct outside *o, const struct seen *by,
			   uint64_t ctx)
{
	uint64_t nodes[SLOTS_AT_ONCE], file, array = 0;
	uint32_t n = 0;
	int r = kernel_read(s->k, ctx + (uint64_t)s->n, &n, sizeof(n));

	if (r >= 0)
		r = kernel_read(s->k, ctx + (uint64_t)s->nodes, &array, sizeof(array));
	if (r < 0 || n > SLOTS_MAX)
		return 0;
	for (uint32_t i = 0; i < n; i += SLOTS_AT_ONCE) {
		uint32_t some = n - i < SLOTS_AT_ONCE ? n - i : SLOTS_AT_ONCE;

		if (kernel_read(s->k, array + 8ull * i, nodes, 8ull * some) < 0)
			return 0;
		for (uint32_t j = 0; j < some && r >= 0; j++) {
			file = nodes[j] ? kernel_pointer(s->k, nodes[j] + (uint64_t)s->file_ptr)
					: 0;
			if (file & FILE_MASK)
				r = hold(s, o, by, file & FILE_MASK, false);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* Those that wait for a file are in a hash table of lists (struct hlist_head). */
static int hold_waiting(struct outside_rings *s, struct outside *o, const struct seen *by,
			uint64_t ctx)
{
	uint64_t buckets = kernel_pointer(s->k, ctx + (uint64_t)s->buckets), at, file;
	uint32_t bits = 0;
	int r = kernel_read(s->k, ctx + (uint64_t)s->bits, &bits, sizeof(bits));
	size_t seen = 0;

	if (r < 0 || bits > HASH_BITS_MAX)
		return 0;
	for (uint32_t i = 0; buckets && i < 1u << bits; i++) {
		at = kernel_pointer(s->k, buckets + (uint64_t)i * (uint32_t)s->bucket_size);
		for (; at && r >= 0 && seen < WAITING_MAX; seen++) {
			file = kernel_pointer(s->k, at - (uint64_t)s->node + (uint64_t)s->file);
			if (file)
				r = hold(s, o, by, file, true);
			at = kernel_pointer(s->k, at);
		}
	}
	return r < 0 ? r : 0;
}

/* A ring that somebody has open is found as any other file. */
static int hold_all(struct outside_rings *s, struct outside *o, const struct seen *by)
{
	uint64_t ctx = kernel_pointer(s->k, by->file + (uint64_t)s->private);
	int r = ctx && by->ring < 0 ? hold(s, o, by, by->file, false) : 0;

	if (ctx && r >= 0)
		r = hold_registered(s, o, by, ctx);
	return ctx && r >= 0 ? hold_waiting(s, o, by, ctx) : r;
}

/* ---- all of them ---- */

/* Descriptors tell best. */
static int by_file(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;
	int how_x = x->ring < 0 ? x->ring : 0, how_y = y->ring < 0 ? y->ring : 0;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	if (how_x != how_y)
		return how_x > how_y ? -1 : 1;
	if (x->tid != y->tid)
		return x->tid < y->tid ? -1 : 1;
	return x->ring < y->ring ? -1 : x->ring > y->ring;
}

static bool is_inside(const struct outside *o, pid_t tid)
{
	const struct outside_task *t = outside_find_task(o, tid);

	return t && t->inside;
}

int outside_rings_read(struct outside_rings *s, struct outside *o, bool tasks_known)
{
	uint64_t last = 0;
	int r = s->failed ? -ENOMEM : 0;

	o->n_held = s->fs.n = 0;
	s->named = !tasks_known;
	if (s->seen.n)
		qsort(s->seen.v, s->seen.n, sizeof(*s->seen.v), by_file);
	vec_for_each (x, &s->seen) {
		if (r < 0 || x->file == last || (tasks_known && is_inside(o, x->tid)))
			continue;
		last = x->file;
		r = hold_all(s, o, x);
	}
	s->seen.n = 0;
	s->failed = false;
	return r;
}
