/* SPDX-License-Identifier: Apache-2.0 */
#include "operation/origin.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/crypto.h"

#define DIRECTORY "/var/lib/reprise"
#define NAME	  "key"

bool origin_matters(void)
{
	_cleanup_(close_stream) FILE *f = fopen("/proc/self/uid_map", "re");
	unsigned int inside, outside, n;

	/* The first user namespace maps everything to itself (user_namespaces(7)). */
	return geteuid() == 0 && (!f || fscanf(f, "%u %u %u", &inside, &outside, &n) != 3 ||
				  (inside == 0 && outside == 0 && n == UINT32_MAX));
}

/* Nobody but root may have had a hand in it. */
static bool only_ours(int fd, mode_t type, mode_t forbidden)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type && st.st_uid == 0 &&
	       !(st.st_mode & forbidden);
}

static int read_key(int dir, struct image_key *ret)
{
	_cleanup_(close_fd) int fd =
		openat(dir, NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (!only_ours(fd, S_IFREG, 0077) ||
	    pread(fd, ret->bytes, sizeof(ret->bytes), 0) != sizeof(ret->bytes))
		return -EINVAL;
	return 0;
}

/* Complete, or not there: made without a name, which it gets when it is on the disk. */
static int make_key(int dir)
{
	_cleanup_(close_fd) int fd = openat(dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	struct image_key key;
	char path[32];
	int r = 0;

	if (fd < 0)
		return -errno;
	randombytes_buf(key.bytes, sizeof(key.bytes));
	if (write(fd, key.bytes, sizeof(key.bytes)) != sizeof(key.bytes) || fsync(fd) < 0)
		r = -EIO;
	sodium_memzero(&key, sizeof(key));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* Somebody else may have been faster, and then his is the one. */
	if (r >= 0 && linkat(AT_FDCWD, path, dir, NAME, AT_SYMLINK_FOLLOW) < 0 && errno != EEXIST)
		r = -errno;
	return r;
}

int origin_key(struct image_key *ret, bool make)
{
	_cleanup_(close_fd) int dir = -EBADF;
	int r;

	if (!origin_matters() || crypto_ready() < 0)
		return -EPERM;
	if (make && mkdir(DIRECTORY, 0700) < 0 && errno != EEXIST)
		return -errno;
	dir = open(DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	if (!only_ours(dir, S_IFDIR, 0022))
		return -EPERM;
	r = read_key(dir, ret);
	if (r != -ENOENT || !make)
		return r;
	r = make_key(dir);
	return r < 0 ? r : read_key(dir, ret);
}
