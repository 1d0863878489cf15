/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nothing but struct file tells of a regular file or directory.
 *
 * posix_fadvise() (mm/fadvise.c): POSIX_FADV_RANDOM sets a bit of f_mode, POSIX_FADV_SEQUENTIAL
 * doubles how much is read ahead, of what is usual for the device. An overlay passes it on to the
 * file below (ovl_fadvise()).
 *
 * A descriptor that came with an event of fanotify is one of which no watch is told (unwatched.c).
 *
 * When what was written could not be brought to the disk, each description that was open by then is
 * told once, by fsync() (file_check_and_advance_wb_err()): f_wb_err is behind the wb_err of the
 * file's pages. A new description is not told, or is told too, so this cannot be made again.
 */
#include "fs/file_advice.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>

#include "core/cleanup.h"
#include "fs/inode_private.h"
#include "fs/unwatched.h"

#define MODE_RANDOM 0x1000u    /* FMODE_RANDOM of include/linux/fs.h */
#define ERROR_SEEN  (1u << 12) /* ERRSEQ_SEEN of lib/errseq.c: whether somebody was told */

/* Of the file, which a descriptor of ours leads to, or the memory of the kernel. */
static int read_file(struct kernel_memory *k, const struct file_seen *f, const int *offsets,
		     size_t n, void *buf, size_t size)
{
	return f->address ? kernel_chase(k, f->address, offsets, n, buf, size)
			  : kernel_of_file(k, f->local, offsets, n, buf, size);
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
	uint32_t mode, ahead, error;
	uint64_t mapping;
};

/* Is that a struct file? Then what it maps belongs to its inode. */
static bool is_file(struct kernel_memory *k, const uint8_t *all, size_t size)
{
	const int inode = kernel_offset(k, "file", "f_inode"),
		  mapping = kernel_offset(k, "file", "f_mapping");
	uint64_t of, maps, host = 0;

	if (inode < 0 || mapping < 0 || (size_t)inode + sizeof(of) > size ||
	    (size_t)mapping + sizeof(maps) > size)
		return false;
	memcpy(&of, all + inode, sizeof(of));
	memcpy(&maps, all + mapping, sizeof(maps));
	return of && maps &&
	       kernel_member(k, maps, "address_space", "host", &host, sizeof(host)) >= 0 &&
	       host == of;
}

/*
 * The file below that of an overlay. It was what belongs to the description (ovl_open()), and since
 * 6.13 it stands in front of a structure that does (struct ovl_file).
 */
static int read_below(struct kernel_memory *k, const struct file_seen *f, uint8_t *all, size_t size)
{
	const int known = kernel_offset(k, "overlay:ovl_file", "realfile"),
		  belongs = kernel_offset(k, "file", "private_data");
	const int direct[] = {belongs, 0}, within[] = {belongs, known < 0 ? 0 : known, 0};
	int r = known < 0 ? read_file(k, f, direct, 2, all, size) : -ENOENT;

	if (r < 0 || !is_file(k, all, size))
		r = read_file(k, f, within, 3, all, size);
	return r < 0 ? r : is_file(k, all, size) ? 0 : -EOPNOTSUPP;
}

static int look(struct kernel_memory *k, const struct file_seen *f, bool overlay, struct found *ret)
{
	static const char *const names[] = {"f_mode", "f_ra.ra_pages", "f_mapping", "f_wb_err"};
	const size_t sizes[] = {sizeof(ret->mode), sizeof(ret->ahead), sizeof(ret->mapping),
				sizeof(ret->error)};
	void *const to[] = {&ret->mode, &ret->ahead, &ret->mapping, &ret->error};
	const int whole = 0;
	uint8_t all[512];
	int size = kernel_size(k, "file"), r;

	if (size < 0 || (size_t)size > sizeof(all))
		return -EOPNOTSUPP;
	r = overlay ? read_below(k, f, all, (size_t)size)
		    : read_file(k, f, &whole, 1, all, (size_t)size);
	for (int i = 0; i < 4 && r >= 0; i++) {
		int is = 0, offset = kernel_offset_size(k, "file", names[i], &is);

		if (offset < 0 || (size_t)is != sizes[i] || offset + is > size)
			return -EOPNOTSUPP;
		memcpy(to[i], all + offset, sizes[i]);
	}
	return r;
}

static int check_written(struct kernel_memory *k, const struct found *x, struct error *e)
{
	uint32_t error = 0;
	int r = x->mapping ? kernel_member(k, x->mapping, "address_space", "wb_err", &error,
					   sizeof(error))
			   : 0;
	const char *what;

	/* Bits that say when it was told are no errors (errseq_check()). */
	if (r < 0 || error == x->error)
		return r;
	what = strerrordesc_np((int)(error & (ERROR_SEEN - 1)));
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "something that was written to it is lost (%s), of which the application "
			 "has not been told yet: fsync() would not tell it after a restart",
			 what ? what : "unknown error");
}

static int save_advice(struct checkpoint *c, struct kernel_memory *k, const struct found *x,
		       uint32_t *ret)
{
	unsigned long pages = 0;
	int r = x->ahead && !c->checking ? usual(k, x->mapping, &pages) : 0;

	*ret = x->mode & MODE_RANDOM ? ADVICE_RANDOM : 0;
	if (pages && x->ahead == 2 * pages)
		*ret |= ADVICE_AHEAD;
	return r;
}

static int save(struct checkpoint *c, struct kernel_memory *k, const struct file_seen *f,
		Reprise__RegularFile *m, struct error *e)
{
	const struct device_seen *fs = inode_device(c, f->local, &f->st); /* NULL: does not tell */
	struct found x = {};
	int r = look(k, f, false, &x);

	/* Those that are made without a name always are (alloc_file_pseudo()). */
	if (r >= 0)
		m->unwatched = !file_is_nameless(f) && unwatched_is(k, x.mode);
	/* Memory is not read ahead, and written nowhere. */
	if (r < 0 || !S_ISREG(f->st.st_mode) || (fs && fs->type == TMPFS_MAGIC))
		return r;
	if (fs && fs->type == OVERLAYFS_SUPER_MAGIC)
		r = look(k, f, true, &x);
	if (r >= 0)
		r = save_advice(c, k, &x, &m->advice);
	return r < 0 ? r : check_written(k, &x, e);
}

int file_advice_save(struct checkpoint *c, const struct file_seen *f, Reprise__RegularFile *m,
		     struct error *e)
{
	struct kernel_memory *k = NULL;
	struct error unused = {};
	int r;

	if ((f->flags & O_PATH) || c->files->kernel_hidden)
		return 0;
	if (files_kernel_memory(c, &k, &unused) < 0) {
		c->files->kernel_hidden = true;
		return 0;
	}
	r = save(c, k, f, m, e);
	if (r < 0 && !e->code)
		return error_set(
			e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
			"this kernel does not tell how it was opened, and which advice was "
			"given for it (posix_fadvise())");
	return r;
}

void file_advice_restore(int fd, uint32_t advice)
{
	if (advice & ADVICE_AHEAD)
		ignore(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), "advice");
	if (advice & ADVICE_RANDOM)
		ignore(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), "advice");
}
