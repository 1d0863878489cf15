/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ext4 without a journal, made by us block by block: there the number of the file system comes
 *of its UUID (uuid_to_fsid()), and a handle is nothing but the inode's number and its generation
 * (generic_encode_ino32_fh()). It is on a loop device over a file in memory, of which little more
 *is there than the tables that name our inodes: the groups between have nothing that is free, so
 *that nobody looks at their bitmaps.
 *
 *	block 0 of a group		superblock (or room for a copy of it)
 *	then				descriptors of all groups (or room), bitmap of blocks,
 *bitmap of inodes, table of inodes then, in the first group	the root, and each directory
 */
#include "fs/double_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/watch.h"

#define BLOCK	     4096u
#define INODE	     256u
#define GROUP_INODES 8192u
#define GROUP_BLOCKS 1024u
#define TABLE	     (GROUP_INODES * INODE / BLOCK)
#define GROUPS_MAX   32768u /* their descriptors take 256 blocks */
#define FIRST_FREE   11u    /* below are inodes of the file system's own */

struct superblock { /* struct ext4_super_block, as far as we go */
	uint32_t inodes, blocks, reserved, free_blocks, free_inodes, first_block, block_size,
		cluster_size, group_blocks, group_clusters, group_inodes, mounted, written;
	uint16_t mounts, mounts_max, magic, state, errors, minor;
	uint32_t checked, check_interval, os, revision;
	uint16_t uid, gid;
	uint32_t first_inode;
	uint16_t inode_size, group;
	uint32_t compatible, incompatible, compatible_read_only;
	uint64_t uuid[2];
};

struct group { /* struct ext4_group_desc */
	uint32_t block_bitmap, inode_bitmap, table;
	uint16_t free_blocks, free_inodes, directories, flags;
	uint32_t unused[3];
};

struct inode { /* struct ext4_inode */
	uint16_t mode, uid;
	uint32_t size, atime, ctime, mtime, dtime;
	uint16_t gid, links;
	uint32_t sectors, flags, os, blocks[15], generation, unused[6];
	uint16_t extra;
};

struct entry { /* struct ext4_dir_entry_2 */
	uint32_t inode;
	uint16_t length;
	uint8_t name_length, type;
	char name[];
};

static_assert(sizeof(struct superblock) == 120 && sizeof(struct group) == 32 &&
		      offsetof(struct inode, generation) == 100 &&
		      offsetof(struct inode, extra) == 128,
	      "as it stands on a disk");

struct making {
	int fd; /* the file in memory */
	uint32_t groups, tables;
	uint32_t used; /* blocks of the first group */
	int result;
};

static int put(const struct making *m, uint64_t at, const void *data, size_t size)
{
	return pwrite(m->fd, data, size, (off_t)at) == (ssize_t)size ? 0 : -EIO;
}

static uint64_t block_bitmap(const struct making *m, uint32_t group)
{
	return (uint64_t)group * GROUP_BLOCKS + 1 + m->tables;
}

static uint64_t block(uint64_t number)
{
	return number * BLOCK;
}

static int put_inode(const struct making *m, uint32_t number, const struct inode *inode)
{
	uint32_t group = (number - 1) / GROUP_INODES, at = (number - 1) % GROUP_INODES;

	return put(m, block(block_bitmap(m, group) + 2) + at * INODE, inode, sizeof(*inode));
}

/* Returns where the next one stands. */
static size_t add_entry(char *dir, size_t at, uint32_t inode, uint8_t type, const char *name)
{
	struct entry *entry = (struct entry *)(void *)(dir + at);
	size_t n = strlen(name);

	entry->inode = inode;
	entry->length = (uint16_t)((sizeof(*entry) + n + 3) & ~3u);
	entry->name_length = (uint8_t)n;
	entry->type = type;
	memcpy(entry->name, name, n);
	return at + entry->length;
}

/* One block, in which the last entry takes the rest. */
static int put_directory(struct making *m, uint32_t number, uint32_t generation,
			 const struct double_inode *inside, size_t n)
{
	struct inode inode = {.mode = S_IFDIR | 0700,
			      .size = BLOCK,
			      .links = 2,
			      .sectors = BLOCK / 512,
			      .generation = generation,
			      .extra = 32};
	char dir[BLOCK] __attribute__((aligned(8))) = {}, name[16];
	size_t last = 0, at = add_entry(dir, 0, number, 2, ".");
	int r;

	last = at;
	at = add_entry(dir, at, DOUBLE_ROOT, 2, "..");
	for (size_t i = 0; i < n; i++) {
		if (inside[i].number == DOUBLE_ROOT)
			continue;
		snprintf(name, sizeof(name), DOUBLE_PREFIX "%u", inside[i].number);
		last = at;
		at = add_entry(dir, at, inside[i].number, inside[i].directory ? 2 : 1, name);
		inode.links = (uint16_t)(inode.links + inside[i].directory);
	}
	((struct entry *)(void *)(dir + last))->length = (uint16_t)(BLOCK - last);
	inode.blocks[0] = m->used++;
	r = put(m, block(inode.blocks[0]), dir, sizeof(dir));
	return r < 0 ? r : put_inode(m, number, &inode);
}

static int put_inodes(struct making *m, const struct double_inode *v, size_t n)
{
	uint32_t root = 0;
	int r = 0;

	for (size_t i = 0; i < n && r >= 0; i++) {
		struct inode inode = {.mode = S_IFREG | 0700,
				      .links = 1,
				      .generation = v[i].generation,
				      .extra = 32};

		if (v[i].number == DOUBLE_ROOT)
			root = v[i].generation;
		else if (v[i].directory)
			r = put_directory(m, v[i].number, v[i].generation, NULL, 0);
		else
			r = put_inode(m, v[i].number, &inode);
	}
	return r < 0 ? r : put_directory(m, DOUBLE_ROOT, root, v, n);
}

static void set_bits(uint8_t *map, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		map[i / 8] |= (uint8_t)(1u << i % 8);
}

/* What is used of the first group; of another that has inodes of ours all is. */
static int put_bitmaps(const struct making *m, uint32_t group, const struct double_inode *v,
		       size_t n)
{
	uint8_t maps[2][BLOCK] = {};
	int r;

	set_bits(maps[0], group ? 0 : m->used, BLOCK * 8);
	set_bits(maps[1], group ? 0 : GROUP_INODES, BLOCK * 8);
	if (!group) {
		memset(maps[0], 0, sizeof(maps[0]));
		set_bits(maps[0], 0, m->used);
		set_bits(maps[0], GROUP_BLOCKS, BLOCK * 8);
		set_bits(maps[1], 0, FIRST_FREE - 1);
		for (size_t i = 0; i < n; i++)
			if (v[i].number <= GROUP_INODES)
				set_bits(maps[1], v[i].number - 1, v[i].number);
	}
	r = put(m, block(block_bitmap(m, group)), maps, sizeof(maps));
	return r;
}

static int put_groups(const struct making *m, const struct double_inode *v, size_t n)
{
	int r = put_bitmaps(m, 0, v, n);

	for (size_t i = 0; i < n && r >= 0; i++)
		if (v[i].number > GROUP_INODES)
			r = put_bitmaps(m, (v[i].number - 1) / GROUP_INODES, v, n);
	for (uint32_t i = 0; i < m->groups && r >= 0; i++) {
		uint32_t at = (uint32_t)block_bitmap(m, i);
		struct group group = {.block_bitmap = at, .inode_bitmap = at + 1, .table = at + 2};

		if (!i) {
			group.free_blocks = (uint16_t)(GROUP_BLOCKS - m->used);
			group.free_inodes = (uint16_t)(GROUP_INODES - FIRST_FREE + 1 - n);
			group.directories = (uint16_t)(n + 1);
		}
		r = put(m, BLOCK + i * sizeof(group), &group, sizeof(group));
	}
	return r;
}

static int put_superblock(const struct making *m, uint64_t fsid)
{
	const struct superblock s = {.inodes = m->groups * GROUP_INODES,
				     .blocks = m->groups * GROUP_BLOCKS,
				     .free_blocks = GROUP_BLOCKS - m->used,
				     .free_inodes = GROUP_INODES / 2,
				     .block_size = 2,
				     .cluster_size = 2,
				     .group_blocks = GROUP_BLOCKS,
				     .group_clusters = GROUP_BLOCKS,
				     .group_inodes = GROUP_INODES,
				     .mounts_max = UINT16_MAX,
				     .magic = 0xef53,
				     .state = 1,
				     .errors = 1,
				     .revision = 1,
				     .first_inode = FIRST_FREE,
				     .inode_size = INODE,
				     .incompatible = 2,		   /* types in directories */
				     .compatible_read_only = 0x40, /* larger inodes */
				     .uuid = {fsid, 0}};

	return put(m, 1024, &s, sizeof(s));
}

bool double_fs_has(uint32_t number)
{
	return number == DOUBLE_ROOT ||
	       (number >= FIRST_FREE && number < GROUPS_MAX * GROUP_INODES);
}

static int make_file(struct making *m, uint64_t fsid, const struct double_inode *v, size_t n)
{
	uint32_t highest = 0;
	int r;

	if (n > DOUBLE_INODES_MAX)
		return -ERANGE;
	for (size_t i = 0; i < n; i++) {
		if (!double_fs_has(v[i].number))
			return -ERANGE;
		if (v[i].number > highest)
			highest = v[i].number;
	}
	m->groups = highest / GROUP_INODES + 1;
	m->tables = (uint32_t)((m->groups * sizeof(struct group) + BLOCK - 1) / BLOCK);
	m->used = 1 + m->tables + 2 + TABLE;
	m->fd = memfd_create("double", MFD_CLOEXEC);
	if (m->fd < 0 || ftruncate(m->fd, (off_t)block((uint64_t)m->groups * GROUP_BLOCKS)) < 0)
		return -errno;
	r = put_inodes(m, v, n);
	if (r >= 0)
		r = put_groups(m, v, n);
	return r < 0 ? r : put_superblock(m, fsid);
}

/* ---- mounting it ---- */

static int open_node(int dir, const char *name, mode_t type, dev_t dev)
{
	int fd;

	if (mknodat(dir, name, type | 0600, dev) < 0)
		return -errno;
	fd = openat(dir, name, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int open_control(int dir)
{
	return open_node(dir, "control", S_IFCHR, makedev(10, 237));
}

/* Either may be a module, which is loaded by this. */
bool double_fs_possible(void)
{
	_cleanup_(close_fd) int dir = watch_make_fs();
	_cleanup_(close_fd) int fs = fsopen("ext4", FSOPEN_CLOEXEC);
	_cleanup_(close_fd) int control = dir < 0 ? -EBADF : open_control(dir);

	return fs >= 0 && control >= 0;
}

#define LOOP_TRIES 20

/* Its node is "loop" in the directory; the device is let go with the last who has it open. */
static int attach(const struct making *m, int dir)
{
	const struct loop_config config = {
		.fd = (uint32_t)m->fd, .block_size = BLOCK, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
	_cleanup_(close_fd) int control = open_control(dir);
	int r = control < 0 ? control : -EBUSY;

	for (int i = 0; i < LOOP_TRIES && r == -EBUSY; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		_cleanup_(close_fd) int fd = -EBADF;

		if (number < 0)
			return -errno;
		fd = open_node(dir, "loop", S_IFBLK, makedev(7, (unsigned int)number));
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			return take_fd(&fd);
		r = fd < 0 ? fd : -errno;
		ignore(unlinkat(dir, "loop", 0), "another one takes its place");
	}
	return r;
}

struct mounting {
	int dir;
	int result;
};

/* The device is named by a path: from a directory that this thread alone is in. */
static void *mount_it(void *arg)
{
	_cleanup_(close_fd) int fs = fsopen("ext4", FSOPEN_CLOEXEC);
	struct mounting *m = arg;

	if (fs < 0 || unshare(CLONE_FS) < 0 || fchdir(m->dir) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "source", "loop", 0) < 0 ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
		m->result = -errno;
		return NULL;
	}
	m->result = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	if (m->result < 0)
		m->result = -errno;
	return NULL;
}

static void making_free(struct making *m)
{
	close_fd(&m->fd);
}

int double_fs_make(uint64_t fsid, const struct double_inode *inodes, size_t n, struct error *e)
{
	_cleanup_(making_free) struct making m = {.fd = -EBADF};
	int r = make_file(&m, fsid, inodes, n);
	_cleanup_(close_fd) int dir = watch_make_fs();
	_cleanup_(close_fd) int loop = -EBADF;
	struct mounting mounting = {.dir = dir, .result = -EIO};
	pthread_t thread;

	if (r >= 0 && dir < 0)
		r = dir;
	if (r >= 0)
		r = loop = attach(&m, dir);
	if (r >= 0)
		r = -pthread_create(&thread, NULL, mount_it, &mounting);
	if (r < 0)
		return error_errno(e, r, E_RESTORE,
				   "cannot make a file system to tell of files that have gone");
	pthread_join(thread, NULL);
	return mounting.result < 0
		       ? error_errno(e, mounting.result, E_RESTORE,
				     "cannot mount a file system to tell of files that have gone")
		       : mounting.result;
}
