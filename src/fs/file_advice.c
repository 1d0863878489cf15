/* SPDX-License-Identifier: Apache-2.0 */
/*
 * posix_fadvise() (mm/fadvise.c): POSIX_FADV_RANDOM sets a bit of f_mode, POSIX_FADV_SEQUENTIAL
 * doubles how much is read ahead, of what is usual for the device. Nothing but struct file tells.
 * An overlay passes it on to the file below (ovl_fadvise()).
 */
#include "fs/file_advice.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>

#include "core/cleanup.h"
#include "fs/inode_private.h"

#define MODE_RANDOM 0x1000u /* FMODE_RANDOM of include/linux/fs.h */

/* What a member of the file is, or of that which an overlay has opened below. */
static int member(struct kernel_memory *k, const struct file_seen *f, bool overlay, int offset,
		  void *buf, size_t size)
{
	const int below[] = {kernel_offset(k, "file", "private_data"),
			     kernel_offset(k, "ovl_file", "realfile"), offset};

	return overlay ? kernel_of_file(k, f->local, below, 3, buf, size)
		       : kernel_of_file(k, f->local, &offset, 1, buf, size);
}

/* How much is read ahead where nobody has said anything: that of the device. */
static int usual(struct kernel_memory *k, uint64_t mapping, unsigned long *ret)
{
	const int offsets[] = {kernel_offset(k, "address_space", "host"),
			       kernel_offset(k, "inode", "i_sb"),
			       kernel_offset(k, "super_block", "s_bdi"),
			       kernel_offset(k, "backing_dev_info", "ra_pages")};

	return kernel_chase(k, mapping, offsets, 4, ret, sizeof(*ret));
}

struct found {
	uint32_t mode, ahead;
	uint64_t mapping;
};

static int look(struct kernel_memory *k, const struct file_seen *f, bool overlay, struct found *ret)
{
	static const char *const names[] = {"f_mode", "f_ra.ra_pages", "f_mapping"};
	const size_t sizes[] = {sizeof(ret->mode), sizeof(ret->ahead), sizeof(ret->mapping)};
	void *const to[] = {&ret->mode, &ret->ahead, &ret->mapping};
	uint8_t all[512];
	int size = kernel_size(k, "file"), r;

	if (size < 0 || (size_t)size > sizeof(all))
		return -EOPNOTSUPP;
	r = member(k, f, overlay, 0, all, (size_t)size);
	for (int i = 0; i < 3 && r >= 0; i++) {
		int is = 0, offset = kernel_offset_size(k, "file", names[i], &is);

		if (offset < 0 || (size_t)is != sizes[i] || offset + is > size)
			return -EOPNOTSUPP;
		memcpy(to[i], all + offset, sizes[i]);
	}
	return r;
}

int file_advice_save(struct checkpoint *c, const struct file_seen *f, uint32_t *ret,
		     struct error *e)
{
	const struct device_seen *fs;
	struct kernel_memory *k = NULL;
	struct error unused = {};
	struct found x = {};
	unsigned long pages = 0;
	int r;

	if (!S_ISREG(f->st.st_mode) || (f->flags & O_PATH) || c->files->kernel_hidden)
		return 0;
	if (files_kernel_memory(c, &k, &unused) < 0) {
		c->files->kernel_hidden = true;
		return 0;
	}
	fs = inode_device(c, f->local, &f->st);
	/* Memory is not read ahead: no advice is kept. */
	if (c->checking || !fs || fs->type == TMPFS_MAGIC)
		return 0;
	r = look(k, f, fs->type == OVERLAYFS_SUPER_MAGIC, &x);
	if (r >= 0 && x.ahead)
		r = usual(k, x.mapping, &pages);
	if (r < 0)
		return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell which advice was given for it "
				 "(posix_fadvise())");
	*ret = x.mode & MODE_RANDOM ? ADVICE_RANDOM : 0;
	if (pages && x.ahead == 2 * pages)
		*ret |= ADVICE_AHEAD;
	return 0;
}

void file_advice_restore(int fd, uint32_t advice)
{
	if (advice & ADVICE_AHEAD)
		ignore(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), "advice");
	if (advice & ADVICE_RANDOM)
		ignore(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), "advice");
}
